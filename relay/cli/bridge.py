"""What the network's administrator does with the Bridge: invitations and Routers."""

from typing import Any

import click

from relay.cli.context import Command, Group, Invocation, json_option
from relay.cli.control import Control
from relay.cli.output import local_time, print_json, print_table, quoted, say
from relay.errors import Refused

# Letters of an invitation's id that are shown and asked for: of the few that are open at a time
# no two begin alike.
_SHOWN = 8


def control(invocation: Invocation) -> Control:
    """The running Bridge. Raises ConfigurationError."""
    return Control(invocation.bridge(), invocation.file)


@click.command(cls=Command)
@click.argument("name")
@click.option("--hours", type=click.IntRange(1, 24 * 30), default=72, show_default=True)
@json_option
@click.pass_obj
def invite(invocation: Invocation, name: str, hours: int, as_json: bool) -> None:
    """Make an invitation for one Router, of the hospital NAME. It can be used once."""
    answer = control(invocation).post("/v1/invitations", {"name": name, "lifetime": hours * 3600})
    if as_json:
        print_json(answer)
        return
    say(answer["invitation"])
    click.echo(
        f"Give this to {name} by a way that only they can read; there, once before"
        f" {local_time(answer['expires'])}: relay enroll INVITATION",
        err=True,
    )


@click.group(cls=Group)
def invitation() -> None:
    """The invitations that `relay invite` has made."""


@invitation.command("list")
@json_option
@click.pass_obj
def invitation_list(invocation: Invocation, as_json: bool) -> None:
    """Show the invitations: open, used or expired. Their strings are told once, when made."""
    rows = control(invocation).get("/v1/invitations")
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "hospital", "state", "until"),
        (
            (
                row["id"][:_SHOWN],
                row["name"],
                row["state"],
                None if row["state"] == "used" else local_time(row["expires"]),
            )
            for row in rows
        ),
        empty="no invitation was made yet; `relay invite HOSPITAL` makes one",
    )


@invitation.command("revoke")
@click.argument("invitation", metavar="ID|HOSPITAL")
@click.pass_obj
def invitation_revoke(invocation: Invocation, invitation: str) -> None:
    """Take an invitation back that was not used: it lets nobody in any more.

    By its ID from `relay invitation list`, or by the name of the HOSPITAL.
    """
    process = control(invocation)
    row = _invitation(process.get("/v1/invitations"), invitation.strip())
    process.delete(f"/v1/invitations/{row['id']}")
    say(f"the invitation for {row['name']} is taken back: it lets nobody in any more")


def _invitation(rows: list[dict[str, Any]], words: str) -> dict[str, Any]:
    """The one that `words` name: by the hospital of one that is not used, or by its id's beginning.

    Of a hospital one at most is open, which is meant before those that have expired.
    Raises Refused if there is none, or several are.
    """
    named = [row for row in rows if row["name"].casefold() == words.casefold()]
    found = [row for row in named if row["state"] == "open"]
    if not found:
        found = [row for row in named if row["state"] == "expired"]
    if not found and len(words) >= _SHOWN:
        found = [row for row in rows if row["id"].startswith(words.lower())]
    if len(found) > 1:
        raise Refused(409, f"{len(found)} invitations are for {words!r}: give an id")
    if not found:
        raise Refused(404, f"no invitation {words!r}; `relay invitation list` shows them all")
    return found[0]


@click.group(cls=Group)
def router() -> None:
    """The hospitals' Routers."""


@router.command("list")
@json_option
@click.pass_obj
def router_list(invocation: Invocation, as_json: bool) -> None:
    """Show the Routers that have enrolled."""
    routers = control(invocation).get("/v1/routers")
    if as_json:
        print_json(routers)
        return
    print_table(
        ("name", "connected", "last seen", "revoked", "fingerprint", "published"),
        (
            (
                r["name"],
                r["connected"],
                "never" if r["last_seen"] is None else local_time(r["last_seen"]),
                r["revoked"],
                r["fingerprint"],
                r["ae_titles"],
            )
            for r in routers
        ),
        empty="no Router has enrolled; `relay invite HOSPITAL` makes an invitation",
    )


@router.command("revoke")
@click.argument("fingerprint")
@click.pass_obj
def router_revoke(invocation: Invocation, fingerprint: str) -> None:
    """Shut the Router with FINGERPRINT out, at once and for good."""
    process, wanted = control(invocation), fingerprint.strip().lower()
    routers = process.get("/v1/routers")
    before = any(r["revoked"] for r in routers if r["fingerprint"] == wanted)
    process.post(f"/v1/routers/{quoted(fingerprint)}/revoke")
    if before:
        say(f"{wanted} was revoked already")
    else:
        say(f"{wanted} is revoked; its sessions end within 5 seconds")
