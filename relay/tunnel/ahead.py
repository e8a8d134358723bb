"""Reading ahead: bundles that are asked for before they are announced (DESIGN §5).

    a bundle is announced -> signed GETs of the next slots -> held by the store until it can answer

Only the Bridge's own store does that. What comes so is opened in its turn, by the number in its
first chunk, without waiting for its announcement: an object costs one round trip and not two. It
begins with the first bundle that is announced, since a conversation of small messages needs no
store, and stops when nothing comes, until the next one is. Where many bundles follow one another
(`stream`), as many GETs wait as a writer has PUTs; where many objects go one way, from the
session's beginning. There what is announced before it was asked for is asked for in its turn all
the same, by the connections that are there: a GET of its own would take a new one, which over 200
ms brought a bundle of 0.8 MB after 0.85 s, and all behind it waited for that.
"""

import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
import trio
from trio.lowlevel import ParkingLot

from relay.dicom.pdu import Buffer
from relay.errors import ProviderError, SignallingError
from relay.signalling.messages import MAXIMUM_SLOTS, Ahead, AheadURLs
from relay.tunnel.bundle import MAXIMUM_BUNDLE
from relay.tunnel.slots import GET_FRESH, Request, StoredBundle
from relay.tunnel.store import ObjectClient

# GETs of one flow that wait. One is there again before the next object can have begun, and its
# connection is not idle for so long that it begins slowly anew (RFC 5681 §4.1), as two in turn are.
AT_ONCE = 1
# ... and of one that brings many bundles: as many as there can be PUTs (outbox.MOST_PUTS). What is
# stored then is here a way later, and not three ways, and as many connections grow faster together.
# A confirmed object of 256 MB takes 3.2 s so over 100 ms, and 5.4 s with one.
STREAM_AT_ONCE = 8
# So few signed GETs are left when the next are asked for, at least: none waits for its signature.
FEWEST_SIGNED = 2
# Seconds for a GET to begin to bring what has been announced: some round trips. The store holds
# back only what has not come.
OVERDUE = 4.0
# A store that says within so many seconds that nothing comes has no place left for who waits, which
# otherwise takes it 20: time for a new connection and an answer over the slowest of lines.
REFUSED_WITHIN = 5.0
# So long it is not asked again then: in that time all who wait now get their answer. What is
# announced meanwhile is fetched as if reading ahead were not there, without a useless GET for each.
REFUSED_PAUSE = 20.0


@attrs.define(slots=True, eq=False)
class _Pending:
    """A GET that waits, or brings what it has waited for."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    begun: bool = False

    def begin(self) -> None:
        """Its answer has begun: a line may be slow, and one that is dead is noticed by itself."""
        self.begun = True
        self.scope.deadline = math.inf

    def hurry(self) -> None:
        """What it waits for is there."""
        if not self.begun:
            # A GET that waits on a connection which was lost meanwhile hears nothing.
            self.scope.deadline = trio.current_time() + OVERDUE


class ReadAhead:
    """One direction's, for the reader, which gives `came`, `missed` and `may`.

    `came` is called with each bundle, `missed` with each slot that was asked for and did not come.
    `may` says whether there is room for more; `changed` is unparked when that may have changed.
    `streams`: many bundles come from the beginning, one behind the other.
    """

    def __init__(
        self,
        *,
        request: Request,
        session: bytes,
        objects: ObjectClient,
        came: Callable[[StoredBundle, Buffer], None],
        missed: Callable[[int], None],
        may: Callable[[], bool],
        changed: ParkingLot,
        streams: bool = False,
    ) -> None:
        self._request = request
        self._session = session
        self._objects = objects
        self._came = came
        self._missed = missed
        self._may = may
        self._changed = changed
        self._streams = streams
        self._next = 0  # the slot to ask for
        self._behind = 0  # the slot behind all that have come
        self._going_on = streams
        self._pending: dict[int, _Pending] = {}
        self._crowded = False  # the store had no turn for us, and nothing has come since
        self._promised: set[int] = set()  # announced, and to be asked for in their turn
        self._signed: deque[StoredBundle] = deque()  # from the next one on
        self._signing = False
        self._cannot = False  # the store does not read ahead
        self._paused_until = -math.inf  # by trio's clock

    @property
    def streams(self) -> bool:
        """Whether many bundles follow one another, or some did and are to be asked for still."""
        return self._streams or bool(self._promised)

    def stream(self, streams: bool) -> None:
        """Say whether many bundles follow one another from now on."""
        if streams != self._streams:
            self._streams = streams
            self._changed.unpark_all()

    def announced(self, slot: int) -> None:
        """The peer has announced what is in `slot`."""
        if self.streams and slot >= self._next and self._asking:
            self._promised.add(slot)
            return
        # Back to what was asked for in vain: else each pause would leave so many slots more behind.
        # Not to what is asked for, or has come before it was announced: it is not there any more.
        self._next = max(self._behind, slot + 1, *(waiting + 1 for waiting in self._pending))
        self._going_on = True
        if slot in self._pending:
            self._pending[slot].hurry()

    def expects(self, slot: int) -> bool:
        """Whether this slot has been or will be asked for, and given to `came` or `missed`."""
        return slot in self._pending or slot in self._promised

    @property
    def _at_once(self) -> int:
        return STREAM_AT_ONCE if self.streams and not self._crowded else AT_ONCE

    @property
    def _asking(self) -> bool:
        """Whether slots are asked for in their turn now."""
        paused = trio.current_time() < self._paused_until
        return self._going_on and not (self._cannot or paused)

    def _stop(self) -> None:
        """Ask for no more until something is announced: what was promised is had otherwise."""
        self._going_on = False
        promised, self._promised = sorted(self._promised), set()
        for slot in promised:
            self._missed(slot)

    async def run(self) -> None:
        """Ask for what comes next, until cancelled, or the store is found not to read ahead."""
        async with trio.open_nursery() as nursery:
            while not self._cannot:
                if self._asking and self._may():
                    self._drop_old()
                    few = len(self._signed) < max(FEWEST_SIGNED, self._at_once)
                    if few and not self._signing:
                        self._signing = True
                        nursery.start_soon(self._sign, self._next + len(self._signed))
                    if self._signed and len(self._pending) < self._at_once:
                        stored = self._signed.popleft()
                        self._next = stored.slot + 1
                        self._pending[stored.slot] = pending = _Pending()
                        if stored.slot in self._promised:
                            self._promised.discard(stored.slot)
                            pending.hurry()
                        nursery.start_soon(self._get, stored)
                        continue
                await self._changed.park()

    def _drop_old(self) -> None:
        """Forget what was signed for slots that are past, or too long ago."""
        signed = self._signed
        while signed and (signed[0].slot < self._next or signed[0].stale):
            signed.popleft()
        if signed and signed[0].slot > self._next:
            signed.clear()

    async def _sign(self, first: int) -> None:
        """Have requests signed for the slots from `first` on."""
        try:
            answer = await self._request(
                lambda number: Ahead(number, self._session, first, MAXIMUM_SLOTS)
            )
        except SignallingError:
            # The Bridge is away. What is announced is fetched as if this were not there.
            self._stop()
            return
        finally:
            self._signing = False
            self._changed.unpark_all()
        if not isinstance(answer, AheadURLs) or not self._take(first, answer):
            self._cannot = True
            self._stop()

    def _take(self, first: int, answer: AheadURLs) -> bool:
        """Whether they are what was asked for: none where the store cannot read ahead."""
        deletes: list[tuple[Any, ...]]
        deletes = [(delete,) for delete in answer.deletes] or [()] * MAXIMUM_SLOTS
        if answer.first != first or {len(answer.gets), len(deletes)} != {MAXIMUM_SLOTS}:
            return False
        if self._next + len(self._signed) != first:
            self._signed.clear()  # what was signed before is too old by now
        self._signed.extend(
            StoredBundle.from_rows(slot, (get,), delete, fresh=GET_FRESH)
            for slot, (get, delete) in enumerate(
                zip(answer.gets, deletes, strict=True), answer.first
            )
        )
        return True

    async def _get(self, stored: StoredBundle) -> None:
        data, answered = None, False
        pending, asked = self._pending[stored.slot], trio.current_time()
        # What fails is in the client's statistics; once it is announced it is fetched. So is what
        # there was no turn for here: one at a time is tried again, which costs nothing.
        try:
            with suppress(ProviderError), pending.scope:
                data = await self._objects.get_ahead(stored.get, MAXIMUM_BUNDLE, pending.begin)
                answered = True
        except trio.WouldBlock:
            self._crowded = True
        del self._pending[stored.slot]
        if data is None:
            self._stop()
            if answered and trio.current_time() < asked + REFUSED_WITHIN:
                self._paused_until = trio.current_time() + REFUSED_PAUSE
            self._missed(stored.slot)
        else:
            self._behind = max(self._behind, stored.slot + 1)
            self._crowded = False
            self._came(stored, data)
        self._changed.unpark_all()
