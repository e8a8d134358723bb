"""The outbox alone: what goes together, how many PUTs there are, and what is kept."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.lowlevel import ParkingLot
from trio.testing import MockClock

from relay.errors import ProviderError
from relay.signalling.messages import MAXIMUM_BUNDLED, Direction
from relay.tunnel import bundle
from relay.tunnel.outbox import (
    BUNDLES_IN_FLIGHT,
    BUNDLES_IN_WINDOW,
    ENOUGH_BUNDLES,
    FEWEST_PUTS,
    GATHERING,
    MOST_PUTS,
    PUT_STEP,
    SMALLEST_BUNDLE,
    Outbox,
)
from relay.tunnel.slots import SlotSupply
from relay.tunnel.window import BASE, Budget
from tests.tunnel.fakes import Network, Store

SESSION = bytes(16)
SMALL, LARGE = bytes(1000), bytes(300_000)


@attrs.define
class Bench:
    """An outbox, and what was sealed."""

    outbox: Outbox
    store: Store
    network: Network
    sealed: int = 0

    def put(self, *contents: bytes, in_line: bool = False) -> None:
        for content in contents:
            self.outbox.send(self.outbox.keep(self.sealed, content, in_line=in_line))
            self.sealed += 1

    def stored(self) -> list[list[int]]:
        """How long the chunks of each object in the store are, by slot."""
        urls = [
            self.network.sign("PUT", SESSION, Direction.CALLER_TO_CALLEE, slot)[1]
            for slot in range(len(self.store.objects))
        ]
        return [[len(chunk) for chunk in bundle.split(self.store.objects[url])] for url in urls]


@asynccontextmanager
async def bench(*, bulk: bool = False) -> AsyncIterator[Bench]:
    store, network, changed = Store(), Network(), ParkingLot()
    outbox = Outbox(
        slots=SlotSupply(network.caller.request, SESSION, 20),
        objects=store,
        budget=Budget(),
        resume_window=20,
        changed=changed,
        bulk=bulk,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        yield Bench(outbox, store, network)
        nursery.cancel_scope.cancel()


async def learned(b: Bench, seconds: float) -> None:
    """Let it find out that a PUT takes so long."""
    b.store.delay, b.store.random.random = seconds, lambda: 1.0
    b.put(SMALL)
    await trio.sleep(1 + seconds)


async def test_what_waits_for_a_put_goes_together(autojump_clock: MockClock) -> None:
    async with bench() as b:
        await learned(b, 0.01)
        b.put(*[SMALL] * 10)
        await trio.sleep(1)
        stored = b.stored()
        assert sum(map(len, stored)) == 11
        assert len(stored) == 1 + 1  # all ten waited when the first of them could go
        b.put(SMALL)
        await trio.sleep(1)
        assert len(b.stored()) == 3


async def test_before_anything_is_stored_each_chunk_goes_by_itself(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.store.delay, b.store.random.random = 0.1, lambda: 1.0
        b.put(*[SMALL] * (MOST_PUTS + 3))
        await trio.sleep(0.05)
        assert b.store.in_flight == MOST_PUTS
        await trio.sleep(1)
        assert list(map(len, b.stored())) == [1] * MOST_PUTS + [3]


async def test_a_bundle_is_a_part_of_the_window(autojump_clock: MockClock) -> None:
    async with bench() as b:
        await learned(b, 0.01)
        b.put(*[LARGE] * 6)
        await trio.sleep(1)
        limit = BASE // BUNDLES_IN_WINDOW
        assert all(sum(sizes) <= limit for sizes in b.stored())
        assert sorted(map(len, b.stored())) == [1] * 7


async def test_the_first_window_goes_over_all_connections(autojump_clock: MockClock) -> None:
    async with bench(bulk=True) as b:
        await learned(b, 0.2)
        first = b.outbox.window.size
        count = first // len(LARGE)
        b.put(*[LARGE] * count)
        await trio.sleep(0.1)
        assert b.store.in_flight == MOST_PUTS
        await trio.sleep(2)
        together = first // MOST_PUTS // (bundle.OVERHEAD + len(LARGE))
        assert max(map(len, b.stored())) == together > 1


@pytest.mark.parametrize(
    ("rate", "largest"), [(1e6, SMALLEST_BUNDLE), (12.5e6, 0.2 * 12.5e6 / BUNDLES_IN_FLIGHT)]
)
async def test_on_a_narrow_line_none_of_many_bundles_is_large(
    autojump_clock: MockClock, rate: float, largest: float
) -> None:
    async with bench(bulk=True) as b:
        chunk = bytes(60_000)
        for number in range(400):  # opened as the line brings them, 200 ms behind
            b.put(chunk)
            await trio.sleep(len(chunk) / rate)
            b.outbox.forget(number - int(0.2 * rate / len(chunk)))
        b.store.stalled = trio.Event()
        await trio.sleep(1)
        before = len(b.stored())
        b.put(*[chunk] * 100)
        await trio.sleep(1)
        b.store.stalled.set()
        await trio.sleep(10)
        sizes = [sum(made) for made in b.stored()[before:]]
        assert largest / 2 < max(sizes) <= 1.2 * largest


async def test_on_a_slow_line_the_first_window_goes_in_bundles_that_no_request_is_given_up_for(
    autojump_clock: MockClock,
) -> None:
    async with bench(bulk=True) as b:
        await learned(b, 3.0)  # a chunk of 1,000 bytes
        b.put(*[bytes(60_000)] * 100)
        await trio.sleep(3.5)
        sizes = [sum(made) for made in b.stored()]
        assert (
            SMALLEST_BUNDLE / 2 < max(sizes) <= SMALLEST_BUNDLE < b.outbox.window.size / MOST_PUTS
        )


async def test_a_bundle_holds_so_many_chunks(autojump_clock: MockClock) -> None:
    async with bench() as b:
        await learned(b, 0.01)
        b.put(*[bytes(50)] * (MAXIMUM_BUNDLED + 5))
        await trio.sleep(1)
        assert sorted(map(len, b.stored())) == [1, 5, MAXIMUM_BUNDLED]


async def test_a_chunk_in_line_parts_what_is_before_it_from_what_follows(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        await learned(b, 0.01)
        b.put(SMALL, SMALL)
        b.put(SMALL, in_line=True)
        b.put(SMALL, SMALL)
        await trio.sleep(1)
        assert list(map(len, b.stored())) == [1, 2, 2]
        in_line = b.outbox[3]
        assert in_line is not None
        assert (in_line.first, in_line.end, in_line.slot, in_line.stored) == (3, 4, None, True)
        behind = b.outbox[4]
        assert behind is not None
        assert (behind.end, behind.size) == (6, 2 * (bundle.OVERHEAD + len(SMALL)))


async def test_where_enough_is_on_its_way_small_ones_wait_for_one_another(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        await learned(b, 0.001)
        b.outbox.forget(1)
        for _ in range(ENOUGH_BUNDLES + 3):
            b.put(SMALL)
            await trio.sleep(GATHERING / 4)
        assert list(map(len, b.stored())) == [1] + [1] * ENOUGH_BUNDLES
        await trio.sleep(GATHERING)  # and not for ever
        assert list(map(len, b.stored())) == [1] + [1] * ENOUGH_BUNDLES + [3]


async def test_what_waits_goes_at_once_where_it_is_a_bundle_or_nothing_is_on_its_way(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        await learned(b, 0.001)
        b.outbox.forget(1)
        for _ in range(ENOUGH_BUNDLES):
            b.put(SMALL)
            await trio.sleep(GATHERING / 4)
        b.put(LARGE, LARGE)
        await trio.sleep(GATHERING / 4)
        assert [len(LARGE)] in b.stored()
        b.outbox.forget(3)
        b.put(SMALL)
        await trio.sleep(GATHERING / 4)
        assert b.stored()[-1] == [len(LARGE), len(SMALL)]


@pytest.mark.parametrize(
    ("seconds", "puts"),
    [(0.001, FEWEST_PUTS), (2.5 * PUT_STEP, FEWEST_PUTS + 2), (10.0, MOST_PUTS)],
)
async def test_the_longer_a_put_takes_the_more_there_are(
    autojump_clock: MockClock, seconds: float, puts: int
) -> None:
    async with bench() as b:
        await learned(b, seconds)
        b.store.stalled = trio.Event()
        b.put(*[LARGE] * 20)
        await trio.sleep(0.5)
        assert b.store.in_flight == puts


async def test_what_is_opened_is_forgotten_bundle_by_bundle(autojump_clock: MockClock) -> None:
    async with bench() as b:
        await learned(b, 0.01)
        b.put(*[SMALL] * 4)
        b.put(SMALL, in_line=True)
        await trio.sleep(1)
        assert (len(b.outbox), b.outbox.bytes, b.outbox.in_line) == (6, 6 * len(SMALL), 1)
        b.outbox.forget(3)
        assert (len(b.outbox), b.outbox.bytes) == (3, 3 * len(SMALL))
        assert b.outbox[0] is None
        assert b.outbox[1] is not None  # some of it is not opened
        b.outbox.forget(6)
        assert (len(b.outbox), b.outbox.bytes, b.outbox.in_line) == (0, 0, 0)
        assert all(b.outbox[number] is None for number in range(6))


async def test_a_put_that_fails_is_made_again_with_the_same_bytes(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.store.failing = 0.7
        b.put(*[LARGE] * 5)
        await trio.sleep(30)
        assert sum(map(len, b.stored())) == 5
        assert b.outbox.failures > 0


async def test_a_store_that_stays_away_ends_it(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(ProviderError, flatten_subgroups=True, allow_unwrapped=True):
        async with bench() as b:
            b.store.failing = 1.0
            b.put(SMALL)
            await trio.sleep_forever()
