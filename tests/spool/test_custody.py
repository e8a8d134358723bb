"""Custody: what is kept together, in which order, and what each keeper learns."""

import errno
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import apsw
import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from relay.database import Database
from relay.errors import DatabaseError, SpoolBroken, SpoolError, SpoolFull
from relay.spool import custody as module
from relay.spool.custody import Custody, Handed
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
    sound: int = 0  # transactions before the first that fails
    started: int = 0
    open: threading.Event = attrs.field(factory=threading.Event)
    transactions: int = 0

    def run_here(self, fn: Callable[[apsw.Connection], object]) -> object:
        assert self.open.wait(10)
        self.transactions += 1

        def change(connection: apsw.Connection) -> object:
            result = fn(connection)
            if self.fail is not None and self.transactions > self.sound:  # as where COMMIT fails
                raise self.fail
            return result

        return self.database.run_here(change)

    def start(self, call: Callable[[], None]) -> None:
        self.started += 1
        self.database.start(call)


@pytest.fixture
def gate(rows: Rows) -> Iterator[Gate]:
    gate = Gate(rows.database)
    yield gate
    gate.open.set()


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
    """So many who wait, in this order; where nobody did, the first one's group is on its way."""
    batches = [batch or a_batch() for _ in range(count)]
    found = [Keeper(an_item(batch.called), batch) for batch in batches]
    for keeper in found:
        first = not custody.committing
        nursery.start_soon(keeper.run, custody)
        await wait_all_tasks_blocked()
        with trio.fail_after(5):
            while first and custody._waiting:
                await trio.sleep(0.001)
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
    assert custody.groups <= 2


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


# --- in the thread that has written it ----------------------------------------------------------


@attrs.define
class Alone:
    """Objects that are written, and committed by the thread that has synced them."""

    custody: Custody
    objects: Objects
    made: Callable[[StoredObject], Item] = lambda stored: an_item(id=stored.item)
    told: list[Item] = attrs.field(factory=list)

    async def keep(self, batch: Batch) -> Item:
        writer = await self.objects.begin()
        await writer.write(b"content")
        return await self.custody.finish(batch, writer, self.made, soon=True, then=self.told.append)


@pytest.fixture
async def alone(rows: Rows, custody: Custody, space: Space, gate: Gate) -> AsyncIterator[Alone]:
    objects = Objects(space._files, SpoolKey(bytes(32)), space)
    yield Alone(custody, objects)
    gate.open.set()
    await objects.close()


async def test_the_thread_that_syncs_an_object_commits_it(
    alone: Alone, gate: Gate, rows: Rows
) -> None:
    gate.open.set()
    batch = a_batch()
    kept = [await alone.keep(batch) for _ in range(3)]
    assert gate.started == 0
    assert alone.told == kept
    assert [item.number for item in kept] == [1, 2, 3]
    assert [await rows.item(item) for item in kept] == kept
    assert {item.batch for item in kept} == {batch.number}
    assert (alone.custody.groups, alone.custody.kept) == (3, 3)


async def test_those_that_are_synced_meanwhile_share_the_next_commit(
    alone: Alone, gate: Gate, rows: Rows, nursery: trio.Nursery
) -> None:
    batch = a_batch()
    await keepers(alone.custody, nursery, 1, batch)
    with trio.fail_after(5):
        async with trio.open_nursery() as senders:
            for _ in range(4):
                senders.start_soon(alone.keep, batch)
            while len(alone.custody._waiting) < 4:
                await trio.sleep(0.001)
            assert alone.custody.committing
            gate.open.set()
    assert [item.number for item in alone.told] == [2, 3, 4, 5]
    assert alone.custody.groups == 2
    assert await rows.value("SELECT count(*) FROM batch") == 1


async def test_rows_may_be_there_of_which_nobody_has_been_told(
    alone: Alone, gate: Gate, rows: Rows, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the event loop has heard, whoever reads the rows has to reckon with more."""
    committing: list[bool] = []
    gate.open.set()
    monkeypatch.setattr(
        alone.custody,
        "_settle",
        lambda committed: (
            committing.append(alone.custody.committing) or Custody._settle(alone.custody, committed)
        ),
    )
    await alone.keep(a_batch())
    assert committing == [True]
    assert not alone.custody.committing


@attrs.define
class Guard:
    """A lock, and what somebody else does as soon as a thread that is not the event loop's has
    given it back for the `last` time."""

    last: int
    then: Callable[[], None]
    loop: int = attrs.field(factory=threading.get_ident)
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        if threading.get_ident() != self.loop:
            self.last -= 1
            if not self.last:
                self.then()


async def test_who_comes_as_nobody_waits_any_more_commits_alone(
    alone: Alone, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the thread that has seen that nobody waits has gone on."""
    token = trio.lowlevel.current_trio_token()
    late = Handed(a_batch(), an_item())
    begins: list[bool] = []
    guard = Guard(3, lambda: begins.append(alone.custody._is_to_commit(late)))
    monkeypatch.setattr(alone.custody, "_guard", guard)
    gate.open.set()
    await alone.keep(a_batch())
    with trio.fail_after(5):
        while not begins:  # who is kept is told before that
            await trio.sleep(0.001)
    assert begins == [True]
    assert gate.started == 0
    assert alone.custody.committing
    await trio.to_thread.run_sync(alone.custody._commit, token)
    await alone.custody.wait(late)
    assert not alone.custody.committing
    assert alone.custody.groups == 2


@pytest.mark.parametrize("full", [True, False])
async def test_a_commit_that_fails_there(
    alone: Alone, gate: Gate, space: Space, full: bool
) -> None:
    error = DatabaseError("queue.db: disk I/O error")
    error.__cause__ = apsw.FullError() if full else apsw.IOError()

    gate.open.set()
    gate.fail = error
    batch = a_batch()
    with pytest.raises(SpoolFull if full else SpoolBroken, match="disk I/O error"):
        await alone.keep(batch)
    gate.fail = None
    assert not alone.told
    assert batch.number == 0
    assert not alone.custody.committing
    if full:
        await alone.keep(batch)
        assert [item.number for item in alone.told] == [1]
    else:
        with pytest.raises(SpoolBroken):
            space.check()


async def test_an_object_that_is_not_on_the_disk_is_no_fault_of_the_commit(
    alone: Alone, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()

    def fail(_: object, __: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(File, "write", fail)
    with pytest.raises(SpoolFull, match="No space"):
        await alone.keep(a_batch())
    monkeypatch.undo()
    assert not alone.custody.committing
    await alone.keep(a_batch())
    assert len(alone.told) == 1


async def test_a_row_that_cannot_be_made_is_a_fault_of_its_sender_alone(
    alone: Alone, gate: Gate
) -> None:
    gate.open.set()
    made, alone.made = alone.made, lambda stored: an_item(id=1 / 0)
    with pytest.raises(ZeroDivisionError):
        await alone.keep(a_batch())
    assert not alone.custody.committing
    alone.made = made
    assert (await alone.keep(a_batch())).number == 1


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
    custody: Custody, gate: Gate, rows: Rows, nursery: trio.Nursery
) -> None:
    """It is raised for one of a group, where it is seen; the others are told that it was none."""
    (before,) = await keepers(custody, nursery, 1)
    gate.fail, gate.sound = ZeroDivisionError("a fault"), 1
    with pytest.RaisesGroup(ZeroDivisionError):
        async with trio.open_nursery() as group:
            first, second = [custody.hand_in(a_batch(), an_item()) for _ in range(2)]
            gate.open.set()
            group.start_soon(custody.wait, first)
            with pytest.raises(SpoolFull, match="the log has it"):
                await custody.wait(second)
    assert before.kept is not None
    gate.fail = None
    kept = await custody.keep(a_batch(), an_item())
    assert await rows.item(kept) == kept
