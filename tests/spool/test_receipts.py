"""Receipts: what is found, for how long, and that a group is durable for all of it or for none."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest
import trio
from trio.testing import MockClock

from relay.database import Database, open_database
from relay.errors import DatabaseError
from relay.spool import receipts as module
from relay.spool.receipts import (
    DAY,
    HORIZON,
    UNCLAIMED,
    Conflict,
    Receipt,
    ReceiptTable,
    Recorder,
    needs_receipt,
)
from relay.spool.schema import MIGRATIONS

NORTH, SOUTH = b"n" * 32, b"s" * 32
NOW = 1_700_000_000


def item(number: int) -> bytes:
    return number.to_bytes(16, "big")


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def receipt(number: int, origin: bytes = NORTH, status: int = 0, comment: str = "") -> Receipt:
    return Receipt(origin, item(number), digest(number), status, comment)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "queue.db", MIGRATIONS) as database:
        yield database


@pytest.fixture
async def table(database: Database) -> ReceiptTable:
    return await ReceiptTable.load(database)


@pytest.fixture
async def recorder(table: ReceiptTable) -> Recorder:
    return Recorder(table)


async def found(table: ReceiptTable, *numbers: int, origin: bytes = NORTH) -> set[int]:
    known = await table.find(origin, [(item(n), digest(n)) for n in numbers])
    return {int.from_bytes(id_, "big") for id_ in known}


async def test_what_is_kept_is_found_as_it_was_by_its_origin_alone(table: ReceiptTable) -> None:
    warned = receipt(2, status=0xB000, comment="coerced")
    await table.write([receipt(1), warned, receipt(3, SOUTH)], (), NOW)
    asked = [(item(n), digest(n)) for n in (1, 2, 3, 4)]
    assert await table.find(NORTH, asked) == {item(1): receipt(1), item(2): warned}
    assert await table.find(SOUTH, asked) == {item(3): receipt(3, SOUTH)}
    assert await table.find(NORTH, []) == {}


async def test_another_object_of_that_id_is_a_conflict(table: ReceiptTable) -> None:
    await table.write([receipt(1)], (), NOW)
    assert await table.find(NORTH, [(item(1), digest(2))]) == {item(1): Conflict()}


async def test_the_first_receipt_of_an_item_stays(table: ReceiptTable) -> None:
    await table.write([receipt(1)], (), NOW)
    await table.write([Receipt(NORTH, item(1), digest(9), 0xB000)], (), NOW)
    assert await table.find(NORTH, [(item(1), digest(1))]) == {item(1): receipt(1)}
    assert len(table) == 1


async def test_it_outlives_its_origins_word_by_the_horizon(table: ReceiptTable) -> None:
    await table.write([receipt(1), receipt(2)], (), NOW)
    await table.write((), [(NORTH, item(1)), (NORTH, item(7))], NOW + DAY)
    await table.write((), [(NORTH, item(1))], NOW + 3 * DAY)  # said again: that changes nothing
    assert await table.expire(NOW + DAY + HORIZON - 1) == 0
    assert await table.expire(NOW + DAY + HORIZON) == 1
    assert await found(table, 1, 2) == {2}
    assert await table.expire(NOW + UNCLAIMED - 1) == 0
    assert await table.expire(NOW + UNCLAIMED) == 1
    assert len(table) == 0


async def test_expiry_goes_page_by_page(
    table: ReceiptTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    await table.write([receipt(n) for n in range(10)], (), NOW)
    assert await table.expire(NOW + UNCLAIMED) == 10


async def test_an_origin_with_too_many_has_no_room_until_some_are_over(
    database: Database, table: ReceiptTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_RECEIPTS", 2)
    await table.write([receipt(1)], (), NOW)
    assert table.has_room(NORTH)
    await table.write([receipt(2)], (), NOW)
    assert not table.has_room(NORTH)
    assert table.has_room(SOUTH)
    again = await ReceiptTable.load(database)
    assert not again.has_room(NORTH)
    await table.expire(NOW + UNCLAIMED)
    assert table.has_room(NORTH)


class CountingDatabase:
    """Counts how often anything is asked of it."""

    def __init__(self, database: Database) -> None:
        self.database, self.runs = database, 0

    async def run(self, fn: Callable[[apsw.Connection], Any]) -> Any:
        self.runs += 1
        return await self.database.run(fn)


async def test_what_is_new_is_not_looked_up(database: Database) -> None:
    counting = CountingDatabase(database)
    table = await ReceiptTable.load(counting)  # type: ignore[arg-type]
    old, new = ([random.randbytes(16) for _ in range(5_000)] for random in map(Random, (1, 2)))
    await table.write([Receipt(NORTH, id_, digest(1), 0) for id_ in old], (), NOW)
    for again in (table, await ReceiptTable.load(counting)):  # type: ignore[arg-type]
        counting.runs = 0
        for id_ in new:
            assert await again.find(NORTH, [(id_, digest(1))]) == {}
        assert counting.runs < 50
        assert len(await again.find(NORTH, [(id_, digest(1)) for id_ in old])) == len(old)


async def test_the_filter_is_made_anew_when_most_of_it_has_expired(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_STALE", 10)
    monkeypatch.setattr(module, "PAGE", 7)
    counting = CountingDatabase(database)
    table = await ReceiptTable.load(counting)  # type: ignore[arg-type]
    await table.write([receipt(n) for n in range(40)], (), NOW)
    await table.write([receipt(n, SOUTH) for n in range(40, 60)], (), NOW + DAY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(table.expire, NOW + UNCLAIMED)
        for number in range(60, 80):  # while it is made
            await table.write([receipt(number, SOUTH)], (), NOW + DAY)
    counting.runs = 0
    assert await found(table, *range(40)) == set()
    assert counting.runs <= 1
    assert await found(table, *range(80), origin=SOUTH) == set(range(40, 80))
    assert len(table) == 40


@pytest.mark.parametrize(
    ("status", "needed"),
    [(0, True), (0xB000, True), (0x0107, True), (0x0111, False), (0xA700, False), (0xC000, False)],
)
def test_only_what_the_device_has_needs_one(status: int, needed: bool) -> None:
    assert needs_receipt(status) is needed


# --- groups ---------------------------------------------------------------------------------------


class SlowTable(ReceiptTable):
    """Takes a second for each transaction, and fails on demand."""

    failing = False

    async def write(self, *arguments: object) -> None:  # type: ignore[override]
        await trio.sleep(1)
        if self.failing:
            raise DatabaseError("queue.db: disk I/O error")
        await super().write(*arguments)  # type: ignore[arg-type]


@pytest.fixture
async def slow(database: Database) -> SlowTable:
    table = await SlowTable.load(database)
    assert isinstance(table, SlowTable)
    return table


async def test_who_waits_meanwhile_shares_the_next_transaction(
    slow: SlowTable, autojump_clock: MockClock
) -> None:
    recorder = Recorder(slow)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(recorder.keep, [receipt(number)], NOW)
    assert recorder.groups <= 2
    assert await found(slow, *range(20)) == set(range(20))


async def test_a_commit_that_fails_is_told_to_all_of_its_group(
    slow: SlowTable, autojump_clock: MockClock
) -> None:
    recorder, told = Recorder(slow), []
    slow.failing = True

    async def keep(number: int) -> None:
        try:
            await recorder.keep([receipt(number)], NOW)
        except DatabaseError:
            told.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(keep, number)
    assert sorted(told) == [0, 1, 2, 3, 4]
    assert await found(slow, *range(5)) == set()
    slow.failing = False
    await recorder.keep([receipt(6)], NOW)
    assert await found(slow, 6) == {6}


async def test_a_cancelled_caller_leaves_what_the_device_has_on_the_disk(
    slow: SlowTable, autojump_clock: MockClock
) -> None:
    recorder = Recorder(slow)

    async def keep(number: int, scope: trio.CancelScope) -> None:
        with scope:
            await recorder.keep([receipt(number)], NOW)

    async with trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(3)]
        for number, scope in enumerate(scopes):
            nursery.start_soon(keep, number, scope)
        await trio.sleep(0.5)
        for scope in scopes:
            scope.cancel()
    assert await found(slow, 0, 1, 2) == {0, 1, 2}


async def test_what_is_forgotten_goes_with_the_next_receipts_or_a_flush(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = recorder.table
    await recorder.keep([receipt(n) for n in range(6)], NOW)
    groups = recorder.groups
    await recorder.forget(NORTH, [item(1)], NOW)
    assert recorder.groups == groups
    await recorder.keep([receipt(6)], NOW)
    await recorder.forget(NORTH, [item(2)], NOW)
    await recorder.flush(NOW)
    assert recorder.groups == groups + 2
    await recorder.flush(NOW)  # nothing to write
    assert recorder.groups == groups + 2
    monkeypatch.setattr(module, "MAXIMUM_FORGETS", 2)
    await recorder.forget(NORTH, [item(3), item(4)], NOW)
    assert await table.expire(NOW + HORIZON) == 4
    assert await found(table, *range(7)) == {0, 5, 6}


async def test_a_failed_commit_loses_no_word_of_an_origin(
    slow: SlowTable, autojump_clock: MockClock
) -> None:
    recorder = Recorder(slow)
    await recorder.keep([receipt(1)], NOW)
    await recorder.forget(NORTH, [item(1)], NOW)
    slow.failing = True
    with pytest.raises(DatabaseError):
        await recorder.flush(NOW)
    slow.failing = False
    await recorder.flush(NOW)
    assert await slow.expire(NOW + HORIZON) == 1


async def test_an_item_is_in_one_sessions_hands_at_a_time(
    recorder: Recorder, autojump_clock: MockClock
) -> None:
    order: list[str] = []

    async def session(name: str) -> None:
        await recorder.take(NORTH, item(1))
        order.append(f"{name} takes it")
        await trio.sleep(1)
        order.append(f"{name} frees it")
        recorder.free(NORTH, item(1))

    async with trio.open_nursery() as nursery:
        for name in ("one", "two"):
            nursery.start_soon(session, name)
        await recorder.take(SOUTH, item(1))  # another origin's is another item
        await recorder.take(NORTH, item(2))
        await trio.sleep(0.5)
        assert len(order) == 1
        with trio.move_on_after(0.1) as limit:
            await recorder.wait_free(NORTH, [item(3), item(1)])
        assert limit.cancelled_caught
    await recorder.wait_free(NORTH, [item(1)])
    assert [line[4:] for line in order] == ["takes it", "frees it"] * 2
    assert order[0][:3] == order[1][:3] != order[2][:3] == order[3][:3]


async def test_receipts_survive_reopening(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with open_database(path, MIGRATIONS) as database:
        await Recorder(await ReceiptTable.load(database)).keep([receipt(1)], NOW)
    async with open_database(path, MIGRATIONS) as database:
        assert await found(await ReceiptTable.load(database), 1) == {1}


async def test_a_broken_table_is_a_database_error(database: Database) -> None:
    table = await ReceiptTable.load(database)

    def drop(connection: apsw.Connection) -> None:
        connection.execute("DROP TABLE receipt")

    await database.run(drop)
    with pytest.raises(DatabaseError):
        await Recorder(table).keep([receipt(1)], NOW)
