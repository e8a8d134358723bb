"""Items and batches as rows: how they are written, read and looked for.

`Rows` is what the questions of relay.spool.outgoing, people and table have in common. `done` of a
batch is kept true by whoever changes an item's state: `mark_batches`, in the same transaction.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import apsw
import attrs

from relay.database import Database
from relay.spool.items import Batch, Hold, Item, Priority, Selection, State

_COLUMNS = tuple(field.name for field in attrs.fields(Item))
SELECT = f"SELECT {', '.join(f'item.{column}' for column in _COLUMNS)} FROM item"
_INSERT = (
    f"INSERT INTO item ({', '.join(_COLUMNS[1:])}) VALUES ({', '.join('?' * len(_COLUMNS[1:]))})"
)
_VALUES = attrgetter(*_COLUMNS[1:])

_BATCH_COLUMNS = tuple(field.name for field in attrs.fields(Batch))
SELECT_BATCH = f"SELECT {', '.join(_BATCH_COLUMNS)} FROM batch"
_INSERT_BATCH = (
    "INSERT INTO batch (peer, called, calling, device, priority, opened, closed)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_BATCH_VALUES = attrgetter("peer", "called", "calling", "device", "priority", "opened", "closed")

# It is closed, and nothing of it waits for its first attempt.
_MARK = (
    "UPDATE batch SET done = closed IS NOT NULL AND NOT EXISTS (SELECT 1 FROM item"
    " WHERE item.batch = batch.number AND item.state = 1 AND item.attempts = 0) WHERE number = ?"
)


def insert_batch(connection: apsw.Connection, batch: Batch) -> int:
    """A new batch's row; its number. For use inside a transaction."""
    connection.execute(_INSERT_BATCH, _BATCH_VALUES(batch))
    return connection.last_insert_rowid()


def known_batch(connection: apsw.Connection, batch: Batch) -> int:
    """The number of a batch that has a row, else 0. One that is over may be forgotten by now.

    For use inside a transaction.
    """
    if batch.closed is None:
        return batch.number
    return connection.execute("SELECT number FROM batch WHERE number = ?", (batch.number,)).get or 0


def insert_item(connection: apsw.Connection, item: Item, batch: int) -> int:
    """A new item's row, in the batch of this number; the item's own number.

    For use inside a transaction.
    """
    values = list(_VALUES(item))
    values[_BATCH] = batch
    connection.execute(_INSERT, values)
    return connection.last_insert_rowid()


_BATCH = _COLUMNS[1:].index("batch")


def mark_batches(connection: apsw.Connection, numbers: Iterable[Any]) -> None:
    """Whether these are done, after their items' states have changed."""
    connection.executemany(_MARK, [(number,) for number in set(numbers)])


def change_items(connection: apsw.Connection, statement: str, values: Sequence[Any]) -> int:
    """Carry out an UPDATE of items that is RETURNING batch; how many there were."""
    batches = connection.execute(statement, values).fetchall()
    mark_batches(connection, (batch for (batch,) in batches))
    return len(batches)


class Rows:
    """The tables `item` and `batch`: what their questions are asked with."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def _items(self, where: str, values: Sequence[Any]) -> list[Item]:
        return [item_of(row) for row in await self._rows(f"{SELECT} {where}", values)]

    async def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return await self._database.run(
            lambda connection: connection.execute(statement, values).fetchall()
        )

    async def _read(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """As `_rows`, for what may look through a whole queue: no sender's object waits for it."""
        return await self._database.read(
            lambda connection: connection.execute(statement, values).fetchall()
        )

    async def _value(self, statement: str, values: Sequence[Any] = ()) -> Any:
        return await self._database.run(
            lambda connection: connection.execute(statement, values).get
        )

    async def _execute(self, statement: str, *values: Any) -> None:
        await self._database.run(lambda connection: connection.execute(statement, values) and None)


def condition(selection: Selection) -> tuple[str, tuple[Any, ...]]:
    """The condition of `selection`, which always begins with WHERE and something."""
    terms: list[str] = ["item.number > ?"]
    values: list[Any] = [selection.after]
    for term, value in (
        ("item.called = ?", selection.called),
        ("item.study = ?", selection.study),
        ("item.state = ?", selection.state),
        ("item.number <= ?", selection.until),
        ("item.batch IN (SELECT number FROM batch WHERE calling = ?)", selection.calling),
    ):
        if value is not None:
            terms.append(term)
            values.append(value)
    if selection.state is not None and selection.called is None:
        # The index of states is by destination.
        terms.append("item.called IN (SELECT called FROM tally WHERE state = ? AND items > 0)")
        values.append(selection.state)
    if selection.numbers is not None:
        terms.append(f"item.number IN ({marks(selection.numbers)})")
        values.extend(selection.numbers)
    return f"WHERE {' AND '.join(terms)}", tuple(values)


def marks(values: Sequence[Any]) -> str:
    """So many question marks."""
    return ", ".join("?" * len(values))


def item_of(row: Sequence[Any]) -> Item:
    """The item of a row of SELECT."""
    values = dict(zip(_COLUMNS, row, strict=True))
    values["state"] = State(values["state"])
    values["hold"] = Hold(values["hold"])
    values["doubtful"] = bool(values["doubtful"])
    values["alone"] = bool(values["alone"])
    return Item(**values)


def batch_of(row: Sequence[Any]) -> Batch:
    """The batch of a row of SELECT_BATCH."""
    values = dict(zip(_BATCH_COLUMNS, row, strict=True))
    values["priority"] = Priority(values["priority"])
    values["done"] = bool(values["done"])
    return Batch(**values)
