"""One id that all log lines about an association carry, on both Routers and on the Bridge.

It is the session's, shortened: `grep` it in the three logs for the whole story. A device's call has
a name of its own until there is a session, which is said once together with the session's.

What a task logs carries the id by a context variable, and so does what the tasks log that it
starts. A task that goes on for something else says so (`apart`).
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from structlog.contextvars import (
    bind_contextvars,
    bound_contextvars,
    get_contextvars,
    unbind_contextvars,
)

log = structlog.get_logger()

_KEY = "association"

# Begins the name of what has no session: no other log has it.
LOCAL = "local-"


def number(session: bytes) -> str:
    """What log lines call an association by: its session in hexadecimal, shortened."""
    return session.hex()[:12]


@contextmanager
def arrived() -> Iterator[None]:
    """An association has come over TCP: it has a name of its own until it gets another."""
    with bound_contextvars(**{_KEY: LOCAL + secrets.token_hex(4)}):
        yield


@contextmanager
def about(name: str, words: str = "", **facts: object) -> Iterator[None]:
    """What this task logs in the block is about the association `name`; so `words`, if any.

    What came over TCP and had no session yet is called so from now on, also behind the block.
    """
    before = get_contextvars().get(_KEY, "")
    first = {"before": before} if before.startswith(LOCAL) else {}
    part_of = {"within": before} if before not in ("", name) and not first else {}
    if first:
        bind_contextvars(**{_KEY: name})
    with bound_contextvars(**{_KEY: name}):
        if words or first or part_of:
            log.info(words or "association named", association=name, **first, **part_of, **facts)
        yield


def apart() -> None:
    """What this task logs from now on is about no one association, whoever started it."""
    unbind_contextvars(_KEY)
