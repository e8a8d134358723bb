"""Requests for storage commitment: kept, locked, ready when their objects are, over, forgotten."""

from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from relay.database import Database, open_database
from relay.errors import ObjectDamaged, SpoolFull
from relay.spool import transactions as module
from relay.spool.items import Batch, Item, Pause, State
from relay.spool.rows import insert_batch, insert_item
from relay.spool.schema import MIGRATIONS
from relay.spool.table import ItemTable
from relay.spool.transactions import HISTORY, Stage, Transaction, TransactionTable
from relay.spool.vault import SpoolKey
from tests.spool.requests import open_of, requests_of

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
NOW = 1_700_000_000.0
KEY = SpoolKey(b"k" * 32)
NEVER = NOW - 1e6


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "queue.db", MIGRATIONS) as database:
        yield database


@pytest.fixture
async def table(database: Database) -> TransactionTable:
    return TransactionTable(database, KEY)


def asked(uid: str = "1.2.3", called: str = "PACS", device: str = "CT") -> Transaction:
    return Transaction(
        peer=b"p" * 32,
        called=called,
        calling="CT_N",
        device=device,
        uid=uid,
        transfer_syntax=EXPLICIT,
        command=b"command",
        accepted=NOW,
    )


async def an_item(
    database: Database, instance: str, state: State = State.WAITING, called: str = "PACS"
) -> int:
    """A row of the queue, without a file; its number."""
    batch = Batch(peer=b"p" * 32, called=called, calling="CT_N", device="CT", opened=NOW)
    item = Item(
        number=0,
        id=instance.encode().ljust(16, b"\0") + state.to_bytes(1, "big"),
        batch=0,
        called=called,
        state=state,
        sop_class=CT,
        sop_instance=instance,
        transfer_syntax=EXPLICIT,
        command=b"",
        length=0,
        digest=bytes(32),
        key=b"",
        key_name=b"",
        folder=0,
        size=0,
        accepted=NOW,
        study="",
    )
    return await database.run(lambda c: insert_item(c, item, insert_batch(c, batch)))


async def becomes(database: Database, number: int, state: State) -> None:
    await database.run(
        lambda c: c.execute("UPDATE item SET state = ? WHERE number = ?", (state, number)) and None
    )


async def due(table: TransactionTable, now: float = NOW, overdue: float = NEVER) -> list[str]:
    return [found.uid for found in await table.due(now, overdue, 100)]


async def test_what_is_kept_is_there_after_a_restart_and_locked(tmp_path: Path) -> None:
    secret = b"1.2.3.4.5.6.7.8.9 named instances"
    path = tmp_path / "queue.db"
    async with open_database(path, MIGRATIONS) as database:
        assert await TransactionTable(database, KEY).keep(asked(), secret, [])
    assert secret not in path.read_bytes()
    async with open_database(path, MIGRATIONS) as database:
        table = TransactionTable(database, KEY)
        (found,) = await open_of(table)
        assert attrs.evolve(found, number=0, id=b"") == attrs.evolve(asked(), id=b"")
        assert await table.content(found) == secret
        with pytest.raises(ObjectDamaged):
            await TransactionTable(database, SpoolKey(b"x" * 32)).content(found)
        await database.run(
            lambda c: c.execute("UPDATE commitment SET sealed = substr(sealed, 2)") and None
        )
        with pytest.raises(ObjectDamaged):
            await table.content(found)


async def test_the_same_again_is_the_same_and_another_of_that_uid_is_refused(
    table: TransactionTable,
) -> None:
    assert await table.keep(asked(), b"one", [])
    assert await table.keep(asked(), b"one", [])
    assert not await table.keep(asked(), b"other", [])
    assert await table.keep(asked(called="PACS2"), b"other", [])
    assert await table.keep(asked(device="MR"), b"other", [])
    assert len(await open_of(table)) == 3
    first = (await open_of(table))[0]
    await table.settle(attrs.evolve(first, stage=Stage.ASKED))
    assert await table.keep(asked(), b"other", [])  # the first one is over


async def test_it_is_due_once_none_of_its_objects_waits(
    database: Database, table: TransactionTable
) -> None:
    one, two = await an_item(database, "1.1"), await an_item(database, "1.2", State.HELD)
    await an_item(database, "1.3", State.DELIVERED)
    await an_item(database, "1.4", State.FAILED)
    await an_item(database, "1.5", called="PACS2")
    await an_item(database, "1.6")  # it does not name that
    named = ["1.1", "1.2", "1.3", "1.4", "1.5", "1.7"]
    await table.keep(asked("1.2.1"), b"", named)
    await table.keep(asked("1.2.2", "PACS2"), b"", ["1.7"])
    assert await due(table) == ["1.2.2"]
    await becomes(database, one, State.DELIVERED)
    assert await due(table) == ["1.2.2"]
    await becomes(database, two, State.DISCARDED)
    assert await due(table) == ["1.2.1", "1.2.2"]


async def test_what_comes_later_is_not_waited_for(
    database: Database, table: TransactionTable
) -> None:
    await table.keep(asked(), b"", ["1.1"])
    await an_item(database, "1.1")
    assert await due(table) == ["1.2.3"]


async def test_of_each_destination_and_of_each_device_one_is_due(table: TransactionTable) -> None:
    for number in range(6):
        await table.keep(asked(f"1.2.{number}", ("PACS", "PACS2")[number % 2]), b"", [])
    assert await due(table) == ["1.2.0", "1.2.1"]
    for found in (await open_of(table))[:4]:
        await table.settle(attrs.evolve(found, stage=Stage.REPORT))
    assert await due(table) == ["1.2.0", "1.2.4", "1.2.5"]


async def test_overdue_it_is_due_whatever_waits(
    database: Database, table: TransactionTable
) -> None:
    await an_item(database, "1.1")
    await table.keep(asked(), b"", ["1.1"])
    assert await due(table, overdue=NOW - 1) == []
    assert await due(table, overdue=NOW) == ["1.2.3"]


async def test_nothing_goes_to_a_destination_that_is_stopped_but_failures_are_told(
    database: Database, table: TransactionTable
) -> None:
    items = await ItemTable.load(database, NOW)
    await items.pause(Pause("PACS", True, "no", NOW))
    await table.keep(asked("1.2.1"), b"", [])
    await table.keep(asked("1.2.2"), b"", [])
    assert await due(table) == []
    second = (await open_of(table))[1]
    await table.settle(attrs.evolve(second, stage=Stage.REPORT))
    assert await due(table) == ["1.2.2"]
    await items.resume("PACS")
    assert await due(table) == ["1.2.1", "1.2.2"]


async def test_it_is_due_again_in_its_time(table: TransactionTable) -> None:
    await table.keep(asked(), b"data", [])
    (found,) = await open_of(table)
    await table.settle(attrs.evolve(found, due=NOW + 10, attempts=1, reason="not there"))
    assert await due(table) == []
    assert await table.next_due(NOW) == NOW + 10
    assert await due(table, NOW + 10) == ["1.2.3"]
    assert await table.next_due(NOW + 10) is None
    (again,) = await open_of(table)
    assert (again.attempts, again.reason) == (1, "not there")
    assert await table.content(again) == b"data"


@pytest.mark.parametrize("stage", [Stage.ASKED, Stage.REPORTED, Stage.UNREPORTED])
async def test_what_is_over_keeps_no_data_set_and_is_forgotten_in_the_end(
    database: Database, table: TransactionTable, stage: Stage
) -> None:
    await table.keep(asked(), b"data", [])
    (found,) = await open_of(table)
    await table.settle(attrs.evolve(found, stage=stage, since=NOW + 5))
    assert await open_of(table) == []
    assert await due(table, NOW + 100) == []
    (over,) = await requests_of(table)
    assert (over.stage, over.ended) == (stage, NOW + 5)
    with pytest.raises(ObjectDamaged):
        await table.content(over)
    await table.settle(attrs.evolve(over, stage=Stage.OBJECTS))  # too late
    assert await open_of(table) == []
    assert await table.expire(NOW + HISTORY) == 0
    assert await table.expire(NOW + 5 + HISTORY) == 1
    assert await requests_of(table) == []


async def test_requests_that_are_open_have_a_limit(
    table: TransactionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_OPEN", 2)
    await table.keep(asked("1.1"), b"", [])
    await table.keep(asked("1.2"), b"", [])
    with pytest.raises(SpoolFull):
        await table.keep(asked("1.3"), b"", [])
    assert await table.keep(asked("1.2"), b"", [])
    first = (await open_of(table))[0]
    await table.settle(attrs.evolve(first, stage=Stage.ASKED))
    assert await table.keep(asked("1.3"), b"", [])


async def test_their_bytes_have_a_limit(
    table: TransactionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_BYTES", 1000)
    await table.keep(asked("1.1"), bytes(600), [])
    with pytest.raises(SpoolFull):
        await table.keep(asked("1.2"), bytes(600), [])
    assert await table.keep(asked("1.2"), bytes(100), [])
