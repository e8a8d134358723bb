"""What a hospital does with its Router: enrolling it, and what its other commands share."""

from typing import Any

import click

from relay.cli.context import Command, Invocation
from relay.cli.control import Control
from relay.cli.output import say

SERVICES = "echo, store, query, retrieve, worklist, mpps, commit, private:<UID>"


def control(invocation: Invocation) -> Control:
    """The running Router. Raises ConfigurationError."""
    return Control(invocation.router(), invocation.file)


def words(text: str) -> list[str]:
    """What stands between the commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def listed(value: object) -> str:
    """A list as people write one; anything else as it is."""
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def whom(granted: dict[str, Any]) -> str:
    """The peer of a grant or an ask: its name is its own word, its fingerprint is not."""
    return f"{granted['name'] or 'unknown'} ({granted['peer']})"


def both_titles(local: str, published: str) -> str:
    """A device by its AE title here, and the one by which the network knows it if that differs."""
    return local if local == published else f"{local} (published as {published})"


def of_device(granted: dict[str, Any]) -> str:
    """The device of a grant."""
    return both_titles(granted["device"] or granted["ae_title"], granted["ae_title"])


@click.command(cls=Command)
@click.argument("invitation")
@click.pass_obj
def enroll(invocation: Invocation, invitation: str) -> None:
    """Join the network that INVITATION (from `relay invite` at the Bridge) is for."""
    answer = control(invocation).post("/v1/enrolment", {"invitation": invitation})
    enrolled = "already enrolled" if answer.get("already") else "enrolled"
    say(f"{enrolled} at {answer['bridge']} as {answer['name']}")
    say("your contact string, for other hospitals to verify you by:")
    say(f"  {answer['contact']}")
