"""What the network's administrator does with the Bridge: invitations and Routers."""

import click

from relay.cli.context import Command, Group, Invocation, json_option
from relay.cli.control import Control
from relay.cli.output import local_time, print_json, print_table, quoted, say


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
