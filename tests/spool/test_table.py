"""How a run begins and items end; and that no question reads all rows."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import apsw
import pytest

from relay.database import Database
from relay.spool import table as module
from relay.spool.items import Batch, Change, Hold, Selection, State
from relay.spool.table import HISTORY, ItemTable, begin_epoch
from tests.spool.rows import CT, EXPLICIT, IMPLICIT, KEY, Rows, numbers

OTHER_KEY = b"another!"

# --- the start ------------------------------------------------------------------------------------


async def test_a_run_closes_what_the_one_before_had_open(rows: Rows) -> None:
    done, waiting, closed = [await rows.batch() for _ in range(3)]
    await rows.add(done, state=State.DELIVERED)
    await rows.add(waiting)
    await rows.add(closed)
    await rows.table.close_batch(closed, 5.0)
    assert rows.table.run == 1
    later = await rows.again()
    assert later.table.run == 2
    batches = await later.table.batches([done.number, waiting.number, closed.number])
    assert {n: (b.closed, b.done) for n, b in batches.items()} == {
        done.number: (50.0, True),
        waiting.number: (50.0, False),
        closed.number: (5.0, False),
    }


async def test_the_kept_files_are_those_that_are_not_over(rows: Rows) -> None:
    batch = await rows.batch()
    kept = [
        (await rows.add(batch, state=state, folder=1))[0].id
        for state in (State.WAITING, State.HELD, State.FAILED)
    ]
    (other,) = await rows.add(batch, folder=2)
    for state in (State.DELIVERED, State.DISCARDED):
        await rows.add(batch, state=state, folder=1)
        await rows.add(batch, state=state, folder=3)
    assert await rows.table.kept_folders() == {1, 2}
    assert await rows.table.kept_in(1) == set(kept)
    assert await rows.table.kept_in(2) == {other.id}
    assert await rows.table.kept_in(3) == set()


async def test_what_the_disk_lost_is_a_dead_letter_and_told_once(rows: Rows) -> None:
    batch = await rows.batch()
    (one,) = await rows.add(batch)
    (two,) = await rows.add(batch, state=State.HELD, hold=Hold.LOCKED, reason="locked")
    (three,) = await rows.add(batch, state=State.FAILED, reason="refused", ended=1.0)
    (left,) = await rows.add(batch)
    await rows.table.close_batch(batch, 5.0)
    lost = {one.id, two.id, three.id}
    assert await rows.table.lost(lost, "lost", 9.0) == 3
    for item in (one, two, three):
        now = await rows.item(item)
        assert (now.state, now.hold, now.reason, now.ended) == (
            State.FAILED, Hold.NONE, "lost", 9.0,
        )  # fmt: skip
    assert (await rows.item(left)).state is State.WAITING
    assert await rows.table.lost(lost, "lost", 10.0) == 0
    assert (await rows.item(one)).ended == 9.0
    assert not await rows.done(batch)
    assert await rows.table.lost({left.id}, "lost", 10.0) == 1
    assert await rows.done(batch)


async def test_what_another_key_locks_is_held_until_that_key_is_back(rows: Rows) -> None:
    batch = await rows.batch()
    (item,) = await rows.add(batch)
    (tried,) = await rows.add(batch, attempts=2, due=7.0, alone=True, doubtful=True)
    (failed,) = await rows.add(batch, state=State.FAILED)
    (held,) = await rows.add(batch, state=State.HELD, hold=Hold.DOUBTFUL)
    await rows.table.close_batch(batch, 5.0)
    assert await rows.table.lock(KEY, "locked") == 0
    assert await rows.table.lock(OTHER_KEY, "locked") == 2
    assert await rows.table.lock(OTHER_KEY, "locked") == 2
    for locked in (item, tried):
        now = await rows.item(locked)
        assert (now.state, now.hold, now.reason) == (State.HELD, Hold.LOCKED, "locked")
    assert await rows.done(batch)
    other = await rows.batch()
    (newer,) = await rows.add(other, key_name=OTHER_KEY)
    assert await rows.table.lock(KEY, "locked") == 1
    assert await rows.item(item) == item
    assert await rows.item(tried) == tried
    assert await rows.item(failed) == failed
    assert await rows.item(held) == held
    assert (await rows.item(newer)).hold is Hold.LOCKED
    assert not await rows.done(batch)


async def test_a_restored_table_sends_nothing_by_itself(rows: Rows) -> None:
    batch = await rows.batch()
    (first,) = await rows.add(batch)
    (tried,) = await rows.add(batch, attempts=1, due=5.0)
    (refused,) = await rows.add(batch, state=State.HELD, hold=Hold.NOT_ACCEPTED)
    (locked,) = await rows.add(batch, state=State.HELD, hold=Hold.LOCKED, key_name=OTHER_KEY)
    (failed,) = await rows.add(batch, state=State.FAILED, reason="refused")
    (over,) = await rows.add(batch, state=State.DELIVERED)
    await rows.table.close_batch(batch, 5.0)
    assert await rows.database.run(lambda c: begin_epoch(c, "restored")) == 1
    later = await rows.again()
    for item in (first, tried, refused, locked):
        now = await later.item(item)
        assert (now.state, now.hold, now.reason) == (State.HELD, Hold.DOUBTFUL, "restored")
        assert now.doubtful
    assert (await later.item(failed)).doubtful
    assert (await later.item(failed)).reason == "refused"
    assert await later.item(over) == over
    assert await later.table.destinations() == []
    # What would let go by itself what it had held before.
    assert await later.table.lock(OTHER_KEY, "locked") == 0
    assert await later.table.release("PACS", "CT", (CT, IMPLICIT)) == 0
    assert await later.table.destinations() == []
    # A person sends it: it is asked about first.
    assert await later.table.retry(Selection()) == 5
    assert all(item.attempted for item in await later.table.firsts(batch, 0, 9))
    assert await rows.database.run(lambda c: begin_epoch(c, "restored")) == 2


# --- the end --------------------------------------------------------------------------------------


async def test_what_is_long_over_is_forgotten_with_its_batch(rows: Rows) -> None:
    old, mixed, still = [await rows.batch() for _ in range(3)]
    await rows.add(old, 2, state=State.DELIVERED, ended=5.0)
    await rows.add(mixed, state=State.DISCARDED, ended=5.0)
    (young,) = await rows.add(mixed, state=State.DELIVERED, ended=6.0)
    (failed,) = await rows.add(still, state=State.FAILED, ended=1.0)
    (waiting,) = await rows.add(still)
    await rows.add(still, state=State.DELIVERED, ended=1.0)
    for batch in (old, mixed):
        await rows.table.close_batch(batch, 5.0)
    assert await rows.table.expire(5.0 + HISTORY) == 4
    assert await rows.table.select(Selection()) == [young, failed, waiting]
    left = await rows.table.batches([old.number, mixed.number, still.number])
    assert set(left) == {mixed.number, still.number}
    assert await rows.table.expire(5.0 + HISTORY) == 0


async def test_a_batch_that_is_open_is_not_forgotten(rows: Rows) -> None:
    batch = await rows.batch()
    await rows.add(batch, state=State.DELIVERED, ended=1.0)
    assert await rows.table.expire(5.0 + HISTORY) == 1
    assert set(await rows.table.batches([batch.number])) == {batch.number}
    await rows.add(batch)


async def test_a_number_is_not_given_twice(rows: Rows) -> None:
    batch = await rows.batch()
    (item,) = await rows.add(batch, state=State.DELIVERED, ended=1.0)
    await rows.table.close_batch(batch, 5.0)
    assert await rows.table.expire(5.0 + HISTORY) == 1
    next_batch = await rows.batch()
    (next_item,) = await rows.add(next_batch)
    assert next_batch.number > batch.number
    assert next_item.number > item.number


async def test_no_more_than_so_many_are_remembered(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_HISTORY", 4)
    monkeypatch.setattr(module, "PAGE", 2)
    batch = await rows.batch()
    items = []
    for ended in (5.0, 3.0, 7.0, 4.0, 8.0, 6.0, 9.0):
        items += await rows.add(batch, state=State.DELIVERED, ended=ended)
    failed = await rows.add(batch, state=State.FAILED, ended=1.0)
    assert await rows.table.expire(10.0) == 2
    assert await rows.table.expire(10.0) == 1
    assert await rows.table.expire(10.0) == 0
    left = await rows.table.select(Selection())
    assert numbers(left) == numbers([items[2], items[4], items[5], items[6], *failed])


# --- which way questions are answered -------------------------------------------------------------


async def _asked(rows: Rows, ask: Callable[[], Awaitable[Any]]) -> list[str]:
    """The steps of all statements that a question takes, as SQLite plans them."""
    statements: list[tuple[str, Any]] = []

    def note(_: Any, statement: str, values: Any) -> bool:
        statements.append((statement, values))
        return True

    def trace(connection: apsw.Connection, tracer: Any) -> None:
        connection.exec_trace = tracer

    def plan(connection: apsw.Connection) -> list[str]:
        return [
            str(row[3])
            for statement, values in statements
            if statement.split(maxsplit=1)[0] in ("SELECT", "UPDATE", "DELETE")
            for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
        ]

    await rows.database.run(lambda connection: trace(connection, note))
    await ask()
    await rows.database.run(lambda connection: trace(connection, None))
    steps = await rows.database.run(plan)
    assert steps
    return steps


# What is small whatever waits: the tally has five rows a destination; these two indexes hold what
# is to be told to a peer, and what an earlier run had open.
_SMALL = re.compile(
    r"SCAN (tally|pause|setting)"
    r"|SCAN item USING INDEX item_unforgotten"
    r"|SCAN batch USING (COVERING )?INDEX batch_open"
)

QUESTIONS: dict[str, Callable[[ItemTable, Batch], Awaitable[Any]]] = {
    "load": lambda t, b: ItemTable.load(t._database, 1.0),
    "kept_in": lambda t, b: t.kept_in(1),
    "lost": lambda t, b: t.lost({b"1" * 16}, "lost", 1.0),
    "lock": lambda t, b: t.lock(OTHER_KEY, "locked"),
    "destinations": lambda t, b: t.destinations(),
    "next_batch": lambda t, b: t.next_batch("PACS", (1, 2)),
    "firsts": lambda t, b: t.firsts(b, 5, 64),
    "pairs": lambda t, b: t.pairs(b),
    "due": lambda t, b: t.due("PACS", 5.0, 64),
    "next_due": lambda t, b: t.next_due("PACS"),
    "batches": lambda t, b: t.batches((1, 2)),
    "begin_batch": lambda t, b: t.begin_batch(b),
    "close_batch": lambda t, b: t.close_batch(b, 5.0),
    "hold_batch": lambda t, b: t.hold_batch(b, Hold.MOVED, "moved"),
    "settle": lambda t, b: t.settle([Change(number=1, state=State.DELIVERED, attempts=1)]),
    "unforgotten": lambda t, b: t.unforgotten(b.peer, 64),
    "forgotten": lambda t, b: t.forgotten([b"1" * 16]),
    "counts": lambda t, b: t.counts(),
    "oldest": lambda t, b: t.oldest("PACS"),
    "last": lambda t, b: t.last(),
    "count": lambda t, b: t.count(Selection(called="PACS", state=State.FAILED)),
    "count of a study": lambda t, b: t.count(Selection(study="1.2")),
    "select": lambda t, b: t.select(Selection(called="PACS", state=State.FAILED)),
    "select by destination": lambda t, b: t.select(Selection(called="PACS")),
    "select by study": lambda t, b: t.select(Selection(study="1.2")),
    "select by state": lambda t, b: t.select(Selection(state=State.FAILED)),
    "select by calling": lambda t, b: t.select(Selection(calling="CT")),
    "select by number": lambda t, b: t.select(Selection(numbers=(1, 2))),
    "studies": lambda t, b: t.studies(Selection(study="1.2")),
    "held": lambda t, b: t.held(),
    "retry": lambda t, b: t.retry(Selection(called="PACS", state=State.FAILED)),
    "discard": lambda t, b: t.discard(Selection(study="1.2"), "not wanted", 1.0),
    "release": lambda t, b: t.release("PACS", "CT", (CT, EXPLICIT)),
    "pauses": lambda t, b: t.pauses(),
    "expire": lambda t, b: t.expire(5.0 + HISTORY),
}


@pytest.mark.parametrize("question", QUESTIONS)
async def test_no_question_reads_all_rows(
    rows: Rows, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "read", Database.run)  # over the connection that is watched
    batch = await rows.batch()
    items = await rows.add(batch, 20)
    await rows.table.settle(
        [Change(number=item.number, state=State.DELIVERED, attempts=1, ended=1.0) for item in items]
    )
    await rows.add(batch, 5)
    await rows.add(batch, state=State.HELD, hold=Hold.NOT_ACCEPTED)
    await rows.add(batch, state=State.FAILED)
    steps = await _asked(rows, lambda: QUESTIONS[question](rows.table, batch))
    # A number that has only a bound is a place in the table, from which on all is read.
    scans = [
        step
        for step in steps
        if (step.startswith("SCAN") and not _SMALL.match(step)) or "(rowid>?" in step
    ]
    assert scans == []


@pytest.mark.parametrize(
    ("question", "index"),
    [
        ("next_batch", "batch_waiting"),
        ("next_batch", "item_batch"),
        ("firsts", "item_batch"),
        ("due", "item_due"),
        ("next_due", "item_due"),
        ("oldest", "item_state"),
        ("unforgotten", "item_unforgotten"),
        ("expire", "item_over"),
        ("kept_in", "item_kept"),
        ("load", "batch_open"),
    ],
)
async def test_each_question_has_its_index(rows: Rows, question: str, index: str) -> None:
    batch = await rows.batch()
    await rows.add(batch, state=State.DELIVERED, ended=1.0)
    steps = await _asked(rows, lambda: QUESTIONS[question](rows.table, batch))
    assert any(index in step for step in steps), steps
    if question not in ("load", "expire"):
        assert not any("TEMP B-TREE" in step for step in steps), steps


async def test_the_folders_are_read_from_an_index_alone(rows: Rows) -> None:
    await rows.add(await rows.batch())
    steps = await _asked(rows, rows.table.kept_folders)
    assert steps == ["SCAN item USING COVERING INDEX item_kept"]
