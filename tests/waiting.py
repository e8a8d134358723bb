"""Waiting for what comes about by itself, by looking again and again."""

from collections.abc import Callable

import trio

# Seconds for what takes milliseconds, on a busy machine.
DEADLINE = 20.0

# Seconds between two looks.
POLL = 0.002


async def until(holds: Callable[[], object]) -> None:
    """Return once it holds. Raises TooSlowError if it does not within DEADLINE."""
    with trio.fail_after(DEADLINE):
        while not holds():
            await trio.sleep(POLL)
