"""Signed URLs asked of the Bridge: PUTs ahead of need, GETs and DELETEs again when they are old.

A slot is one object's place in one direction of one session; slots are numbered from 0 and used in
order (DESIGN §3, "Stores"). URLs live for a stated time by the Bridge's clock, which need not agree
with this one: their age is counted here from when they came.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import attrs
import trio
from trio.lowlevel import ParkingLot

from relay.errors import SignallingError
from relay.signalling.messages import Done, Message, Resign, Resigned, Slots, SlotURLs
from relay.tunnel.retry import persist
from relay.tunnel.store import ObjectRequest

# As many as may be under way: while one half is used the next are asked for.
SLOT_BATCH = 8
# The lives that the Bridge gives (DESIGN §3), less what the way and a slow start may take.
PUT_FRESH = 240.0
GET_FRESH = 45.0

# SignallingClient.request: builds a message around its request number and gives the answer.
Request = Callable[[Callable[[int], Message]], Awaitable[Message]]


@attrs.frozen(slots=True)
class Slot:
    """A place for one object, the PUT that fills it, and when that was signed (trio's clock)."""

    number: int
    put: ObjectRequest
    signed: float

    @property
    def stale(self) -> bool:
        return trio.current_time() - self.signed > PUT_FRESH


class SlotSupply:
    """One direction's slots: `take` gives them in order, `run` sees to it that some are there."""

    def __init__(self, request: Request, session: bytes, window: float) -> None:
        self._request = request
        self._session = session
        self._window = window
        self._ready: deque[Slot] = deque()
        self._asked = 0
        self._begun = False
        self._asking_early = False
        self._changed = ParkingLot()
        self.failures = 0

    async def ask_early(self) -> None:
        """Ask for the first batch if `run` has not begun, which goes on behind it.

        What the Bridge refuses, or has no connection for, is asked for again by that.
        """
        if self._begun:
            return
        self._asking_early = True
        try:
            with suppress(SignallingError):
                self._ready.extend(await self._ask(False))
                self._asked += SLOT_BATCH
        finally:
            self._asking_early = False
            self._changed.unpark_all()

    async def run(self) -> NoReturn:
        """Ask for a batch now, and for the next whenever half of one is used.

        Raises SignallingError when the Bridge gives none for the resume window.
        """
        self._begun = True
        while True:
            while self._asking_early or len(self._ready) > SLOT_BATCH // 2:
                await self._changed.park()
            self._ready.extend(await persist(self._ask, window=self._window, failed=self._failed))
            self._asked += SLOT_BATCH
            self._changed.unpark_all()

    async def take(self) -> Slot:
        """The next slot; waits until there is one."""
        while not self._ready:
            await self._changed.park()
        slot = self._ready.popleft()
        self._changed.unpark_all()
        return slot

    async def renew(self, slot: Slot) -> Slot:
        """The same slot with a PUT signed now. Raises SignallingError."""
        (renewed,) = await self._slots(slot.number, 1)
        return renewed

    async def _ask(self, _: bool) -> list[Slot]:
        return await self._slots(self._asked, SLOT_BATCH)

    async def _slots(self, first: int, count: int) -> list[Slot]:
        answer = await self._request(lambda number: Slots(number, self._session, first, count))
        if not isinstance(answer, SlotURLs):
            raise refused("slots", answer)
        if answer.first != first or len(answer.puts) != count:
            raise SignallingError("the Bridge gave other slots than were asked for")
        now = trio.current_time()
        return [
            Slot(number, ObjectRequest.from_row(row), now)
            for number, row in enumerate(answer.puts, first)
        ]

    def _failed(self) -> None:
        self.failures += 1


@attrs.frozen(slots=True)
class StoredBundle:
    """Where the peer's bundle lies: slot, GET and DELETE, when those were signed, for how long.

    No DELETE: the Bridge deletes what it hears is opened.
    """

    slot: int
    get: ObjectRequest
    delete: ObjectRequest | None
    signed: float
    fresh: float

    @classmethod
    def from_rows(
        cls, slot: int, get: Sequence[Any], delete: Sequence[Any], fresh: float = GET_FRESH
    ) -> "StoredBundle":
        """From the rows of an Announce or a Resigned. Raises SignallingError without a GET."""
        if len(get) != 1:
            raise SignallingError(f"slot {slot} came without its signed GET")
        deletes = ObjectRequest.from_row(delete[0]) if delete else None
        return cls(slot, ObjectRequest.from_row(get[0]), deletes, trio.current_time(), fresh)

    @property
    def stale(self) -> bool:
        return trio.current_time() - self.signed > self.fresh


async def resign(request: Request, session: bytes, slot: int) -> StoredBundle:
    """The peer's `slot` with a GET and a DELETE signed now. Raises SignallingError."""
    answer = await request(lambda number: Resign(number, session, slot))
    if not isinstance(answer, Resigned):
        raise refused("a new signature", answer)
    return StoredBundle.from_rows(slot, answer.get, answer.delete)


def refused(what: str, answer: Message) -> SignallingError:
    """The Bridge's no, in its own words."""
    words = "; ".join(answer.refusals) if isinstance(answer, Done) else type(answer).__name__
    return SignallingError(f"the Bridge gave no answer to a request for {what}: {words[:512]}")
