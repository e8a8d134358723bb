"""CloudReader: one direction of a session, from announcements to the records that the peer sent.

    announced, in line ------> opened in order -> records -> receive
    announced, in a slot -> GET -^        `-> DELETE

Announcements are taken in number order: a duplicate is ignored, and so is what follows a gap, which
resuming brings again (DESIGN §5). Chunks are fetched several at a time, opened in order, and handed
on only once opened. The writer may announce as far as the reader's credit, which grows as chunks
are consumed.

Memory of one reader: WINDOW chunks fetched or opened, one of which is being consumed, and a final
one: of 1 MiB as our writer makes them, of MAXIMUM_CHUNK (4 MiB) at the most.
"""

from collections import deque
from collections.abc import Callable
from typing import NoReturn

import attrs
import trio
from trio.lowlevel import ParkingLot

from relay.dicom.pdu import AAbort, Atom
from relay.errors import ChunkError, LocalProtocolError, ProviderError, SignallingError
from relay.signalling.messages import Announce, FlowProgress, InLine
from relay.tunnel.chunks import Chunk
from relay.tunnel.pulse import Stall
from relay.tunnel.records import FINAL_ATOMS, Record
from relay.tunnel.retry import persist
from relay.tunnel.seal import MAXIMUM_SEALED, ChunkOpener
from relay.tunnel.slots import Request, StoredChunk, resign
from relay.tunnel.store import ObjectClient
from relay.tunnel.writer import WINDOW

# In-line bytes on the way to one session, and to one Router in all (DESIGN §5): what the hub keeps
# for a socket that does not read.
IN_LINE_WINDOW = 64 * 1024
IN_LINE_WINDOW_IN_ALL = 8 * 1024 * 1024
# Opening more than this is worth a thread; see writer.SEAL_IN_THREAD.
OPEN_IN_THREAD = 64 * 1024
# Deleting is a courtesy to the sweeper: a store that is slow at it is spared the rest.
MAXIMUM_DELETES = 8


class InLineAllowance:
    """What one Router's sessions may have on the way in line, all together; they share one."""

    def __init__(self, total: int = IN_LINE_WINDOW_IN_ALL) -> None:
        self._left = total

    def take(self, wanted: int) -> int:
        """As much of `wanted` bytes as is left, all or nothing."""
        taken = wanted if wanted <= self._left else 0
        self._left -= taken
        return taken

    def give_back(self, taken: int) -> None:
        self._left += taken


@attrs.define(slots=True, eq=False)
class _Incoming:
    """An announced chunk until it is opened."""

    size: int
    stored: StoredChunk | None  # None: in line
    sealed: bytes | None


@attrs.define(slots=True, eq=False)
class _Opened:
    """An opened chunk until its records are consumed."""

    records: deque[Record]
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
        allowance: InLineAllowance,
        resume_window: float,
        changed: Callable[[], None],
    ) -> None:
        self._session = session
        self._request = request
        self._objects = objects
        self._allowance = allowance
        self._resume_window = resume_window
        self._tell = changed

        # Counts of chunks from 0: what the writer says, and how far they have come here.
        self._announced = 0
        self._received = 0
        self._opened = 0
        self._consumed = 0
        self._stall = Stall(resume_window)
        self._incoming: dict[int, _Incoming] = {}
        self._waiting: deque[_Opened] = deque()
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
        self._to_fetch, self._fetches = trio.open_memory_channel[int](WINDOW + 1)
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
        # The final chunk needs no credit; whether it is that one shows when it is opened.
        if message.chunk > self._chunk_credit:
            raise ChunkError(f"chunk {message.chunk} beyond the credit of {self._chunk_credit}")
        if isinstance(message, InLine):
            self._in_line_received += len(message.sealed)
            if self._in_line_received > self._in_line_credit:
                raise ChunkError("more bytes in line than the credit allows")
            self._chunks_in_line += 1
            incoming = _Incoming(len(message.sealed), None, message.sealed)
        else:
            if message.size > MAXIMUM_SEALED:
                raise ChunkError(f"sealed chunk of {message.size} bytes is announced")
            stored = StoredChunk.from_rows(message.slot, message.get, message.delete)
            incoming = _Incoming(message.size, stored, None)
            self._to_fetch.send_nowait(message.chunk)
        self._incoming[message.chunk] = incoming
        self._received += 1
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
        self._chunk_credit = max(self._chunk_credit, self._consumed + WINDOW)
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
        """Give the shared allowance back."""
        self._allowance.give_back(self._in_line_window)
        self._in_line_window = 0

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
        self._changed.unpark_all()
        self._tell()

    # --- the work --------------------------------------------------------------------------------

    async def run(self, opener: ChunkOpener) -> None:
        """Fetch and open until the final chunk is opened, or for ever.

        Raises ChunkError when a chunk does not open, ProviderError or SignallingError when one
        could not be fetched for the resume window.
        """
        async with trio.open_nursery() as nursery:
            for _ in range(WINDOW):
                nursery.start_soon(self._fetch)
            while not self.finished:
                incoming = self._incoming.get(self._opened)
                if incoming is None or incoming.sealed is None:
                    await self._changed.park()
                    continue
                await self._open(opener, incoming, incoming.sealed)
                if incoming.stored is not None and self._deleting < MAXIMUM_DELETES:
                    nursery.start_soon(self._delete, incoming.stored)
            nursery.cancel_scope.cancel()

    async def _fetch(self) -> NoReturn:
        while True:
            incoming = self._incoming[await self._fetches.receive()]

            async def attempt(renew: bool, incoming: _Incoming = incoming) -> bytes:
                assert incoming.stored is not None
                if renew or incoming.stored.stale:
                    incoming.stored = await resign(
                        self._request, self._session, incoming.stored.slot
                    )
                return await self._objects.get(incoming.stored.get, incoming.size)

            incoming.sealed = await persist(
                attempt, window=self._resume_window, failed=self._failed
            )
            self._changed.unpark_all()

    def _failed(self) -> None:
        self._retries += 1

    async def _open(self, opener: ChunkOpener, incoming: _Incoming, sealed: bytes) -> None:
        def open_and_decode() -> tuple[Chunk, list[Record]]:
            chunk = opener.open(sealed, number)
            return chunk, chunk.records()

        number = self._opened
        if incoming.size < OPEN_IN_THREAD:
            chunk, records = open_and_decode()
        else:
            chunk, records = await trio.to_thread.run_sync(open_and_decode)
        if number >= self._chunk_credit and not chunk.final:
            raise ChunkError(f"chunk {number} beyond the credit of {self._chunk_credit}")
        del self._incoming[number]
        self._opened += 1
        self._sealed_bytes += incoming.size
        self.finished = chunk.final
        if chunk.final and isinstance(records[-1], AAbort):
            # Acted on at once (DESIGN §3): the device gets nothing of what went before.
            self.end(records[-1])
        elif self._ending is None:
            in_line = incoming.size if incoming.stored is None else 0
            self._waiting.append(_Opened(deque(records), in_line))
        self._changed.unpark_all()
        self._tell()

    async def _delete(self, stored: StoredChunk) -> None:
        self._deleting += 1
        try:
            if stored.stale:
                return  # the sweeper has it
            await self._objects.delete(stored.delete)
        except (ProviderError, SignallingError):
            self._retries += 1  # the sweeper has it
        finally:
            self._deleting -= 1
