"""What a Router asks of the Bridge and waits for: publications, slots, signed URLs."""

import itertools
from collections.abc import Callable

import attrs
import trio

from relay.errors import SignallingError
from relay.signalling.limits import MAXIMUM_REQUESTS
from relay.signalling.messages import (
    AheadURLs,
    Done,
    Message,
    Present,
    Resigned,
    SlotURLs,
    encode,
)
from relay.signalling.outbox import Outbox

Reply = Done | SlotURLs | Resigned | AheadURLs | Present


@attrs.define(slots=True, eq=False)
class _Pending:
    """A request that waits; woken without a reply when the connection is lost."""

    done: trio.Event = attrs.field(factory=trio.Event)
    reply: Reply | None = None


class Requests:
    """Numbers requests and gives each its reply. Requests do not outlive the connection."""

    def __init__(self) -> None:
        self._outbox: Outbox | None = None
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._limit = trio.Semaphore(MAXIMUM_REQUESTS)
        self.round_trip: float | None = None  # of the last one that the Bridge answers at once

    def connected(self, outbox: Outbox) -> None:
        """Requests go out from now on."""
        self._outbox = outbox

    def lost(self) -> None:
        """What waits fails."""
        self._outbox = None
        for pending in self._pending.values():
            pending.done.set()

    async def request(self, build: Callable[[int], Message], deadline: float) -> Reply:
        """Send what `build` makes of a number, and wait at most `deadline` seconds for its reply.

        Raises SignallingError if there is no connection, it is lost, or the reply is late.
        """
        with trio.move_on_after(deadline):
            async with self._limit:
                return await self._request(build)
        raise SignallingError(f"the Bridge did not answer within {deadline:g} s")

    async def _request(self, build: Callable[[int], Message]) -> Reply:
        if self._outbox is None:
            raise SignallingError("not connected to the Bridge")
        number = next(self._numbers)
        pending = self._pending[number] = _Pending()
        asked = trio.current_time()
        try:
            if not self._outbox.put_control(encode(build(number))):
                raise SignallingError("too much waits to be sent to the Bridge")
            await pending.done.wait()
        finally:
            del self._pending[number]
        if pending.reply is None:
            raise SignallingError("the connection to the Bridge was lost")
        if not isinstance(pending.reply, Done):  # before which the Bridge may have had to write
            self.round_trip = trio.current_time() - asked
        return pending.reply

    def reply(self, message: Reply) -> None:
        """A reply has come; one to a request that was given up is ignored."""
        if (pending := self._pending.get(message.request)) is not None:
            pending.reply = message
            pending.done.set()
