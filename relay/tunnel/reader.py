"""CloudReader: one direction of a session, from announcements to the records that the peer sent.

    announced -> Inbox -> opened in order -> records -> receive
                             `-> DELETE

Announcements are taken in number order: a duplicate is ignored, and so is what follows a gap, which
resuming brings again (DESIGN §5). Chunks are opened in order, and handed on only once opened. The
writer may announce as far as the reader's credit, which grows as chunks are consumed.

Memory of one reader: its window (relay.tunnel.window) of what is being fetched or waits to be
opened, or a bundle of MAXIMUM_BUNDLE (4 MiB) where that is more; where many bundles follow one
another, what the writer's window has in flight beyond that, in the bundles that are asked for ahead
(ahead.STREAM_AT_ONCE); and OPENED_AHEAD of what is opened and not consumed, and one chunk
(MAXIMUM_CHUNK at the most) beyond that.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import attrs
import trio
from trio.lowlevel import ParkingLot

from relay.dicom.pdu import PDV, AAbort, Atom, Buffer
from relay.errors import ChunkError, LocalProtocolError
from relay.signalling.messages import Announce, FlowProgress, InLine
from relay.tunnel.allowance import IN_LINE_WINDOW, Allowance
from relay.tunnel.chunks import Chunk
from relay.tunnel.compression import Filter
from relay.tunnel.inbox import CREDIT, Inbox, Incoming
from relay.tunnel.pulse import Stall
from relay.tunnel.records import FINAL_ATOMS, Record
from relay.tunnel.seal import ChunkHeader, ChunkOpener
from relay.tunnel.slots import Request
from relay.tunnel.store import ObjectClient
from relay.workers import FEW_PROCESSORS

# Bytes that are opened and not consumed: more is opened only when the device has taken some.
OPENED_AHEAD = 2 * 1024 * 1024
# Opening more than this, in plain, is worth a thread; see writer.SEAL_IN_THREAD. Not sealed: 200
# bytes may be 4 MiB of black, which takes 10 ms to unpack.
OPEN_IN_THREAD = 64 * 1024
# ... where processors are few only from here on, or where the sums of DELTA are to be made.
FEW_OPEN_IN_THREAD = 2 * 1024 * 1024
# Chunks of one bundle that are opened in one hop to a thread: bytes in plain. What is first in them
# waits no longer for that than for a chunk of the usual size.
OPENED_TOGETHER = 1024 * 1024
# Behind so many chunks of one message, some MiB, more of it is expected (relay.tunnel.ahead). With
# fewer, an object of some MiB leaves GETs behind on connections that begin slowly, for the next.
MANY_CHUNKS = 4


@attrs.define(slots=True, eq=False)
class _Opened:
    """An opened chunk until its records are consumed."""

    records: deque[Record]
    size: int
    in_line: int
    unhurried: bool  # nothing waits for the peer to hear of it


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
    key; `receive` gives what came. `changed` is called when the peer should be told of progress,
    with True where that is not urgent. One task at a time may `receive`.
    """

    def __init__(
        self,
        *,
        session: bytes,
        request: Request,
        objects: ObjectClient,
        allowance: Allowance,
        resume_window: float,
        changed: Callable[[bool], None],
        bulk: bool = False,
    ) -> None:
        self._allowance = allowance.in_line
        self._workers = allowance.workers
        self._tell = changed
        self._bulk = bulk

        # Counts of chunks from 0: what the writer says, and how far they have come here.
        self._announced = 0
        self._opened = 0
        self._consumed = 0
        self._stall = Stall(resume_window)
        self._waiting: deque[_Opened] = deque()
        self._plain = 0  # opened and not consumed
        # In-line bytes, sealed.
        self._in_line_window = 0
        self._in_line_received = 0
        self._in_line_consumed = 0
        # Granted to the writer, by `progress`.
        self._chunk_credit = 0
        self._in_line_credit = 0
        self.finished = False  # the peer's final chunk is opened
        self._told = 0  # so many opened ones does the peer know of, or will
        self._within = 0  # so many were opened since a message ended
        self._looked_at = 0  # so many were received when an A-ABORT was looked for
        self._ending: Atom | None = None
        self._over = False

        self._changed = ParkingLot()
        self._inbox = Inbox(
            session=session,
            request=request,
            objects=objects,
            budget=allowance.reading,
            resume_window=resume_window,
            wanted=lambda: self._plain < OPENED_AHEAD,
            changed=self._changed,
            streams=allowance.streams,
            bulk=bulk,
        )
        self._chunks_in_line = 0
        self._sealed_bytes = 0

    # --- what the session learns -----------------------------------------------------------------

    def announced(self, message: Announce | InLine) -> None:
        """The peer announces a chunk.

        Raises ChunkError for one beyond the credit, or larger than a chunk can be.
        """
        if isinstance(message, Announce) and self._inbox.has(message):
            return
        if message.chunk != self._inbox.received:
            # A duplicate or what follows a gap: either way the writer does not know where we are.
            self._tell(False)
            return
        if self.finished:
            raise ChunkError("chunk after the final one")
        last = message.chunk + (message.count if isinstance(message, Announce) else 1) - 1
        # The final chunk needs no credit; whether it is that one shows when it is opened.
        if last > self._chunk_credit:
            raise ChunkError(f"chunk {last} beyond the credit of {self._chunk_credit}")
        if isinstance(message, InLine):
            self._in_line_received += len(message.sealed)
            if self._in_line_received > self._in_line_credit:
                raise ChunkError("more bytes in line than the credit allows")
            self._chunks_in_line += 1
        self._inbox.add(message)

    def heard(self, flow: FlowProgress) -> bool:
        """What the writing end says about this direction; True if it should be told again.

        Raises SessionEnded if what it announced does not arrive.
        """
        self._announced = max(self._announced, flow.announced)
        self._stall.see(self._announced, self._inbox.received)
        return flow.announced > self._inbox.received or flow.opened < self._opened

    @property
    def outstanding(self) -> bool:
        """The peer has announced what is not opened here."""
        return self._announced > self._opened or bool(self._inbox)

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
        self._told = self._opened
        self._chunk_credit = max(self._chunk_credit, self._consumed + CREDIT)
        self._in_line_credit = max(
            self._in_line_credit, self._in_line_consumed + self._in_line_window
        )
        return FlowProgress(
            announced=self._announced,
            received=self._inbox.received,
            opened=self._opened,
            chunk_credit=self._chunk_credit,
            in_line_credit=self._in_line_credit,
        )

    @property
    def slots(self) -> int:
        """Of how many slots from 0 everything is opened: it may be deleted."""
        return self._inbox.slots

    def statistics(self) -> ReaderStatistics:
        return ReaderStatistics(
            chunks=self._opened,
            sealed_bytes=self._sealed_bytes,
            in_line=self._chunks_in_line,
            retries=self._inbox.retries,
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
        self._inbox.close()

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

    async def receive_some(self) -> Sequence[Record]:
        """As `receive`, all records that are there of one chunk: at least one."""
        first = await self.receive()
        if self._over or self._ending is not None or not self._waiting:
            return (first,)
        rest = self._waiting[0].records
        records = (first, *rest)
        rest.clear()
        self._over = isinstance(records[-1], FINAL_ATOMS)
        return records

    def _consume(self, chunk: _Opened) -> None:
        self._consumed += 1
        self._in_line_consumed += chunk.in_line
        self._plain -= chunk.size
        self._changed.unpark_all()
        self._tell(chunk.unhurried)

    # --- the work --------------------------------------------------------------------------------

    async def run(self, opener: ChunkOpener) -> None:
        """Fetch and open until the final chunk is opened, or for ever.

        Raises ChunkError when a chunk does not open, ProviderError or SignallingError when one
        could not be fetched for the resume window.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._inbox.run)
            while not self.finished:
                incoming = self._inbox.first() if self._plain < OPENED_AHEAD else None
                if incoming is None or not incoming.chunks:
                    if not self._aborted(opener):
                        await self._changed.park()
                    continue
                await self._open(opener, incoming)
                stored = incoming.stored
                if not incoming.chunks and stored is not None and stored.delete is not None:
                    nursery.start_soon(self._inbox.delete, stored)
            nursery.cancel_scope.cancel()

    def _aborted(self, opener: ChunkOpener) -> bool:
        """Whether the peer has aborted behind what cannot be opened yet: that ends it at once."""
        last, received = self._inbox.last_chunk(), self._inbox.received
        if last is None or received == self._looked_at:
            return False
        self._looked_at = received
        atom = opener.abort_in(last, received - 1)
        if atom is None:
            return False
        self._opened, self.finished = self._inbox.received, True
        self.end(atom)
        self._tell(False)
        return True

    async def _open(self, opener: ChunkOpener, incoming: Incoming) -> None:
        """Open what is next, which is of this bundle: a chunk, or several small ones."""
        assert incoming.chunks is not None
        sealed, size = _opened_together(incoming.chunks)
        few = FEW_PROCESSORS and size < FEW_OPEN_IN_THREAD and not _any_delta(sealed)
        if size < OPEN_IN_THREAD or few:
            opened = _open_all(opener, self._opened, sealed)
        else:
            opened = await self._workers.run(partial(_open_all, opener, self._opened, sealed))
        for chunk, found in opened:
            if isinstance(found, ChunkError):
                raise found
            self._take(incoming, chunk, found)

    def _take(self, incoming: Incoming, chunk: Chunk, found: list[Record]) -> None:
        """The next chunk is opened, and holds these records."""
        assert incoming.chunks is not None
        number, sealed = self._opened, incoming.chunks.popleft()
        if number >= self._chunk_credit and not chunk.final:
            raise ChunkError(f"chunk {number} beyond the credit of {self._chunk_credit}")
        self._opened += 1
        self._inbox.opened(incoming, len(sealed))
        self._sealed_bytes += len(sealed)
        self.finished = chunk.final
        within = isinstance(found[-1], PDV) and not found[-1].is_last
        self._within = self._within + 1 if within else 0
        if not self._bulk:
            self._inbox.stream(self._within >= MANY_CHUNKS)
        unhurried = self._is_lone_end(found[-1])
        if chunk.final and isinstance(found[-1], AAbort):
            # Acted on at once (DESIGN §3): the device gets nothing of what went before.
            self.end(found[-1])
        elif self._ending is None:
            in_line = incoming.size if incoming.stored is None else 0
            size = len(chunk.head) + len(chunk.body)
            self._plain += size
            self._waiting.append(_Opened(deque(found), size, in_line, unhurried))
        self._changed.unpark_all()
        self._tell(unhurried)

    def _is_lone_end(self, record: Record) -> bool:
        """Whether the chunk that was opened last, with `record` at its end, ends a message of a
        conversation, and is all that the peer does not know of.

        What the one says next mostly waits for what the other says then, and for no more than that.
        """
        ends = isinstance(record, PDV) and record.is_last
        return ends and not self._bulk and self._opened == self._told + 1


def _opened_together(chunks: deque[Buffer]) -> tuple[list[Buffer], int]:
    """The first of these, and those behind it that are worth no hop of their own; their size in
    plain."""
    together: list[Buffer] = []
    size = 0
    for sealed in chunks:
        more = _plain_size(sealed)
        if together and size + more > OPENED_TOGETHER:
            break
        together.append(sealed)
        size += more
    return together, size


def _plain_size(sealed: Buffer) -> int:
    header = _header(sealed)
    return header.head_length + header.body_length if header is not None else 0


def _any_delta(chunks: Iterable[Buffer]) -> bool:
    """Whether any takes four times as long to open as others: 3 ms for 1 MiB."""
    headers = map(_header, chunks)
    return any(header is not None and header.filter is Filter.DELTA for header in headers)


def _header(sealed: Buffer) -> ChunkHeader | None:
    try:
        return ChunkHeader.decode(sealed)
    except ChunkError:
        return None  # it is said when it is opened, in its turn


def _open_all(
    opener: ChunkOpener, first: int, sealed: list[Buffer]
) -> list[tuple[Chunk, list[Record] | ChunkError]]:
    """The chunks from number `first` on with their records, up to one that is none: its error.

    What is before that one is as good as if it had been opened alone.
    """
    opened: list[tuple[Chunk, list[Record] | ChunkError]] = []
    for number, one in enumerate(sealed, first):
        try:
            chunk = opener.open(one, number)
            opened.append((chunk, chunk.records()))
        except ChunkError as error:
            opened.append((Chunk(b""), error))
            break
        if chunk.final:
            break  # nothing behind it is looked at
    return opened
