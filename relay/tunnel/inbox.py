"""A flow's chunks from their announcement until they are opened, and their way out of the store.

    in line ------------------------> chunks, in their order
    in a slot -> (window) -> GET ----^
    read ahead, not announced yet ---^

Bundles are fetched in order, several at a time, as far as the window allows (relay.tunnel.window).
"""

from collections import deque
from collections.abc import Callable
from typing import NoReturn

import attrs
import trio
from trio.lowlevel import ParkingLot

from relay.dicom.pdu import Buffer
from relay.errors import ChunkError, ProviderError, SignallingError
from relay.signalling.messages import Announce, InLine
from relay.tunnel import bundle
from relay.tunnel.ahead import ReadAhead
from relay.tunnel.retry import persist
from relay.tunnel.seal import ChunkHeader
from relay.tunnel.slots import Request, StoredBundle, resign
from relay.tunnel.store import ObjectClient
from relay.tunnel.window import Budget, Window

# GETs at once, however small: as many as the writer has PUTs.
MOST_FETCHES = 8
# Chunks that may be announced and not consumed. What is announced waits in the store, and costs its
# signed URLs here, 2.5 KB for a cloud's: 640 KB for all of them. In a long round trip there are
# many small ones: so many of an MR image each are window.FIRST. With 64, 300 CT over 200 ms came at
# 86 MB/s, and at 98 with 128; with 128, 2,000 MR over 100 Mbit/s left the line idle while a bundle
# was late.
CREDIT = 256
# Deleting is a courtesy to the sweeper: a store that is slow at it is spared the rest.
MAXIMUM_DELETES = 8


@attrs.define(slots=True, eq=False)
class Incoming:
    """What was stored together, or is in line, until its last chunk is opened.

    `first` is its first chunk, `size` is in bytes.
    """

    first: int
    count: int
    size: int
    stored: StoredBundle | None  # None: one chunk, in line
    chunks: deque[Buffer] | None  # sealed, once they are here


class Inbox:
    """What one flow has received and not opened. `changed` is unparked at each change.

    `wanted` says whether whoever opens waits for more: only then is read ahead.
    """

    def __init__(
        self,
        *,
        session: bytes,
        request: Request,
        objects: ObjectClient,
        budget: Budget,
        resume_window: float,
        wanted: Callable[[], bool],
        changed: ParkingLot,
        streams: trio.CapacityLimiter,
        bulk: bool = False,
    ) -> None:
        """`streams`: what all that `stream` at a time have their place of."""
        self.received = 0
        """How many chunks of the flow are here, or are known to be in the store."""
        self.retries = 0
        self.slots = 0
        """Of how many slots from 0 all that lay there is opened, whether used or not."""
        self._session = session
        self._request = request
        self._objects = objects
        self._resume_window = resume_window
        self._wanted = wanted
        self._changed = changed
        self._incoming: deque[Incoming] = deque()
        self._next_slot = 0  # behind those of what was received
        # In bulk it is read ahead as far as the first window, and a device that is slow for a while
        # does not end that: what is announced meanwhile comes one bundle in each round trip.
        self._window = Window(budget, bulk=bulk)
        self._streams = streams
        self._is_streaming = False
        self._held = 0  # sealed bytes of bundles that are being fetched, or here and not opened
        self._to_fetch: deque[Incoming] = deque()
        self._fetching = 0
        self._deleting = 0
        self._ahead = ReadAhead(
            request=request,
            session=session,
            objects=objects,
            came=self._came,
            missed=self._missed,
            may=self._may_read_ahead,
            changed=changed,
            streams=bulk,
        )
        self._expected: dict[int, Incoming] = {}  # by slot: announced, and read ahead already
        self._early: dict[int, Incoming] = {}  # by first chunk: read ahead, and not its turn
        self._taken_ahead: set[int] = set()  # slots whose announcement is yet to come

    def __bool__(self) -> bool:
        """Whether anything waits to be opened."""
        return bool(self._incoming)

    # --- what is announced -----------------------------------------------------------------------

    def has(self, message: Announce) -> bool:
        """Whether what is announced was read ahead: that is no news."""
        self._ahead.announced(message.slot)
        self._changed.unpark_all()
        # Slots are announced in their order: those before it will not be, since all was opened.
        self._taken_ahead = {slot for slot in self._taken_ahead if slot >= message.slot}
        if message.slot not in self._taken_ahead:
            return False
        self._taken_ahead.discard(message.slot)
        if message.chunk < self.received:
            return True
        # What was read ahead in this slot is not what is announced there.
        for first, incoming in list(self._early.items()):
            if incoming.stored is not None and incoming.stored.slot == message.slot:
                del self._early[first]
                self._held -= incoming.size
        return False

    def add(self, message: Announce | InLine) -> None:
        """What is announced is the next. Raises ChunkError, or SignallingError without its URLs."""
        if isinstance(message, InLine):
            sealed = deque[Buffer]([message.sealed])
            self._take(Incoming(message.chunk, 1, len(message.sealed), None, sealed))
            return
        if not message.count or message.size > bundle.MAXIMUM_BUNDLE:
            raise ChunkError(f"bundle of {message.count} chunks, {message.size} bytes is announced")
        stored = StoredBundle.from_rows(message.slot, message.get, message.delete)
        incoming = Incoming(message.chunk, message.count, message.size, stored, None)
        if self._ahead.expects(message.slot):
            self._expected[message.slot] = incoming
        else:
            self._to_fetch.append(incoming)
        self._take(incoming)

    def _take(self, incoming: Incoming) -> None:
        """It is the next, as is what was read ahead behind it.

        Raises ChunkError for what lies in an earlier slot than what is before it: that may have
        been deleted with the later one.
        """
        following: Incoming | None = incoming
        while following is not None:
            if following.stored is not None:
                if following.stored.slot < self._next_slot:
                    raise ChunkError(f"slot {following.stored.slot} is used out of turn")
                self._next_slot = following.stored.slot + 1
            self._incoming.append(following)
            self.received += following.count
            following = self._early.pop(self.received, None)
        self._changed.unpark_all()

    # --- what is opened --------------------------------------------------------------------------

    def first(self) -> Incoming | None:
        """What the next chunk to open is of, if that is here."""
        if not self._incoming or self._incoming[0].chunks is None:
            return None
        return self._incoming[0]

    def last_chunk(self) -> Buffer | None:
        """The last chunk that was received, if it is here."""
        return (
            self._incoming[-1].chunks[-1] if self._incoming and self._incoming[-1].chunks else None
        )

    def opened(self, incoming: Incoming, size: int) -> bool:
        """A chunk of the first, `size` bytes sealed, is opened; whether that was its last."""
        if incoming.stored is not None:
            self._held -= bundle.OVERHEAD + size
        if incoming.chunks:
            return False
        self._incoming.popleft()
        if incoming.stored is not None:
            self.slots = incoming.stored.slot + 1
        self._changed.unpark_all()
        return True

    async def delete(self, stored: StoredBundle) -> None:
        """Delete what is opened, unless others are still being deleted."""
        if stored.delete is None or self._deleting == MAXIMUM_DELETES or stored.stale:
            return  # the Bridge has it, or the sweeper
        self._deleting += 1
        try:
            await self._objects.delete(stored.delete)
        except (ProviderError, SignallingError):
            self.retries += 1  # the sweeper has it
        finally:
            self._deleting -= 1

    def close(self) -> None:
        """Give back what was taken; nothing is fetched any more."""
        self.stream(False)
        self._window.close()

    # --- what is fetched -------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Fetch what is announced, and read ahead, for ever.

        Raises ChunkError for a bundle that is none, ProviderError or SignallingError when one could
        not be fetched for the resume window.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ahead.run)
            while True:
                if not self._to_fetch or not self._may_fetch(self._to_fetch[0]):
                    await self._changed.park()
                    continue
                incoming = self._to_fetch.popleft()
                self._held += incoming.size
                self._fetching += 1
                nursery.start_soon(self._fetch, incoming)

    def _may_fetch(self, incoming: Incoming) -> bool:
        """Whether the next bundle, which may be larger than the window, is fetched now.

        What is to be opened next does not wait for what is behind it.
        """
        if self._fetching == MOST_FETCHES:
            return False
        if not self._held or incoming is self._incoming[0]:
            return True
        return self._held + incoming.size <= self._window.size

    async def _fetch(self, incoming: Incoming) -> None:
        async def attempt(renew: bool) -> Buffer:
            assert incoming.stored is not None
            if renew or incoming.stored.stale:
                incoming.stored = await resign(self._request, self._session, incoming.stored.slot)
            departure = self._window.depart()
            fetched = await self._objects.get(incoming.stored.get, incoming.size)
            self._window.arrive(departure, incoming.size)
            return fetched

        try:
            fetched = await persist(attempt, window=self._resume_window, failed=self._failed)
        finally:
            self._fetching -= 1
        incoming.chunks = deque(bundle.split(fetched, incoming.count))
        self._changed.unpark_all()

    def _failed(self) -> None:
        self.retries += 1

    # --- what is read ahead ----------------------------------------------------------------------

    def stream(self, streams: bool) -> None:
        """Say whether many bundles follow one another from now on.

        Where too many flows have that at a time it is as if they did not, until it is said again.
        """
        if streams == self._is_streaming:
            return
        if streams:
            try:
                self._streams.acquire_on_behalf_of_nowait(self)
            except trio.WouldBlock:
                return
        else:
            self._streams.release_on_behalf_of(self)
        self._is_streaming = streams
        self._ahead.stream(streams)

    def _may_read_ahead(self) -> bool:
        if self._ahead.streams:
            # What is on its way to here is bounded by the writer's window.
            return not self._to_fetch and self._held < self._window.size and self._wanted()
        # Only who waits for the next bundle asks for it: a reader that is behind has enough.
        return not self._held and not self._early and self._wanted()

    def _came(self, stored: StoredBundle, data: Buffer) -> None:
        """A bundle has come that was asked for before it was announced.

        Raises ChunkError for one that is none.
        """
        incoming = self._expected.pop(stored.slot, None)
        if incoming is not None:  # it has been announced meanwhile
            incoming.stored, incoming.size = stored, len(data)
            incoming.chunks = deque(bundle.split(data, incoming.count))
            self._held += len(data)
            self._changed.unpark_all()
            return
        chunks = bundle.split(data)
        first = ChunkHeader.decode(chunks[0]).number
        if first < self.received:
            return  # known by now
        self._held += len(data)
        self._taken_ahead = {slot for slot in self._taken_ahead if slot > stored.slot - CREDIT}
        self._taken_ahead.add(stored.slot)
        incoming = Incoming(first, len(chunks), len(data), stored, deque(chunks))
        if first == self.received:
            self._take(incoming)
        else:
            self._early[first] = incoming  # behind one in line, or in a slot that is late

    def _missed(self, slot: int) -> None:
        """What was asked for ahead did not come: where it is announced, it is fetched."""
        incoming = self._expected.pop(slot, None)
        if incoming is not None:
            self._to_fetch.append(incoming)
            self._to_fetch = deque(sorted(self._to_fetch, key=lambda waiting: waiting.first))
        self._changed.unpark_all()
