"""Reading ahead alone: what is asked for, when, and what becomes of it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.lowlevel import ParkingLot
from trio.testing import MockClock

from relay.errors import ProviderError
from relay.signalling.messages import MAXIMUM_SLOTS, Direction, Message
from relay.tunnel.ahead import OVERDUE, REFUSED_PAUSE, STREAM_AT_ONCE, ReadAhead
from relay.tunnel.slots import GET_FRESH, StoredBundle
from tests.tunnel.fakes import Network, Store

SESSION = bytes(16)


@attrs.define
class Bench:
    """Reads ahead for a reader that notes what it is given."""

    store: Store
    network: Network
    ahead: ReadAhead = attrs.field(init=False)
    changed: ParkingLot = attrs.field(factory=ParkingLot)
    may: bool = True
    came: list[tuple[int, bytes]] = attrs.field(factory=list)
    missed: list[int] = attrs.field(factory=list)

    def announced(self, slot: int) -> None:
        self.ahead.announced(slot)
        self.changed.unpark_all()

    def put(self, slot: int, content: bytes) -> None:
        url = self.network.sign("GET", SESSION, Direction.CALLER_TO_CALLEE, slot)[1]
        self.store.objects[url] = content

    def _came(self, stored: StoredBundle, data: bytes) -> None:
        self.came.append((stored.slot, data))
        self.changed.unpark_all()

    def _missed(self, slot: int) -> None:
        self.missed.append(slot)
        self.changed.unpark_all()


@asynccontextmanager
async def bench(seed: int = 1, *, streams: bool = False) -> AsyncIterator[Bench]:
    b = Bench(Store(), Network(seed))
    b.ahead = ReadAhead(
        request=b.network.callee.request,
        session=SESSION,
        objects=b.store,
        came=b._came,
        missed=b._missed,
        may=lambda: b.may,
        changed=b.changed,
        streams=streams,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(b.ahead.run)
        yield b
        nursery.cancel_scope.cancel()


async def come_unannounced(b: Bench) -> None:
    """All that is asked for at once comes in bulk before it is announced, and no more may be."""
    await trio.sleep(1)
    b.may = False
    for slot in range(STREAM_AT_ONCE):
        b.put(slot, b"%d" % slot)
    await trio.sleep(1)


async def test_the_next_is_asked_for_behind_what_is_announced(autojump_clock: MockClock) -> None:
    async with bench() as b:
        await trio.sleep(10)
        assert b.store.gets_ahead == 0
        b.announced(3)
        await trio.sleep(1)
        assert b.ahead.expects(4)
        assert not b.ahead.expects(3)
        for slot in range(4, 4 + 2 * MAXIMUM_SLOTS):
            b.put(slot, b"%d" % slot)
            await trio.sleep(1)
        assert b.came == [(slot, b"%d" % slot) for slot in range(4, 4 + 2 * MAXIMUM_SLOTS)]
        assert b.network.callee.requests == 3


async def test_no_get_waits_for_its_signature(autojump_clock: MockClock) -> None:
    async with bench() as b:
        real, asked = b.network.callee.request, b.ahead._request

        async def slow(*arguments: Any) -> Message:
            await trio.sleep(0.5)
            return await real(*arguments)

        assert asked == real
        b.ahead._request = slow
        b.announced(0)
        await trio.sleep(1)
        for slot in range(1, 3 * MAXIMUM_SLOTS):
            assert b.ahead.expects(slot)
            b.put(slot, b"x")
            await trio.sleep(0.6)


async def test_in_bulk_several_are_asked_for_from_the_beginning(autojump_clock: MockClock) -> None:
    async with bench(streams=True) as b:
        await trio.sleep(1)
        assert [slot for slot in range(20) if b.ahead.expects(slot)] == list(range(STREAM_AT_ONCE))
        b.put(2, b"2")
        await trio.sleep(1)
        assert b.came == [(2, b"2")]
        assert b.ahead.expects(STREAM_AT_ONCE)
        b.may = False
        b.put(0, b"0")
        await trio.sleep(1)
        assert not b.ahead.expects(STREAM_AT_ONCE + 1)
        await trio.sleep(30)
        assert sorted(b.missed) == [1, *range(3, STREAM_AT_ONCE + 1)]
        b.may = True
        b.changed.unpark_all()
        await trio.sleep(1)
        assert b.store.gets_ahead == STREAM_AT_ONCE + 1  # nothing comes: no more is asked for
        for slot in (STREAM_AT_ONCE + 3, STREAM_AT_ONCE + 4):
            b.announced(slot)
            await trio.sleep(1)
            assert b.ahead.expects(slot + 1)
            await trio.sleep(30)


async def test_several_are_asked_for_while_many_follow_one_another(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.announced(0)
        await trio.sleep(1)
        asked = [slot for slot in range(30) if b.ahead.expects(slot)]
        assert asked == [1]
        b.ahead.stream(True)
        await trio.sleep(1)
        asked = [slot for slot in range(30) if b.ahead.expects(slot)]
        assert asked == list(range(1, 1 + STREAM_AT_ONCE))
        b.ahead.stream(False)
        for slot in asked:
            b.put(slot, b"x")
        await trio.sleep(1)
        assert sorted(slot for slot, _ in b.came) == asked
        assert [slot for slot in range(30) if b.ahead.expects(slot)] == [1 + STREAM_AT_ONCE]
        assert b.missed == []


async def test_what_was_promised_while_they_did_is_had_all_the_same(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.announced(0)
        b.ahead.stream(True)
        await trio.sleep(1)
        b.may = False
        last = STREAM_AT_ONCE + 5
        for slot in range(1, last):
            b.put(slot, b"x")
            b.announced(slot)
        await trio.sleep(1)
        b.ahead.stream(False)
        b.announced(last)  # behind those, and in its turn
        b.put(last, b"x")
        await trio.sleep(1)
        b.may = True
        b.changed.unpark_all()
        await trio.sleep(1)
        assert sorted(slot for slot, _ in b.came) == list(range(1, last + 1))
        assert b.missed == []
        assert not b.ahead.streams


async def test_a_store_with_few_turns_left_is_not_run_away_from(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have all turns but two: what is skipped each time would be beyond what is signed."""
    async with bench() as b:
        get_ahead, under_way = b.store.get_ahead, 0

        async def few(*arguments: Any) -> bytes | None:
            nonlocal under_way
            if under_way == 2:
                raise trio.WouldBlock
            under_way += 1
            try:
                return await get_ahead(*arguments)
            finally:
                under_way -= 1

        monkeypatch.setattr(b.store, "get_ahead", few)
        b.announced(0)
        b.ahead.stream(True)
        for slot in range(1, 100):
            await trio.sleep(0.1)
            assert not any(map(b.ahead.expects, range(slot + 2 * STREAM_AT_ONCE, 300)))
            b.put(slot, b"x")
            await trio.sleep(0.1)
            b.announced(slot)
        slots = [slot for slot, _ in b.came]
        assert slots == sorted(set(slots))
        assert len(slots) > 15


async def test_what_has_begun_to_come_may_take_its_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench() as b:

        async def slow(request: object, limit: int, begun: Callable[[], None]) -> bytes:
            begun()
            await trio.sleep(10 * OVERDUE)
            return b"whole"

        monkeypatch.setattr(b.store, "get_ahead", slow)
        b.announced(0)
        await trio.sleep(1)
        b.announced(1)
        await trio.sleep(11 * OVERDUE)
        assert (b.missed, b.came) == ([], [(1, b"whole")])


async def test_an_announcement_takes_the_place_of_what_was_missed(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.announced(0)
        await trio.sleep(30)
        assert b.missed == [1]
        assert not b.ahead.expects(1)
        assert not b.ahead.expects(2)
        b.announced(6)
        await trio.sleep(1)
        assert b.ahead.expects(7)


async def test_who_has_no_room_is_asked_again(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.may = False
        b.announced(0)
        await trio.sleep(1)
        assert b.store.gets_ahead == 0
        b.may = True
        b.changed.unpark_all()
        await trio.sleep(1)
        assert b.store.gets_ahead == 1


async def test_a_store_that_cannot_is_asked_once(autojump_clock: MockClock) -> None:
    async with bench(seed=0) as b:
        for slot in range(5):
            b.announced(slot)
            await trio.sleep(1)
        assert (b.network.callee.requests, b.store.gets_ahead) == (1, 0)


async def test_without_the_bridge_it_waits_for_the_next_announcement(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.network.callee.connected = False
        b.announced(0)
        await trio.sleep(5)
        assert b.network.callee.requests == 1
        b.network.callee.connected = True
        b.announced(1)
        await trio.sleep(1)
        assert b.ahead.expects(2)


async def test_a_get_that_fails_is_missed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench() as b:

        async def cut(request: object, limit: int, begun: object) -> bytes:
            await trio.sleep(1)
            raise ProviderError("cut short")

        monkeypatch.setattr(b.store, "get_ahead", cut)
        b.announced(0)
        await trio.sleep(5)
        assert b.missed == [1]


async def test_a_store_without_a_place_is_left_alone_for_a_while(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench() as b:
        asked = 0

        async def full(request: object, limit: int, begun: object) -> None:
            nonlocal asked
            asked += 1
            await trio.sleep(0.1)

        monkeypatch.setattr(b.store, "get_ahead", full)
        for slot in range(10):
            b.announced(slot)
            await trio.sleep(1)
        assert asked == 1
        assert not b.ahead.expects(10)
        await trio.sleep(REFUSED_PAUSE)
        b.announced(10)
        await trio.sleep(1)
        assert asked == 2


async def test_where_there_is_no_turn_here_the_next_announcement_tries_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench() as b:
        asked = 0

        async def busy(request: object, limit: int, begun: object) -> None:
            nonlocal asked
            asked += 1
            raise trio.WouldBlock

        monkeypatch.setattr(b.store, "get_ahead", busy)
        for slot in range(3):
            b.announced(slot)
            await trio.sleep(1)
        assert (asked, b.missed) == (3, [1, 2, 3])


async def test_what_is_announced_does_not_wait_for_a_lost_connection(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        b.announced(0)
        await trio.sleep(1)
        assert b.ahead.expects(1)
        b.announced(1)  # it is in the store, and the GET that waits for it hears nothing
        await trio.sleep(OVERDUE + 1)
        assert b.missed == [1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": 7},
        {"gets": ()},
        {"deletes": (("DELETE", "https://store.example/0", (), 0),)},
    ],
    ids=["other slots", "no gets", "too few deletes"],
)
async def test_other_answers_than_were_asked_for_end_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    async with bench() as b:
        request = b.network.callee.request

        async def lies(build: Callable[[int], Message]) -> Message:
            return attrs.evolve(await request(build), **wrong)

        monkeypatch.setattr(b.ahead, "_request", lies)
        for slot in range(5):
            b.announced(slot)
            await trio.sleep(1)
        assert (b.network.callee.requests, b.store.gets_ahead) == (1, 0)


async def test_requests_that_are_too_old_are_signed_again(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.announced(0)
        b.put(1, b"1")
        await trio.sleep(1)
        b.may = False
        b.put(2, b"2")
        await trio.sleep(GET_FRESH + 1)
        b.may = True
        b.announced(2)
        b.put(3, b"3")
        await trio.sleep(1)
        assert [slot for slot, _ in b.came] == [1, 2, 3]
        assert b.network.callee.requests == 2


async def test_in_bulk_what_is_announced_early_is_asked_for_in_its_turn(
    autojump_clock: MockClock,
) -> None:
    async with bench(streams=True) as b:
        await trio.sleep(1)
        b.may = False
        for slot in range(STREAM_AT_ONCE + 5):
            b.put(slot, b"%d" % slot)
            b.announced(slot)
            assert b.ahead.expects(slot)
        await trio.sleep(10)
        assert len(b.came) == b.store.gets_ahead == STREAM_AT_ONCE
        b.may = True
        b.changed.unpark_all()
        await trio.sleep(1)
        assert sorted(slot for slot, _ in b.came) == list(range(STREAM_AT_ONCE + 5))
        assert b.store.gets_ahead >= STREAM_AT_ONCE + 5
        assert b.missed == []


async def test_in_bulk_what_came_before_it_was_announced_is_not_asked_for_again(
    autojump_clock: MockClock,
) -> None:
    async with bench(streams=True) as b:
        await come_unannounced(b)
        b.announced(2)
        b.may = True
        b.announced(3)
        await trio.sleep(1)
        assert not any(b.ahead.expects(slot) for slot in range(STREAM_AT_ONCE))
        assert all(b.ahead.expects(slot) for slot in range(STREAM_AT_ONCE, 2 * STREAM_AT_ONCE))


async def test_in_bulk_what_was_promised_is_missed_without_the_bridge(
    autojump_clock: MockClock,
) -> None:
    async with bench(streams=True) as b:
        await come_unannounced(b)
        late = range(STREAM_AT_ONCE, MAXIMUM_SLOTS + 4)
        for slot in late:
            b.announced(slot)
        b.network.callee.connected = False
        b.may = True
        b.changed.unpark_all()
        await trio.sleep(OVERDUE + 1)
        assert sorted(b.missed) == list(late)
        assert not any(b.ahead.expects(slot) for slot in late)


async def test_in_bulk_what_was_promised_is_missed_where_the_store_has_no_place(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(streams=True) as b:
        await come_unannounced(b)

        async def full(request: object, limit: int, begun: object) -> None:
            await trio.sleep(0.1)

        monkeypatch.setattr(b.store, "get_ahead", full)
        late = range(STREAM_AT_ONCE, 3 * STREAM_AT_ONCE)
        for slot in late:
            b.announced(slot)
        b.may = True
        b.changed.unpark_all()
        await trio.sleep(1)
        assert sorted(b.missed) == list(late)
        b.announced(late.stop)
        assert not b.ahead.expects(late.stop)  # before that store is asked again
