"""`relay queue`: what waits for other hospitals' devices, what has failed and why, and what to do.

Titles are those that people here know, or published ones.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from relay.cli.context import Failure, Group, Invocation, json_option
from relay.cli.control import Control
from relay.cli.output import objects, print_json, say
from relay.cli.queue_tables import (
    paused,
    show_destinations,
    show_item,
    show_items,
    show_studies,
    to_whom,
)
from relay.cli.router import control
from relay.spool.items import KEPT, State
from relay.spool.people import PAGE

F = TypeVar("F", bound=Callable[..., Any])

# What fits a few screens; `--limit` says otherwise.
DEFAULT_LIMIT = 100


@click.group(cls=Group)
def queue() -> None:
    """What is on its way to other hospitals' devices."""


_to = click.option("--to", metavar="AE_TITLE", help="For this device of another hospital.")
_from = click.option("--from", "sender", metavar="AE_TITLE", help="From this device of yours.")
_study = click.option("--study", metavar="UID", help="Of this Study Instance UID.")


def _state(*states: State) -> Callable[[F], F]:
    words = [state.word for state in states]
    return click.option("--state", type=click.Choice(words), help="In this state.")


def _query(
    to: str | None, sender: str | None, study: str | None, state: str | None
) -> dict[str, Any]:
    """The selection as the REST takes it; what is not given is not in it."""
    given = {"called": to, "calling": sender, "study": study, "state": state}
    return {name: value for name, value in given.items() if value is not None}


# --- looking --------------------------------------------------------------------------------------


@queue.command("list")
@_to
@_from
@_study
@_state(*State)
@click.option("--items", is_flag=True, help="Object by object, the latest first.")
@click.option("--studies", is_flag=True, help="Study by study, the latest first.")
@click.option("--until", type=click.IntRange(0), help="Only up to this number.")
@click.option(
    "--limit",
    type=click.IntRange(1, PAGE),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="So many objects or studies.",
)
@json_option
@click.pass_obj
def queue_list(
    invocation: Invocation,
    to: str | None,
    sender: str | None,
    study: str | None,
    state: str | None,
    items: bool,
    studies: bool,
    until: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show what is queued: by destination, or, where any option asks for less, by object."""
    if items and studies:
        raise click.UsageError("--items or --studies, not both")
    process = control(invocation)
    query = {name: str(value) for name, value in _query(to, sender, study, state).items()}
    if until is not None:
        query["until"] = str(until)
    if studies:
        answer = process.get("/v1/queue/studies", **query, limit=str(limit))
        show: Callable[[Any], None] = show_studies
    elif items or query:
        answer = process.get("/v1/queue/items", **query, limit=str(limit), latest="true")
        show = show_items
    else:
        answer = process.get("/v1/queue")
        show = show_destinations
    if as_json:
        print_json(answer if items or studies or query else answer["destinations"])
    else:
        show(answer)


@queue.command("show")
@click.argument("number", type=click.IntRange(1))
@json_option
@click.pass_obj
def queue_show(invocation: Invocation, number: int, as_json: bool) -> None:
    """Show all about object NUMBER (see `queue list --items`)."""
    item = control(invocation).get(f"/v1/queue/items/{number}")
    if as_json:
        print_json(item)
        return
    show_item(item)


# --- doing ----------------------------------------------------------------------------------------


def _selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `retry` and `discard` both take."""
    everything = click.option(
        "--all", "everything", is_flag=True, help="All that is not delivered."
    )
    numbers = click.argument("numbers", nargs=-1, type=click.IntRange(1), metavar="[NUMBER...]")
    return numbers(_to(_from(_study(_state(*KEPT)(everything(click.pass_obj(command)))))))


def _selection(
    numbers: tuple[int, ...],
    to: str | None,
    sender: str | None,
    study: str | None,
    state: str | None,
    everything: bool,
) -> dict[str, Any]:
    selection = _query(to, sender, study, state)
    if numbers:
        if len(numbers) > PAGE:
            raise click.UsageError(f"at most {PAGE} numbers at a time")
        selection["numbers"] = sorted(set(numbers))
    if selection:
        if everything:
            raise click.UsageError("--all, or which ones: not both")
        return selection
    if not everything:
        raise click.UsageError("say which: numbers, --to, --from, --study, --state, or --all")
    return {"all": True}


@queue.command("retry")
@_selecting
def queue_retry(
    invocation: Invocation,
    numbers: tuple[int, ...],
    to: str | None,
    sender: str | None,
    study: str | None,
    state: str | None,
    everything: bool,
) -> None:
    """Try objects again now: what has failed, is held, or waits for its time.

    What is held because it may have been delivered already is sent. A destination that is paused
    stays so until `queue resume`.
    """
    selection = _selection(numbers, to, sender, study, state, everything)
    answer = control(invocation).post("/v1/queue/retry", selection)
    count, before = answer["items"], answer["before"]
    if count or not answer["paused"]:
        _check_all_there(selection, count, "tried again", _not_tried(before, count))
    if count and not answer["paused"]:
        say(f"{objects(count)} to be tried again now")
    elif count:
        say(f"{objects(count)} to be tried again")
    elif not answer["paused"]:
        say(f"nothing is there to be tried: {_not_tried(before, 0)}".removesuffix(": "))
    for place in answer["paused"]:
        say(
            f"{to_whom(place)} is {paused(place['paused'])}; what waits for it goes on with"
            f" `relay queue resume {place['local']}`"
        )


def _not_tried(before: dict[str, int], tried: int) -> str:
    """Why objects that were meant, and stood so before, are not tried; empty if all are."""
    words = []
    for state in (State.DELIVERED, State.DISCARDED):
        if number := before[state.word]:
            words.append(f"{'it is' if number == 1 else f'{number} are'} {state.word}")
    if (left := sum(before[state.word] for state in KEPT) - tried) > 0:
        ways = [
            "waits for its first attempt" if before[State.WAITING.word] else "",
            "is locked with another spool key" if before[State.HELD.word] else "",
        ]
        words.append(f"{left} not: each {' or '.join(filter(None, ways))}")
    return ", ".join(words)


@queue.command("discard")
@_selecting
@click.option("--yes", is_flag=True, help="Do not ask.")
def queue_discard(
    invocation: Invocation,
    numbers: tuple[int, ...],
    to: str | None,
    sender: str | None,
    study: str | None,
    state: str | None,
    everything: bool,
    yes: bool,
) -> None:
    """Give objects up: they are not sent, and erased here. Nothing brings them back.

    The sender was told that they are stored, and does not hear of it. What is being sent at that
    moment may arrive all the same.
    """
    selection = _selection(numbers, to, sender, study, state, everything)
    process = control(invocation)
    count, last = _count(process, selection)
    if count and not yes:
        click.confirm(
            f"discard {objects(count)}? Their senders were told that they are stored", abort=True
        )
    # What has come since the question is not meant.
    gone = process.post("/v1/queue/discard", selection | {"until": last})["items"] if count else 0
    _check_all_there(selection, gone, "discarded")
    say(f"{objects(gone)} discarded" if gone else "nothing is there to be discarded")


def _count(process: Control, selection: dict[str, Any]) -> tuple[int, int]:
    """How many of them are kept here, and the highest number that there is."""
    query = {name: str(value) for name, value in selection.items() if name != "all"}
    if "numbers" in selection:
        query["numbers"] = ",".join(map(str, selection["numbers"]))
    counts = process.get("/v1/queue/count", **query)
    return sum(counts[state.word] for state in KEPT), counts["last"]


def _check_all_there(selection: dict[str, Any], count: int, what: str, why: str = "") -> None:
    """Who names objects by number means each of them."""
    wanted = len(selection.get("numbers", ()))
    if count < wanted:
        why = f"{why}; " if why else ""
        raise Failure(
            f"{count} of {wanted} {what}: {why}`relay queue show NUMBER` says how the others stand",
            1,
        )


@queue.command("pause")
@click.argument("ae_title")
@click.option("--reason", default="", help="A word for the others; no patient's name.")
@click.pass_obj
def queue_pause(invocation: Invocation, ae_title: str, reason: str) -> None:
    """Send AE_TITLE nothing more until `queue resume`.

    What comes for it is accepted all the same, and waits. An object that is being sent is sent to
    its end.
    """
    answer = control(invocation).post("/v1/queue/pause", {"called": ae_title, "reason": reason})
    say(f"{to_whom(answer)}: paused; `relay queue resume {answer['local']}` lets it go on")


@queue.command("resume")
@click.argument("ae_title")
@click.pass_obj
def queue_resume(invocation: Invocation, ae_title: str) -> None:
    """Let AE_TITLE go on, whether a person paused it or its own answer did."""
    answer = control(invocation).post("/v1/queue/resume", {"called": ae_title})
    say(f"{to_whom(answer)}: {'goes on' if answer['was_paused'] else 'was not paused'}")
