"""`relay destination`: what goes to other hospitals by way of the queue."""

from typing import Any

import click

from relay.cli.context import Group, Invocation, json_option
from relay.cli.output import objects, print_json, print_table, quoted, say
from relay.cli.router import both_titles, control
from relay.router.queue.destinations import Mixed, Mode
from relay.router.services import Service
from relay.spool.items import Priority, State


@click.group(cls=Group)
def destination() -> None:
    """Other hospitals' devices, and how what is sent to them goes there."""


_calling = click.option(
    "--calling", default="", metavar="AE_TITLE", help="Your device that sends. Without: any."
)


@destination.command("add")
@click.argument("ae_title")
@_calling
@click.option(
    "--queued/--confirmed",
    default=None,
    help="Who answers the sender: this Router, once it has the object on its disk, and delivers it"
    " later (as usual here); or the far device itself.",
)
@click.option(
    "--mixed",
    type=click.Choice([mixed.value for mixed in Mixed]),
    help="An association that also proposes what cannot be queued: refuse that, or let it through"
    " whole, confirmed.",
)
@click.option(
    "--priority",
    type=click.Choice([priority.name.lower() for priority in Priority]),
    help="Which of what waits for it goes first.",
)
@click.pass_obj
def destination_add(
    invocation: Invocation,
    ae_title: str,
    calling: str,
    queued: bool | None,
    mixed: str | None,
    priority: str | None,
) -> None:
    """Queue what is sent to AE_TITLE of another hospital, or change how: what is not given stays
    as it was, or as usual.

    By the AE title that it is published as, or the alias that it has here.
    """
    process = control(invocation)
    mode = {None: None, True: Mode.QUEUED.value, False: Mode.CONFIRMED.value}[queued]
    given = {"mode": mode, "mixed": mixed, "priority": priority}
    known = [
        row
        for row in process.get("/v1/destinations")
        if ae_title in (row["called"], row["local"]) and calling in (row["calling"], row["device"])
    ]
    before = {name: row[name] for row in known for name in given}
    titles = {"called": ae_title, "calling": calling}
    changed = {name: value for name, value in given.items() if value is not None}
    answer = process.post("/v1/destinations", titles | before | changed)
    say(f"{_way(answer)}: {_how(answer)}")
    if answer["peer"] is None:
        say(f"nobody publishes {answer['called']} now: see `relay peer list`")
    elif answer["mode"] == Mode.QUEUED.value and Service.STORE not in answer["granted"]:
        say(
            f"{answer['name']} has not granted this Router to store there yet, and nothing is"
            f" accepted until it has: ask with `relay grant ask {answer['local']} --services store`"
        )


@destination.command("list")
@json_option
@click.pass_obj
def destination_list(invocation: Invocation, as_json: bool) -> None:
    """Show all destinations, and of which callers it is known what they take."""
    rows = control(invocation).get("/v1/destinations")
    if as_json:
        print_json(rows)
        return
    print_table(
        ("to", "of", "from", "answered by", "mixed", "priority", "known for"),
        (
            (
                both_titles(row["local"], row["called"]),
                row["name"] or "nobody now",
                both_titles(row["device"], row["calling"]) or "any",
                "this Router" if row["mode"] == Mode.QUEUED.value else "the device",
                row["mixed"],
                row["priority"],
                row["known"],
            )
            for row in rows
        ),
        empty="nothing is queued: senders are answered by the far devices themselves;"
        " `relay destination add AE_TITLE` changes that for one",
    )
    for row in rows:
        for calling, kinds in row["refused"].items():
            say(
                f"from {calling} {row['called']} is known to take all that it said but for"
                f" {', '.join(kinds)}, which it refused at a delivery"
            )
        for calling, why in row["unknown"].items():
            if calling not in row["known"] and row["calling"] in ("", calling):
                say(f"nothing is accepted from {calling} for {row['called']} yet: {why}")


@destination.command("remove")
@click.argument("ae_title")
@_calling
@click.pass_obj
def destination_remove(invocation: Invocation, ae_title: str, calling: str) -> None:
    """Forget a destination: senders are answered by AE_TITLE itself again.

    What is queued for it already is delivered.
    """
    process = control(invocation)
    answer = process.delete(f"/v1/destinations/{quoted(ae_title)}", calling=calling)
    say(f"{_way(answer)}: no destination any more, confirmed from now on")
    for place in process.get("/v1/queue")["destinations"]:
        if place["called"] == answer["called"] and place[State.WAITING.word]:
            say(
                f"{objects(place[State.WAITING.word])} for {answer['called']} waiting: still"
                " delivered, see `relay queue list`"
            )


def _way(row: dict[str, Any]) -> str:
    to = both_titles(row["local"], row["called"])
    return f"{to} from {both_titles(row['device'], row['calling'])}" if row["calling"] else to


def _how(row: dict[str, Any]) -> str:
    if row["mode"] == Mode.CONFIRMED.value:
        return "confirmed, the far device answers"
    words = f"queued, priority {row['priority']}"
    if row["mixed"] == Mixed.CONFIRMED.value:
        return f"{words}; what also proposes something else goes through confirmed"
    return words
