"""How many delivery sessions one Router has at once, and that no hospital has them all.

Who is delivered to decides how long a session lasts: a far Router may be slow with every answer. So
one hospital's devices have three quarters of the sessions at the most, however many of them there
are, and the rest is for the others (as relay.router.places has it of places).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

# Each may hold some 10 MiB of the tunnel's windows.
MAXIMUM_SESSIONS = 32

# Of all sessions, what those with one hospital cannot take.
OTHERS_SHARE = 1 / 4


class Sessions:
    """The sessions of all destinations, `maximum` in all. Who asks first is first."""

    def __init__(self, maximum: int = MAXIMUM_SESSIONS) -> None:
        self._all = trio.CapacityLimiter(maximum)
        self._share = maximum - int(OTHERS_SHARE * maximum)
        self._with: dict[bytes, trio.CapacityLimiter] = {}

    @asynccontextmanager
    async def one(self, peer: bytes) -> AsyncIterator[None]:
        """A session with the hospital of the identity `peer`, for as long as the block lasts."""
        async with self._of(peer), self._all:
            yield

    def wanted(self, peer: bytes) -> bool:
        """Whether somebody waits for what a session with `peer` would give back."""
        return any(limiter.statistics().tasks_waiting for limiter in (self._of(peer), self._all))

    def _of(self, peer: bytes) -> trio.CapacityLimiter:
        limiter = self._with.get(peer)
        if limiter is None:
            limiter = self._with[peer] = trio.CapacityLimiter(self._share)
        return limiter
