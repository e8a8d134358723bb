"""`relay token`: who may use the Router's DICOMweb."""

from typing import Any

import click

from relay.cli.context import Group, Invocation, json_option
from relay.cli.output import local_time, print_json, print_table, quoted, say
from relay.cli.router import control


@click.group(cls=Group)
def token() -> None:
    """Tokens for DICOMweb."""


@token.command("add")
@click.argument("name")
@click.option(
    "--device", metavar="AE_TITLE", help="Whoever has it calls as this device of the hospital."
)
@json_option
@click.pass_obj
def token_add(invocation: Invocation, name: str, device: str | None, as_json: bool) -> None:
    """Make a token, and show it this once. NAME is for people: who has it, or what for.

    Without --device it calls as the Router's own AE title.
    """
    body = {"name": name} | ({"device": device} if device else {})
    answer = control(invocation).post("/v1/tokens", body)
    if as_json:
        print_json(answer)
        return
    say(f"the token {answer['name']}, which calls as {_caller(answer)}; it is not shown again:")
    say(f"  {answer['token']}")


@token.command("list")
@json_option
@click.pass_obj
def token_list(invocation: Invocation, as_json: bool) -> None:
    """Show all tokens by their names."""
    tokens = control(invocation).get("/v1/tokens")
    if as_json:
        print_json(tokens)
        return
    print_table(
        ("name", "calls as", "made"),
        ((t["name"], _caller(t), local_time(t["created"])) for t in tokens),
        empty="no tokens: `relay token add NAME` makes one, for DICOMweb",
    )


@token.command("remove")
@click.argument("name")
@click.pass_obj
def token_remove(invocation: Invocation, name: str) -> None:
    """Forget a token: whoever has it is refused from now on."""
    control(invocation).delete(f"/v1/tokens/{quoted(name)}")
    say(f"{name} is no longer a token")


def _caller(shown: dict[str, Any]) -> str:
    return shown["device"] or "the Router"
