"""CloudWriter: one direction of a session, from records to sealed chunks that the peer has opened.

    send -> ChunkBuilder -> (window, credit) -> ChunkSealer -> (throttle) -> Outbox -> announced

Chunks are sealed once, in order, wait for the throttle, if there is one, and go in line or by the
store; they are announced in number order, and only once they can be had. The outbox keeps their
sealed bytes until the peer says that it has opened them, so that whatever was lost on the way is
sent again as it was (DESIGN §5).

Memory of one writer: its window (relay.tunnel.window) of sealed chunks, one being sealed, one cut
and one being gathered, each of chunks.TARGET_SIZE (1 MiB), or of SMALL_TARGET in bulk where the
window is no more than its own. Whoever sends beyond that waits.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

import attrs
import trio
from trio.lowlevel import ParkingLot

from relay.dicom.pdu import PDV, AAbort
from relay.errors import (
    AbortReason,
    AbortSource,
    AssociationAborted,
    LocalProtocolError,
    SessionEnded,
)
from relay.signalling.messages import (
    MAXIMUM_IN_LINE,
    Announce,
    FlowProgress,
    InLine,
    SessionMessage,
)
from relay.tunnel import records
from relay.tunnel.chunks import FIRST_TARGET, TARGET_SIZE, Chunk, ChunkBuilder
from relay.tunnel.outbox import Bundle, Outbox
from relay.tunnel.pulse import Stall
from relay.tunnel.records import Note, Record
from relay.tunnel.seal import OVERHEAD, ChunkSealer
from relay.tunnel.window import BASE
from relay.workers import FEW_PROCESSORS, Workers

# In-line credit that only the final chunk uses: a sealed A-ABORT takes 55 bytes.
FINAL_RESERVE = 128
# Small chunks on their way at once: enough that none waits in a conversation of questions and
# answers. A stream of them is gathered: beyond so many one goes once it is full, or so many seconds
# behind the one before. A thousand answers over 100 ms took 330 ms where the rest waited for the
# first ones to be opened, and then went by the store, which begins slowly; they take 180.
IN_LINE_AT_ONCE = 4
GATHERING = 0.005
# Bytes of records in a chunk that just goes in line.
FULL_IN_LINE = MAXIMUM_IN_LINE - OVERHEAD
# A chunk of many objects where a flow has no more than its own window, as each of many flows has:
# beside it one is gathered, one cut and one sealed; of the usual size that is more than the window.
# 16 senders of 48 MiB each over 200 ms took the near Router 195 MiB so, and 206 without.
SMALL_TARGET = BASE // 8
# Where so many chunks are on their way, what would have room for more waits for it: in bulk many
# small objects share a chunk.
MANY = 64
# ... but not what has the size of a chunk on a connection's first round trips by now.
WORTH_A_CHUNK = FIRST_TARGET
# A message that stops in its middle (a slow device) is sent as far as it is after so many seconds,
# so that the far device does not take the gap for a dead peer.
FLUSH_AFTER = 1.0
# Sealing more than this is worth a thread: a hop takes 0.05 ms, and AES-GCM and zstd free the GIL.
SEAL_IN_THREAD = 64 * 1024
# ... where processors are few only from here on, or where the link takes fewer bytes a second than
# that: what goes over it may be packed harder, 10 ms for 1 MiB, in which PUTs on their way wait. It
# is less than the processors themselves take of CT images (45 to 60e6), and no less than a link
# whose bodies are tried whole (compression.WHOLE_BELOW).
FEW_SEAL_IN_THREAD, QUICK_LINE = 2 * 1024 * 1024, 20e6
# An announcement that the peer does not have after so long is lost, not on its way.
ANNOUNCEMENT_LOST = 1.0

# Awaited with a sealed chunk's bytes: returns when they may leave. Must not raise.
Throttle: TypeAlias = Callable[[int], Awaitable[None]]


@attrs.frozen(slots=True)
class WriterStatistics:
    """What a writer has sealed (bytes: sealed), how much in line, and what it had to repeat."""

    chunks: int
    sealed_bytes: int
    in_line: int
    unacknowledged: int
    unacknowledged_bytes: int
    retries: int


def _ends_message(record: Record, end_of_message: bool) -> bool:
    """Is what there is worth sealing, with this at its end?"""
    match record:
        case PDV(is_last=is_last):
            return is_last and end_of_message
        case Note():
            return end_of_message
        case _:
            return True


class CloudWriter:
    """One direction's writing end.

    `send` and `abort` feed it; `run` does the work, in the session's nursery, once there is a key;
    `heard` and `reconnected` tell it what the session learns. One task at a time may `send`.
    """

    def __init__(
        self,
        *,
        session: bytes,
        transmit: Callable[[SessionMessage], Awaitable[bool]],
        outbox: Outbox,
        workers: Workers,
        changed: ParkingLot,
        resume_window: float,
        throttle: Throttle | None = None,
        bulk: bool = False,
    ) -> None:
        """`bulk`: many objects are sent, one behind the other."""
        self._session = session
        self._transmit = transmit
        self._outbox = outbox
        self._workers = workers
        self._changed = changed
        self._throttle = throttle

        self._builder = ChunkBuilder(first_target=FIRST_TARGET if bulk else None)
        self._gathering_since = math.inf
        self._cut = False  # what the builder holds is worth sealing as it is
        self._bulk = bulk
        self._complete = False  # the builder holds no part of a command or data set alone
        self._last_cut = -math.inf  # when it was cut before it was full
        self._full: deque[Chunk] = deque()
        self._final = False  # the builder holds the final record
        self._abort: AAbort | None = None
        self._finished = False  # the final chunk is sealed
        self._held_back = trio.CancelScope()  # around the throttle, cancelled once closing
        self._over = ""  # why nothing more can be sent

        # Counts of chunks from 0: sealed, announced at least once, and what the reader says.
        self._sealed = 0
        self._announced = 0
        self._received = 0
        self._opened = 0
        self._chunk_credit = 0
        self._in_line_credit = 0
        self._next_announcement = 0
        self._in_line_used = 0
        self._resuming = False
        self._stall = Stall(resume_window)

        self._chunks_in_line = 0
        self._sealed_bytes = 0
        self._retries = 0

    # --- the sender's side -----------------------------------------------------------------------

    async def send(
        self, record: Record, *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        """Take `record`; waits while a full chunk waits for room in the window.

        `compressible`: a fragment in an uncompressed transfer syntax, of an object that is worth a
        chunk of its own (chunks.SMALL_OBJECT). `end_of_message`: nothing that belongs to it follows
        at once, where it is the last fragment of its kind, or a note; False keeps it back to share
        a chunk with what follows, for FLUSH_AFTER at the most.
        Raises AssociationAborted once aborted or ended, LocalProtocolError after A-RELEASE-RP or
        A-ASSOCIATE-RJ.
        """
        await self._may_send()
        if isinstance(record, AAbort):
            self.abort(record)
            return
        self._add(record, compressible)
        if isinstance(record, records.FINAL_ATOMS):
            self._final = True
            self._held_back.cancel()
        if _ends_message(record, end_of_message):
            self._cut = True
        self._changed.unpark_all()

    async def send_all(
        self, pdvs: Sequence[PDV], *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        """As `send` of each of `pdvs` in turn; `end_of_message`: a message ends with one of them.

        Waits while a full chunk waits, but not within: they are what one read has brought.
        """
        await self._may_send()
        for pdv in pdvs:
            self._add(pdv, compressible)
        if end_of_message:
            self._cut = True
        self._changed.unpark_all()

    async def wait_room(self) -> None:
        """Return when `send` would not wait, or would raise: what it is to take need not be in
        memory before."""
        while self._full and not (self._over or self.closing):
            await self._changed.park()

    async def _may_send(self) -> None:
        await trio.lowlevel.checkpoint()
        await self.wait_room()
        if self._over or self._abort is not None:
            raise AssociationAborted(
                AbortSource.SERVICE_PROVIDER,
                AbortReason.NOT_SPECIFIED,
                self._over or "the association is aborted",
            )
        if self._final:
            raise LocalProtocolError("nothing follows A-RELEASE-RP or A-ASSOCIATE-RJ")

    def _add(self, record: Record, compressible: bool) -> None:
        if self._builder.pending == 0:
            self._gathering_since = trio.current_time()
        if self._bulk:
            small = self._outbox.window.size <= BASE
            self._builder.aim(SMALL_TARGET if small else TARGET_SIZE)
        full = self._full_in_line(record) + self._builder.add(record, compressible=compressible)
        if full:
            self._full.extend(full)
            self._gathering_since = trio.current_time()
        self._complete = isinstance(record, PDV) and record.is_last

    def _full_in_line(self, record: Record) -> list[Chunk]:
        """What is gathered, where that fills a chunk in line, and `record` has no room in it.

        Half of one is no command that waits for its data set. Many small objects go better by the
        store, in chunks of the usual size.
        """
        gathered = self._builder.pending
        if self._bulk or not self._complete or not isinstance(record, PDV):
            return []
        beyond = gathered + records.PDV_OVERHEAD + len(record.fragment) > FULL_IN_LINE
        if not (beyond and FULL_IN_LINE // 2 <= gathered <= FULL_IN_LINE):
            return []
        if not self._has_credit_in_line((len(self._full) + 1) * MAXIMUM_IN_LINE):
            return []
        chunk = self._builder.cut()
        self._cut = False
        return [] if chunk is None else [chunk]

    def abort(self, atom: AAbort) -> None:
        """Seal `atom` next, as the final chunk; what is not sealed yet is dropped. Idempotent."""
        if self.closing:
            return
        self._abort = atom
        self._full.clear()
        self._builder = ChunkBuilder()
        self._held_back.cancel()
        self._changed.unpark_all()

    def end(self, cause: str) -> None:
        """The session is over: whoever waits to send is told."""
        self._over = self._over or cause
        self._changed.unpark_all()

    @property
    def closing(self) -> bool:
        """A final record has been given."""
        return self._final or self._abort is not None

    @property
    def begun(self) -> bool:
        """The peer has opened the first chunk."""
        return self._opened > 0

    @property
    def outstanding(self) -> bool:
        """Something waits for the peer to open it."""
        return len(self._outbox) > 0

    async def wait_final_opened(self) -> None:
        """Return when the peer has opened the final chunk."""
        while not (self._finished and not self.outstanding):
            await self._changed.park()

    # --- what the session learns -----------------------------------------------------------------

    def heard(self, flow: FlowProgress) -> None:
        """What the reading end says about this direction.

        Raises SessionEnded if it cannot be, or the same for too long.
        """
        # What is on its way to the store may have been read ahead of its announcement.
        if flow.opened > flow.received or flow.received > max(self._announced, self._outbox.begun):
            raise SessionEnded("the peer acknowledges chunks that it cannot have")
        # Counts only grow; messages of two connections may overtake one another.
        self._chunk_credit = max(self._chunk_credit, flow.chunk_credit)
        self._in_line_credit = max(self._in_line_credit, flow.in_line_credit)
        self._outbox.forget(flow.opened)
        self._opened = max(self._opened, flow.opened)
        self._received = max(self._received, flow.received)
        self._stall.see(self._announced, self._received)
        lost = self._outbox[self._received]
        if self._received < self._next_announcement and lost is not None:
            age = trio.current_time() - lost.announced
            if self._resuming or age > ANNOUNCEMENT_LOST:
                self._next_announcement = self._received
                self._retries += 1
        self._resuming = False
        self._changed.unpark_all()

    def reconnected(self) -> None:
        """The connection is there again: what was announced on the last one may be lost."""
        self._resuming = True
        self._changed.unpark_all()

    def progress(self) -> FlowProgress:
        """Where this end stands: what it announced, and what it has heard of the rest."""
        return FlowProgress(
            announced=self._announced,
            received=self._received,
            opened=self._opened,
            chunk_credit=self._chunk_credit,
            in_line_credit=self._in_line_credit,
        )

    def statistics(self) -> WriterStatistics:
        return WriterStatistics(
            chunks=self._sealed,
            sealed_bytes=self._sealed_bytes,
            in_line=self._chunks_in_line,
            unacknowledged=len(self._outbox),
            unacknowledged_bytes=self._outbox.bytes,
            retries=self._retries + self._outbox.failures,
        )

    # --- the work --------------------------------------------------------------------------------

    async def run(self, sealer: ChunkSealer) -> None:
        """Seal, store and announce until cancelled.

        Raises ProviderError or SignallingError when a chunk could not be stored for the resume
        window.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._outbox.run)
            nursery.start_soon(self._announce)
            await self._seal(sealer)

    async def _seal(self, sealer: ChunkSealer) -> None:
        while not self._finished:
            chunk = self._next_chunk()
            if chunk is None:
                with trio.move_on_at(self._due()):
                    await self._changed.park()
                continue
            size = len(chunk.head) + len(chunk.body)
            rate = self._outbox.window.line_rate or None
            if size < SEAL_IN_THREAD:
                sealed = sealer.seal(chunk)
            elif size < FEW_SEAL_IN_THREAD and FEW_PROCESSORS and rate and rate >= QUICK_LINE:
                sealed = sealer.seal(chunk, rate)
            else:
                # Not abandoned when cancelled: number and sealing are one step.
                sealed = await self._workers.run(partial(sealer.seal, chunk, rate))
            # No checkpoint from here on: a chunk that is sealed is also kept.
            in_line = self._goes_in_line(len(sealed), chunk.final)
            kept = self._outbox.keep(self._sealed, sealed, in_line=in_line)
            self._sealed += 1
            self._sealed_bytes += len(sealed)
            self._finished = chunk.final
            self._changed.unpark_all()
            await self._hold_back(len(sealed))
            self._outbox.send(kept)

    async def _hold_back(self, size: int) -> None:
        """Wait for the throttle, but not once there is a final record: what is before it is due.

        The peer opens a final chunk only behind all others, so none of them may hold it up.
        """
        if self._throttle is not None and not self.closing:
            with trio.CancelScope() as self._held_back:
                await self._throttle(size)

    def _next_chunk(self) -> Chunk | None:
        """What to seal now, if there is something and there is room for it."""
        if self._abort is not None:
            return Chunk(records.encode(self._abort), final=True)
        if self._full:
            return self._full.popleft() if self._has_room() else None
        if self._final:
            return self._builder.cut(final=True)
        now = trio.current_time()
        if now < self._due():
            return None
        self._cut = False
        self._last_cut = now
        return self._builder.cut()

    def _has_room(self) -> bool:
        return self._outbox.has_room and self._sealed < self._chunk_credit

    def _due(self) -> float:
        """When what there is goes though a chunk has room for more, by trio's clock; infinite:
        something has to change.

        A small one waits a little while others of its kind are on their way, and what is said
        meanwhile goes with it: the thousand answers to a query are some dozen chunks, not a
        thousand.
        """
        gathered = self._builder.pending
        many = self._sealed - self._opened >= MANY and gathered < WORTH_A_CHUNK
        if many or not (gathered and self._has_room()):
            return math.inf
        due = -math.inf if self._cut else self._gathering_since + FLUSH_AFTER
        if gathered > FULL_IN_LINE or self._outbox.in_line < IN_LINE_AT_ONCE:
            return due
        if not self._has_credit_in_line(gathered + OVERHEAD):
            return math.inf  # which comes as those are opened, and sooner than the store is there
        return max(due, self._last_cut + GATHERING)

    def _has_credit_in_line(self, size: int, reserve: int = FINAL_RESERVE) -> bool:
        return self._in_line_used + size + reserve <= self._in_line_credit

    def _goes_in_line(self, size: int, final: bool) -> bool:
        reserve = 0 if final else FINAL_RESERVE
        if size > MAXIMUM_IN_LINE or not self._has_credit_in_line(size, reserve):
            return False
        self._in_line_used += size
        self._chunks_in_line += 1
        return True

    async def _announce(self) -> None:
        while True:
            # What was read ahead needs no announcement. Received ends where a bundle does.
            self._next_announcement = max(self._next_announcement, self._received)
            made = self._outbox[self._next_announcement]
            if made is None or not made.stored:
                await self._changed.park()
                continue
            # Counted first: the peer may acknowledge it before this task runs again.
            self._next_announcement = made.end
            self._announced = max(self._announced, made.end)
            made.announced = trio.current_time()
            if not await self._transmit(self._announcement(made)):
                self._next_announcement = min(self._next_announcement, made.first)
                await self._changed.park()  # `reconnected` and each Progress wake it

    def _announcement(self, made: Bundle) -> SessionMessage:
        if made.slot is None:
            return InLine(self._session, made.first, made.chunks[0].sealed)
        return Announce(
            session=self._session,
            chunk=made.first,
            count=len(made.chunks),
            slot=made.slot.number,
            size=made.size,
            get=(),
            delete=(),
        )
