"""Couriers: the lanes of all destinations."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from relay.errors import DatabaseError
from relay.router.queue import courier as courier_module
from relay.router.queue import lane as lane_module
from relay.router.queue.courier import Couriers
from relay.router.queue.errand import Errand
from relay.router.queue.ledger import How, Report
from relay.spool.items import Pause
from tests.router.queue.lanes import lanes
from tests.router.queue.sending import TAKEN, keep


async def test_each_destination_has_its_lane(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        await it.left(2, "ONE")
        await it.left(2, "TWO")
        it.start()
        await it.done("ONE", "TWO")
        assert it.queue.couriers.sessions("ONE") == it.queue.couriers.sessions("NOBODY") == 0
        assert it.queue.couriers.trouble("NOBODY") == ""
        assert it.queue.couriers.again("ONE") is it.queue.couriers.again("NOBODY") is None
    assert sorted(called for _, called in it.deliveries.errands) == ["ONE", "TWO"]


async def test_after_trouble_it_is_known_when_it_is_tried_again(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_line(errand: Errand) -> Report:
        await trio.sleep(1)
        return Report(How.TROUBLE, "nobody listens")

    async with lanes(tmp_path, monkeypatch, no_line) as it:
        await it.left(1)
        it.start()
        await trio.sleep(1.2)
        again = it.queue.couriers.again("PACS")
        assert again is not None
        assert 0 < again - it.queue.spool.clock() <= 1
        it.deliveries.instead = None
        await it.done()
        assert it.queue.couriers.again("PACS") is None


async def test_what_was_stopped_stays_so_after_a_start(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        await it.left(2)
        await it.queue.spool.items.pause(Pause("PACS", False, "0124", 1.0))
        it.start()
        await trio.sleep(100)
        it.queue.couriers.wake()
        await trio.sleep(100)
        assert it.deliveries.errands == []
        await it.queue.resume("PACS")
        await it.done()


async def test_a_start_whose_database_does_not_answer_yet(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        await it.left(2)
        real, failing = it.queue.spool.items.pauses, [2]

        async def pauses() -> list[Pause]:
            if failing[0]:
                failing[0] -= 1
                raise DatabaseError("locked")
            return await real()

        monkeypatch.setattr(it.queue.spool.items, "pauses", pauses)
        it.start()
        await trio.sleep(1)
        await it.bring(it.batch("ANOTHER"))  # before there is a task for its lane
        await it.done("PACS", "ANOTHER")


async def test_all_lanes_together_have_so_many_sessions(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(errand: Errand) -> None:
        await trio.sleep(10)

    monkeypatch.setattr(courier_module, "MAXIMUM_SESSIONS", 3)
    monkeypatch.setattr(lane_module, "PARALLEL", 2)
    async with lanes(tmp_path, monkeypatch, slow) as it:
        it.queue.couriers = Couriers(it.queue)
        titles = [f"PACS{number}" for number in range(4)]
        for title in titles:
            for _ in range(3):
                await it.left(1, title)
        it.start()
        await it.done(*titles)
    assert it.deliveries.most == 3


async def test_nothing_is_begun_once_the_router_stops(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[bool] = []

    async def until_stopped(errand: Errand) -> Report:
        while not errand.stopped:
            await trio.sleep(1)
        stopped.append(True)
        return Report(How.DONE)

    async with lanes(tmp_path, monkeypatch, until_stopped) as it:
        await it.left()
        it.start()
        await trio.sleep(5)
        it.queue.couriers.finish()
        await it.bring(it.batch())
        await it.bring(it.batch("ANOTHER"))
        await trio.sleep(500)
        assert stopped == [True]
        assert len(it.deliveries.errands) == 1
        assert await it.waiting("PACS", "ANOTHER") == 3


async def test_what_comes_once_they_are_over_begins_nothing(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.queue.couriers.run)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        batch = it.batch()
        it.queue.couriers.coming(batch, frozenset())
        await it.bring(batch)
        it.queue.couriers.closed(batch)
        await trio.sleep(10)
        assert it.deliveries.errands == []


async def test_what_is_discarded_is_sent_from_memory_by_nobody(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents: list[bytes | None] = []

    async def slow(errand: Errand) -> None:
        while page := await errand.next_page():
            await trio.sleep(5)
            contents.extend(errand.content(item) for item in page)

    async with lanes(tmp_path, monkeypatch, slow) as it:
        it.start()
        batch = it.batch()
        await it.bring(batch)
        await trio.sleep(1)
        items = [await keep(it.queue.spool, batch, b"object") for _ in range(3)]
        for item in items:
            it.queue.accepted(batch, TAKEN, item, b"object")
        it.queue.couriers.discarded({items[1].id})
        await trio.sleep(20)
        assert contents == [None, b"object", b"object"]


async def test_a_batch_that_brought_nothing_makes_no_lane(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        it.start()
        batch = it.batch()
        await it.queue.spool.items.close_batch(batch, 1.0)
        it.queue.couriers.closed(batch)
        assert isinstance(it.queue.couriers, Couriers)
        assert it.queue.couriers._lanes == {}
