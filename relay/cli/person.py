"""`relay person`: who may sign in to the pages, and API tokens."""

import sys
from typing import Any

import click

from relay.cli.context import Group, Invocation, json_option
from relay.cli.control import Control
from relay.cli.output import local_time, print_json, print_table, quoted, say
from relay.people.roles import Role

_role = click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    required=True,
    help="viewer looks; operator also searches by patient, retries and tests; administrator also"
    " changes things.",
)


def _control(invocation: Invocation) -> Control:
    """The running process, of either mode."""
    return Control(invocation.load(), invocation.file)


@click.group(cls=Group)
def person() -> None:
    """People who may sign in to the pages, and API tokens."""


@person.command("add")
@click.argument("name")
@_role
@click.option("--link", is_flag=True, help="Make a one-time link instead of asking for a password.")
@click.pass_obj
def person_add(invocation: Invocation, name: str, role: str, link: bool) -> None:
    """Add a person, with a password that is asked for, or with a link by which to choose one."""
    body: dict[str, Any] = {"name": name, "role": role}
    body |= {"link": True} if link else {"password": _password()}
    answer = _control(invocation).post("/v1/people", body)
    say(f"{answer['name']} may sign in, as {answer['role']}")
    if link:
        _show(answer)


@person.command("list")
@json_option
@click.pass_obj
def person_list(invocation: Invocation, as_json: bool) -> None:
    """Show everybody who may sign in."""
    people = _control(invocation).get("/v1/people")
    if as_json:
        print_json(people)
        return
    print_table(
        ("name", "role", "state", "added"),
        ((p["name"], p["role"], _state(p), local_time(p["created"])) for p in people),
        empty="nobody yet: `relay person link` makes a link for the first administrator",
    )


@person.command("role")
@click.argument("name")
@click.argument("role", type=click.Choice([role.value for role in Role]))
@click.pass_obj
def person_role(invocation: Invocation, name: str, role: str) -> None:
    """Give a person another role. They are signed out."""
    _control(invocation).post(f"/v1/people/{quoted(name)}/role", {"role": role})
    say(f"{name} is {role} now")


@person.command("password")
@click.argument("name")
@click.pass_obj
def person_password(invocation: Invocation, name: str) -> None:
    """Give a person another password, which is asked for. They are signed out."""
    _control(invocation).post(f"/v1/people/{quoted(name)}/password", {"password": _password()})
    say(f"{name} has another password, and is signed out")


@person.command("link")
@click.argument("name", required=False)
@click.pass_obj
def person_link(invocation: Invocation, name: str | None) -> None:
    """Make a one-time link by which NAME chooses a password; also where it is lost.

    Without NAME: for the first administrator, where nobody can sign in yet.
    """
    path = f"/v1/people/{quoted(name)}/link" if name else "/v1/first-link"
    _show(_control(invocation).post(path))


@person.command("remove")
@click.argument("name")
@click.pass_obj
def person_remove(invocation: Invocation, name: str) -> None:
    """Remove a person, who is signed out at once."""
    _control(invocation).delete(f"/v1/people/{quoted(name)}")
    say(f"{name} may no longer sign in")


@person.group("token", cls=Group)
def token() -> None:
    """API tokens: how monitors and scripts use the REST over the network."""


@token.command("add")
@click.argument("name")
@_role
@json_option
@click.pass_obj
def token_add(invocation: Invocation, name: str, role: str, as_json: bool) -> None:
    """Make an API token, and show it this once. NAME is for people: what it is for."""
    answer = _control(invocation).post("/v1/api-tokens", {"name": name, "role": role})
    if as_json:
        print_json(answer)
        return
    say(f"the API token {answer['name']}, {answer['role']}; it is not shown again:")
    say(f"  {answer['token']}")


@token.command("list")
@json_option
@click.pass_obj
def token_list(invocation: Invocation, as_json: bool) -> None:
    """Show all API tokens by their names."""
    tokens = _control(invocation).get("/v1/api-tokens")
    if as_json:
        print_json(tokens)
        return
    print_table(
        ("name", "role", "made", "last used"),
        ((t["name"], t["role"], local_time(t["created"]), _used(t["used"])) for t in tokens),
        empty="no API tokens: `relay person token add NAME --role viewer` makes one",
    )


@token.command("remove")
@click.argument("name")
@click.pass_obj
def token_remove(invocation: Invocation, name: str) -> None:
    """Forget an API token: whoever has it is refused from now on."""
    _control(invocation).delete(f"/v1/api-tokens/{quoted(name)}")
    say(f"{name} is no longer an API token")


def _password() -> str:
    """Asked for twice on a terminal; elsewhere the first line of what comes in."""
    if sys.stdin.isatty():
        asked: str = click.prompt("Password", hide_input=True, confirmation_prompt="Again")
        return asked
    return sys.stdin.readline().rstrip("\r\n")


def _show(answer: dict[str, Any]) -> None:
    say(f"open this before {local_time(answer['expires'])}; it works once:")
    say(f"  {answer['link']}")


def _state(shown: dict[str, Any]) -> str:
    if not shown["has_password"]:
        return "no password yet"
    return "signed in" if shown["signed_in"] else ""


def _used(at: int | None) -> str:
    return local_time(at) if at is not None else "never"
