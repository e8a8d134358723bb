"""`relay grant`: what other hospitals may do with devices of this one, and asking for theirs."""

from typing import Any

import click

from relay.cli.context import Group, Invocation, json_option
from relay.cli.output import print_json, print_table, say
from relay.cli.peer import resolve
from relay.cli.router import SERVICES, control, listed, of_device, whom, words


@click.group(cls=Group)
def grant() -> None:
    """What other hospitals may do with your devices."""


_services = click.option(
    "--services", required=True, metavar="SERVICES", help=f"By commas: {SERVICES}."
)
_calling = click.option(
    "--calling",
    default="",
    metavar="AE_TITLES",
    help="Only for these calling AE titles, by commas. Without: for any.",
)


@grant.command("add")
@click.argument("peer")
@click.argument("ae_title")
@_services
@_calling
@click.option("--user-identity", is_flag=True, help="Let its users' identities reach the device.")
@click.pass_obj
def grant_add(
    invocation: Invocation,
    peer: str,
    ae_title: str,
    services: str,
    calling: str,
    user_identity: bool,
) -> None:
    """Let PEER (a name or a fingerprint from `relay peer list`) use your device AE_TITLE.

    By the AE title that the network knows it by, or the one that it has here. It takes the place
    of what PEER was granted of that device for the same calling AE titles.
    """
    process = control(invocation)
    grantee = resolve(process, peer)
    answer = process.post(
        "/v1/grants",
        {
            "peer": grantee["fingerprint"],
            "ae_title": ae_title,
            "services": words(services),
            "calling": words(calling),
            "user_identity": user_identity,
        },
    )
    _say_granted(answer, f"{grantee['name']} ({grantee['state']}, {answer['peer']})")
    if answer["replaced"]:
        say(f"in place of grant {listed(answer['replaced'])}")


def _say_granted(answer: dict[str, Any], who: str) -> None:
    say(f"grant {answer['id']}: {who} may use {listed(answer['services'])} of {of_device(answer)}")


@grant.command("ask")
@click.argument("ae_title")
@_services
@_calling
@click.option("--note", default="", help="A word to the people there; it travels sealed.")
@click.pass_obj
def grant_ask(
    invocation: Invocation,
    ae_title: str,
    services: str,
    calling: str,
    note: str,
) -> None:
    """Ask the hospital that publishes AE_TITLE for SERVICES.

    By that title, or by the alias that it has here.
    """
    control(invocation).post(
        "/v1/asks",
        {
            "ae_title": ae_title,
            "services": words(services),
            "calling": words(calling),
            "note": note,
        },
    )
    say(f"asked for {services} of {ae_title}; the people there decide")


@grant.command("list")
@json_option
@click.pass_obj
def grant_list(invocation: Invocation, as_json: bool) -> None:
    """Show what is granted, and what other hospitals have asked for."""
    process = control(invocation)
    grants, asks = process.get("/v1/grants"), process.get("/v1/asks")
    if as_json:
        print_json({"grants": grants, "asks": asks})
        return
    print_table(
        ("grant", "peer", "fingerprint", "device", "services", "calling"),
        ((g["id"], g["name"], g["peer"], of_device(g), _granted(g), g["calling"]) for g in grants),
        empty="nothing is granted to anybody;"
        " `relay grant add PEER AE_TITLE --services SERVICES` does",
    )
    if asks:
        say("asked for:")
        print_table(
            ("ask", "peer", "fingerprint", "device", "services", "calling", "note"),
            (
                (
                    a["id"],
                    a["name"],
                    a["peer"],
                    a["ae_title"],
                    a["services"],
                    a["calling"],
                    a["note"],
                )
                for a in asks
            ),
            empty="",
        )


def _granted(g: dict[str, Any]) -> list[str]:
    """The services of a grant; those that are no longer published hold for nothing."""
    return [
        f"{word} (not published)" if word in g["unpublished"] else word for word in g["services"]
    ]


@grant.command("accept")
@click.argument("number", type=int)
@click.pass_obj
def grant_accept(invocation: Invocation, number: int) -> None:
    """Grant what ask NUMBER (see `grant list`) asks for."""
    answer = control(invocation).post(f"/v1/asks/{number}/accept")
    _say_granted(answer, whom(answer))


@grant.command("decline")
@click.argument("number", type=int)
@click.pass_obj
def grant_decline(invocation: Invocation, number: int) -> None:
    """Throw ask NUMBER away."""
    control(invocation).delete(f"/v1/asks/{number}")
    say(f"ask {number} declined")


@grant.command("remove")
@click.argument("number", type=int)
@click.pass_obj
def grant_remove(invocation: Invocation, number: int) -> None:
    """Take back the grant NUMBER; associations that rest on it end."""
    control(invocation).delete(f"/v1/grants/{number}")
    say(f"grant {number} removed")
