"""What people are shown of the queue, and what they do with it."""

import pytest

from relay.spool import people as module
from relay.spool.items import Change, Hold, Pause, Selection, State, Tally
from tests.spool.rows import CT, EXPLICIT, IMPLICIT, MR, Rows, numbers

# --- asking ---------------------------------------------------------------------------------------


async def test_counts_are_by_destination_and_state(rows: Rows) -> None:
    assert await rows.table.counts() == []
    batch = await rows.batch("A")
    await rows.add(batch, 3)
    await rows.add(batch, 2, state=State.FAILED, size=10)
    await rows.add(await rows.batch("B"), size=7)
    assert sorted(await rows.table.counts(), key=lambda t: (t.called, t.state)) == [
        Tally("A", State.WAITING, 3, 348),
        Tally("A", State.FAILED, 2, 20),
        Tally("B", State.WAITING, 1, 7),
    ]


async def test_the_oldest_is_of_those_that_wait(rows: Rows) -> None:
    batch = await rows.batch()
    await rows.add(batch, accepted=5.0, state=State.FAILED)
    assert await rows.table.oldest("PACS") is None
    await rows.add(batch, accepted=6.0)
    await rows.add(batch, accepted=7.0)
    assert await rows.table.oldest("PACS") == 6.0
    assert await rows.table.oldest("OTHER") is None


async def test_the_last_is_the_one_accepted_last(rows: Rows) -> None:
    assert await rows.table.last() == 0
    items = await rows.add(await rows.batch(), 3)
    assert await rows.table.last() == items[-1].number


async def test_items_are_selected_by_all_that_is_said(rows: Rows) -> None:
    a, b = await rows.batch("A"), await rows.batch("B", calling="MR")
    one, two = await rows.add(a, 2, study="1.1")
    (three,) = await rows.add(a, study="1.2", state=State.FAILED)
    (four,) = await rows.add(b, study="1.1")
    five, six = await rows.add(b, 2, study="1.3", state=State.HELD)
    everything = [one, two, three, four, five, six]
    cases: list[tuple[Selection, list[object]]] = [
        (Selection(), [*everything]),
        (Selection(called="A"), [one, two, three]),
        (Selection(calling="MR"), [four, five, six]),
        (Selection(study="1.1"), [one, two, four]),
        (Selection(state=State.WAITING), [one, two, four]),
        (Selection(state=State.DELIVERED), []),
        (Selection(called="A", state=State.FAILED), [three]),
        (Selection(called="A", study="1.1", calling="CT"), [one, two]),
        (Selection(numbers=(two.number, six.number, 99)), [two, six]),
        (Selection(numbers=()), []),
        (Selection(called="B", numbers=(two.number, six.number)), [six]),
        (Selection(after=four.number), [five, six]),
        (Selection(until=two.number), [one, two]),
        (Selection(after=one.number, until=three.number, called="A"), [two, three]),
        (Selection(called="C"), []),
    ]
    for selection, meant in cases:
        assert await rows.table.select(selection) == meant, selection
        counts = await rows.table.count(selection)
        assert sum(counts.values()) == len(meant), selection
        assert await rows.table.select(selection, 1) == meant[:1], selection
        latest = await rows.table.select(selection, 2, latest=True)
        assert latest == meant[::-1][:2], selection
    assert await rows.table.count(Selection(called="A")) == {State.WAITING: 2, State.FAILED: 1}
    assert await rows.table.count(Selection(state=State.HELD)) == {State.HELD: 2}
    assert await rows.table.count(Selection(study="1.1")) == {State.WAITING: 3}


async def test_studies_are_counted_the_latest_first(rows: Rows) -> None:
    a, b = await rows.batch("A"), await rows.batch("B")
    await rows.add(a, 2, study="1.1", accepted=5.0)
    await rows.add(a, study="1.1", state=State.DELIVERED, accepted=4.0, ended=8.0)
    await rows.add(a, study="1.1", state=State.FAILED, accepted=6.0, ended=9.0)
    await rows.add(a, study="1.2", state=State.HELD)
    await rows.add(b, study="1.1", state=State.DISCARDED)
    found = await rows.table.studies(Selection())
    assert [(row["study"], row["called"]) for row in found] == [
        ("1.1", "B"),
        ("1.2", "A"),
        ("1.1", "A"),
    ]
    assert found[2] == {
        "study": "1.1",
        "called": "A",
        "accepted": 4,
        "delivered": 1,
        "failed": 1,
        "waiting": 2,
        "discarded": 0,
        "since": 4.0,
        "until": 9.0,
    }
    assert found[1]["waiting"] == 1
    assert await rows.table.studies(Selection(), 1) == found[:1]
    assert await rows.table.studies(Selection(called="B")) == found[:1]


async def test_what_is_held_is_listed_by_kind(rows: Rows) -> None:
    one, two = await rows.batch(), await rows.batch(calling="MR")
    await rows.add(one, 2, state=State.HELD, hold=Hold.NOT_ACCEPTED)
    await rows.add(one, state=State.HELD, hold=Hold.NOT_ACCEPTED, sop_class=MR)
    await rows.add(two, state=State.HELD, hold=Hold.DOUBTFUL)
    await rows.add(two)
    assert sorted(await rows.table.held()) == [
        ("PACS", "CT", Hold.NOT_ACCEPTED, (CT, IMPLICIT), 2),
        ("PACS", "CT", Hold.NOT_ACCEPTED, (MR, IMPLICIT), 1),
        ("PACS", "MR", Hold.DOUBTFUL, (CT, IMPLICIT), 1),
    ]


# --- doing ----------------------------------------------------------------------------------------


async def test_retry_takes_what_failed_is_held_or_waits_for_its_time(rows: Rows) -> None:
    batch = await rows.batch()
    (failed,) = await rows.add(batch, state=State.FAILED, attempts=2, reason="why", ended=5.0)
    (held,) = await rows.add(batch, state=State.HELD, hold=Hold.DOUBTFUL, reason="why", doubtful=1)
    (later,) = await rows.add(batch, attempts=1, due=99.0, reason="why")
    (locked,) = await rows.add(batch, state=State.HELD, hold=Hold.LOCKED)
    (first,) = await rows.add(batch)
    await rows.add(batch, state=State.DELIVERED, attempts=1)
    await rows.add(batch, state=State.DISCARDED)
    assert await rows.table.retry(Selection(called="PACS")) == 3
    for item, reason in ((failed, "why"), (held, ""), (later, "why")):
        now = await rows.item(item)
        assert (now.state, now.hold, now.due, now.ended) == (State.WAITING, Hold.NONE, 0.0, None)
        assert now.reason == reason
        assert now.attempts == item.attempts
    assert (await rows.item(held)).doubtful
    assert (await rows.item(locked)).state is State.HELD
    assert numbers(await rows.table.due("PACS", 0.0, 9)) == [failed.number, later.number]
    assert numbers(await rows.table.firsts(batch, 0, 9)) == [held.number, first.number]


async def test_what_was_never_tried_goes_with_its_batch_again(rows: Rows) -> None:
    batch = await rows.batch()
    (item,) = await rows.add(batch, state=State.FAILED, reason="damaged")
    await rows.table.close_batch(batch, 5.0)
    assert await rows.done(batch)
    await rows.table.retry(Selection())
    assert not await rows.done(batch)
    found = await rows.table.next_batch("PACS", ())
    assert found is not None
    assert found.number == batch.number
    assert numbers(await rows.table.firsts(found, 0, 9)) == [item.number]


async def test_retry_goes_on_through_all_pages(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has let go waits, and is not met again."""
    monkeypatch.setattr(module, "PAGE", 3)
    batch = await rows.batch()
    await rows.add(batch, 7, state=State.FAILED, attempts=1)
    await rows.add(batch, 2, attempts=1, due=5.0)
    assert await rows.table.retry(Selection()) == 9
    assert await rows.table.count(Selection()) == {State.WAITING: 9}
    assert await rows.table.next_due("PACS") == 0.0


async def test_discard_gives_up_page_by_page(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    batch = await rows.batch()
    items = await rows.add(batch, 2)
    items += await rows.add(batch, state=State.HELD, hold=Hold.LOCKED)
    items += await rows.add(batch, state=State.FAILED, reason="why", ended=1.0)
    items += await rows.add(batch)
    over = await rows.add(batch, state=State.DELIVERED, ended=1.0)
    await rows.table.close_batch(batch, 5.0)
    gone = []
    while page := await rows.table.discard(Selection(called="PACS"), "not wanted", 9.0):
        gone += page
        assert len(page) <= 2
    assert gone == [item.stored for item in items]
    now = [await rows.item(item) for item in items]
    assert {(i.state, i.hold, i.reason, i.ended) for i in now} == {
        (State.DISCARDED, Hold.NONE, "not wanted", 9.0)
    }
    assert await rows.item(over[0]) == over[0]
    assert await rows.done(batch)
    assert await rows.table.retry(Selection()) == 0


async def test_what_is_accepted_again_waits_again(rows: Rows) -> None:
    batch, other = await rows.batch(), await rows.batch(calling="MR")
    held = {"state": State.HELD, "hold": Hold.NOT_ACCEPTED, "reason": "not accepted"}
    one, two = await rows.add(batch, 2, **held)
    (tried,) = await rows.add(batch, **held, attempts=1, due=99.0)
    await rows.add(batch, **held, transfer_syntax=EXPLICIT)
    await rows.add(batch, state=State.HELD, hold=Hold.DOUBTFUL)
    await rows.add(other, **held)
    await rows.table.close_batch(batch, 5.0)
    assert await rows.done(batch)
    assert await rows.table.release("PACS", "CT", (CT, IMPLICIT)) == 3
    assert await rows.table.release("PACS", "CT", (CT, IMPLICIT)) == 0
    assert numbers(await rows.table.firsts(batch, 0, 9)) == [one.number, two.number]
    assert numbers(await rows.table.due("PACS", 0.0, 9)) == [tried.number]
    assert (await rows.item(one)).reason == ""
    assert not await rows.done(batch)
    assert await rows.table.count(Selection(state=State.HELD)) == {State.HELD: 3}


# --- pauses ---------------------------------------------------------------------------------------


async def test_a_persons_pause_stays_over_the_devices(rows: Rows) -> None:
    by_device = Pause("PACS", False, "refused", 1.0)
    by_person = Pause("PACS", True, "maintenance", 2.0)
    again = Pause("PACS", True, "still", 3.0)
    for pause, then in (
        (by_device, by_device),
        (by_person, by_person),
        (by_device, by_person),
        (again, again),
    ):
        await rows.table.pause(pause)
        assert await rows.table.pauses() == [then]
    assert await rows.table.resume("PACS")
    assert not await rows.table.resume("PACS")
    assert await rows.table.pauses() == []


async def test_a_pause_is_there_in_the_next_run(rows: Rows) -> None:
    await rows.table.pause(Pause("B", True, "", 1.0))
    await rows.table.pause(Pause("A", True, "", 1.0))
    later = await rows.again()
    assert [pause.called for pause in await later.table.pauses()] == ["A", "B"]


async def test_what_is_tried_again_is_settled_as_before(rows: Rows) -> None:
    (item,) = await rows.add(await rows.batch(), state=State.FAILED, attempts=5)
    await rows.table.retry(Selection())
    change = Change(number=item.number, state=State.DELIVERED, attempts=6, ended=9.0)
    assert await rows.table.settle([change]) == {item.number}
