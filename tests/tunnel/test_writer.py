"""The writer alone: when it cuts, what goes in line, what is announced, kept and said again."""

import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.lowlevel import ParkingLot
from trio.testing import MockClock

from relay.dicom.pdu import PDV, AAbort, AAssociateAC, AReleaseRP, AReleaseRQ
from relay.errors import AssociationAborted, LocalProtocolError, SessionEnded
from relay.signalling.messages import (
    MAXIMUM_IN_LINE,
    Announce,
    Direction,
    FlowProgress,
    InLine,
    SessionMessage,
)
from relay.tunnel import bundle, records
from relay.tunnel import writer as writer_module
from relay.tunnel.chunks import TARGET_SIZE
from relay.tunnel.compression import WHOLE_BELOW
from relay.tunnel.outbox import MOST_PUTS, Outbox
from relay.tunnel.records import Note, Record
from relay.tunnel.seal import OVERHEAD, ChunkOpener, ChunkSealer
from relay.tunnel.slots import SlotSupply
from relay.tunnel.window import BASE, Budget, Window
from relay.tunnel.writer import (
    FINAL_RESERVE,
    FLUSH_AFTER,
    FULL_IN_LINE,
    GATHERING,
    IN_LINE_AT_ONCE,
    MANY,
    QUICK_LINE,
    SMALL_TARGET,
    WORTH_A_CHUNK,
    CloudWriter,
    Throttle,
)
from relay.workers import Workers
from tests.tunnel.fakes import BLOCK, Network, Store, merged

SESSION = bytes(16)
KEYS = bytes(32), bytes(32), Direction.CALLER_TO_CALLEE
# Full chunks in a window that has not grown.
IN_WINDOW = BASE // TARGET_SIZE
SMALL = PDV(1, True, True, b"command")
NOTE = Note(b"note")


@attrs.define
class Bench:
    """A writer, and a peer that reads what it is told to."""

    writer: CloudWriter
    store: Store
    sent: list[SessionMessage]
    opener: ChunkOpener = attrs.field(factory=lambda: ChunkOpener(*KEYS))
    connected: bool = True

    async def settle(self) -> None:
        await trio.sleep(0.2)

    def grant(self, opened: int = 0, chunks: int = 100, in_line: int = 65536, **other: int) -> None:
        self.writer.heard(
            FlowProgress(
                received=other.get("received", opened),
                opened=opened,
                chunk_credit=chunks,
                in_line_credit=in_line,
            )
        )

    async def opened(self) -> list[Record]:
        """The records of what was announced, each chunk once and in order."""
        atoms: list[Record] = []
        for message in self.sent:
            if message.chunk == self.opener.number:
                if isinstance(message, InLine):
                    sealed = message.sealed
                else:
                    url = f"https://store.example/{SESSION.hex()}/0/{message.slot}"
                    content = self.store.objects[url]
                    assert len(content) == message.size
                    for sealed in bundle.split(content, message.count):
                        atoms += self.opener.open(sealed, self.opener.number).records()
                    continue
                atoms += self.opener.open(sealed, message.chunk).records()
        return merged(atoms)

    @property
    def numbers(self) -> list[int]:
        return [message.chunk for message in self.sent]


@asynccontextmanager
async def bench(
    throttle: Throttle | None = None, *, budget: Budget | None = None, bulk: bool = False
) -> AsyncIterator[Bench]:
    store, network = Store(), Network()
    sent: list[SessionMessage] = []

    async def transmit(message: SessionMessage) -> bool:
        await trio.lowlevel.checkpoint()
        if bench.connected:
            sent.append(message)
        return bench.connected

    changed = ParkingLot()
    outbox = Outbox(
        slots=SlotSupply(network.caller.request, SESSION, 20),
        objects=store,
        budget=budget or Budget(),
        resume_window=20,
        changed=changed,
    )
    writer = CloudWriter(
        session=SESSION,
        transmit=transmit,
        outbox=outbox,
        workers=Workers(1),
        changed=changed,
        resume_window=20,
        throttle=throttle,
        bulk=bulk,
    )
    bench = Bench(writer, store, sent)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, ChunkSealer(*KEYS))
        yield bench
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "SEAL_IN_THREAD", math.inf)


async def test_nothing_is_sealed_without_credit(autojump_clock: MockClock) -> None:
    async with bench() as b:
        await b.writer.send(SMALL)
        await b.settle()
        assert b.sent == []
        assert b.writer.statistics().chunks == 0
        b.grant()
        await b.settle()
        assert await b.opened() == [SMALL]


async def test_small_chunks_go_in_line_and_large_ones_by_the_store(
    autojump_clock: MockClock,
) -> None:
    fits = PDV(1, False, True, bytes(16 * 1024 - 64))
    too_large = PDV(1, False, True, bytes(MAXIMUM_IN_LINE))
    async with bench() as b:
        b.grant()
        for atom in (SMALL, too_large, fits, BLOCK):
            await b.writer.send(atom)
            await b.settle()
        assert [type(m) for m in b.sent] == [InLine, Announce, InLine, Announce]
        assert [m.slot for m in b.sent if isinstance(m, Announce)] == [0, 1]
        assert all(len(m.sealed) <= MAXIMUM_IN_LINE for m in b.sent if isinstance(m, InLine))
        assert b.numbers == [0, 1, 2, 3]
        assert await b.opened() == [SMALL, too_large, fits, BLOCK]


async def test_a_small_chunk_does_not_overtake_one_that_is_being_stored(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.grant()
        b.store.stalled = trio.Event()
        await b.writer.send(BLOCK)
        await b.settle()
        await b.writer.send(SMALL)
        await b.settle()
        assert b.writer.statistics().chunks == 2
        assert b.sent == []
        b.store.stalled.set()
        await b.settle()
        assert b.numbers == [0, 1]


async def test_chunks_stored_out_of_order_are_announced_in_order(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.grant()
        b.store.delay = 5
        for _ in range(IN_WINDOW):
            await b.writer.send(BLOCK)
        await trio.sleep(10)
        assert b.numbers == list(range(IN_WINDOW))


@pytest.mark.parametrize(
    ("atoms", "chunks"),
    [
        ([(SMALL, True)], 1),
        ([(SMALL, False), (PDV(1, False, True, b"data"), True)], 1),
        ([(AAssociateAC("A", "B", ()), False)], 1),
        ([(SMALL, False)], 0),
        ([(PDV(1, False, False, b"part"), True)], 0),
        ([(NOTE, True)], 1),
        ([(NOTE, False)], 0),
        ([(NOTE, False), (SMALL, False), (PDV(1, False, True, b"data"), True)], 1),
        ([(AReleaseRQ(), False)], 1),
    ],
)
async def test_when_a_chunk_is_cut(
    autojump_clock: MockClock, atoms: list[tuple[Record, bool]], chunks: int
) -> None:
    async with bench() as b:
        b.grant()
        for atom, end in atoms:
            await b.writer.send(atom, end_of_message=end)
        await b.settle()
        assert b.numbers == list(range(chunks))


async def test_a_message_that_stops_is_flushed_after_a_second(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.grant()
        start = trio.current_time()
        for number in range(15):  # a trickle does not put it off
            await b.writer.send(PDV(1, False, False, b"%d " % (number % 10)))
            await trio.sleep(0.1)
        assert b.numbers == [0]
        assert trio.current_time() - start == pytest.approx(1.5)


async def test_a_note_that_nothing_follows_is_flushed_after_a_second(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.grant()
        await b.writer.send(NOTE, end_of_message=False)
        await trio.sleep(FLUSH_AFTER - 0.1)
        assert b.sent == []
        await trio.sleep(0.2)
        assert await b.opened() == [NOTE]


async def test_a_stream_of_small_messages_is_gathered(autojump_clock: MockClock) -> None:
    """Beyond a few that are on their way one goes each 5 ms, without waiting for them."""
    async with bench() as b:
        b.grant()
        for _ in range(IN_LINE_AT_ONCE):
            await b.writer.send(SMALL)
            await trio.sleep(0.001)
        assert len(b.sent) == IN_LINE_AT_ONCE
        began = trio.current_time()
        for _ in range(3):
            await b.writer.send(SMALL)
            await trio.testing.wait_all_tasks_blocked()
        assert len(b.sent) == IN_LINE_AT_ONCE
        with trio.fail_after(1):
            while len(b.sent) == IN_LINE_AT_ONCE:
                await trio.sleep(0.001)
        assert trio.current_time() - began < GATHERING + 0.001
        await b.settle()
        assert len(b.sent) == IN_LINE_AT_ONCE + 1
        assert len(await b.opened()) == IN_LINE_AT_ONCE + 3


async def test_without_credit_a_stream_waits_for_it(autojump_clock: MockClock) -> None:
    """What is small and goes on waits for what is in line to be opened, not for the store."""
    sealed = len(SMALL.fragment) + records.PDV_OVERHEAD + OVERHEAD
    credit = IN_LINE_AT_ONCE * sealed + FINAL_RESERVE
    async with bench() as b:
        b.grant(in_line=credit)
        for _ in range(IN_LINE_AT_ONCE + 1):
            await b.writer.send(SMALL)
            await b.settle()
        assert b.numbers == list(range(IN_LINE_AT_ONCE))
        b.grant(opened=1, in_line=credit + sealed)
        await b.settle()
        assert b.numbers == list(range(IN_LINE_AT_ONCE + 1))
        assert not b.store.objects


def _answers(count: int) -> list[PDV]:
    """Responses with an identifier each, as of a query."""
    return [
        PDV(1, is_command, True, bytes(90)) for _ in range(count) for is_command in (True, False)
    ]


async def test_the_answers_to_a_query_fill_chunks_in_line(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.grant(in_line=256 * 1024)
        for _ in range(4):
            await b.writer.send_all(_answers(150))
        await b.settle()
        sizes = [len(message.sealed) for message in b.sent if isinstance(message, InLine)]
        assert len(sizes) == len(b.sent)
        assert not b.store.objects
        assert sum(size > FULL_IN_LINE - 200 for size in sizes) == 5
        assert await b.opened() == _answers(600)


async def test_beyond_the_credit_they_go_by_the_store(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.grant(in_line=40 * 1024)
        await b.writer.send_all(_answers(600))
        await b.settle()
        assert sum(isinstance(message, InLine) for message in b.sent) == 2
        assert isinstance(b.sent[-1], Announce)
        assert await b.opened() == _answers(600)


@pytest.mark.parametrize("size", [20_000, 500_000])
async def test_an_object_is_not_parted_for_the_line(size: int, autojump_clock: MockClock) -> None:
    """Nor from its command, nor from what was said before it."""
    pdvs = [*_answers(20), PDV(3, True, True, bytes(150)), PDV(3, False, True, bytes(size))]
    async with bench() as b:
        b.grant(in_line=256 * 1024)
        await b.writer.send_all(pdvs)
        await b.settle()
        assert len(b.sent) == 1


async def test_many_small_objects_go_by_the_store(autojump_clock: MockClock) -> None:
    async with bench(bulk=True) as b:
        b.grant(in_line=256 * 1024)
        await b.writer.send_all([PDV(1, False, True, bytes(6000)) for _ in range(10)])
        await b.settle()
        assert [type(message) for message in b.sent] == [Announce]


async def test_it_blocks_when_the_window_is_full(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.grant()
        with trio.move_on_after(5):
            for sent in range(100):  # noqa: B007
                await b.writer.send(BLOCK)
        # In the window, one that is cut, and nothing beside it.
        assert sent == IN_WINDOW + 1
        assert b.numbers == list(range(IN_WINDOW))
        assert b.writer.statistics().unacknowledged == IN_WINDOW
        assert b.writer.statistics().unacknowledged_bytes < IN_WINDOW * (TARGET_SIZE + 100)
        b.grant(opened=2, received=IN_WINDOW)
        await b.settle()
        assert b.numbers == list(range(IN_WINDOW + 1))


async def test_in_line_credit_counts_sealed_bytes_and_keeps_a_reserve(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.grant(in_line=1000)
        for _ in range(8):
            await b.writer.send(PDV(1, True, True, bytes(200)))
            await b.settle()
            b.grant(opened=len(b.sent), in_line=1000)
        used = sum(len(m.sealed) for m in b.sent if isinstance(m, InLine))
        assert used <= 1000 - FINAL_RESERVE
        assert [type(m) for m in b.sent[:3]] == [InLine] * 3
        assert isinstance(b.sent[-1], Announce)
        b.writer.abort(AAbort(0, 0))
        await b.settle()
        assert isinstance(b.sent[-1], InLine)


async def test_an_abort_drops_what_is_not_sealed_and_needs_no_credit(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.grant(chunks=1)
        await b.writer.send(SMALL)
        await b.settle()
        await b.writer.send(SMALL)
        await b.writer.send(BLOCK)
        b.writer.abort(AAbort(2, 6))
        b.writer.abort(AAbort(0, 0))
        await b.settle()
        assert await b.opened() == [SMALL, AAbort(2, 6)]
        assert b.opener.finished
        with pytest.raises(AssociationAborted):
            await b.writer.send(SMALL)


async def test_a_release_goes_behind_what_was_sent_and_ends_the_flow(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.grant(chunks=1)
        await b.writer.send(SMALL)
        await b.settle()
        await b.writer.send(SMALL)
        await b.writer.send(AReleaseRP())
        await b.settle()
        assert await b.opened() == [SMALL, SMALL, AReleaseRP()]
        with pytest.raises(LocalProtocolError):
            await b.writer.send(SMALL)
        with trio.move_on_after(1) as scope:
            await b.writer.wait_final_opened()
        assert scope.cancelled_caught
        b.grant(opened=2)
        with trio.fail_after(1):
            await b.writer.wait_final_opened()


async def test_a_release_is_ordered_behind_the_notes(autojump_clock: MockClock) -> None:
    """Also behind those that still wait for the window."""
    async with bench() as b:
        b.grant(chunks=1)
        for _ in range(3):
            await b.writer.send(NOTE)
            await b.settle()
        await b.writer.send(NOTE, end_of_message=False)
        await b.writer.send(AReleaseRP())
        await b.settle()
        assert b.numbers == [0, 1]
        assert await b.opened() == [NOTE] * 4 + [AReleaseRP()]
        assert b.opener.finished
        with pytest.raises(LocalProtocolError):
            await b.writer.send(NOTE)


async def test_an_abort_drops_notes_that_are_not_sealed(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.grant(chunks=1)
        for _ in range(2):
            await b.writer.send(NOTE)
            await b.settle()
        b.writer.abort(AAbort(2, 0))
        await b.settle()
        assert await b.opened() == [NOTE, AAbort(2, 0)]


async def test_who_waits_to_send_is_told_when_the_session_ends(autojump_clock: MockClock) -> None:
    async with bench() as b, trio.open_nursery() as nursery:

        async def send() -> None:
            await b.writer.send(BLOCK)
            with pytest.raises(AssociationAborted, match="revoked"):
                await b.writer.send(BLOCK)

        nursery.start_soon(send)
        await b.settle()
        b.writer.end("revoked")


async def test_acknowledged_chunks_are_forgotten_and_others_kept(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.grant()
        for _ in range(3):
            await b.writer.send(SMALL)
            await b.settle()
        b.grant(opened=2, received=3)
        assert b.writer.statistics().unacknowledged == 1
        assert b.writer.outstanding
        b.grant(opened=1, received=1)  # old news
        b.grant(opened=3)
        assert not b.writer.outstanding


async def test_what_a_cut_lost_is_announced_again(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.grant()
        for atom in (SMALL, BLOCK, SMALL):
            await b.writer.send(atom)
            await b.settle()
        first = list(b.sent)
        b.grant(opened=1, received=2)  # said before the cut: the third is on its way
        await b.settle()
        assert b.sent == first
        b.writer.reconnected()
        b.grant(opened=1, received=1)  # old, from the peer that saw no cut
        b.grant(opened=1, received=2)
        await b.settle()
        assert b.sent == [*first, first[2]]


async def test_the_peers_cut_shows_by_what_it_lacks_for_long(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.grant()
        await b.writer.send(SMALL)
        await b.settle()
        b.grant()
        await b.settle()
        assert b.numbers == [0]
        await trio.sleep(2)
        b.grant()
        await b.settle()
        assert b.numbers == [0, 0]
        assert b.sent[0] == b.sent[1]


async def test_without_a_connection_announcements_wait(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.grant()
        b.connected = False
        for atom in (SMALL, BLOCK):
            await b.writer.send(atom)
            await b.settle()
        assert b.sent == []
        b.connected = True
        b.writer.reconnected()
        await b.settle()
        assert b.numbers == [0, 1]


@pytest.mark.parametrize(("received", "opened"), [(2, 0), (0, 1), (2, 2), (1, 2)])
async def test_progress_that_cannot_be_ends_the_session(
    autojump_clock: MockClock, received: int, opened: int
) -> None:
    async with bench() as b:
        b.grant()
        await b.writer.send(SMALL)
        await b.settle()
        with pytest.raises(SessionEnded):
            b.grant(opened=opened, received=received)


async def test_what_is_on_its_way_to_the_store_may_have_been_read(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.grant()
        b.store.stalled = trio.Event()
        await b.writer.send(BLOCK)
        await b.settle()
        b.grant(opened=1)  # before the store has answered
        assert not b.writer.outstanding
        await b.writer.send(SMALL)
        await b.settle()
        assert b.numbers == [1]
        b.store.stalled.set()
        await b.settle()
        assert b.numbers == [1]


async def test_what_waits_for_a_put_cannot_have_been_read(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.grant()
        b.store.stalled = trio.Event()
        for _ in range(MOST_PUTS + 2):
            await b.writer.send(PDV(1, False, True, bytes(MAXIMUM_IN_LINE)))
            await trio.sleep(0.1)
        assert b.store.in_flight == MOST_PUTS
        b.grant(opened=MOST_PUTS)
        with pytest.raises(SessionEnded, match="cannot have"):
            b.grant(opened=MOST_PUTS + 1)


async def test_what_is_behind_a_bundle_that_is_partly_opened_is_announced(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.grant()
        b.store.delay, b.store.random.random = 0.01, lambda: 1.0
        await b.writer.send(BLOCK)
        await b.settle()
        b.grant(opened=1)
        b.store.stalled = trio.Event()
        for _ in range(6):  # two PUTs, and what waits behind them
            await b.writer.send(PDV(1, False, True, bytes(MAXIMUM_IN_LINE)))
            await trio.sleep(0.1)
        b.store.stalled.set()
        b.store.stalled = None
        b.connected = False
        await b.settle()
        # All of it was read ahead, and of the last bundle one chunk is opened.
        b.grant(opened=4, received=7)
        b.connected = True
        b.writer.reconnected()
        b.writer.abort(AAbort(2, 0))
        await b.settle()
        assert b.numbers[-1] == 7


async def test_progress_says_what_was_announced_and_heard(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.grant(chunks=7, in_line=1000)
        await b.writer.send(SMALL)
        await b.settle()
        b.grant(opened=0, received=1, chunks=7, in_line=1000)
        assert b.writer.progress() == FlowProgress(1, 1, 0, 7, 1000)


# --- the throttle --------------------------------------------------------------------------------


class Gate:
    """A throttle that lets each chunk pass when it is told to."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.cancelled = 0
        self._pass = trio.Semaphore(0)

    async def __call__(self, size: int) -> None:
        self.asked.append(size)
        try:
            await self._pass.acquire()
        except trio.Cancelled:
            self.cancelled += 1
            raise

    def open(self) -> None:
        self._pass.release()


async def test_each_chunk_waits_for_the_throttle_in_order(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with bench(gate) as b:
        b.grant()
        for number, record in enumerate((BLOCK, SMALL, BLOCK)):
            await b.writer.send(record)
            await trio.sleep(100)
            # Neither put nor in line, and so not announced.
            assert len(gate.asked) == number + 1
            assert b.store.puts == (number + 1) // 2
            assert b.numbers == list(range(number))
            gate.open()
            await b.settle()
        assert [type(message) for message in b.sent] == [Announce, InLine, Announce]
        sizes = [
            len(m.sealed) if isinstance(m, InLine) else m.size - bundle.OVERHEAD for m in b.sent
        ]
        assert gate.asked == sizes
        assert [m.slot for m in b.sent if isinstance(m, Announce)] == [0, 1]
        assert await b.opened() == [BLOCK, SMALL, BLOCK]


async def test_room_is_there_once_what_is_cut_is_sealed(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with bench(gate) as b:
        b.grant()
        await b.writer.wait_room()
        for _ in range(2):
            await b.settle()
            await b.writer.send(BLOCK)
        with trio.move_on_after(100) as scope:
            await b.writer.wait_room()
        assert scope.cancelled_caught
        gate.open()
        with trio.fail_after(10):
            await b.writer.wait_room()
            await b.writer.send(BLOCK)
        b.writer.end("over")
        with trio.fail_after(10):
            await b.writer.wait_room()


async def test_who_sends_waits_for_the_throttle(autojump_clock: MockClock) -> None:
    async with bench(Gate()) as b:
        b.grant()
        with trio.move_on_after(100):
            for sent in range(100):  # noqa: B007
                await b.writer.send(BLOCK)
        # One waits for the throttle, one is cut.
        assert sent == 2
        assert b.writer.statistics().unacknowledged == 1


async def test_an_abort_is_not_held_back(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with bench(gate) as b:
        b.grant()
        for _ in range(3):
            with trio.move_on_after(1):
                await b.writer.send(BLOCK)
        assert b.sent == []
        b.writer.abort(AAbort(2, 6))
        await b.settle()
        # What is sealed goes in front of it: the peer could not open it else. Nothing more does.
        assert await b.opened() == [BLOCK, AAbort(2, 6)]
        assert (len(gate.asked), gate.cancelled) == (1, 1)


async def test_neither_a_release_nor_what_is_in_front_of_it_is_held_back(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    async with bench(gate) as b:
        b.grant()
        for _ in range(3):
            await b.writer.send(NOTE)
            await b.settle()
        await b.writer.send(AReleaseRP())
        await b.settle()
        assert await b.opened() == [NOTE] * 3 + [AReleaseRP()]
        assert b.opener.finished
        assert (len(gate.asked), gate.cancelled) == (1, 1)


async def test_the_final_chunk_is_not_asked_for(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with bench(gate) as b:
        b.grant()
        await b.writer.send(AReleaseRP())
        await b.settle()
        assert await b.opened() == [AReleaseRP()]
        assert gate.asked == []


async def test_small_objects_share_a_chunk_where_many_are_on_their_way(
    autojump_clock: MockClock,
) -> None:
    """Each would else have a chunk of its own, as far as the credit goes."""
    quarter = PDV(1, False, True, bytes(WORTH_A_CHUNK // 4))
    async with bench(bulk=True) as b:
        b.grant(chunks=4 * MANY, in_line=0)
        for _ in range(MANY + 20):
            await b.writer.send(quarter)
            await b.settle()
        assert b.writer.statistics().chunks == MANY + 20 // 4
        await b.writer.send(PDV(1, False, True, bytes(WORTH_A_CHUNK)), compressible=True)
        await b.settle()
        before = b.writer.statistics().chunks
        assert before == MANY + 20 // 4 + 1
        await b.writer.send(quarter)
        await b.settle()
        assert b.writer.statistics().chunks == before
        b.grant(opened=before - MANY + 1, chunks=4 * MANY, in_line=0)
        await b.settle()
        assert b.writer.statistics().chunks == before + 1


@pytest.mark.parametrize("bulk", [True, False])
async def test_where_a_flow_has_only_its_own_window_many_objects_go_in_small_chunks(
    autojump_clock: MockClock, bulk: bool
) -> None:
    async with bench(bulk=bulk) as b:
        b.grant(chunks=1000)
        assert b.writer._outbox.window.size == BASE
        for _ in range(8):
            await b.writer.send(PDV(1, False, False, os.urandom(SMALL_TARGET)))
            await b.settle()
        sealed = [len(chunk.sealed) for chunk in b.writer._outbox._unopened]
        assert (max(sealed) <= SMALL_TARGET + 1024) is bulk


@pytest.mark.parametrize(
    ("few", "rate", "expected"),
    [(True, 50e6, 0), (True, 10e6, 1), (True, 0.0, 1), (False, 50e6, 1)],
)
async def test_where_processors_are_few_a_thread_is_for_slow_links(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    few: bool,
    rate: float,
    expected: int,
) -> None:
    hops = []

    async def run(workers: Workers, call: Callable[[], Any]) -> Any:
        hops.append(1)
        return call()

    monkeypatch.setattr(writer_module, "SEAL_IN_THREAD", 64 * 1024)
    monkeypatch.setattr(writer_module, "FEW_PROCESSORS", few)
    monkeypatch.setattr(Window, "line_rate", rate)
    monkeypatch.setattr(Workers, "run", run)
    async with bench() as b:
        b.grant()
        await b.writer.send(BLOCK)
        await b.settle()
        assert await b.opened() == [BLOCK]
    assert len(hops) == expected


def test_where_bodies_are_tried_whole_a_thread_seals_them() -> None:
    assert WHOLE_BELOW <= QUICK_LINE
