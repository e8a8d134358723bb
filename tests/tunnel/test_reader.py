"""The reader alone: what it takes, in what order, what it hands on, grants and acknowledges."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay.dicom.pdu import PDV, AAbort, AReleaseRP, AReleaseRQ, Atom, Buffer
from relay.errors import ChunkError, LocalProtocolError, SignallingError
from relay.signalling.messages import Announce, Direction, FlowProgress, InLine
from relay.tunnel import bundle, records
from relay.tunnel import reader as reader_module
from relay.tunnel.ahead import STREAM_AT_ONCE
from relay.tunnel.allowance import IN_LINE_WINDOW, Allowance, InLineAllowance
from relay.tunnel.chunks import TARGET_SIZE, Chunk
from relay.tunnel.compression import Compression, Compressor, Filter, Way
from relay.tunnel.inbox import MAXIMUM_DELETES, MOST_FETCHES
from relay.tunnel.reader import (
    CREDIT,
    MANY_CHUNKS,
    OPENED_AHEAD,
    OPENED_TOGETHER,
    CloudReader,
)
from relay.tunnel.records import MAXIMUM_NOTE, Note, Record
from relay.tunnel.seal import MAXIMUM_ABORT, ChunkOpener, ChunkSealer
from relay.workers import Workers
from tests.tunnel.fakes import BLOCK, Network, Store, plain

SESSION = bytes(16)
KEYS = bytes(32), bytes(32), Direction.CALLER_TO_CALLEE


def pdv(number: int) -> PDV:
    return PDV(1, True, True, b"%08d" % number)


@attrs.define
class Bench:
    """A reader, and a writer that announces what it is told to, in whatever order."""

    reader: CloudReader
    store: Store
    network: Network
    allowance: Allowance
    told: list[bool]
    sealer: ChunkSealer = attrs.field(factory=lambda: ChunkSealer(*KEYS))
    slots: int = 0

    def in_line(self, *atoms: Record, final: bool = False) -> InLine:
        number = self.sealer.number
        return InLine(SESSION, number, self.sealer.seal(chunk(atoms, final)))

    def stored(self, *atoms: Record, final: bool = False) -> Announce:
        return self.bundled(list(atoms), final=final)

    def bundled(self, *chunks: list[Record], final: bool = False) -> Announce:
        number, slot = self.sealer.number, self.slots
        self.slots += 1
        sealed = [self.sealer.seal(chunk(tuple(atoms), final)) for atoms in chunks]
        content = b"".join(bundle.join(sealed))
        direction = Direction.CALLER_TO_CALLEE
        get = self.network.sign("GET", SESSION, direction, slot)
        delete = self.network.sign("DELETE", SESSION, direction, slot)
        self.store.objects[get[1]] = content
        return Announce(SESSION, number, len(chunks), slot, len(content), (get,), (delete,))

    async def settle(self) -> None:
        await trio.sleep(0.2)


def chunk(atoms: tuple[Record, ...], final: bool) -> Chunk:
    return Chunk(b"".join(map(records.encode, atoms)), final=final)


@asynccontextmanager
async def bench(
    allowance: Allowance | None = None, *, opening: bool = True, bulk: bool = False
) -> AsyncIterator[Bench]:
    store, network, told = Store(), Network(), list[bool]()
    allowance = allowance or Allowance()
    reader = CloudReader(
        session=SESSION,
        request=network.callee.request,
        objects=store,
        allowance=allowance,
        resume_window=20,
        changed=told.append,
        bulk=bulk,
    )
    reader.progress()
    async with trio.open_nursery() as nursery:
        if opening:
            nursery.start_soon(reader.run, ChunkOpener(*KEYS))
        yield Bench(reader, store, network, allowance, told)
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "OPEN_IN_THREAD", math.inf)


async def test_in_line_and_stored_chunks_come_in_number_order(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.store.delay = 3
        for number in range(CREDIT):
            make = b.stored if number % 2 else b.in_line
            b.reader.announced(make(pdv(2 * number), pdv(2 * number + 1)))
        assert [plain(await b.reader.receive()) for _ in range(2 * CREDIT)] == [
            pdv(number) for number in range(2 * CREDIT)
        ]


async def test_notes_come_where_they_were_said(autojump_clock: MockClock) -> None:
    said = [Note(b"item"), pdv(1), Note(bytes(MAXIMUM_NOTE)), Note(b"result"), AReleaseRP()]
    async with bench() as b:
        b.reader.announced(b.stored(*said[:3]))
        b.reader.announced(b.in_line(*said[3:], final=True))
        assert [plain(await b.reader.receive()) for _ in said] == said
        assert b.reader.finished
        with pytest.raises(LocalProtocolError):
            await b.reader.receive()


async def test_an_abort_takes_the_place_of_notes_that_wait(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.reader.announced(b.in_line(Note(b"result")))
        b.reader.announced(b.in_line(Note(b"result"), AAbort(2, 0), final=True))
        await b.settle()
        assert await b.reader.receive() == AAbort(2, 0)


async def test_several_are_fetched_at_once(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.store.stalled = trio.Event()
        for number in range(MOST_FETCHES + 1):
            b.reader.announced(b.stored(pdv(number)))
        await b.settle()
        assert b.store.in_flight == MOST_FETCHES


async def test_duplicates_and_what_follows_a_gap_are_ignored(autojump_clock: MockClock) -> None:
    async with bench() as b:
        messages = [b.in_line(pdv(number)) for number in range(3)]
        for index in (0, 0, 2, 1, 0, 1, 2, 2):
            told = len(b.told)
            received = b.reader.progress().received
            b.reader.announced(messages[index])
            # The writer is told when it does not know.
            assert b.reader.progress().received > received or len(b.told) > told
            await b.settle()
        assert [plain(await b.reader.receive()) for _ in range(3)] == [pdv(n) for n in range(3)]


async def test_objects_are_deleted_once_opened(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.reader.announced(b.stored(pdv(0)))
        assert len(b.store.objects) == 1
        await b.settle()
        assert b.store.objects == {}


async def test_what_the_bridge_deletes_is_told_once_opened(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.reader.announced(attrs.evolve(b.bundled([pdv(0)], [pdv(1)]), delete=()))
        b.slots += 3  # there may be gaps
        b.reader.announced(b.in_line(pdv(2)))
        await b.settle()
        b.store.stalled = trio.Event()
        b.reader.announced(attrs.evolve(b.stored(pdv(3)), delete=()))
        await b.settle()
        assert (b.reader.slots, b.store.deletes) == (1, 0)
        b.store.stalled.set()
        await b.settle()
        assert (b.reader.slots, b.store.deletes) == (5, 0)
        assert [plain(await b.reader.receive()) for _ in range(4)] == [pdv(n) for n in range(4)]


async def test_a_slot_behind_its_turn_is_not_taken(autojump_clock: MockClock) -> None:
    """What lies there may have been deleted with the later one."""
    async with bench() as b:
        early, late = b.stored(pdv(0)), b.stored(pdv(1))
        b.reader.announced(attrs.evolve(early, slot=late.slot))
        with pytest.raises(ChunkError, match="slot 0 is used out of turn"):
            b.reader.announced(attrs.evolve(late, slot=early.slot))


async def test_a_delete_that_fails_hurts_nobody(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.store.refuse = lambda request: request.method == "DELETE"
        b.reader.announced(b.stored(pdv(0)))
        await b.settle()
        b.reader.announced(b.in_line(pdv(1)))
        assert [plain(await b.reader.receive()) for _ in range(2)] == [pdv(0), pdv(1)]


async def test_a_store_that_hangs_on_deletes_is_spared_the_rest(autojump_clock: MockClock) -> None:
    async with bench() as b:
        stalled = trio.Event()
        delete = b.store.delete

        async def hang(request: object) -> None:
            await stalled.wait()
            await delete(request)

        b.store.delete = hang
        for number in range(3 * MAXIMUM_DELETES):
            b.reader.announced(b.stored(pdv(number)))
            b.reader.progress()
            await b.reader.receive()
            await b.settle()
        assert b.reader._inbox._deleting == MAXIMUM_DELETES
        stalled.set()


async def test_credit_grows_as_chunks_are_consumed(autojump_clock: MockClock) -> None:
    async with bench() as b:
        assert b.reader.progress() == FlowProgress(0, 0, 0, CREDIT, IN_LINE_WINDOW)
        message = b.in_line(pdv(0), pdv(1))
        b.reader.announced(message)
        await b.settle()
        # Opened is acknowledged; consumed is not yet.
        assert b.reader.progress() == FlowProgress(0, 1, 1, CREDIT, IN_LINE_WINDOW)
        await b.reader.receive()
        await b.reader.receive()
        assert b.reader.progress().chunk_credit == CREDIT
        with trio.move_on_after(0.1):
            await b.reader.receive()
        size = len(message.sealed)
        assert b.reader.progress() == FlowProgress(0, 1, 1, CREDIT + 1, IN_LINE_WINDOW + size)


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("last", [False, True])
async def test_what_a_response_follows_is_told_in_no_hurry(
    autojump_clock: MockClock, last: bool, bulk: bool
) -> None:
    async with bench(bulk=bulk) as b:
        b.reader.announced(b.in_line(PDV(1, False, last, bytes(2))))
        await b.reader.receive()
        assert b.told == [last and not bulk]  # it is opened
        with trio.move_on_after(1):
            await b.reader.receive()
        assert b.told == 2 * [last and not bulk]  # and consumed


async def test_all_readers_share_one_allowance(autojump_clock: MockClock) -> None:
    allowance = Allowance(in_line=InLineAllowance(IN_LINE_WINDOW))
    async with bench(allowance) as first, bench(allowance) as second:
        assert first.reader.progress().in_line_credit == IN_LINE_WINDOW
        assert second.reader.progress().in_line_credit == 0
        first.reader.close()
        assert second.reader.progress().in_line_credit == IN_LINE_WINDOW


async def test_more_than_the_credit_is_refused(autojump_clock: MockClock) -> None:
    async with bench(opening=False) as b:
        for number in range(CREDIT):
            b.reader.announced(b.in_line(pdv(number)))
        beyond, further = b.in_line(pdv(0)), b.in_line(pdv(0))
        # It may be the final one: seen when it is opened.
        b.reader.announced(beyond)
        with pytest.raises(ChunkError, match="beyond"):
            b.reader.announced(further)


async def test_a_chunk_beyond_the_credit_must_be_final() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ChunkError, match="beyond"), flatten_subgroups=True):
        async with bench() as b:
            for number in range(CREDIT + 1):
                b.reader.announced(b.in_line(pdv(number)))
            await trio.sleep_forever()


async def test_more_in_line_than_granted_is_refused(autojump_clock: MockClock) -> None:
    async with bench(Allowance(in_line=InLineAllowance(0))) as b:
        with pytest.raises(ChunkError, match="in line"):
            b.reader.announced(b.in_line(pdv(0)))


async def test_what_no_chunk_can_be_is_refused(autojump_clock: MockClock) -> None:
    async with bench() as b:
        message = b.stored(pdv(0))
        with pytest.raises(ChunkError, match="announced"):
            b.reader.announced(attrs.evolve(message, size=bundle.MAXIMUM_BUNDLE + 1))
        with pytest.raises(ChunkError, match="announced"):
            b.reader.announced(attrs.evolve(message, count=0))
        with pytest.raises(SignallingError, match="without"):
            b.reader.announced(attrs.evolve(message, get=()))


async def test_a_bundle_is_opened_chunk_by_chunk(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.reader.announced(b.bundled([pdv(0)], [pdv(1), pdv(2)], [pdv(3)]))
        b.reader.announced(b.in_line(pdv(4)))
        assert [plain(await b.reader.receive()) for _ in range(5)] == [pdv(n) for n in range(5)]
        await b.settle()
        progress = b.reader.progress()
        assert (progress.received, progress.opened) == (4, 4)
        assert b.store.objects == {}
        assert (b.store.gets, b.store.deletes) == (1, 1)


async def test_more_is_asked_for_ahead_within_a_large_object(autojump_clock: MockClock) -> None:
    part, end = (PDV(1, False, last, bytes(100_000)) for last in (False, True))
    async with bench() as b:
        b.network.reads_ahead = True

        async def waiting_behind(pdv: PDV) -> int:
            b.reader.announced(b.stored(pdv))
            await b.reader.receive()
            await trio.sleep(1)
            return b.store.gets_ahead - (b.slots - b.store.gets)

        for number in range(1, 2 * MANY_CHUNKS):
            several = number >= MANY_CHUNKS
            assert await waiting_behind(part) == (STREAM_AT_ONCE if several else 1)
        # It is over: those that wait bring what comes next, and no more are asked for.
        left = [await waiting_behind(end) for _ in range(STREAM_AT_ONCE + 5)]
        assert left[0] in (STREAM_AT_ONCE - 1, STREAM_AT_ONCE)  # whoever runs first as it ends
        assert left == [max(1, left[0] - more) for more in range(STREAM_AT_ONCE + 5)]


async def test_small_chunks_of_a_bundle_are_opened_together(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops: list[int] = []
    open_all = reader_module._open_all

    def counted(opener: ChunkOpener, first: int, sealed: list[Buffer]) -> Any:
        hops.append(len(sealed))
        return open_all(opener, first, sealed)

    monkeypatch.setattr(reader_module, "_open_all", counted)
    block = PDV(1, False, True, bytes(OPENED_TOGETHER // 4))
    large = PDV(1, False, True, bytes(OPENED_TOGETHER + 2))
    async with bench() as b:
        b.reader.announced(b.bundled(*[[block]] * 4, [large], [block]))
        for expected in (block, block, block, block, large, block):
            assert plain(await b.reader.receive()) == expected
        assert hops == [3, 1, 1, 1]  # each takes some bytes more than its fragment


async def test_what_is_small_when_sealed_and_large_when_open_goes_to_a_thread(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops: list[int] = []

    async def run(workers: Workers, call: Callable[[], Any]) -> Any:
        hops.append(1)
        return call()

    monkeypatch.setattr(reader_module, "OPEN_IN_THREAD", 64 * 1024)
    monkeypatch.setattr(reader_module, "FEW_PROCESSORS", False)
    monkeypatch.setattr(Workers, "run", run)
    black = PDV(1, False, True, bytes(1024 * 1024))
    async with bench() as b:
        sealed = b.sealer.seal(Chunk(b"", records.encode(black)))
        assert len(sealed) < MAXIMUM_ABORT
        b.reader.announced(InLine(SESSION, 0, sealed))
        b.reader.announced(b.in_line(pdv(1)))
        assert [plain(await b.reader.receive()) for _ in range(2)] == [black, pdv(1)]
    assert hops == [1]


@pytest.mark.parametrize(
    ("size", "filter_", "expected"),
    [
        (1024 * 1024, Filter.NONE, []),
        (1024 * 1024, Filter.SHUFFLE, []),
        (1024 * 1024, Filter.DELTA, [1]),
        (reader_module.FEW_OPEN_IN_THREAD, Filter.NONE, [1]),
    ],
)
async def test_where_processors_are_few_a_thread_is_for_what_takes_long(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    filter_: Filter,
    expected: list[int],
) -> None:
    hops: list[int] = []

    async def run(workers: Workers, call: Callable[[], Any]) -> Any:
        hops.append(1)
        return call()

    def compress(
        compressor: Compressor, body: Buffer, rate: float | None = None
    ) -> tuple[Compression, Filter, Buffer]:
        return Compression.ZSTD, filter_, Way(filter_, 1).pack(body)

    monkeypatch.setattr(reader_module, "OPEN_IN_THREAD", 64 * 1024)
    monkeypatch.setattr(reader_module, "FEW_PROCESSORS", True)
    monkeypatch.setattr(Workers, "run", run)
    monkeypatch.setattr(Compressor, "compress", compress)
    black = PDV(1, False, True, bytes(size))
    async with bench() as b:
        b.reader.announced(InLine(SESSION, 0, b.sealer.seal(Chunk(b"", records.encode(black)))))
        assert plain(await b.reader.receive()) == black
    assert hops == expected


async def test_what_is_before_a_chunk_that_does_not_open_is_given(
    autojump_clock: MockClock,
) -> None:
    async with bench(opening=False) as b:
        message = b.bundled([pdv(0)], [pdv(1)], [pdv(2)], [pdv(3)])
        content = bytearray(b.store.objects[message.get[0][1]])
        content[len(content) // 2 + 40] ^= 1  # in the third
        b.store.objects[message.get[0][1]] = bytes(content)
        b.reader.announced(message)
        with pytest.RaisesGroup(
            pytest.RaisesExc(ChunkError, match="chunk 2 does not open"), flatten_subgroups=True
        ):
            await b.reader.run(ChunkOpener(*KEYS))
        assert [plain(await b.reader.receive()) for _ in range(2)] == [pdv(0), pdv(1)]
        assert b.reader.progress().opened == 2


async def test_what_is_behind_the_final_chunk_in_its_bundle_is_not_opened(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        ending = b.bundled([pdv(0)])
        b.sealer = ChunkSealer(*KEYS)
        first = b.sealer.seal(chunk((pdv(0),), False))
        last = b.sealer.seal(chunk((AReleaseRP(),), True))
        content = b"".join(bundle.join([first, last, first]))
        b.store.objects[ending.get[0][1]] = content
        b.reader.announced(attrs.evolve(ending, count=3, size=len(content)))
        assert plain(await b.reader.receive()) == pdv(0)
        assert plain(await b.reader.receive()) == AReleaseRP()


@pytest.mark.parametrize("last", [0, 1, 2])
async def test_a_bundle_beyond_the_credit_ends_in_the_final_chunk(
    autojump_clock: MockClock, last: int
) -> None:
    async with bench(opening=False) as b:
        for number in range(CREDIT - 1):
            b.reader.announced(b.in_line(pdv(number)))
        message = b.bundled(*[[pdv(0)]] * (last + 1))
        if last < 2:
            b.reader.announced(message)
        else:
            with pytest.raises(ChunkError, match="beyond"):
                b.reader.announced(message)


@pytest.mark.parametrize(
    "mangle",
    [
        lambda data: data[:-1] + bytes(1),
        lambda data: bytes(4) + data[4:],
        lambda data: b"\xff" * 4 + data[4:],
    ],
    ids=["its chunk", "empty", "too long"],
)
async def test_a_bundle_that_is_none_ends_the_session(mangle: Callable[[bytes], bytes]) -> None:
    with pytest.RaisesGroup(ChunkError, flatten_subgroups=True, allow_unwrapped=True):
        async with bench() as b:
            b.store.mangle = mangle
            b.reader.announced(b.bundled([pdv(0)], [pdv(1)]))
            await trio.sleep_forever()


async def test_no_more_is_opened_than_is_consumed(autojump_clock: MockClock) -> None:
    async with bench() as b:
        ahead = OPENED_AHEAD // TARGET_SIZE + 1  # the last of them goes beyond
        for _ in range(ahead + 2):
            b.reader.announced(b.stored(BLOCK))
        await b.settle()
        assert b.reader.progress().opened == ahead
        await b.reader.receive()
        with trio.move_on_after(0.1):
            for _ in range(2):
                await b.reader.receive()
        await b.settle()
        assert b.reader.progress().opened == ahead + 2


async def test_an_abort_behind_what_is_not_consumed_is_given_at_once(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        for _ in range(OPENED_AHEAD // TARGET_SIZE + 2):
            b.reader.announced(b.stored(BLOCK))
        await b.settle()
        b.reader.announced(b.in_line(AAbort(2, 6), final=True))
        await b.settle()
        assert b.reader.finished
        progress = b.reader.progress()
        assert progress.opened == progress.received
        assert await b.reader.receive() == AAbort(2, 6)


async def test_a_release_behind_what_is_not_consumed_waits_for_its_turn(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        count = OPENED_AHEAD // TARGET_SIZE + 2
        for _ in range(count):
            b.reader.announced(b.stored(BLOCK))
        b.reader.announced(b.in_line(AReleaseRP(), final=True))
        await b.settle()
        assert not b.reader.finished
        for _ in range(count):
            assert plain(await b.reader.receive()) == BLOCK
        assert await b.reader.receive() == AReleaseRP()


async def test_an_abort_is_given_at_once(autojump_clock: MockClock) -> None:
    async with bench() as b:
        for number in range(CREDIT):
            b.reader.announced(b.in_line(pdv(number)))
        b.reader.announced(b.in_line(AAbort(0, 0), final=True))
        await b.settle()
        assert b.reader.finished
        assert await b.reader.receive() == AAbort(0, 0)
        with pytest.raises(LocalProtocolError):
            await b.reader.receive()


async def test_a_release_is_given_in_its_turn(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.reader.announced(b.in_line(pdv(0), AReleaseRQ()))
        b.reader.announced(b.in_line(pdv(1), AReleaseRP(), final=True))
        await b.settle()
        got = [plain(await b.reader.receive()) for _ in range(4)]
        assert got == [pdv(0), AReleaseRQ(), pdv(1), AReleaseRP()]
        with pytest.raises(ChunkError, match="after the final"):
            b.reader.announced(InLine(SESSION, 2, b""))


@pytest.mark.parametrize(
    ("atoms", "final"),
    [
        ((AReleaseRP(),), False),
        ((AAbort(0, 0), pdv(0)), False),
        ((AReleaseRP(), pdv(0)), True),
        ((pdv(0),), True),
        ((AAbort(0, 0), AAbort(0, 0)), True),
    ],
)
async def test_final_record_and_final_chunk_go_together(
    atoms: tuple[Atom, ...], final: bool
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ChunkError, match="final"), flatten_subgroups=True):
        async with bench() as b:
            b.reader.announced(b.in_line(*atoms, final=final))
            await trio.sleep_forever()


async def test_a_chunk_that_does_not_open_hands_on_nothing() -> None:
    got: list[Atom] = []
    with pytest.RaisesGroup(ChunkError, flatten_subgroups=True):
        async with bench() as b:
            b.reader.announced(b.in_line(pdv(0)))
            message = b.in_line(pdv(1))
            sealed = bytearray(message.sealed)
            sealed[-1] ^= 1
            b.reader.announced(attrs.evolve(message, sealed=bytes(sealed)))
            while True:
                got.append(plain(await b.reader.receive()))
    assert got in ([], [pdv(0)])


async def test_a_get_is_signed_again_when_refused_or_old(autojump_clock: MockClock) -> None:
    async with bench() as b:
        refused = iter([True, True, False])
        b.store.refuse = lambda request: request.method == "GET" and next(refused)
        b.reader.announced(b.stored(pdv(0)))
        assert plain(await b.reader.receive()) == pdv(0)
        assert 2 <= b.network.callee.requests <= 3  # one may be for what comes next
        assert b.reader.statistics().retries == 2


async def test_an_object_may_be_seen_late(autojump_clock: MockClock) -> None:
    async with bench() as b:
        message = b.stored(pdv(0))
        url = message.get[0][1]
        sealed = b.store.objects.pop(url)
        b.reader.announced(message)
        await trio.sleep(5)
        b.store.objects[url] = sealed
        assert plain(await b.reader.receive()) == pdv(0)


async def test_what_is_read_ahead_waits_for_no_announcement(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.network.reads_ahead = True
        b.reader.announced(b.stored(pdv(0)))
        assert plain(await b.reader.receive()) == pdv(0)
        with trio.move_on_after(1):
            await b.reader.receive()
        later = b.stored(pdv(1), pdv(2))
        await b.settle()
        progress = b.reader.progress()
        assert (progress.received, progress.opened) == (2, 2)
        assert [plain(await b.reader.receive()) for _ in range(2)] == [pdv(1), pdv(2)]
        told = len(b.told)
        b.reader.announced(later)  # no news, and none that the writer would have to be told of
        assert len(b.told) == told
        await b.settle()
        assert b.store.objects == {}
        assert b.store.gets == 1


async def test_what_is_read_ahead_is_opened_in_its_turn(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.network.reads_ahead = True
        b.reader.announced(b.stored(pdv(0)))
        assert plain(await b.reader.receive()) == pdv(0)
        with trio.move_on_after(1):
            await b.reader.receive()
        in_line = b.in_line(pdv(1))
        late = b.stored(pdv(2))
        await b.settle()
        assert b.reader.progress().opened == 1
        b.reader.announced(in_line)
        await b.settle()
        progress = b.reader.progress()
        assert (progress.received, progress.opened) == (3, 3)
        assert [plain(await b.reader.receive()) for _ in range(2)] == [pdv(1), pdv(2)]
        b.reader.announced(late)


async def test_what_does_not_come_ahead_is_fetched_when_it_is_announced(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.network.reads_ahead = True
        b.reader.announced(b.stored(pdv(0)))
        assert plain(await b.reader.receive()) == pdv(0)
        with trio.move_on_after(5):
            await b.reader.receive()
        message = b.stored(pdv(1))
        url = message.get[0][1]
        content = b.store.objects.pop(url)  # announced, and the GET ahead does not see it
        b.reader.announced(message)
        await trio.sleep(20)
        b.store.objects[url] = content
        with trio.fail_after(5):
            assert plain(await b.reader.receive()) == pdv(1)
        assert b.store.gets == 2


@pytest.mark.parametrize("number", [0, 5, 2**40])
async def test_what_is_read_ahead_and_is_not_the_next_is_left_alone(
    autojump_clock: MockClock, number: int
) -> None:
    """A store may give anything: what is announced is fetched all the same."""
    async with bench() as b:
        b.network.reads_ahead = True
        b.reader.announced(b.stored(pdv(0)))
        assert plain(await b.reader.receive()) == pdv(0)
        with trio.move_on_after(1):
            await b.reader.receive()
        message = b.stored(pdv(1))
        url = message.get[0][1]
        content = b.store.objects[url]
        sealed = bytearray(content)
        sealed[20:28] = number.to_bytes(8, "big")  # behind the bundle's length: the chunk's number
        b.store.objects[url] = bytes(sealed)
        await b.settle()
        b.store.objects[url] = content
        b.reader.announced(message)
        with trio.fail_after(5):
            assert plain(await b.reader.receive()) == pdv(1)


async def test_nothing_is_asked_for_ahead_where_nothing_comes(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.network.reads_ahead = True
        await trio.sleep(100)
        assert b.network.callee.requests == b.store.gets_ahead == 0
        b.reader.announced(b.stored(pdv(0)))
        assert plain(await b.reader.receive()) == pdv(0)
        with trio.move_on_after(300):
            await b.reader.receive()
        assert b.store.gets_ahead == 1
        b.reader.announced(b.stored(pdv(1)))
        assert plain(await b.reader.receive()) == pdv(1)
        with trio.move_on_after(300):
            await b.reader.receive()
        assert b.store.gets_ahead == 2


async def test_what_is_outstanding(autojump_clock: MockClock) -> None:
    async with bench() as b:
        assert not b.reader.outstanding
        # Announced, and lost on the way.
        assert b.reader.heard(FlowProgress(announced=1))
        assert b.reader.outstanding
        b.reader.announced(b.in_line(pdv(0)))
        await b.settle()
        assert not b.reader.outstanding
        # Opened, and the peer has not heard of it.
        assert b.reader.heard(FlowProgress(announced=1))
        assert not b.reader.heard(FlowProgress(announced=1, received=1, opened=1))


async def test_ending_wakes_who_waits(autojump_clock: MockClock) -> None:
    async with bench() as b, trio.open_nursery() as nursery:
        got: list[Atom] = []

        async def wait() -> None:
            got.append(await b.reader.receive())

        nursery.start_soon(wait)
        await b.settle()
        b.reader.end(AAbort(2, 0))
        b.reader.end(AAbort(0, 0))
        await b.settle()
        assert got == [AAbort(2, 0)]
