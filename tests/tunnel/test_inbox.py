"""The inbox alone: what is fetched, in which order, and how much of it at a time."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.lowlevel import ParkingLot
from trio.testing import MockClock

from relay.errors import ChunkError
from relay.signalling.messages import Announce, Direction, InLine
from relay.tunnel import bundle
from relay.tunnel.chunks import Chunk
from relay.tunnel.inbox import MOST_FETCHES, Inbox
from relay.tunnel.seal import ChunkSealer
from relay.tunnel.window import BASE, Budget, Window
from tests.tunnel.fakes import Network, Store

SESSION = bytes(16)


@attrs.define
class Bench:
    """An inbox whose chunks are opened when the test says so."""

    inbox: Inbox
    store: Store
    network: Network
    slots: int = 0

    def announce(self, *chunks: bytes) -> Announce:
        """These chunks are stored together, and announced next."""
        get, delete = (
            self.network.sign(method, SESSION, Direction.CALLER_TO_CALLEE, self.slots)
            for method in ("GET", "DELETE")
        )
        content = b"".join(bundle.join(chunks))
        self.store.objects[get[1]] = content
        message = Announce(
            SESSION,
            self.inbox.received,
            len(chunks),
            self.slots,
            len(content),
            (get,),
            (delete,),
        )
        self.slots += 1
        self.inbox.add(message)
        return message

    def open_next(self) -> bytes | None:
        """The next chunk, taken as opened; None if it is not here."""
        incoming = self.inbox.first()
        if incoming is None or not incoming.chunks:
            return None
        chunk = bytes(incoming.chunks.popleft())
        self.inbox.opened(incoming, len(chunk))
        return chunk


@asynccontextmanager
async def bench(
    *, bulk: bool = False, streams: trio.CapacityLimiter | None = None
) -> AsyncIterator[Bench]:
    store, network, changed = Store(), Network(int(bulk)), ParkingLot()
    inbox = Inbox(
        session=SESSION,
        request=network.callee.request,
        objects=store,
        budget=Budget(),
        resume_window=20,
        wanted=lambda: True,
        changed=changed,
        streams=streams or trio.CapacityLimiter(1),
        bulk=bulk,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.run)
        yield Bench(inbox, store, network)
        nursery.cancel_scope.cancel()


async def test_chunks_come_in_their_order_however_they_are_fetched(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.store.delay = 5
        for number in range(0, 30, 3):
            b.announce(b"%d" % number, b"%d" % (number + 1))
            b.inbox.add(InLine(SESSION, number + 2, b"%d" % (number + 2)))
        await trio.sleep(60)
        assert [b.open_next() for _ in range(31)] == [b"%d" % n for n in range(30)] + [None]
        assert not b.inbox


async def test_no_more_is_fetched_than_the_window_holds(autojump_clock: MockClock) -> None:
    async with bench() as b:
        size = BASE // 4
        for _ in range(8):
            b.announce(bytes(size))
        await trio.sleep(1)
        assert b.store.gets == 3  # each takes some bytes more than its chunk
        b.open_next()
        await trio.sleep(1)
        assert b.store.gets == 4


async def test_a_bundle_larger_than_the_window_is_fetched_alone(autojump_clock: MockClock) -> None:
    async with bench() as b:
        large = bytes(BASE // 2)
        b.announce(large, large, large)
        b.inbox.add(InLine(SESSION, 3, b"behind it"))
        b.announce(b"small")
        await trio.sleep(1)
        assert b.store.gets == 1
        assert [b.open_next() for _ in range(4)] == [large, large, large, b"behind it"]
        await trio.sleep(1)
        assert b.open_next() == b"small"


async def test_so_many_are_fetched_at_once(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.store.stalled = trio.Event()
        for _ in range(MOST_FETCHES + 3):
            b.announce(b"small")
        await trio.sleep(1)
        assert b.store.in_flight == MOST_FETCHES


async def test_the_last_chunk_is_seen_before_its_turn(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.store.stalled = trio.Event()
        b.announce(b"first")
        assert b.inbox.last_chunk() is None
        b.inbox.add(InLine(SESSION, 1, b"last"))
        assert b.inbox.last_chunk() == b"last"
        assert b.inbox.first() is None


@pytest.mark.parametrize(("count", "size"), [(0, 100), (1, bundle.MAXIMUM_BUNDLE + 1)])
async def test_what_no_bundle_can_be(autojump_clock: MockClock, count: int, size: int) -> None:
    async with bench() as b:
        message = b.announce(b"one")
        with pytest.raises(ChunkError, match="bundle of"):
            b.inbox.add(attrs.evolve(message, count=count, size=size))


async def test_in_bulk_it_reads_ahead_beyond_its_own(autojump_clock: MockClock) -> None:
    """A device that is slow for a moment is no reason to wait for announcements from then on."""
    size = BASE // 8
    sealer = ChunkSealer(bytes(32), bytes(32), Direction.CALLER_TO_CALLEE)
    first = Window(Budget(), bulk=True).size
    async with bench(bulk=True) as b:
        for slot in range(3 * first // size):
            url = b.network.sign("GET", SESSION, Direction.CALLER_TO_CALLEE, slot)[1]
            sealed = sealer.seal(Chunk(os.urandom(size)))
            b.store.objects[url] = b"".join(bundle.join([sealed]))
        await trio.sleep(1)
        # As far as the first window, and what is on its way by then.
        assert first // size <= b.inbox.received <= first // size + MOST_FETCHES
        assert b.store.gets == 0
        received = b.inbox.received
        for _ in range(received):
            assert b.open_next() is not None
        await trio.sleep(1)
        assert b.inbox.received > received


async def test_only_so_many_flows_read_far_ahead(autojump_clock: MockClock) -> None:
    """Each may have some MiB more in memory."""
    places = trio.CapacityLimiter(1)
    async with bench(streams=places) as a, bench(streams=places) as b:
        a.inbox.stream(True)
        a.inbox.stream(True)
        b.inbox.stream(True)
        assert [one.inbox._ahead.streams for one in (a, b)] == [True, False]
        a.inbox.stream(False)
        b.inbox.stream(True)
        assert [one.inbox._ahead.streams for one in (a, b)] == [False, True]
        b.inbox.close()
        a.inbox.stream(True)
        assert places.borrowed_tokens == 1
        assert a.inbox._ahead.streams
