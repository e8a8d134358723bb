"""A device that asks for storage commitment without end, and a clock that is set back."""

from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from relay.database import Database, open_database
from relay.errors import SpoolFull
from relay.spool import transactions as module
from relay.spool.schema import MIGRATIONS
from relay.spool.transactions import TransactionTable
from tests.spool.test_transactions import KEY, NEVER, NOW, asked


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "queue.db", MIGRATIONS) as database:
        yield database


@pytest.mark.parametrize(
    ("limit", "most"), [("MAXIMUM_OPEN_OF_ONE", 2), ("MAXIMUM_BYTES_OF_ONE", 250)]
)
async def test_one_device_has_not_all_the_room(
    database: Database, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(module, limit, most)
    table = TransactionTable(database, KEY)
    await table.keep(asked("1.1"), bytes(100), [])
    await table.keep(asked("1.2"), bytes(100), [])
    with pytest.raises(SpoolFull, match="of CT"):
        await table.keep(asked("1.3"), bytes(100), [])
    assert await table.keep(asked("1.2"), bytes(100), [])  # the same once more
    assert await table.keep(asked("1.3", device="MR"), bytes(100), [])


async def test_a_clock_that_is_set_back_keeps_no_request_waiting(database: Database) -> None:
    table = TransactionTable(database, KEY)
    await table.keep(asked("1.1"), b"request", [])
    (transaction,) = await table.due(NOW, NEVER, 10)
    await table.settle(attrs.evolve(transaction, due=NOW + 60, attempts=1))
    assert await table.due(NOW, NEVER, 10) == []
    (transaction,) = await table.due(NOW - 86400, NEVER - 86400, 10)
    assert transaction.attempts == 1
