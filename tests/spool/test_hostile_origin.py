"""An origin that forgets without end: the disk, which all devices wait for, has nothing to do."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.database import Database, open_database
from relay.spool import receipts as module
from relay.spool.receipts import HORIZON, ReceiptTable
from relay.spool.schema import MIGRATIONS
from tests.spool.test_receipts import NORTH, NOW, SOUTH, found, item, receipt


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "queue.db", MIGRATIONS) as database:
        yield database


async def version(database: Database) -> int:
    """Rises with each row that is written."""
    return int(await database.run(lambda connection: connection.total_changes()))


async def test_what_it_makes_up_and_what_it_says_again_is_not_written(database: Database) -> None:
    table = await ReceiptTable.load(database)
    await table.write([receipt(1), receipt(2, SOUTH)], (), NOW)
    before = await version(database)
    await table.write((), [(NORTH, item(n)) for n in range(100, 4000)], NOW)
    await table.write((), [(NORTH, item(2))], NOW)  # another's
    assert await version(database) == before
    await table.write((), [(NORTH, item(1))], NOW)
    assert await version(database) == before + 1
    for later in range(10):
        await table.write((), [(NORTH, item(1))], NOW + later)
    assert await version(database) == before + 1
    assert await table.expire(NOW + HORIZON) == 1
    assert await found(table, 1) == set()
    assert await found(table, 2, origin=SOUTH) == {2}


async def test_so_many_receipts_do_not_keep_a_router_from_being_ready(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = await ReceiptTable.load(database)
    await table.write([receipt(n) for n in range(5)], (), NOW)
    monkeypatch.setattr(module, "FILTERED_AT_THE_START", 4)
    again = await ReceiptTable.load(database)
    assert len(again) == 5
    assert again._filter is None
    assert await found(again, 1, 4, 7) == {1, 4}
    await again.write([receipt(7)], [(NORTH, item(1)), (NORTH, item(9))], NOW)
    assert await again.expire(NOW) == 0
    assert again._filter is not None
    assert await found(again, 1, 4, 7, 9) == {1, 4, 7}
    assert await again.expire(NOW + HORIZON) == 1
