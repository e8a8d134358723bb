"""Connections with a store that are made before a request needs one.

A new one costs two round trips, and what a session sends first would wait for them. So they are
made while its keys are still on their way. A request that comes meanwhile takes one that is being
made, and does not begin another.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

import attrs
import trio

from relay.errors import ProviderError
from relay.tunnel.origin import Origin

C = TypeVar("C")


@attrs.define(slots=True, eq=False)
class _Coming(Generic[C]):
    """A connection that is being made; `ready` without one: it failed."""

    ready: trio.Event = attrs.field(factory=trio.Event)
    connection: C | None = None


class Warming(Generic[C]):
    """What is being made. `connect` makes one, `keep` is given those that nobody has asked for.

    `faults` are what `connect` raises beside ProviderError.
    """

    def __init__(
        self,
        connect: Callable[[Origin], Awaitable[C]],
        keep: Callable[[Origin, C], None],
        faults: type[Exception],
    ) -> None:
        self._connect = connect
        self._keep = keep
        self._faults = faults
        self._coming: dict[Origin, deque[_Coming[C]]] = {}
        self.making = 0
        """How many are being made, with all origins together."""

    async def make(self, origin: Origin, count: int) -> None:
        """Have so many more; what goes wrong is said to who asks for one himself."""
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                coming = _Coming[C]()
                self._coming.setdefault(origin, deque()).append(coming)
                self.making += 1
                nursery.start_soon(self._make_one, origin, coming)

    def coming(self, origin: Origin) -> int:
        """How many are being made with `origin` that no request waits for."""
        return len(self._coming.get(origin, ()))

    async def take(self, origin: Origin) -> C | None:
        """The next that is being made, once it is there; None where there is none, or it failed."""
        waiting = self._coming.get(origin)
        if not waiting:
            return None
        coming = self._pop(origin, waiting[0])
        try:
            await coming.ready.wait()
        except trio.Cancelled:  # it is not ready: who is woken is not cancelled
            self._coming.setdefault(origin, deque()).append(coming)
            raise
        return coming.connection

    async def _make_one(self, origin: Origin, coming: _Coming[C]) -> None:
        try:
            with suppress(self._faults, ProviderError):
                coming.connection = await self._connect(origin)
        finally:
            self.making -= 1
            if coming in self._coming.get(origin, ()):
                self._pop(origin, coming)
                if coming.connection is not None:
                    self._keep(origin, coming.connection)
            coming.ready.set()

    def _pop(self, origin: Origin, coming: _Coming[C]) -> _Coming[C]:
        waiting = self._coming[origin]
        waiting.remove(coming)
        if not waiting:
            del self._coming[origin]
        return coming
