"""`relay alias`: by which AE titles the devices here know those of other hospitals."""

from typing import Any

import click

from relay.cli.context import Group, Invocation, json_option
from relay.cli.output import print_json, print_table, quoted, say
from relay.cli.router import control


@click.group(cls=Group)
def alias() -> None:
    """Local AE titles for other hospitals' devices."""


@alias.command("add")
@click.argument("local")
@click.argument("published")
@click.pass_obj
def alias_add(invocation: Invocation, local: str, published: str) -> None:
    """Let devices here call by LOCAL what another hospital publishes as PUBLISHED.

    Also its calls arrive here under that name: devices that check who calls need LOCAL entered.
    """
    answer = control(invocation).post("/v1/aliases", {"local": local, "published": published})
    say(f"{answer['local']} is here for {_whose(answer)}")


@alias.command("list")
@json_option
@click.pass_obj
def alias_list(invocation: Invocation, as_json: bool) -> None:
    """Show all aliases."""
    aliases = control(invocation).get("/v1/aliases")
    if as_json:
        print_json(aliases)
        return
    print_table(
        ("here", "published as", "by"),
        ((a["local"], a["published"], a["name"] or "nobody now") for a in aliases),
        empty="no aliases: others' devices go here by the AE titles that they are published as;"
        " `relay alias add LOCAL PUBLISHED` gives one another",
    )


@alias.command("remove")
@click.argument("local")
@click.pass_obj
def alias_remove(invocation: Invocation, local: str) -> None:
    """Forget the alias LOCAL."""
    answer = control(invocation).delete(f"/v1/aliases/{quoted(local)}")
    say(f"{answer['local']} is no longer here for {_whose(answer)}")


def _whose(answer: dict[str, Any]) -> str:
    if answer["peer"] is None:
        return f"{answer['published']}, which nobody publishes now: see `relay peer list`"
    return f"{answer['published']} of {answer['name'] or answer['peer']}"
