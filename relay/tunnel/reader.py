"""CloudReader: one direction of a session, from announcements to the records that the peer sent.

    announced, in line ----------> opened in order -> records -> receive
    announced, in a slot -> GET -> chunks -^   `-> DELETE

Announcements are taken in number order: a duplicate is ignored, and so is what follows a gap, which
resuming brings again (DESIGN §5). Bundles are fetched several at a time, their chunks opened in
order, and handed on only once opened. The writer may announce as far as the reader's credit, which
grows as chunks are consumed.

Memory of one reader: its window (relay.tunnel.window) of what is being fetched or waits to be
opened, or a bundle of MAXIMUM_BUNDLE (4 MiB) where that is more; and OPENED_AHEAD of what is opened
and not consumed, and one chunk (MAXIMUM_CHUNK at the most) beyond that.
"""

from collections import deque
from collections.abc import Callable
from typing import NoReturn

import attrs
import trio
from trio.lowlevel import ParkingLot

from relay.dicom.pdu import AAbort, Atom, Buffer
from relay.errors import ChunkError, LocalProtocolError, ProviderError, SignallingError
from relay.signalling.messages import Announce, FlowProgress, InLine
from relay.tunnel import bundle
from relay.tunnel.allowance import IN_LINE_WINDOW, Allowance
from relay.tunnel.chunks import Chunk
from relay.tunnel.pulse import Stall
from relay.tunnel.records import FINAL_ATOMS, Record
from relay.tunnel.retry import persist
from relay.tunnel.seal import ChunkOpener
from relay.tunnel.slots import Request, StoredBundle, resign
from relay.tunnel.store import ObjectClient
from relay.tunnel.window import Window

# Chunks that may be announced and not consumed. What is announced waits in the store and costs no
# memory here, and in a long round trip there are many small ones.
CREDIT = 64
# Bytes that are opened and not consumed: more is opened only when the device has taken some.
OPENED_AHEAD = 2 * 1024 * 1024
# GETs at once, however small: as many as the writer has PUTs.
MOST_FETCHES = 8
# Opening more than this is worth a thread; see writer.SEAL_IN_THREAD.
OPEN_IN_THREAD = 64 * 1024
# Deleting is a courtesy to the sweeper: a store that is slow at it is spared the rest.
MAXIMUM_DELETES = 8


@attrs.define(slots=True, eq=False)
class _Incoming:
    """What was announced together, until its last chunk is opened. `size` is in bytes."""

    count: int
    size: int
    stored: StoredBundle | None  # None: one chunk, in line
    chunks: deque[Buffer] | None  # sealed, once they are here


@attrs.define(slots=True, eq=False)
class _Opened:
    """An opened chunk until its records are consumed."""

    records: deque[Record]
    size: int
    in_line: int


@attrs.frozen(slots=True)
class ReaderStatistics:
    """What a reader has opened (bytes: sealed), how much in line, and what it had to repeat."""

    chunks: int
    sealed_bytes: int
    in_line: int
    retries: int


class CloudReader:
    """One direction's reading end.

    `announced` and `heard` feed it; `run` does the work, in the session's nursery, once there is a
    key; `receive` gives what came. `changed` is called when the peer should be told of progress.
    One task at a time may `receive`.
    """

    def __init__(
        self,
        *,
        session: bytes,
        request: Request,
        objects: ObjectClient,
        allowance: Allowance,
        resume_window: float,
        changed: Callable[[], None],
    ) -> None:
        self._session = session
        self._request = request
        self._objects = objects
        self._allowance = allowance.in_line
        self._resume_window = resume_window
        self._tell = changed

        # Counts of chunks from 0: what the writer says, and how far they have come here.
        self._announced = 0
        self._received = 0
        self._opened = 0
        self._consumed = 0
        self._stall = Stall(resume_window)
        self._incoming: deque[_Incoming] = deque()
        self._waiting: deque[_Opened] = deque()
        self._window = Window(allowance.reading)
        self._held = 0  # sealed bytes of bundles that are being fetched, or here and not opened
        self._plain = 0  # opened and not consumed
        self._to_fetch: deque[_Incoming] = deque()
        self._fetching = 0
        # In-line bytes, sealed.
        self._in_line_window = 0
        self._in_line_received = 0
        self._in_line_consumed = 0
        # Granted to the writer, by `progress`.
        self._chunk_credit = 0
        self._in_line_credit = 0
        self.finished = False  # the peer's final chunk is opened
        self._ending: Atom | None = None
        self._over = False

        self._changed = ParkingLot()
        self._deleting = 0
        self._chunks_in_line = 0
        self._sealed_bytes = 0
        self._retries = 0

    # --- what the session learns -----------------------------------------------------------------

    def announced(self, message: Announce | InLine) -> None:
        """The peer announces a chunk.

        Raises ChunkError for one beyond the credit, or larger than a chunk can be.
        """
        if message.chunk != self._received:
            # A duplicate or what follows a gap: either way the writer does not know where we are.
            self._tell()
            return
        if self.finished:
            raise ChunkError("chunk after the final one")
        count = message.count if isinstance(message, Announce) else 1
        # The final chunk needs no credit; whether it is that one shows when it is opened.
        if message.chunk + count - 1 > self._chunk_credit:
            raise ChunkError(
                f"chunk {message.chunk + count - 1} beyond the credit of {self._chunk_credit}"
            )
        if isinstance(message, InLine):
            self._in_line_received += len(message.sealed)
            if self._in_line_received > self._in_line_credit:
                raise ChunkError("more bytes in line than the credit allows")
            self._chunks_in_line += 1
            incoming = _Incoming(1, len(message.sealed), None, deque([message.sealed]))
        else:
            if not count or message.size > bundle.MAXIMUM_BUNDLE:
                raise ChunkError(f"bundle of {count} chunks, {message.size} bytes is announced")
            stored = StoredBundle.from_rows(message.slot, message.get, message.delete)
            incoming = _Incoming(count, message.size, stored, None)
            self._to_fetch.append(incoming)
        self._incoming.append(incoming)
        self._received += count
        self._changed.unpark_all()

    def heard(self, flow: FlowProgress) -> bool:
        """What the writing end says about this direction; True if it should be told again.

        Raises SessionEnded if what it announced does not arrive.
        """
        self._announced = max(self._announced, flow.announced)
        self._stall.see(self._announced, self._received)
        return flow.announced > self._received or flow.opened < self._opened

    @property
    def outstanding(self) -> bool:
        """The peer has announced what is not opened here."""
        return self._announced > self._opened or bool(self._incoming)

    @property
    def begun(self) -> bool:
        """The peer's first chunk is opened."""
        return self._opened > 0

    async def wait_begun(self) -> None:
        """Return once `begun`."""
        while not self.begun:
            await self._changed.park()

    def progress(self) -> FlowProgress:
        """Where this end stands; what it grants is granted by this call."""
        if not self._in_line_window and not self.finished:
            self._in_line_window = self._allowance.take(IN_LINE_WINDOW)
        self._chunk_credit = max(self._chunk_credit, self._consumed + CREDIT)
        self._in_line_credit = max(
            self._in_line_credit, self._in_line_consumed + self._in_line_window
        )
        return FlowProgress(
            announced=self._announced,
            received=self._received,
            opened=self._opened,
            chunk_credit=self._chunk_credit,
            in_line_credit=self._in_line_credit,
        )

    def statistics(self) -> ReaderStatistics:
        return ReaderStatistics(
            chunks=self._opened,
            sealed_bytes=self._sealed_bytes,
            in_line=self._chunks_in_line,
            retries=self._retries,
        )

    def end(self, atom: Atom) -> None:
        """Give `atom` next, and nothing of what else is there. The first call counts."""
        if self._ending is None:
            self._ending = atom
            self._waiting.clear()
            self._changed.unpark_all()

    def close(self) -> None:
        """Give back what is shared."""
        self._allowance.give_back(self._in_line_window)
        self._in_line_window = 0
        self._window.close()

    # --- the receiver's side ---------------------------------------------------------------------

    async def receive(self) -> Record:
        """The next record. Coming back for it says that the one before is consumed.

        Raises LocalProtocolError after A-RELEASE-RP, A-ABORT or A-ASSOCIATE-RJ.
        """
        await trio.lowlevel.checkpoint()
        if self._over:
            raise LocalProtocolError("the association is over: nothing more can be received")
        while True:
            if self._ending is not None:
                record: Record = self._ending
                break
            if self._waiting and not self._waiting[0].records:
                self._consume(self._waiting.popleft())
            elif self._waiting:
                record = self._waiting[0].records.popleft()
                break
            else:
                await self._changed.park()
        self._over = isinstance(record, FINAL_ATOMS)
        return record

    def _consume(self, chunk: _Opened) -> None:
        self._consumed += 1
        self._in_line_consumed += chunk.in_line
        self._plain -= chunk.size
        self._changed.unpark_all()
        self._tell()

    # --- the work --------------------------------------------------------------------------------

    async def run(self, opener: ChunkOpener) -> None:
        """Fetch and open until the final chunk is opened, or for ever.

        Raises ChunkError when a chunk does not open, ProviderError or SignallingError when one
        could not be fetched for the resume window.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fetch_all)
            while not self.finished:
                incoming = self._incoming[0] if self._incoming else None
                if incoming is None or incoming.chunks is None or self._plain >= OPENED_AHEAD:
                    if not self._aborted(opener):
                        await self._changed.park()
                    continue
                await self._open(opener, incoming, incoming.chunks.popleft())
                if incoming.chunks and not self.finished:
                    continue
                self._incoming.popleft()
                if incoming.stored is not None and self._deleting < MAXIMUM_DELETES:
                    nursery.start_soon(self._delete, incoming.stored)
            nursery.cancel_scope.cancel()

    def _aborted(self, opener: ChunkOpener) -> bool:
        """Whether the peer has aborted behind what cannot be opened yet: that ends it at once."""
        last = self._incoming[-1] if self._incoming else None
        if last is None or not last.chunks:
            return False
        atom = opener.abort_in(last.chunks[-1], self._received - 1)
        if atom is None:
            return False
        self._opened, self.finished = self._received, True
        self.end(atom)
        self._tell()
        return True

    async def _fetch_all(self) -> NoReturn:
        """Fetch what is announced, in order, several at a time, as far as the window allows."""
        async with trio.open_nursery() as nursery:
            while True:
                if not self._to_fetch or not self._may_fetch(self._to_fetch[0].size):
                    await self._changed.park()
                    continue
                incoming = self._to_fetch.popleft()
                self._held += incoming.size
                self._fetching += 1
                nursery.start_soon(self._fetch, incoming)

    def _may_fetch(self, size: int) -> bool:
        """Whether the next bundle, which may be larger than the window, is fetched now.

        What is held is in front of it, and so is opened before it.
        """
        if self._fetching == MOST_FETCHES:
            return False
        return not self._held or self._held + size <= self._window.size

    async def _fetch(self, incoming: _Incoming) -> None:
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
        self._retries += 1

    async def _open(self, opener: ChunkOpener, incoming: _Incoming, sealed: Buffer) -> None:
        def open_and_decode() -> tuple[Chunk, list[Record]]:
            chunk = opener.open(sealed, number)
            return chunk, chunk.records()

        number = self._opened
        if len(sealed) < OPEN_IN_THREAD:
            chunk, records = open_and_decode()
        else:
            chunk, records = await trio.to_thread.run_sync(open_and_decode)
        if number >= self._chunk_credit and not chunk.final:
            raise ChunkError(f"chunk {number} beyond the credit of {self._chunk_credit}")
        self._opened += 1
        if incoming.stored is not None:
            self._held -= bundle.OVERHEAD + len(sealed)
        self._sealed_bytes += len(sealed)
        self.finished = chunk.final
        if chunk.final and isinstance(records[-1], AAbort):
            # Acted on at once (DESIGN §3): the device gets nothing of what went before.
            self.end(records[-1])
        elif self._ending is None:
            in_line = incoming.size if incoming.stored is None else 0
            size = len(chunk.head) + len(chunk.body)
            self._plain += size
            self._waiting.append(_Opened(deque(records), size, in_line))
        self._changed.unpark_all()
        self._tell()

    async def _delete(self, stored: StoredBundle) -> None:
        self._deleting += 1
        try:
            if stored.stale:
                return  # the sweeper has it
            await self._objects.delete(stored.delete)
        except (ProviderError, SignallingError):
            self._retries += 1  # the sweeper has it
        finally:
            self._deleting -= 1
