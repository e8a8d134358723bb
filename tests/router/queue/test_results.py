"""Results: durable before they are told, and none is told that is not."""

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from relay.errors import DatabaseError
from relay.router.queue.results import (
    TELL_EVERY,
    WAITING_RESULTS,
    Counts,
    Due,
    Ending,
    How,
    Results,
    known,
    say,
)
from relay.spool.receipts import Conflict, Recorder
from relay.tunnel import notes
from relay.tunnel.notes import Answers, EndedBy, Outcome, Result
from tests.router.queue.consignments import ORIGIN, MemoryTable, Near, object_id, receipt


class World:
    def __init__(self) -> None:
        self.near, self.table = Near(), MemoryTable()
        self.recorder = Recorder(self.table)  # type: ignore[arg-type]
        self.results = Results(self.near, self.recorder, ORIGIN)  # type: ignore[arg-type]
        self.failures: list[DatabaseError] = []

    async def run(self) -> None:
        await self.results.run(self.failures.append)

    async def due(self, *numbers: int) -> None:
        for number in numbers:
            await self.results.take(object_id(number))
            await self.results.add(due(number))


def due(number: int, status: int = 0) -> Due:
    result = Result(object_id(number), Outcome.ANSWERED, status, "")
    return Due(result, receipt(number, status))


async def test_they_are_durable_before_they_are_told(autojump_clock: MockClock) -> None:
    world = World()
    world.table.delay = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await world.due(1, 2, 3)
        await trio.sleep(0.5)
        assert (world.near.sent, world.table.receipts) == ([], {})
        world.results.end()
    assert [note.id for note in await world.near.results(3)] == [object_id(n) for n in (1, 2, 3)]
    assert len(world.table.receipts) == 3
    assert world.results.counts == Counts(delivered=3)
    await world.recorder.wait_free(ORIGIN, [object_id(n) for n in (1, 2, 3)])


async def test_the_first_is_written_and_told_at_once_and_the_next_ones_together(
    autojump_clock: MockClock,
) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await world.due(1)
        await trio.sleep(TELL_EVERY / 10)
        assert len(world.near.sent) == 1
        for number in (2, 3, 4):
            await world.due(number)
            await trio.sleep(TELL_EVERY / 10)
        assert (len(world.near.sent), len(world.table.receipts)) == (1, 1)
        await trio.sleep(TELL_EVERY)
        assert (len(world.table.receipts), world.recorder.groups) == (4, 2)
        await world.recorder.wait_free(ORIGIN, [object_id(n) for n in (1, 2, 3, 4)])
        assert [note.id for note in await world.near.results(4)] == [
            object_id(n) for n in (1, 2, 3, 4)
        ]
        assert world.near.together == [1, 3]
        await trio.sleep(2 * TELL_EVERY)
        await world.due(5)
        await trio.sleep(TELL_EVERY / 10)
        assert world.near.together == [1, 3, 1]
        nursery.cancel_scope.cancel()


async def test_so_many_as_may_wait_are_told_before_their_time(autojump_clock: MockClock) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await world.due(0)
        await trio.sleep(TELL_EVERY / 10)
        for number in range(1, WAITING_RESULTS + 1):
            await world.due(number)
            await trio.lowlevel.checkpoint()
        await trio.sleep(TELL_EVERY / 10)
        assert len(world.near.sent) >= WAITING_RESULTS
        nursery.cancel_scope.cancel()


async def test_what_is_due_is_written_and_told_at_the_end_without_a_wait(
    autojump_clock: MockClock,
) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await world.due(1, 2)
        await trio.sleep(TELL_EVERY / 10)
        await world.due(3)
        await trio.sleep(TELL_EVERY / 10)
        world.results.end()
    assert trio.current_time() < TELL_EVERY
    assert len(world.table.receipts) == 3
    assert [note.id for note in await world.near.results(3)] == [object_id(n) for n in (1, 2, 3)]


@pytest.mark.parametrize("delay", [0, 1])
async def test_what_is_due_is_written_also_where_it_is_cancelled(
    delay: float, autojump_clock: MockClock
) -> None:
    """The Router stops, or the grant is withdrawn: the device has the objects all the same."""
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await world.due(1)
        await trio.sleep(TELL_EVERY / 10)
        world.table.delay = delay
        await world.due(2, 3)
        nursery.cancel_scope.cancel()
    assert len(world.table.receipts) == 3
    assert len(world.near.sent) == 1


async def test_and_what_becomes_due_while_that_is_written(autojump_clock: MockClock) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await world.due(1)
        await trio.sleep(TELL_EVERY / 10)
        world.table.delay = 1
        await world.due(2)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(0.5)
            await world.due(3)
    assert len(world.table.receipts) == 3
    await world.results.take(object_id(4))
    await world.results.add(due(4))
    await world.results.write(world.failures.append)
    assert len(world.table.receipts) == 4


async def test_who_waits_for_room_and_is_cancelled_has_brought_it(
    autojump_clock: MockClock,
) -> None:
    world = World()
    for number in range(WAITING_RESULTS):
        await world.due(number)
    with trio.move_on_after(1) as scope:
        await world.due(WAITING_RESULTS)
    assert scope.cancelled_caught
    await world.results.write(world.failures.append)
    assert len(world.table.receipts) == WAITING_RESULTS + 1


async def test_what_could_not_be_written_is_not_told(autojump_clock: MockClock) -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await world.due(1, 2)
        await trio.sleep(10 * TELL_EVERY)
        world.table.failing = True
        await world.due(3)
        await trio.sleep(10 * TELL_EVERY)
        await world.due(4)
        world.results.end()
    assert [note.id for note in await world.near.results(2)] == [object_id(1), object_id(2)]
    assert len(world.near.sent) == 2
    assert len(world.failures) == 1


async def test_after_a_failure_nothing_is_told_and_nobody_waits(autojump_clock: MockClock) -> None:
    world = World()
    world.table.failing = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await world.due(1)
        await trio.sleep(1)
        world.table.failing = False
        await world.due(*range(2, 100))
        world.results.end()
    assert len(world.failures) == 1
    assert world.near.sent == []
    with trio.move_on_after(1) as limit:  # still in hand: what became of it is not noted
        await world.recorder.wait_free(ORIGIN, [object_id(1)])
    assert limit.cancelled_caught
    world.results.close()
    await world.recorder.wait_free(ORIGIN, [object_id(1)])


async def test_a_near_router_that_has_left_keeps_nothing_from_being_written(
    autojump_clock: MockClock,
) -> None:
    world = World()
    world.near.lost = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await world.due(1)
        await trio.sleep(1)
        await world.due(2)
        world.results.end()
    assert len(world.table.receipts) == 2
    await say(world.near, notes.encode(Answers(())))  # type: ignore[arg-type]


async def test_one_speaks_to_the_near_router_at_a_time(autojump_clock: MockClock) -> None:
    world = World()
    world.near.deaf = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await world.due(1)
        await trio.sleep(1)
        with trio.move_on_after(1) as limit:
            await world.results.say(notes.encode(Answers(())))
        assert limit.cancelled_caught
        nursery.cancel_scope.cancel()


def test_what_is_counted() -> None:
    counts = Counts()
    counts.add(due(1))
    counts.add(known(object_id(1), receipt(1, 0xB000)))
    counts.add(known(object_id(1), Conflict()))
    for outcome in (Outcome.ANSWERED, Outcome.CHANGED, Outcome.REFUSED):
        counts.add(Due(Result(object_id(2), outcome, 0xA700, "")))
    assert counts == Counts(
        delivered=1, failed=1, from_receipts=1, refused=1, conflicts=1, changed=1
    )


@pytest.mark.parametrize(
    ("how", "by"), [(How.DEVICE, EndedBy.DEVICE), (How.ROUTER, EndedBy.ROUTER)]
)
def test_an_ending_as_the_near_router_is_told(how: How, by: EndedBy) -> None:
    ended = notes.decode(notes.encode(Ending(how, "words é" * 100, 2, 5).note()))
    assert isinstance(ended, notes.Ended)
    assert (ended.by, ended.source, ended.reason) == (by, 2, 5)
    assert ended.words.startswith("words ?words")
