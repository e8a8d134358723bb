"""Reading ahead: bundles that are asked for before they are announced (DESIGN §5).

    a bundle is announced -> signed GETs of the next slots -> held by the store until it can answer

Only the Bridge's own store does that. What comes so is opened in its turn, by the number in its
first chunk, without waiting for its announcement: an object costs one round trip and not two. It
begins with the first bundle that is announced, since a conversation of small messages needs no
store, and stops when nothing comes, until the next one is.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress

import trio
from trio.lowlevel import ParkingLot

from relay.dicom.pdu import Buffer
from relay.errors import ProviderError, SignallingError
from relay.signalling.messages import Ahead, AheadURLs
from relay.tunnel.bundle import MAXIMUM_BUNDLE
from relay.tunnel.slots import GET_FRESH, SLOT_BATCH, Request, StoredBundle
from relay.tunnel.store import ObjectClient

# GETs of one flow that wait. One is there again before the next object can have begun, and its
# connection is not idle for so long that it begins slowly anew (RFC 5681 §4.1), as two in turn are.
AT_ONCE = 1
# Seconds for a GET to bring what has been announced: some round trips and 1 MB/s.
OVERDUE = 4.0


class ReadAhead:
    """One direction's, for the reader, which gives `came`, `missed` and `may`.

    `came` is called with each bundle, `missed` with each slot that was asked for and did not come.
    `may` says whether there is room for more; `changed` is unparked when that may have changed.
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
    ) -> None:
        self._request = request
        self._session = session
        self._objects = objects
        self._came = came
        self._missed = missed
        self._may = may
        self._changed = changed
        self._next = 0  # the slot to ask for
        self._going_on = False
        self._pending: dict[int, trio.CancelScope] = {}
        self._signed: deque[StoredBundle] = deque()

    def announced(self, slot: int) -> None:
        """The peer has announced what is in `slot`."""
        self._next = max(self._next, slot + 1)
        self._going_on = True
        if slot in self._pending:
            # It is there. A GET that waits on a connection which was lost meanwhile hears nothing.
            self._pending[slot].deadline = trio.current_time() + OVERDUE

    def expects(self, slot: int) -> bool:
        """Whether this slot has been asked for, and will be given to `came` or `missed`."""
        return slot in self._pending

    async def run(self) -> None:
        """Ask for what comes next, until cancelled, or the store is found not to read ahead."""
        async with trio.open_nursery() as nursery:
            while True:
                if not (self._going_on and len(self._pending) < AT_ONCE and self._may()):
                    await self._changed.park()
                    continue
                while self._signed and (self._signed[0].slot < self._next or self._signed[0].stale):
                    self._signed.popleft()
                if self._signed:
                    stored = self._signed.popleft()
                    self._next = stored.slot + 1
                    self._pending[stored.slot] = trio.CancelScope()
                    nursery.start_soon(self._get, stored)
                elif not await self._sign():
                    return

    async def _sign(self) -> bool:
        """Have the next slots' requests signed; False where the store does not read ahead."""
        first = self._next
        try:
            answer = await self._request(
                lambda number: Ahead(number, self._session, first, SLOT_BATCH)
            )
        except SignallingError:
            # The Bridge is away. What is announced is fetched as if this were not there.
            self._going_on = False
            return True
        if not isinstance(answer, AheadURLs):
            return False
        counts = {len(answer.gets), len(answer.deletes)}
        if answer.first != first or counts != {SLOT_BATCH}:
            return False  # none: the store cannot; others than were asked for: the Bridge cannot
        self._signed.extend(
            StoredBundle.from_rows(slot, (get,), (delete,), fresh=GET_FRESH)
            for slot, (get, delete) in enumerate(
                zip(answer.gets, answer.deletes, strict=True), answer.first
            )
        )
        return True

    async def _get(self, stored: StoredBundle) -> None:
        data = None
        # What fails is in the client's statistics; once it is announced it is fetched.
        with suppress(ProviderError), self._pending[stored.slot]:
            data = await self._objects.get_ahead(stored.get, MAXIMUM_BUNDLE)
        del self._pending[stored.slot]
        if data is None:
            self._going_on = False
            self._missed(stored.slot)
        else:
            self._came(stored, data)
