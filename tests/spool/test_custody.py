"""Custody: what is kept together, in which order, and what each keeper learns."""

import errno
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.database import Database
from relay.errors import DatabaseError, SpoolBroken, SpoolError, SpoolFull
from relay.spool import custody as module
from relay.spool.custody import Custody
from relay.spool.files import File, Files
from relay.spool.items import Batch, Item
from relay.spool.objects import Objects
from relay.spool.segments import StoredObject
from relay.spool.space import Space
from relay.spool.vault import SpoolKey
from tests.spool.rows import Rows, a_batch, an_item


@attrs.define
class Gate:
    """A database whose transactions wait until they are let through, and fail if told to."""

    database: Database
    fail: Exception | None = None
    open: trio.Event = attrs.field(factory=trio.Event)
    transactions: int = 0

    async def run(self, fn: Callable[[apsw.Connection], object]) -> object:
        with trio.CancelScope(shield=True):
            await self.open.wait()
        self.transactions += 1
        result = await self.database.run(fn)
        if self.fail is not None:
            # As where COMMIT fails: what was done in it is undone.
            await self.database.run(lambda c: c.execute("DELETE FROM item") and None)
            await self.database.run(lambda c: c.execute("DELETE FROM batch") and None)
            raise self.fail
        return result


@pytest.fixture
def gate(rows: Rows) -> Gate:
    return Gate(rows.database)


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return Space(Files(tmp_path), 2**40, 0)


@pytest.fixture
def custody(gate: Gate, space: Space) -> Custody:
    return Custody(gate, space)  # type: ignore[arg-type]  # a gate in front of one


@attrs.define
class Keeper:
    """A sender that waits for its answer."""

    item: Item
    batch: Batch
    kept: Item | None = None
    error: SpoolError | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self, custody: Custody) -> None:
        with self.scope:
            try:
                self.kept = await custody.keep(self.batch, self.item)
            except SpoolError as error:
                self.error = error


async def keepers(
    custody: Custody, nursery: trio.Nursery, count: int, batch: Batch | None = None
) -> list[Keeper]:
    """So many who wait, in this order."""
    batches = [batch or a_batch() for _ in range(count)]
    found = [Keeper(an_item(batch.called), batch) for batch in batches]
    for keeper in found:
        nursery.start_soon(keeper.run, custody)
        await wait_all_tasks_blocked()
    return found


async def test_an_item_is_kept_with_its_batch(custody: Custody, gate: Gate, rows: Rows) -> None:
    gate.open.set()
    batch = a_batch()
    one = await custody.keep(batch, an_item())
    two = await custody.keep(batch, an_item())
    assert batch.number == one.batch == two.batch > 0
    assert 0 < one.number < two.number
    assert [await rows.item(one), await rows.item(two)] == [one, two]
    assert (custody.groups, custody.kept) == (2, 2)


async def test_those_that_come_meanwhile_share_the_next_commit(
    custody: Custody, gate: Gate, nursery: trio.Nursery
) -> None:
    waiting = await keepers(custody, nursery, 17)
    gate.open.set()
    with trio.fail_after(5):
        await wait_all_tasks_blocked()
        while custody.kept < 17:
            await trio.sleep(0.01)
    # The first had gone ahead; the others were one group behind it.
    assert (gate.transactions, custody.groups) == (2, 2)
    assert all(keeper.kept is not None for keeper in waiting)


async def test_numbers_rise_in_the_order_of_acceptance(
    custody: Custody, gate: Gate, nursery: trio.Nursery
) -> None:
    batch = a_batch()
    waiting = await keepers(custody, nursery, 9, batch)
    gate.open.set()
    with trio.fail_after(5):
        while custody.kept < 9:
            await trio.sleep(0.01)
    found = [keeper.kept.number for keeper in waiting if keeper.kept is not None]
    assert found == sorted(found)
    assert len(set(found)) == 9
    assert {keeper.kept.batch for keeper in waiting if keeper.kept} == {batch.number}


async def test_who_hands_in_need_not_wait_to_have_its_place(
    custody: Custody, gate: Gate, rows: Rows
) -> None:
    batch = a_batch()
    handed = [custody.hand_in(batch, an_item()) for _ in range(5)]
    gate.open.set()
    kept = [await custody.wait(one) for one in reversed(handed)]
    assert [item.number for item in kept] == [5, 4, 3, 2, 1]
    assert [await rows.item(item) for item in kept] == kept
    assert custody.groups == 1


async def test_batches_of_one_group_are_told_apart(
    custody: Custody, gate: Gate, nursery: trio.Nursery, rows: Rows
) -> None:
    await keepers(custody, nursery, 1)
    one, two = a_batch("A"), a_batch("B")
    for batch in (one, two, one):
        await keepers(custody, nursery, 1, batch)
    gate.open.set()
    with trio.fail_after(5):
        while custody.kept < 4:
            await trio.sleep(0.01)
    assert custody.groups == 2
    found = await rows.table._rows("SELECT called, count(*) FROM item GROUP BY 1 ORDER BY 1")
    assert found == [("A", 2), ("B", 1), ("PACS", 1)]
    assert await rows.value("SELECT count(*) FROM batch") == 3
    assert one.number != two.number


async def test_a_group_has_its_limit(
    custody: Custody, gate: Gate, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_GROUP", 4)
    await keepers(custody, nursery, 10)
    gate.open.set()
    with trio.fail_after(5):
        while custody.kept < 10:
            await trio.sleep(0.01)
    assert custody.groups == 1 + 3


async def test_a_keeper_that_is_cancelled_commits_for_the_others(
    custody: Custody, gate: Gate, nursery: trio.Nursery, rows: Rows
) -> None:
    under_way, next_one, last = await keepers(custody, nursery, 3)
    under_way.scope.cancel()
    next_one.scope.cancel()
    await wait_all_tasks_blocked()
    assert under_way.kept is next_one.kept is under_way.error is next_one.error is None
    gate.open.set()
    with trio.fail_after(5):
        while last.kept is None:
            await trio.sleep(0.01)
    assert under_way.kept is not None
    assert next_one.kept is not None
    assert await rows.value("SELECT count(*) FROM item") == 3


async def test_a_group_waits_for_what_is_being_synced(
    custody: Custody, gate: Gate, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHERING", 60)
    gate.open.set()
    with custody.coming():
        group = await keepers(custody, nursery, 2)
        assert gate.transactions == 0
    with trio.fail_after(5):
        while not all(keeper.kept for keeper in group):
            await trio.sleep(0.01)
    assert custody.groups == 1


async def test_a_group_does_not_wait_for_long(
    custody: Custody, gate: Gate, autojump_clock: MockClock
) -> None:
    gate.open.set()
    began = trio.current_time()
    with custody.coming():
        await custody.keep(a_batch(), an_item())
    assert trio.current_time() - began == pytest.approx(module.GATHERING)


# --- in the thread that has written it ----------------------------------------------------------


@attrs.define
class Alone:
    """Objects that are written, and committed by the thread that has synced them."""

    custody: Custody
    objects: Objects
    made: Callable[[StoredObject], Item] = lambda stored: an_item(id=stored.item)
    told: list[Item] = attrs.field(factory=list)

    async def keep(self, batch: Batch) -> None:
        writer = await self.objects.begin()
        await writer.write(b"content")
        await self.custody.finish(batch, writer, self.made, soon=True, then=self.told.append)

    async def begun(self) -> None:
        """Return once one is about to be committed."""
        while self.custody.idle:
            await trio.sleep(0.001)


@pytest.fixture
async def alone(rows: Rows, space: Space, tmp_path: Path) -> AsyncIterator[Alone]:
    objects = Objects(Files(tmp_path), SpoolKey(bytes(32)), space)
    yield Alone(Custody(rows.database, space), objects)
    await objects.close()


async def test_the_thread_that_syncs_an_object_commits_it(alone: Alone, rows: Rows) -> None:
    batch = a_batch()
    for _ in range(3):
        assert alone.custody.idle
        await alone.keep(batch)
    assert [item.number for item in alone.told] == [1, 2, 3]
    assert [await rows.item(item) for item in alone.told] == alone.told
    assert {item.batch for item in alone.told} == {batch.number}
    assert (alone.custody.groups, alone.custody.kept) == (3, 3)


async def test_and_those_who_wait_by_then(alone: Alone, rows: Rows, nursery: trio.Nursery) -> None:
    others: list[Keeper] = []
    made, go_on = alone.made, threading.Event()
    batch = a_batch()

    def slow(stored: StoredObject) -> Item:
        assert go_on.wait(10)
        return made(stored)

    alone.made = slow
    with trio.fail_after(5):
        async with trio.open_nursery() as writing:
            writing.start_soon(alone.keep, batch)
            await alone.begun()
            others = await keepers(alone.custody, nursery, 3)
            go_on.set()
        while not all(keeper.kept for keeper in others):
            await trio.sleep(0.01)
    assert alone.custody.groups == 1
    assert alone.custody.idle
    assert await rows.value("SELECT count(*) FROM item") == 4


async def test_who_comes_behind_it_is_next(
    alone: Alone, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_GROUP", 1)
    made, go_on = alone.made, threading.Event()

    def slow(stored: StoredObject) -> Item:
        assert go_on.wait(10)
        return made(stored)

    alone.made = slow
    with trio.fail_after(5):
        async with trio.open_nursery() as writing:
            writing.start_soon(alone.keep, a_batch())
            await alone.begun()
            (behind,) = await keepers(alone.custody, nursery, 1)
            go_on.set()
        while behind.kept is None:
            await trio.sleep(0.01)
    assert alone.custody.groups == 2


@pytest.mark.parametrize("full", [True, False])
async def test_a_commit_that_fails_there(
    alone: Alone, rows: Rows, space: Space, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    error = DatabaseError("queue.db: disk I/O error")
    error.__cause__ = apsw.FullError() if full else apsw.IOError()

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(rows.database, "run_here", fail)
    batch = a_batch()
    with pytest.raises(SpoolFull if full else SpoolBroken, match="disk I/O error"):
        await alone.keep(batch)
    monkeypatch.undo()
    assert not alone.told
    assert batch.number == 0
    assert alone.custody.idle
    if full:
        await alone.keep(batch)
        assert [item.number for item in alone.told] == [1]
    else:
        with pytest.raises(SpoolBroken):
            space.check()


async def test_an_object_that_is_not_on_the_disk_is_no_fault_of_the_commit(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object, __: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(File, "write", fail)
    with pytest.raises(SpoolFull, match="No space"):
        await alone.keep(a_batch())
    monkeypatch.undo()
    assert alone.custody.idle
    await alone.keep(a_batch())
    assert len(alone.told) == 1


async def test_who_hands_in_is_told_in_the_order_of_the_numbers(
    custody: Custody, gate: Gate
) -> None:
    told: list[int] = []
    batch = a_batch()
    handed = [
        custody.hand_in(batch, an_item(), lambda item: told.append(item.number)) for _ in range(5)
    ]
    gate.open.set()
    for one in reversed(handed):
        await custody.wait(one)
    assert told == [1, 2, 3, 4, 5]


async def test_a_fault_of_one_who_is_told_is_nobody_elses(
    alone: Alone, custody: Custody, gate: Gate, rows: Rows
) -> None:
    told: list[int] = []

    def then(item: Item) -> None:
        told.append(item.number)
        if len(told) in (1, 3):
            raise ZeroDivisionError("a fault")

    batch = a_batch()
    handed = [custody.hand_in(batch, an_item(), then) for _ in range(2)]
    gate.open.set()
    assert [(await custody.wait(one)).number for one in handed] == told == [1, 2]
    assert custody.groups == 1
    writer = await alone.objects.begin()
    await alone.custody.finish(batch, writer, alone.made, soon=True, then=then)
    assert told == [1, 2, 3]
    assert await rows.value("SELECT count(*) FROM item") == 3


# --- what goes wrong ------------------------------------------------------------------------------


async def test_a_commit_that_fails_is_told_to_all_and_nothing_more_is_kept(
    custody: Custody, gate: Gate, space: Space, nursery: trio.Nursery
) -> None:
    (first,) = await keepers(custody, nursery, 1)
    group = await keepers(custody, nursery, 3)
    gate.fail = DatabaseError("queue.db: disk I/O error")
    gate.open.set()
    with trio.fail_after(5):
        await wait_all_tasks_blocked()
        while group[-1].error is None:
            await trio.sleep(0.01)
    for keeper in (first, *group):
        assert isinstance(keeper.error, SpoolBroken)
        assert "the spool cannot be written: queue.db: disk I/O error" in str(keeper.error)
        assert keeper.batch.number == 0
    assert len({id(keeper.error) for keeper in group}) == 3
    assert gate.transactions == 1
    gate.fail = None
    with pytest.raises(SpoolBroken, match="disk I/O error"):
        await custody.keep(a_batch(), an_item())
    with pytest.raises(SpoolBroken):
        space.check()
    assert custody.kept == 0


async def test_a_database_that_has_no_room_takes_the_next_object(
    custody: Custody, gate: Gate, space: Space, rows: Rows
) -> None:
    gate.open.set()
    batch = a_batch()
    gate.fail = DatabaseError("queue.db: database or disk is full")
    gate.fail.__cause__ = apsw.FullError()
    with pytest.raises(SpoolFull, match="is full"):
        await custody.keep(batch, an_item())
    assert batch.number == 0
    space.check()
    gate.fail = None
    kept = await custody.keep(batch, an_item())
    assert await rows.item(kept) == kept
    assert await rows.value("SELECT count(*) FROM batch") == 1


async def test_a_full_database_is_what_sqlite_says_of_it(rows: Rows, space: Space) -> None:
    pages = await rows.value("PRAGMA page_count")
    await rows.value(f"PRAGMA max_page_count = {pages}")
    custody = Custody(rows.database, space)
    batch = a_batch()

    async def fill() -> None:
        for _ in range(1000):
            await custody.keep(batch, an_item(command=bytes(4000)))

    with pytest.raises(SpoolFull, match="full"):
        await fill()
    await rows.value("PRAGMA max_page_count = 1000000")
    kept = await custody.keep(batch, an_item(command=bytes(4000)))
    assert await rows.item(kept) == kept


async def test_who_waits_is_answered_where_committing_has_a_fault(
    custody: Custody,
    gate: Gate,
    rows: Rows,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "GATHERING", 60)
    gate.fail = ZeroDivisionError("a fault")
    gate.open.set()
    with pytest.RaisesGroup(ZeroDivisionError):
        async with trio.open_nursery() as leader:
            with custody.coming():
                await keepers(custody, leader, 1)
                (beside,) = await keepers(custody, nursery, 1)
    with trio.fail_after(5):
        while beside.error is None:
            await trio.sleep(0.01)
    assert isinstance(beside.error, SpoolFull)
    gate.fail = None
    kept = await custody.keep(a_batch(), an_item())
    assert await rows.item(kept) == kept
