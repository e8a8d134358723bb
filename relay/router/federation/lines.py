"""The lines before devices: how many operations each has at once, whoever asks (DESIGN §7).

Queries and retrieves stand in lines of their own: a query takes seconds, and does not wait behind
studies that take minutes each.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from relay.errors import Outcome, SourceFailed


class Lines:
    """A line before each device, by published AE title, of which `maximum` are served at once."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._busy: dict[str, trio.Semaphore] = {}
        self._users = Counter[str]()  # who is served, or waits

    @asynccontextmanager
    async def served(self, title: str, wait: float) -> AsyncIterator[None]:
        """Be served at `title` for the length of the block, after `wait` seconds at the most.

        Raises SourceFailed (SLOW) if it takes longer.
        """
        line = self._busy.setdefault(title, trio.Semaphore(self._maximum))
        self._users[title] += 1
        try:
            with trio.move_on_after(wait) as limit:
                await line.acquire()
            if limit.cancelled_caught:
                raise SourceFailed(
                    f"as many others as may ask it at once do, and none was done in {wait:g} s",
                    Outcome.SLOW,
                )
            try:
                yield
            finally:
                line.release()
        finally:
            self._users[title] -= 1
            if not self._users[title]:
                del self._users[title], self._busy[title]
