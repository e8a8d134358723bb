"""The books of a delivery session."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from relay.errors import DatabaseError
from relay.router.queue import ledger
from relay.router.queue.ledger import How, Ledger
from relay.spool.items import Change, Hold, Item, Selection, State
from relay.tunnel.notes import EndedBy, Outcome
from tests.router.queue.sending import Sending, objects, sending


@attrs.define(eq=False)
class Books:
    it: Sending
    ledger: Ledger
    items: list[Item]
    stopped: list[bool] = attrs.Factory(list)

    async def rows(self) -> list[Item]:
        """The rows once the session is over."""
        await self.ledger.close()
        return await self.it.items()


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    """Five items, and the ledger of a session in which none was sent."""
    async with sending(tmp_path, couriers=False) as it:
        batch = await it.left(*objects(5))
        stopped: list[bool] = []
        ledger = Ledger(it.queue, batch, lambda: stopped.append(True))
        yield Books(it, ledger, await it.items(), stopped)


def tried(item: Item, attempts: int, **changes: object) -> Item:
    return attrs.evolve(item, attempts=attempts, **changes)  # type: ignore[arg-type]


async def test_nothing_is_known_of_what_was_sent(books: Books) -> None:
    for item in books.items[:2]:
        books.ledger.begin(item)
    one, two, three, *_ = await books.rows()
    assert one.doubtful
    assert two.doubtful
    assert not three.doubtful
    assert {row.attempts for row in (one, two, three)} == {0}
    report = books.ledger.report()
    assert (report.how, report.delivered, report.settled) == (How.TROUBLE, 0, 0)
    assert report.reason


async def test_an_answer_is_durable_before_it_is_known(books: Books) -> None:
    one, two, *_ = books.items
    used = books.it.queue.spool.objects.space.used
    books.ledger.begin(one)
    books.ledger.begin(two)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(books.ledger.run)
        books.ledger.answered(one, Outcome.ANSWERED, 0)
        assert books.ledger.take_known(1) == []
        books.ledger.answered(two, Outcome.ANSWERED, 0xB000)
        with trio.fail_after(10):
            await books.ledger.balanced()
        nursery.cancel_scope.cancel()
    assert sorted(books.ledger.take_known(1)) == sorted([one.id, two.id])
    assert books.ledger.take_known(1) == []
    assert await books.it.counts() == {State.DELIVERED: 2, State.WAITING: 3}
    assert books.it.queue.spool.objects.space.used == used - one.size - two.size
    books.ledger.done()
    assert books.ledger.report().how is How.DONE


async def test_results_are_noted_together_while_more_are_awaited(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "GATHERING", 60)
    noted: list[int] = []
    settle = books.it.queue.spool.items.settle

    async def counted(changes: Sequence[Change]) -> set[int]:
        noted.append(len(changes))
        return await settle(changes)

    monkeypatch.setattr(books.it.queue.spool.items, "settle", counted)
    for item in books.items:
        books.ledger.begin(item)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(books.ledger.run)
        for item in books.items:  # the first is noted at once, and the last ends the wait
            books.ledger.answered(item, Outcome.ANSWERED, 0)
            with trio.fail_after(10):
                while not noted:
                    await trio.sleep(0.001)
            await wait_all_tasks_blocked(0.01)
        with trio.fail_after(10):
            await books.ledger.balanced()
        nursery.cancel_scope.cancel()
    assert noted == [1, 4]
    assert await books.it.counts() == {State.DELIVERED: 5}


async def test_and_not_much_later(books: Books) -> None:
    for item in books.items:
        books.ledger.begin(item)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(books.ledger.run)
        for count, item in enumerate(books.items[:3], start=1):
            books.ledger.answered(item, Outcome.ANSWERED, 0)
            await books.it.becomes(delivered=count, waiting=5 - count)
        nursery.cancel_scope.cancel()


async def test_few_are_not_worth_a_note(books: Books) -> None:
    books.ledger.add_known([bytes(16)] * 3)
    assert books.ledger.take_known(4) == []
    assert len(books.ledger.take_known(3)) == 3


async def test_the_first_cause_counts(books: Books) -> None:
    books.ledger.trouble("first", How.PAUSE)
    books.ledger.trouble("second")
    books.ledger.done()
    report = books.ledger.report()
    assert (report.how, report.reason) == (How.PAUSE, "first")
    assert books.stopped


async def test_trouble_after_all_went_well_is_trouble(books: Books) -> None:
    books.ledger.done()
    books.ledger.trouble("the rows cannot be written")
    assert books.ledger.report().how is How.TROUBLE


@pytest.mark.parametrize("status", [0xA700, 0x0213])
async def test_no_room_stops_and_is_nobodys_fault(books: Books, status: int) -> None:
    books.ledger.begin(books.items[0])
    books.ledger.answered(books.items[0], Outcome.ANSWERED, status)
    assert books.stopped
    row = (await books.rows())[0]
    assert (row.state, row.attempts, row.alone, row.status) == (State.WAITING, 1, False, status)
    assert row.due > books.it.clock()


@pytest.mark.parametrize(
    ("before", "status", "after"),
    [
        # not alone before: the count of those tries begins
        ((0, False), 0x0110, (State.WAITING, 1, True)),
        ((40, False), 0x0110, (State.WAITING, 1, True)),
        ((3, True), 0x0110, (State.WAITING, 4, True)),
        ((4, True), 0x0110, (State.FAILED, 5, False)),
        # no room does not count against it
        ((4, True), 0xA700, (State.WAITING, 4, True)),
        ((4, False), 0xA700, (State.WAITING, 5, False)),
        ((2, True), 0x0124, (State.WAITING, 3, True)),
        ((2, True), 0xA900, (State.FAILED, 3, False)),
        ((7, True), 0x0000, (State.DELIVERED, 8, True)),
    ],
)
async def test_how_often_it_was_tried(
    books: Books, before: tuple[int, bool], status: int, after: tuple[State, int, bool]
) -> None:
    attempts, alone = before
    item = tried(books.items[0], attempts, alone=alone)
    books.ledger.begin(item)
    books.ledger.answered(item, Outcome.ANSWERED, status)
    row = (await books.rows())[0]
    assert (row.state, row.attempts, row.alone) == after


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, State.FAILED),
        ({"attempts": 1, "status": 0xA700}, State.FAILED),  # that attempt did not store it
        ({"doubtful": True}, State.DELIVERED),
        ({"attempts": 1, "doubtful": True, "status": 0xA700}, State.DELIVERED),
        ({"doubtful": True, "status": 0x0111}, State.FAILED),
    ],
)
async def test_a_duplicate(books: Books, changes: dict[str, object], state: State) -> None:
    item = attrs.evolve(books.items[0], **changes)  # type: ignore[arg-type]
    books.ledger.begin(item)
    books.ledger.answered(item, Outcome.ANSWERED, 0x0111)
    assert (await books.rows())[0].state is state


async def test_the_device_aborts(books: Books) -> None:
    books.ledger.window = 2
    for item in books.items[:4]:
        books.ledger.begin(item)
    books.ledger.device_ended(EndedBy.DEVICE, "it aborted")
    rows = await books.rows()
    assert [row.alone for row in rows] == [True, True, False, False, False]
    assert [row.doubtful for row in rows] == [True, True, True, True, False]
    assert [row.attempts for row in rows] == [1, 1, 0, 0, 0]
    assert books.ledger.report().reason == "it aborted"


async def test_it_aborts_always_on_the_same(books: Books) -> None:
    item = tried(books.items[0], 7, alone=True)
    books.ledger.begin(item)
    books.ledger.device_ended(EndedBy.DEVICE, "")
    row = (await books.rows())[0]
    assert (row.state, row.attempts) == (State.FAILED, 8)


async def test_the_far_router_ends_it(books: Books) -> None:
    item = tried(books.items[0], 1000, alone=True)
    books.ledger.begin(item)
    books.ledger.device_ended(EndedBy.ROUTER, "its disk is full")
    row = (await books.rows())[0]
    assert (row.state, row.alone) == (State.WAITING, True)
    assert "its disk is full" in row.reason


async def test_an_idle_device_leaves(books: Books) -> None:
    books.ledger.begin(books.items[0])
    books.ledger.answered(books.items[0], Outcome.ANSWERED, 0)
    books.ledger.device_ended(EndedBy.DEVICE, "idle")
    await books.rows()
    assert books.ledger.report().how is How.DONE


async def test_one_that_leaves_at_once_is_trouble(books: Books) -> None:
    books.ledger.device_ended(EndedBy.DEVICE, "")
    assert books.ledger.report().how is How.TROUBLE
    assert books.ledger.report().reason


async def test_discarded_under_way(books: Books) -> None:
    one, two, *_ = books.items
    spool = books.it.queue.spool
    books.ledger.begin(one)
    books.ledger.begin(two)
    gone = await spool.items.discard(Selection(numbers=(1, 2)), "not wanted", 1.0)
    await spool.objects.remove(gone)
    used = spool.objects.space.used
    books.ledger.answered(one, Outcome.ANSWERED, 0)
    rows = await books.rows()
    assert rows[1].state is State.DISCARDED
    assert spool.objects.space.used == used
    assert books.it.queue.statistics.delivered == 0


async def test_held_under_way_and_delivered(books: Books) -> None:
    item = books.items[0]
    books.ledger.begin(item)
    await books.it.queue.spool.items.settle(
        [Change(number=item.number, state=State.HELD, attempts=0, hold=Hold.MOVED)]
    )
    books.ledger.answered(item, Outcome.ANSWERED, 0)
    assert (await books.rows())[0].state is State.DELIVERED


async def test_damaged(books: Books) -> None:
    books.ledger.begin(books.items[0])
    books.ledger.damaged(books.items[0], "it is cut short")
    row = (await books.rows())[0]
    assert row.state is State.FAILED
    assert "cut short" in row.reason


async def test_rows_that_cannot_be_written_end_as_trouble(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(changes: object) -> set[int]:
        raise DatabaseError("disk I/O error")

    books.ledger.begin(books.items[0])
    books.ledger.answered(books.items[0], Outcome.ANSWERED, 0)
    books.ledger.done()
    monkeypatch.setattr(books.it.queue.spool.items, "settle", fails)
    await books.ledger.close()
    assert books.ledger.report().how is How.TROUBLE
    assert await books.it.counts() == {State.WAITING: 5}


async def test_cancelled_while_it_is_written(books: Books) -> None:
    item = books.items[0]
    books.ledger.begin(item)
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(books.ledger.run)
            books.ledger.answered(item, Outcome.ANSWERED, 0)
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    await books.ledger.close()
    row = (await books.it.items())[0]
    assert row.state is State.DELIVERED
    assert books.it.queue.statistics.delivered == 1
    folder = books.it.both.a.database.path.parent / "spool"
    assert not list(folder.glob(f"*/{item.id.hex()}"))
