"""A table of items without files, for tests of what its rows say."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import attrs

from relay.database import Database, open_database
from relay.spool.items import Batch, Item, State
from relay.spool.rows import insert_batch, insert_item, mark_batches
from relay.spool.schema import MIGRATIONS
from relay.spool.table import ItemTable

PEER = b"p" * 32
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
KEY = b"key-name"


def a_batch(called: str = "PACS", **more: Any) -> Batch:
    values: dict[str, Any] = {"peer": PEER, "calling": "CT", "device": "LOCAL", "opened": 1.0}
    return Batch(called=called, **(values | more))


def an_item(called: str = "PACS", **more: Any) -> Item:
    values: dict[str, Any] = {
        "number": 0,
        "id": os.urandom(16),
        "batch": 0,
        "state": State.WAITING,
        "sop_class": CT,
        "sop_instance": "1.2.3",
        "transfer_syntax": IMPLICIT,
        "command": b"command",
        "length": 100,
        "digest": os.urandom(32),
        "key": b"wrapped",
        "key_name": KEY,
        "folder": 1,
        "size": 116,
        "accepted": 2.0,
        "study": "1.2.826",
    }
    return Item(called=called, **(values | more))


@attrs.frozen
class Rows:
    """An open table, and the database under it."""

    database: Database
    table: ItemTable

    async def batch(self, called: str = "PACS", **more: Any) -> Batch:
        """A batch that is there."""
        batch = a_batch(called, **more)
        batch.number = await self.database.run(lambda c: insert_batch(c, batch))
        return batch

    async def add(self, batch: Batch, count: int = 1, **more: Any) -> list[Item]:
        """Items of a batch that are there."""

        def insert(connection: apsw.Connection) -> list[Item]:
            items = [an_item(batch.called, batch=batch.number, **more) for _ in range(count)]
            numbers = [insert_item(connection, item, batch.number) for item in items]
            mark_batches(connection, [batch.number])
            return [
                attrs.evolve(item, number=number)
                for item, number in zip(items, numbers, strict=True)
            ]

        return await self.database.run(insert)

    async def item(self, item: Item) -> Item:
        """As it is now."""
        (now,) = await self.table._items("WHERE id = ?", (item.id,))
        return now

    async def done(self, batch: Batch) -> bool:
        """As it is now."""
        return (await self.table.batches([batch.number]))[batch.number].done

    async def value(self, statement: str, *values: Any) -> Any:
        return await self.table._value(statement, values)

    async def again(self) -> "Rows":
        """The next run of the Router."""
        return Rows(self.database, await ItemTable.load(self.database, 50.0))


@asynccontextmanager
async def open_rows(folder: Path) -> AsyncIterator[Rows]:
    """A new table, in its first run."""
    async with open_database(folder / "queue.db", MIGRATIONS) as database:
        yield Rows(database, await ItemTable.load(database, 1.0))


def numbers(items: list[Item]) -> list[int]:
    return [item.number for item in items]
