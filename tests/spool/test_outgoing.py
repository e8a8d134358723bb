"""What couriers are given, in which order, and what becomes of items under their hands."""

import attrs
import pytest

from relay.spool.items import Batch, Change, Hold, Item, Priority, Selection, State
from tests.spool.rows import CT, EXPLICIT, IMPLICIT, MR, Rows, numbers

OTHER = b"o" * 32


def delivered(item: Item, **more: object) -> Change:
    change = Change(number=item.number, state=State.DELIVERED, attempts=1, status=0, ended=9.0)
    return attrs.evolve(change, **more)


def again(item: Item, due: float, attempts: int = 1) -> Change:
    return Change(number=item.number, state=State.WAITING, attempts=attempts, due=due)


def in_doubt(item: Item) -> Change:
    return Change(number=item.number, state=State.WAITING, attempts=item.attempts, doubtful=True)


async def next_number(rows: Rows, called: str = "PACS", *busy: int) -> int | None:
    batch = await rows.table.next_batch(called, busy)
    return None if batch is None else batch.number


# --- what is next ---------------------------------------------------------------------------------


async def test_destinations_are_those_for_which_something_waits(rows: Rows) -> None:
    (one,) = await rows.add(await rows.batch("A"))
    await rows.add(await rows.batch("B"), state=State.FAILED)
    await rows.add(await rows.batch("C"), state=State.HELD)
    await rows.add(await rows.batch("D"), attempts=3)
    assert sorted(await rows.table.destinations()) == ["A", "D"]
    await rows.table.settle([delivered(one)])
    assert await rows.table.destinations() == ["D"]


async def test_batches_go_by_priority_and_then_by_age(rows: Rows) -> None:
    low = await rows.batch(priority=Priority.LOW)
    normal = await rows.batch()
    later = await rows.batch()
    high = await rows.batch(priority=Priority.HIGH)
    other = await rows.batch("OTHER", priority=Priority.HIGH)
    for batch in (low, normal, later, high, other):
        await rows.add(batch)
    busy: list[int] = []
    while (number := await next_number(rows, "PACS", *busy)) is not None:
        busy.append(number)
    assert busy == [high.number, normal.number, later.number, low.number]
    assert await next_number(rows, "OTHER") == other.number
    assert await next_number(rows, "NOBODY") is None


async def test_a_batch_without_first_attempts_is_not_next(rows: Rows) -> None:
    batch = await rows.batch()
    (item,) = await rows.add(batch)
    found = await rows.table.next_batch("PACS", ())
    assert found is not None
    assert (found.peer, found.calling, found.device) == (batch.peer, "CT", "LOCAL")
    await rows.table.settle([again(item, 5.0)])
    assert await next_number(rows) is None


async def test_firsts_come_in_order_page_by_page(rows: Rows) -> None:
    batch, other = await rows.batch(), await rows.batch()
    one = await rows.add(batch, 2)
    await rows.add(other, 2)
    two = await rows.add(batch, 2)
    await rows.add(batch, state=State.HELD)
    await rows.add(batch, attempts=1)
    page = await rows.table.firsts(batch, 0, 3)
    assert page == [*one, two[0]]
    assert await rows.table.firsts(batch, page[-1].number, 3) == [two[1]]
    assert await rows.table.firsts(batch, two[1].number, 3) == []


async def test_firsts_are_doubtful_where_an_earlier_run_began_with_them(rows: Rows) -> None:
    begun, fresh = await rows.batch(), await rows.batch()
    await rows.add(begun)
    await rows.add(fresh)
    await rows.table.begin_batch(begun)
    assert begun.run == 1
    assert not (await rows.table.firsts(begun, 0, 9))[0].doubtful
    later = await rows.again()
    batches = await later.table.batches([begun.number, fresh.number])
    assert (await later.table.firsts(batches[begun.number], 0, 9))[0].doubtful
    assert not (await later.table.firsts(batches[fresh.number], 0, 9))[0].doubtful
    await later.table.begin_batch(batches[begun.number])
    assert batches[begun.number].run == 1  # once begun, always begun
    await later.table.begin_batch(batches[fresh.number])
    assert (await later.table.batches([fresh.number]))[fresh.number].run == 2


async def test_pairs_are_those_of_first_attempts(rows: Rows) -> None:
    batch = await rows.batch()
    await rows.add(batch, 2)
    await rows.add(batch, sop_class=MR, transfer_syntax=EXPLICIT)
    await rows.add(batch, sop_class="1.9", attempts=1)
    await rows.add(batch, sop_class="1.8", state=State.HELD)
    assert await rows.table.pairs(batch) == {(CT, IMPLICIT), (MR, EXPLICIT)}


async def test_what_is_due_comes_the_longest_due_first(rows: Rows) -> None:
    batch = await rows.batch()
    items = await rows.add(batch, 5)
    await rows.table.settle(
        [again(item, due) for item, due in zip(items, (30.0, 10.0, 20.0, 40.0, 5.0), strict=True)]
    )
    await rows.table.settle([delivered(items[4])])
    first = await rows.add(batch)
    held = await rows.add(batch, state=State.HELD, attempts=1)
    due = await rows.table.due("PACS", 30.0, 9)
    assert numbers(due) == [items[1].number, items[2].number, items[0].number]
    assert numbers(await rows.table.due("PACS", 30.0, 1)) == [items[1].number]
    assert await rows.table.due("PACS", 9.9, 9) == []
    assert await rows.table.due("OTHER", 99.0, 9) == []
    assert await rows.table.next_due("PACS") == 10.0
    assert await rows.table.next_due("OTHER") is None
    assert not {*numbers(first), *numbers(held)} & {*numbers(due)}


# --- batches --------------------------------------------------------------------------------------


async def test_a_batch_is_done_once_it_is_closed_and_nothing_waits_first(rows: Rows) -> None:
    batch = await rows.batch()
    one, two = await rows.add(batch, 2)
    await rows.table.settle([delivered(one), again(two, 5.0)])
    assert not await rows.done(batch)  # more may come
    await rows.table.close_batch(batch, 7.0)
    assert batch.closed == 7.0
    assert await rows.done(batch)
    assert (await rows.table.batches([batch.number]))[batch.number].closed == 7.0


async def test_a_batch_closed_before_its_objects_went_is_done_with_the_last(rows: Rows) -> None:
    batch = await rows.batch()
    one, two = await rows.add(batch, 2)
    await rows.table.close_batch(batch, 7.0)
    await rows.table.settle([delivered(one)])
    assert not await rows.done(batch)
    await rows.table.settle([in_doubt(two)])
    assert not await rows.done(batch)
    await rows.table.settle([Change(number=two.number, state=State.FAILED, attempts=0)])
    assert await rows.done(batch)


async def test_a_batch_that_brought_nothing_has_no_row(rows: Rows) -> None:
    batch = Batch(peer=OTHER, called="A", calling="B", device="C", opened=1.0)
    await rows.table.close_batch(batch, 7.0)
    assert batch.closed == 7.0
    assert await rows.value("SELECT count(*) FROM batch") == 0
    assert await rows.table.batches([]) == {}
    assert await rows.table.batches([99]) == {}


async def test_a_held_batch_sends_nothing(rows: Rows) -> None:
    batch, other = await rows.batch(), await rows.batch()
    first, retried, failed = await rows.add(batch, 3)
    await rows.table.settle([again(retried, 5.0)])
    await rows.table.settle([Change(number=failed.number, state=State.FAILED, attempts=1)])
    (left,) = await rows.add(other)
    await rows.table.close_batch(batch, 7.0)
    await rows.table.hold_batch(batch, Hold.MOVED, "moved")
    for item in (first, retried):
        now = await rows.item(item)
        assert (now.state, now.hold, now.reason) == (State.HELD, Hold.MOVED, "moved")
    assert (await rows.item(failed)).state is State.FAILED
    assert (await rows.item(left)).state is State.WAITING
    assert await rows.done(batch)
    assert await rows.table.due("PACS", 99.0, 9) == []
    assert await rows.table.retry(Selection(numbers=(first.number,))) == 1
    assert not await rows.done(batch)
    assert numbers(await rows.table.firsts(batch, 0, 9)) == [first.number]


# --- what became of them --------------------------------------------------------------------------


async def test_what_became_of_an_item_is_in_its_row(rows: Rows) -> None:
    (item,) = await rows.add(await rows.batch())
    change = Change(
        number=item.number,
        state=State.WAITING,
        attempts=2,
        due=8.0,
        doubtful=True,
        alone=True,
        status=0xA700,
        reason="out of resources",
    )
    assert await rows.table.settle([change]) == {item.number}
    now = await rows.item(item)
    for field in attrs.fields_dict(Change):
        assert getattr(now, field) == getattr(change, field), field
    assert await rows.table.settle([delivered(item)]) == {item.number}
    now = await rows.item(item)
    assert (now.state, now.status, now.ended) == (State.DELIVERED, 0, 9.0)
    assert (now.due, now.alone, now.doubtful) == (0.0, False, False)


async def test_what_a_person_discarded_under_way_stays_so_unless_it_was_delivered(
    rows: Rows,
) -> None:
    """Its file is gone: it is no news to be counted, and there is no file to be erased."""
    batch = await rows.batch()
    lost, failed, went = await rows.add(batch, 3)
    await rows.table.discard(Selection(called="PACS"), "not wanted", 5.0)
    changes = [
        in_doubt(lost),
        Change(number=failed.number, state=State.FAILED, attempts=1, ended=9.0),
        delivered(went),
    ]
    assert await rows.table.settle(changes) == set()
    states = [(await rows.item(item)).state for item in (lost, failed, went)]
    assert states == [State.DISCARDED, State.DISCARDED, State.DELIVERED]
    assert await rows.table.unforgotten(batch.peer, 9) == [went.id]


async def test_what_was_held_under_way_is_asked_about_before_it_goes_again(rows: Rows) -> None:
    """One session of a batch finds its destination moved while another has sent of it."""
    batch = await rows.batch()
    doubtful, tried, went, failed = await rows.add(batch, 4)
    await rows.table.hold_batch(batch, Hold.MOVED, "moved")
    changes = [
        in_doubt(doubtful),
        again(tried, 50.0),
        delivered(went),
        Change(number=failed.number, state=State.FAILED, attempts=1, ended=9.0),
    ]
    assert await rows.table.settle(changes) == {went.number}
    for item in (doubtful, tried, failed):
        now = await rows.item(item)
        assert (now.state, now.hold, now.reason) == (State.HELD, Hold.MOVED, "moved")
        assert now.attempted
    assert (await rows.item(went)).state is State.DELIVERED


async def test_what_is_delivered_stays_delivered(rows: Rows) -> None:
    (item,) = await rows.add(await rows.batch())
    await rows.table.settle([delivered(item)])
    await rows.table.forgotten([item.id])
    assert await rows.table.settle([in_doubt(item)]) == set()
    assert await rows.table.settle([delivered(item, ended=99.0)]) == set()
    assert (await rows.item(item)).ended == 9.0
    assert await rows.table.retry(Selection()) == 0


async def test_a_row_that_is_gone_is_no_news(rows: Rows) -> None:
    assert await rows.table.settle([Change(number=7, state=State.FAILED, attempts=1)]) == set()
    assert await rows.table.settle([]) == set()


async def test_a_retry_under_way_changes_nothing_of_what_comes_of_it(rows: Rows) -> None:
    (item,) = await rows.add(await rows.batch())
    await rows.table.settle([again(item, 50.0)])
    assert await rows.table.retry(Selection(numbers=(item.number,))) == 1
    assert (await rows.item(item)).due == 0.0
    assert await rows.table.settle([again(item, 80.0, attempts=2)]) == {item.number}
    now = await rows.item(item)
    assert (now.due, now.attempts) == (80.0, 2)


async def test_what_a_peer_was_not_told_is_asked_for_by_peer(rows: Rows) -> None:
    ours, theirs = await rows.batch(), await rows.batch(peer=OTHER)
    items = await rows.add(ours, 3)
    (other,) = await rows.add(theirs)
    (waiting,) = await rows.add(ours)
    await rows.table.settle([delivered(item) for item in (*items, other)])
    assert len(await rows.table.unforgotten(ours.peer, 2)) == 2
    assert set(await rows.table.unforgotten(ours.peer, 9)) == {item.id for item in items}
    assert await rows.table.unforgotten(OTHER, 9) == [other.id]
    await rows.table.forgotten([items[0].id, items[2].id, waiting.id])
    assert await rows.table.unforgotten(ours.peer, 9) == [items[1].id]


@pytest.mark.parametrize("state", [State.WAITING, State.HELD, State.FAILED])
async def test_delivered_is_news_of_whatever_is_kept(rows: Rows, state: State) -> None:
    (item,) = await rows.add(await rows.batch(), state=state)
    assert await rows.table.settle([delivered(item)]) == {item.number}
