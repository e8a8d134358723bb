"""Custody: one sync keeps an object, and its row follows, in front of whatever is asked for."""

import errno
import threading
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from relay.database import Database
from relay.errors import DatabaseError, SpoolBroken, SpoolError, SpoolFull
from relay.spool import custody as module
from relay.spool import table
from relay.spool.custody import MAXIMUM_WAITING, Custody, Handed
from relay.spool.files import File, Files
from relay.spool.items import Batch, Change, Item, State
from relay.spool.objects import Objects
from relay.spool.rows import insert_item
from relay.spool.segments import StoredObject
from relay.spool.slips import MAXIMUM_SLIP, Slip
from relay.spool.space import Space
from relay.spool.vault import SpoolKey
from tests.spool.rows import Rows, a_batch, an_item
from tests.spool.stock import item_of
from tests.statements import Statements
from tests.waiting import until

KEY = SpoolKey(bytes(32))
RUN, EPOCH = 4, 2


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return Space(Files(tmp_path), 2**40, 0)


@pytest.fixture
async def custody(rows: Rows, space: Space) -> Custody:
    return Custody(rows.database, space, KEY, run_number=RUN, epoch=EPOCH)


def hand_in(custody: Custody, count: int = 1, batch: Batch | None = None) -> list[Handed]:
    """So many objects, which are on the disk as far as custody knows."""
    found = batch or a_batch()
    return [custody.hand_in(found, an_item(found.called)) for _ in range(count)]


def numbers(handed: list[Handed]) -> list[int]:
    return [one.item.number for one in handed]


async def noted(rows: Rows) -> int:
    """How many rows there are, for whoever looks: without anything written in front of it."""
    with apsw.Connection(str(rows.database.path), flags=apsw.SQLITE_OPEN_READONLY) as other:
        return int(other.execute("SELECT count(*) FROM item").get)


@attrs.define
class Rowing:
    """The making of rows: it waits where it is to, and fails where it is to."""

    fail: BaseException | None = None
    sound: int = 0  # rows before the first that fails
    open: threading.Event = attrs.field(factory=threading.Event)
    begun: int = 0

    def __call__(self, connection: apsw.Connection, item: Item, batch: int) -> int:
        self.begun += 1
        assert self.open.wait(20)
        if self.fail is not None and self.begun > self.sound:
            raise self.fail
        return insert_item(connection, item, batch)


@pytest.fixture
async def rowing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rowing]:
    """Nothing waits before `open` is cleared."""
    rowing = Rowing()
    rowing.open.set()
    monkeypatch.setattr(module, "insert_item", rowing)
    yield rowing
    rowing.open.set()


# --- rows -----------------------------------------------------------------------------------------


async def test_an_item_is_kept_with_its_batch(custody: Custody, rows: Rows) -> None:
    batch = a_batch()
    one = await custody.keep(batch, an_item())
    two = await custody.keep(batch, an_item())
    assert batch.number == one.batch == two.batch > 0
    assert 0 < one.number < two.number
    assert [await rows.item(one), await rows.item(two)] == [one, two]
    assert (custody.groups, custody.kept) == (2, 2)


async def test_numbers_rise_in_the_order_of_acceptance(custody: Custody, rows: Rows) -> None:
    batch = a_batch()
    handed = hand_in(custody, 9, batch)
    assert numbers(handed) == [0] * 9
    assert batch.number == 0
    await custody.flush()
    assert numbers(handed) == list(range(1, 10))
    assert batch.number > 0
    assert [await rows.item(one.item) for one in handed] == [one.item for one in handed]
    assert {one.item.batch for one in handed} == {batch.number}
    assert (custody.groups, custody.kept) == (1, 9)
    later = hand_in(custody, 2, batch)
    await custody.flush()
    assert numbers(later) == [10, 11]
    assert {one.item.batch for one in later} == {batch.number}


async def test_batches_of_one_group_are_told_apart(custody: Custody, rows: Rows) -> None:
    one, two = a_batch("A"), a_batch("B")
    for batch in (one, two, one, two, two):
        hand_in(custody, 1, batch)
    await custody.flush()
    assert custody.groups == 1
    found = await rows.table._rows("SELECT batch, called FROM item ORDER BY number")
    assert found == [(batch.number, batch.called) for batch in (one, two, one, two, two)]
    assert await rows.value("SELECT count(*) FROM batch") == 2
    assert one.number != two.number


async def test_two_batches_that_say_the_same_are_two(custody: Custody, rows: Rows) -> None:
    one, two = a_batch(), a_batch()
    hand_in(custody, 1, one)
    hand_in(custody, 1, two)
    await custody.flush()
    assert 0 < one.number < two.number


async def test_a_group_has_its_limit(
    custody: Custody, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_GROUP", 4)
    batch = a_batch()
    handed = hand_in(custody, 10, batch)
    await custody.flush()
    assert numbers(handed) == list(range(1, 11))
    assert custody.groups == 3
    assert {one.item.batch for one in handed} == {batch.number}
    assert await rows.value("SELECT count(*) FROM batch") == 1


async def test_there_is_nothing_to_flush(custody: Custody, rows: Rows) -> None:
    await custody.flush()
    assert not custody.waits
    assert custody.groups == 0


# --- when they are written ------------------------------------------------------------------------


async def test_the_first_is_written_at_once_and_those_that_follow_together(
    custody: Custody, rows: Rows, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHERING", 600.0)
    nursery.start_soon(custody.run)
    await wait_all_tasks_blocked()
    hand_in(custody)
    await until(lambda: custody.kept == 1)
    await wait_all_tasks_blocked(0.01)
    hand_in(custody, MAXIMUM_WAITING - 1)
    await trio.sleep(0.05)
    assert await noted(rows) == 1
    hand_in(custody)
    await until(lambda: custody.kept == MAXIMUM_WAITING + 1)
    assert custody.groups == 2


async def test_after_a_while_they_are_written_however_few_they_are(
    custody: Custody, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHERING", 0.2)
    nursery.start_soon(custody.run)
    hand_in(custody)
    await until(lambda: custody.kept == 1)
    await wait_all_tasks_blocked(0.01)
    begun = trio.current_time()
    hand_in(custody, 3)
    await until(lambda: custody.kept == 4)
    assert trio.current_time() - begun > 0.1
    assert custody.groups == 2


async def test_they_are_there_for_whoever_asks(custody: Custody, rows: Rows) -> None:
    (one,) = hand_in(custody)
    assert custody.waits
    assert await noted(rows) == 0
    assert await rows.value("SELECT count(*) FROM item") == 1
    assert one.item.number == 1  # who asks hears of it later than who handed it in
    assert not custody.waits
    (two,) = hand_in(custody)
    reading = await rows.table._read("SELECT number FROM item ORDER BY number", ())
    assert reading == [(1,), (2,)]
    assert two.item.number == 2
    (three,) = hand_in(custody)
    count = rows.database.run_here(lambda c: c.execute("SELECT count(*) FROM item").get)
    assert count == 3
    await wait_all_tasks_blocked()
    assert three.item.number == 3
    assert custody.groups == 3


async def test_they_are_written_with_what_comes_behind_them(custody: Custody, rows: Rows) -> None:
    batch = a_batch()
    hand_in(custody, 2, batch)
    await rows.table.close_batch(await rows.batch("OTHER"), 3.0)
    assert custody.groups == 1
    assert batch.number > 0


@pytest.mark.parametrize("how", ["flush", "read", "keep", "run"])
async def test_those_that_somebody_is_writing_are_waited_for(
    custody: Custody, rows: Rows, rowing: Rowing, nursery: trio.Nursery, how: str
) -> None:
    """They wait for nothing any more, and are not there yet."""
    batch = a_batch()
    (one,) = hand_in(custody, 1, batch)
    rowing.open.clear()
    nursery.start_soon(rows.database.run, lambda connection: None)
    await until(lambda: rowing.begun == 1)
    found: list[object] = []

    async def ask() -> None:
        match how:
            case "flush":
                await custody.flush()
            case "read":
                found.extend(await rows.table._read("SELECT number FROM item", ()))
            case "keep":
                found.append((await custody.keep(batch, an_item())).number)
            case _:
                found.append(await rows.value("SELECT count(*) FROM item"))
        found.append((one.item.number, batch.number))

    nursery.start_soon(ask)
    await trio.sleep(0.05)
    asked_in_vain = list(found)
    rowing.open.set()
    await until(lambda: found)
    assert asked_in_vain == []
    wanted = {"flush": [], "read": [(1,)], "keep": [2], "run": [1]}[how]
    assert found == [*wanted, (1, 1)]


async def test_who_flushes_does_not_wait_for_what_comes_later(custody: Custody) -> None:
    """Where objects come all the time there is always something that waits."""
    many = 50

    def another(item: Item) -> None:
        if item.number < many:
            custody.hand_in(a_batch(), an_item(), another)

    custody.hand_in(a_batch(), an_item(), another)
    await custody.flush()
    assert custody.kept < 3


# --- what others do -------------------------------------------------------------------------------


def fail(connection: apsw.Connection) -> None:
    raise ZeroDivisionError("a fault of somebody else's")


async def test_what_somebody_elses_failure_undoes_is_written_later(
    custody: Custody, rows: Rows, space: Space
) -> None:
    first, second = a_batch("A"), a_batch("B")
    handed = [*hand_in(custody, 2, first), *hand_in(custody, 2, second)]
    with pytest.raises(ZeroDivisionError):
        await rows.database.run(fail)
    assert custody.waits
    assert (first.number, second.number, numbers(handed)) == (0, 0, [0] * 4)
    assert await noted(rows) == 0
    space.check()  # it is nothing of the disk's
    handed += hand_in(custody, 1, first)
    await custody.flush()
    assert numbers(handed) == [1, 2, 3, 4, 5]
    batches = [first.number] * 2 + [second.number] * 2 + [first.number]
    assert [one.item.batch for one in handed] == batches
    assert [await rows.item(one.item) for one in handed] == [one.item for one in handed]
    assert custody.groups == 1


async def test_and_by_itself(
    custody: Custody, rows: Rows, rowing: Rowing, nursery: trio.Nursery
) -> None:
    """Also where nothing seemed to wait as it was looked for."""
    nursery.start_soon(custody.run)
    await wait_all_tasks_blocked()
    rowing.open.clear()
    failures: list[BaseException] = []
    (one,) = hand_in(custody)

    def other() -> None:
        try:
            rows.database.run_here(fail)
        except ZeroDivisionError as error:
            failures.append(error)

    other_one = threading.Thread(target=other)
    other_one.start()
    while not rowing.begun:  # in the event loop's thread: nobody else has a turn
        pass
    await wait_all_tasks_blocked()
    rowing.open.set()
    await until(lambda: one.item.number == 1)
    other_one.join()
    assert failures


async def test_a_group_that_was_undone_comes_before_what_came_meanwhile(
    custody: Custody, rows: Rows, nursery: trio.Nursery
) -> None:
    may_fail, inside = threading.Event(), threading.Event()

    def slowly(connection: apsw.Connection) -> None:
        inside.set()
        assert may_fail.wait(20)
        fail(connection)

    async def somebody() -> None:
        with pytest.raises(ZeroDivisionError):
            await rows.database.run(slowly)

    before = hand_in(custody, 3)
    nursery.start_soon(somebody)
    await until(inside.is_set)
    later = hand_in(custody, 3)
    may_fail.set()
    await custody.flush()
    assert numbers(before + later) == [1, 2, 3, 4, 5, 6]


# --- where there is no room -----------------------------------------------------------------------


async def test_a_database_without_room_holds_the_next_objects_off(
    custody: Custody,
    rows: Rows,
    space: Space,
    rowing: Rowing,
    logs: list[MutableMapping[str, Any]],
) -> None:
    batch = a_batch()
    handed = hand_in(custody, 3, batch)
    rowing.fail, rowing.sound = apsw.FullError("database or disk is full"), 1
    await custody.flush()  # nobody is told of it who has had an answer
    assert "the spool cannot be written: database or disk is full" in space.held_off
    for refused in (space.check, space.check_disk):
        with pytest.raises(SpoolFull, match="disk is full"):
            refused()
    assert not space.broken
    assert (batch.number, numbers(handed), custody.kept) == (0, [0] * 3, 0)
    # Others go on, without those rows.
    assert not custody.waits
    other = await rows.batch("OTHER")
    assert await rows.value("SELECT count(*) FROM item") == 0
    assert await rows.table._read("SELECT number FROM batch", ()) == [(other.number,)]
    await custody.flush()
    assert space.held_off
    rowing.fail = None
    await custody.flush()
    assert numbers(handed) == [1, 2, 3]
    assert await rows.item(handed[0].item) == handed[0].item
    space.check()
    assert len([line for line in logs if "spool held off" in line["event"]]) == 1


async def test_whose_row_is_to_be_written_is_told_that_it_is_not(
    custody: Custody, rows: Rows, rowing: Rowing
) -> None:
    rowing.fail = apsw.FullError("full")
    batch = a_batch()
    with pytest.raises(SpoolFull, match="full"):
        await custody.keep(batch, an_item())
    rowing.fail = None
    kept = await custody.keep(batch, an_item())
    assert kept.number == 2  # the other one is in custody all the same
    assert await rows.value("SELECT count(*) FROM batch") == 1


async def test_it_is_tried_again_by_itself(
    custody: Custody,
    space: Space,
    rowing: Rowing,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.05)
    nursery.start_soon(custody.run)
    rowing.fail = apsw.FullError("full")
    handed = hand_in(custody, 2)
    await until(lambda: rowing.begun >= 3)
    assert space.held_off
    assert custody.kept == 0
    rowing.fail = None
    await until(lambda: custody.kept == 2)
    assert numbers(handed) == [1, 2]
    assert not space.held_off


async def test_but_not_more_often_for_those_that_wait(
    custody: Custody, rowing: Rowing, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN", 600.0)
    nursery.start_soon(custody.run)
    rowing.fail = apsw.FullError("full")
    hand_in(custody)
    await until(lambda: rowing.begun == 1)
    hand_in(custody, 2 * MAXIMUM_WAITING)
    await trio.sleep(0.05)
    assert rowing.begun == 1


async def test_and_where_it_was_found_by_somebody_else(
    custody: Custody,
    rows: Rows,
    space: Space,
    rowing: Rowing,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whose transaction had the rows before they were looked for: nothing seemed to wait then."""
    monkeypatch.setattr(module, "AGAIN", 0.05)
    nursery.start_soon(custody.run)
    await wait_all_tasks_blocked()
    rowing.open.clear()
    rowing.fail = apsw.FullError("full")
    (one,) = hand_in(custody)
    done: list[str] = []
    other_one = threading.Thread(
        target=rows.database.run_here, args=(lambda connection: done.append("by somebody else"),)
    )
    other_one.start()
    while not rowing.begun:  # in the event loop's thread: nobody else has a turn
        pass
    await wait_all_tasks_blocked()
    rowing.open.set()
    await until(lambda: done)
    other_one.join()
    await until(lambda: space.held_off)
    rowing.fail = None
    with trio.move_on_after(3):
        await until(lambda: one.item.number == 1)
    assert one.item.number == 1
    assert not space.held_off


async def test_what_an_earlier_group_tells_does_not_undo_that(
    custody: Custody, rows: Rows, space: Space, rowing: Rowing
) -> None:
    """Both were written before the event loop has heard of either."""
    (one,) = hand_in(custody)
    rows.database.run_here(lambda connection: None)
    (two,) = hand_in(custody)
    rowing.fail = apsw.FullError("full")
    rows.database.run_here(lambda connection: None)
    await wait_all_tasks_blocked()
    assert numbers([one, two]) == [1, 0]
    assert "full" in space.held_off
    assert not custody.waits


async def test_nobody_else_fails_for_it_however_often_it_is_tried(
    custody: Custody, rows: Rows, rowing: Rowing
) -> None:
    """Their transactions are carried out alone: what they free may be what is wanted."""
    hand_in(custody)
    rowing.fail = apsw.FullError("full")
    for _ in range(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rows.batch, "ONE")
            nursery.start_soon(rows.batch, "TWO")
            nursery.start_soon(custody.flush)
    assert rowing.begun >= 5
    assert await rows.value("SELECT count(*) FROM batch") == 10
    assert await rows.value("SELECT count(*) FROM item") == 0


async def test_who_must_not_miss_any_is_told_that_there_are_more(
    custody: Custody, rows: Rows, rowing: Rowing
) -> None:
    await custody.noted()
    (one,) = hand_in(custody)
    rowing.fail = apsw.FullError("full")
    for _ in range(2):
        with pytest.raises(SpoolFull, match="full"):
            await custody.noted()
    rowing.fail = None
    await custody.noted()
    assert one.item.number == 1


async def delivered(rows: Rows, handed: Handed) -> None:
    """A courier has done so."""
    change = Change(number=handed.item.number, state=State.DELIVERED, attempts=1, ended=4.0)
    assert await rows.table.settle([change])


async def test_rows_written_after_their_association_has_ended_are_delivered(
    custody: Custody, rows: Rows, rowing: Rowing
) -> None:
    """All of it was delivered, as far as its rows could say: it was done."""
    batch = a_batch()
    (first,) = hand_in(custody, 1, batch)
    await custody.flush()
    await delivered(rows, first)
    (late,) = hand_in(custody, 1, batch)
    rowing.fail = apsw.FullError("full")
    await custody.flush()
    await rows.table.close_batch(batch, 3.0)
    assert await rows.done(batch)
    rowing.fail = None
    await custody.flush()
    found = await rows.table.next_batch("PACS", ())
    assert found is not None
    assert found.number == batch.number
    assert await rows.table.firsts(found, 0, 9) == [late.item]
    await delivered(rows, late)
    assert await rows.done(batch)


async def test_so_are_those_of_one_that_has_ended_before_its_first_row(
    custody: Custody, rows: Rows, rowing: Rowing
) -> None:
    batch = a_batch()
    (late,) = hand_in(custody, 1, batch)
    rowing.fail = apsw.FullError("full")
    await custody.flush()
    await rows.table.close_batch(batch, 3.0)
    rowing.fail = None
    await custody.flush()
    found = await rows.table.next_batch("PACS", ())
    assert found is not None
    assert found.closed == 3.0
    await delivered(rows, late)
    assert await rows.done(batch)


async def test_those_that_are_done_stay_so(custody: Custody, rows: Rows) -> None:
    """Only what is written anew is looked at, and what is open is not marked."""
    batch, other = a_batch("A"), a_batch("B")
    one, two = *hand_in(custody, 1, batch), *hand_in(custody, 1, other)
    await custody.flush()
    await rows.table.close_batch(batch, 3.0)
    await delivered(rows, one)
    await delivered(rows, two)
    hand_in(custody, 1, other)
    await custody.flush()
    assert [await rows.done(batch), await rows.done(other)] == [True, False]
    assert await rows.table.next_batch("A", ()) is None


async def test_so_are_those_for_which_there_was_no_room_also_after_the_next_start(
    custody: Custody, rows: Rows, space: Space
) -> None:
    batch = a_batch()
    (first,) = hand_in(custody, 1, batch)
    await custody.flush()
    await delivered(rows, first)
    pages = await rows.value("PRAGMA page_count")
    late = [custody.hand_in(batch, an_item(command=bytes(4000))) for _ in range(40)]
    rows.database._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    await custody.flush()
    assert space.held_off
    assert numbers(late) == [0] * 40
    await rows.table.close_batch(batch, 3.0)  # which there is room for
    rows.database._connection.execute("PRAGMA max_page_count = 100000")
    await custody.flush()
    assert numbers(late) == list(range(2, 42))
    assert await rows.table.next_batch("PACS", ()) is not None
    again = await rows.again()
    found = await again.table.next_batch("PACS", ())
    assert found is not None
    assert await again.table.firsts(found, 0, 99) == [one.item for one in late]


async def test_a_full_database_is_what_sqlite_says_of_it(
    custody: Custody, rows: Rows, space: Space
) -> None:
    pages = await rows.value("PRAGMA page_count")
    await rows.value(f"PRAGMA max_page_count = {pages}")
    batch = a_batch()
    handed: list[Handed] = []
    while not space.held_off:
        assert len(handed) < 1000
        handed += [custody.hand_in(batch, an_item(command=bytes(4000))) for _ in range(5)]
        await custody.flush()
    before = custody.kept
    assert before < len(handed)
    assert await rows.value("SELECT count(*) FROM item") == before
    await rows.value("PRAGMA max_page_count = 1000000")
    await custody.flush()
    assert numbers(handed) == list(range(1, len(handed) + 1))
    assert [await rows.item(one.item) for one in handed] == [one.item for one in handed]
    assert await rows.value("SELECT count(*) FROM batch") == 1
    space.check()


# --- where nobody knows what is on the disk -------------------------------------------------------


FAULTS = (apsw.IOError("disk I/O error"), apsw.CorruptError("malformed"), ZeroDivisionError("ours"))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_what_cannot_be_written_at_all_is_left_to_the_next_start(
    custody: Custody,
    rows: Rows,
    space: Space,
    rowing: Rowing,
    nursery: trio.Nursery,
    logs: list[MutableMapping[str, Any]],
    fault: Exception,
) -> None:
    nursery.start_soon(custody.run)
    own = isinstance(fault, ZeroDivisionError)
    words = "a fault of Relay's own: the log has it" if own else str(fault)
    rowing.fail = fault
    batch = a_batch()
    handed = hand_in(custody, 2, batch)
    await custody.flush()
    for refused in (space.check, space.check_disk):
        with pytest.raises(SpoolBroken, match=words):
            refused()
    with pytest.raises(SpoolBroken, match=words):
        await custody.keep(batch, an_item())
    assert any(line["event"] == "rows not made" and line["exc_info"] for line in logs) is own
    # Others go on; and nothing of it is written in this run.
    rowing.fail = None
    assert not custody.waits
    await rows.batch("OTHER")
    await custody.flush()
    with trio.fail_after(5):
        await custody.settled(hand_in(custody, 2 * MAXIMUM_WAITING, batch)[-1])
    await trio.sleep(0.05)
    assert (numbers(handed), batch.number, custody.kept) == ([0, 0], 0, 0)
    assert await rows.value("SELECT count(*) FROM item") == 0
    with pytest.raises(SpoolBroken):
        space.check()


async def test_whoever_finds_it_is_told_and_nobody_after_that(
    custody: Custody, rows: Rows, rowing: Rowing
) -> None:
    hand_in(custody)
    rowing.fail = apsw.IOError("disk I/O error")
    with pytest.raises(DatabaseError, match="disk I/O error"):
        await rows.batch("OTHER")
    await rows.batch("OTHER")


async def test_a_database_that_is_closed_ends_the_wait(
    custody: Custody, rows: Rows, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def closed(self: Database, fn: Callable[[apsw.Connection], object]) -> None:
        raise DatabaseError("the connection is closed")

    handed = hand_in(custody, MAXIMUM_WAITING + 1)
    with monkeypatch.context() as patch:
        patch.setattr(Database, "run", closed)
        with trio.fail_after(5):
            await custody.flush()
            await custody.settled(handed[-1])
    assert "the connection is closed" in space.held_off
    assert not custody.waits
    await custody.flush()  # it was not
    assert numbers(handed) == list(range(1, MAXIMUM_WAITING + 2))
    space.check()


@pytest.fixture
async def statements(rows: Rows) -> Statements:
    """Those of the database."""
    found = Statements(rows.database._connection)
    rows.database._connection = found  # type: ignore[assignment]
    return found


@pytest.mark.parametrize("count", [3, MAXIMUM_WAITING + 1])
async def test_a_transaction_that_does_not_begin_is_not_tried_all_the_time(
    custody: Custody,
    space: Space,
    statements: Statements,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    """Nothing is unknown then: it is as where there is no room."""
    monkeypatch.setattr(module, "AGAIN", 0.2)
    statements.fail["BEGIN"] = apsw.IOError("disk I/O error")
    nursery.start_soon(custody.run)
    handed = hand_in(custody, count)
    with trio.fail_after(5):
        await custody.settled(handed[-1])
    await until(lambda: space.held_off)
    assert "disk I/O error" in space.held_off
    assert not space.broken
    await trio.sleep(0.3)
    assert statements.done.count("BEGIN") < 5
    statements.fail.clear()
    await until(lambda: custody.kept == count)
    assert numbers(handed) == list(range(1, count + 1))
    space.check()


async def test_a_database_that_somebody_else_holds_locked_keeps_no_sender_waiting(
    custody: Custody, rows: Rows, space: Space, nursery: trio.Nursery
) -> None:
    """For longer than anybody may: the next object is refused."""
    with closing(apsw.Connection(str(rows.database.path))) as other:
        other.execute("BEGIN IMMEDIATE")
        rows.database._connection.set_busy_timeout(50)
        nursery.start_soon(custody.run)
        handed = hand_in(custody, MAXIMUM_WAITING + 1)
        with trio.fail_after(5):
            await custody.settled(handed[-1])
        with pytest.raises(SpoolFull, match="locked"):
            space.check()
        other.execute("ROLLBACK")
    await until(lambda: custody.kept == MAXIMUM_WAITING + 1)
    space.check()


async def test_what_is_undone_is_written_later_also_where_the_undoing_fails(
    custody: Custody, rows: Rows, statements: Statements
) -> None:
    handed = hand_in(custody, 2)
    statements.fail["ROLLBACK"] = apsw.IOError("disk I/O error")
    with pytest.raises(DatabaseError, match="disk I/O error"):
        await rows.database.run(fail)
    statements.fail.clear()
    with trio.fail_after(5):
        await custody.flush()
    assert numbers(handed) == [1, 2]


# --- who is told ----------------------------------------------------------------------------------


async def test_who_hands_in_is_told_in_the_order_of_the_numbers(
    custody: Custody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_GROUP", 3)
    told: list[tuple[int, int]] = []
    batch = a_batch()

    def then(item: Item) -> None:
        assert threading.current_thread() is threading.main_thread()
        told.append((item.number, item.batch))

    for _ in range(5):
        custody.hand_in(batch, an_item(), then)
    assert not told
    await custody.flush()
    assert told == [(number, batch.number) for number in (1, 2, 3, 4, 5)]


async def test_and_once_only(custody: Custody, rows: Rows) -> None:
    told: list[int] = []
    custody.hand_in(a_batch(), an_item(), lambda item: told.append(item.number))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await rows.database.run(fail)
    assert not told
    for _ in range(2):
        await custody.flush()
    assert told == [1]


async def test_a_fault_of_one_who_is_told_is_nobody_elses(
    custody: Custody, rows: Rows, logs: list[MutableMapping[str, Any]]
) -> None:
    told: list[int] = []

    def then(item: Item) -> None:
        told.append(item.number)
        if item.number in (1, 3):
            raise ZeroDivisionError("a fault")

    batch = a_batch()
    handed = [custody.hand_in(batch, an_item(), then) for _ in range(3)]
    await custody.flush()
    assert numbers(handed) == told == [1, 2, 3]
    lines = [line for line in logs if line["event"] == "custody not told"]
    assert [line["number"] for line in lines] == [1, 3]
    assert (await custody.keep(batch, an_item())).number == 4


# --- who waits ------------------------------------------------------------------------------------


@attrs.define
class Sender:
    """Waits for its answer."""

    handed: Handed
    answered: bool = False

    async def run(self, custody: Custody) -> None:
        await custody.settled(self.handed)
        self.answered = True


async def senders(custody: Custody, nursery: trio.Nursery, count: int) -> list[Sender]:
    """Each hands one in more, in this order."""
    found = []
    for _ in range(count):
        found.append(Sender(*hand_in(custody)))
        nursery.start_soon(found[-1].run, custody)
        await wait_all_tasks_blocked()
    return found


async def test_senders_wait_where_too_many_rows_do(
    custody: Custody, rows: Rows, nursery: trio.Nursery
) -> None:
    found = await senders(custody, nursery, MAXIMUM_WAITING + 3)
    assert [sender.answered for sender in found] == [True] * MAXIMUM_WAITING + [False] * 3
    assert await noted(rows) == 0
    await custody.flush()
    await wait_all_tasks_blocked()
    assert all(sender.answered for sender in found)


@pytest.mark.parametrize("error", [apsw.FullError("full"), apsw.IOError("broken")])
async def test_and_are_let_go_where_nobody_knows_when_they_are_written(
    custody: Custody, rowing: Rowing, nursery: trio.Nursery, error: Exception
) -> None:
    """They are in custody: where the database has no room, that is the next ones' concern."""
    found = await senders(custody, nursery, MAXIMUM_WAITING + 3)
    rowing.fail = error
    await custody.flush()
    await wait_all_tasks_blocked()
    assert all(sender.answered for sender in found)
    (late,) = await senders(custody, nursery, 1)
    assert late.answered


async def test_and_where_nobody_writes_them_any_more(
    custody: Custody, rows: Rows, nursery: trio.Nursery
) -> None:
    """The Router ends, with its last senders: their objects are in custody."""
    async with trio.open_nursery() as running:
        running.start_soon(custody.run)
        hand_in(custody)
        await custody.flush()
        running.cancel_scope.cancel()
    found = await senders(custody, nursery, MAXIMUM_WAITING + 1)
    assert all(sender.answered for sender in found)
    await custody.flush()  # whoever ends it
    assert custody.kept == MAXIMUM_WAITING + 2


async def test_and_who_waits_as_that_ends(
    custody: Custody, rowing: Rowing, nursery: trio.Nursery
) -> None:
    rowing.open.clear()
    async with trio.open_nursery() as running:
        running.start_soon(custody.run)
        hand_in(custody)
        await until(lambda: rowing.begun == 1)  # it writes that one
        found = await senders(custody, nursery, MAXIMUM_WAITING + 3)
        assert not found[-1].answered
        running.cancel_scope.cancel()
        rowing.open.set()
    await until(lambda: all(sender.answered for sender in found))
    assert custody.kept == 1


async def test_it_ends_however_many_come_all_the_time(custody: Custody, rows: Rows) -> None:
    most = 200 * MAXIMUM_WAITING

    def as_many(item: Item) -> None:
        if item.number % MAXIMUM_WAITING == 0 and item.number < most:
            more()

    def more() -> None:
        batch = a_batch()
        for _ in range(MAXIMUM_WAITING):
            custody.hand_in(batch, an_item(), as_many)

    more()
    async with trio.open_nursery() as running:
        running.start_soon(custody.run)
        await until(lambda: custody.groups >= 3)
        running.cancel_scope.cancel()
    assert custody.kept < most


# --- objects --------------------------------------------------------------------------------------


@attrs.define
class Taker:
    """Takes objects into custody, content and all."""

    custody: Custody
    objects: Objects
    told: list[Item] = attrs.field(factory=list)
    made: Callable[[Batch, StoredObject], Item] = item_of

    async def finish(self, batch: Batch, content: bytes = b"content") -> Item:
        writer = await self.objects.begin()
        await writer.write(content)
        return await self.custody.finish(
            batch, writer, lambda stored: self.made(batch, stored), soon=True, then=self.told.append
        )


@pytest.fixture
async def taker(custody: Custody, space: Space) -> AsyncIterator[Taker]:
    objects = Objects(space._files, KEY, space)
    yield Taker(custody, objects)
    await objects.close()


async def test_an_object_is_in_custody_by_its_slip(taker: Taker, rows: Rows) -> None:
    """Before it has a row: what that is to say, and of which run it is."""
    batch = a_batch(priority=2)
    item = await taker.finish(batch)
    assert item.number == 0
    assert taker.custody.waits
    slip = await taker.objects.slip(item.stored.name)
    assert isinstance(slip, Slip)
    assert (slip.run, slip.epoch, slip.item) == (RUN, EPOCH, item)
    assert attrs.asdict(slip.batch) == attrs.asdict(batch)
    assert await noted(rows) == 0
    await taker.custody.flush()
    assert taker.told == [attrs.evolve(item, number=1, batch=batch.number)]
    assert await rows.item(item) == taker.told[0]


async def test_no_more_than_one_sync_is_waited_for(
    taker: Taker, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = File.sync

    def noting(self: File) -> None:
        synced.append(threading.current_thread().name)
        sync(self)

    await taker.finish(a_batch())
    monkeypatch.setattr(File, "sync", noting)
    await taker.finish(a_batch())
    assert len(synced) == 1
    assert taker.custody.groups == 0


async def test_a_sender_that_goes_meanwhile_has_it_kept(
    taker: Taker, rows: Rows, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing, go_on = threading.Event(), threading.Event()
    sync = File.sync

    def slowly(self: File) -> None:
        syncing.set()
        assert go_on.wait(20)
        sync(self)

    monkeypatch.setattr(File, "sync", slowly)
    scope = trio.CancelScope()

    async def send() -> None:
        with scope:
            await taker.finish(a_batch())

    nursery.start_soon(send)
    await until(syncing.is_set)
    scope.cancel()
    await wait_all_tasks_blocked()
    go_on.set()
    await until(lambda: taker.custody.waits)
    await taker.custody.flush()
    assert [item.number for item in taker.told] == [1]
    assert await rows.value("SELECT count(*) FROM item") == 1


async def test_who_was_cancelled_before_has_it_kept_too(taker: Taker, rows: Rows) -> None:
    writer = await taker.objects.begin()
    await writer.write(b"content")
    batch = a_batch()
    with trio.CancelScope() as scope:
        scope.cancel()
        await taker.custody.finish(
            batch, writer, lambda stored: item_of(batch, stored), soon=True, then=taker.told.append
        )
    await taker.custody.flush()
    assert len(taker.told) == 1


@pytest.mark.parametrize(
    ("operation", "number", "kind"),
    [
        ("write", errno.ENOSPC, SpoolFull),
        ("sync", errno.EMFILE, SpoolFull),
        ("sync", errno.EIO, SpoolBroken),
    ],
)
async def test_what_is_not_on_the_disk_has_no_row(
    taker: Taker,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    number: int,
    kind: type[SpoolError],
) -> None:
    def failing(*_: object) -> None:
        raise OSError(number, "as the test says")

    monkeypatch.setattr(File, operation, failing)
    with pytest.raises(kind, match="as the test says"):
        await taker.finish(a_batch())
    assert not taker.custody.waits
    monkeypatch.undo()
    if kind is SpoolFull:
        await taker.finish(a_batch())
        await taker.custody.flush()
        assert [item.number for item in taker.told] == [1]


async def takes_the_next(taker: Taker) -> None:
    """Nothing is left of what was refused, and the next object is kept."""
    assert not taker.custody.waits
    taker.made = item_of
    await taker.finish(a_batch())
    await taker.custody.flush()
    assert [item.number for item in taker.told] == [1]


async def test_a_row_that_cannot_be_made_is_a_fault_of_its_sender_alone(
    taker: Taker, rows: Rows
) -> None:
    taker.made = lambda batch, stored: item_of(batch, stored, id=1 / 0)
    with pytest.raises(ZeroDivisionError):
        await taker.finish(a_batch())
    await takes_the_next(taker)


async def test_one_of_which_there_is_more_to_say_than_is_read_again_is_refused(
    taker: Taker, rows: Rows
) -> None:
    """Before it is answered, and its sender alone."""
    command = bytes(MAXIMUM_SLIP)
    taker.made = lambda batch, stored: item_of(batch, stored, command=command)
    with pytest.raises(SpoolFull, match="what there is to say of an object takes"):
        await taker.finish(a_batch())
    await takes_the_next(taker)


async def test_what_cannot_have_a_row_is_answered_and_the_next_one_refused(
    taker: Taker, rows: Rows, rowing: Rowing
) -> None:
    rowing.fail = apsw.FullError("full")
    first = await taker.finish(a_batch())
    await taker.custody.flush()
    assert first.number == 0
    with pytest.raises(SpoolFull, match="full"):
        await taker.objects.begin()
    rowing.fail = None
    await taker.custody.flush()
    second = await taker.finish(a_batch())
    await taker.custody.flush()
    assert [item.id for item in taker.told] == [first.id, second.id]


async def test_many_senders_at_once(taker: Taker, rows: Rows, nursery: trio.Nursery) -> None:
    nursery.start_soon(taker.custody.run)
    accepted: list[bytes] = []

    async def send() -> None:
        batch = a_batch()
        for _ in range(20):
            accepted.append((await taker.finish(batch)).id)

    with trio.fail_after(60):
        async with trio.open_nursery() as sending:
            for _ in range(6):
                sending.start_soon(send)
    await until(lambda: taker.custody.kept == 120)
    assert [item.number for item in taker.told] == list(range(1, 121))
    assert {item.id for item in taker.told} == set(accepted)
    assert await rows.value("SELECT count(*) FROM batch") == 6
    assert await rows.value("SELECT count(DISTINCT number) FROM item") == 120
    assert taker.custody.groups < 120


async def test_a_row_whose_batch_is_forgotten_meanwhile_has_another(
    custody: Custody,
    rows: Rows,
    rowing: AsyncIterator,
    space: Space,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "MAXIMUM_HISTORY", 0)
    batch = a_batch()
    (first,) = hand_in(custody, 1, batch)
    await custody.flush()
    await delivered(rows, first)
    (late,) = hand_in(custody, 1, batch)
    rowing.fail = apsw.FullError("full")
    await custody.flush()
    await rows.table.close_batch(batch, 3.0)
    assert await rows.table.expire(10.0) == 1
    rowing.fail = None
    await custody.flush()
    assert late.item.number, space.broken
