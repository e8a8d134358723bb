"""The rows of the spool: all items, in SQLite only. Memory does not grow with the queue.

What couriers need of them is in relay.spool.outgoing, what people do is in relay.spool.people; here
is how a run of the Router begins, and how items end that are over.

Every question is answered by an index or by a tally, so that none takes longer where a hundred
thousand objects wait. Whatever is changed is on the disk when the call returns.
"""

from collections.abc import Collection, Sequence

import apsw

from relay.database import Database
from relay.spool.items import Batch, Hold, Item, State
from relay.spool.outgoing import Outgoing
from relay.spool.people import People
from relay.spool.rows import change_items, insert_batch, insert_item, mark_batches

# Rows that one transaction of `expire` forgets: nothing else is written meanwhile.
PAGE = 1000

# What was delivered or discarded stays listed for so long, and so many of them: a year of a small
# hospital, a month of a large one. A row takes some 800 bytes.
HISTORY = 30 * 86400.0
MAXIMUM_HISTORY = 1_000_000


class ItemTable(Outgoing, People):
    """All items, and the batches they came in. Made by `load`."""

    def __init__(self, database: Database, run: int, epoch: int, settled: int) -> None:
        super().__init__(database)
        self.run = run
        """This run of the Router, counted from 1."""
        self.epoch = epoch
        """How often this Router was restored from a backup."""
        self.settled = settled
        """The first run that may have left slips without rows."""

    @classmethod
    async def load(cls, database: Database, now: float) -> "ItemTable":
        """Begin a run: what an earlier one had open is closed."""

        def begin(connection: apsw.Connection) -> tuple[int, int, int]:
            run = _setting(connection, "run") + 1
            _set(connection, "run", run)
            change_items(
                connection,
                "UPDATE batch SET closed = ? WHERE closed IS NULL RETURNING number",
                (now,),
            )
            return run, _setting(connection, "epoch"), _setting(connection, "settled")

        return cls(database, *await database.run(begin))

    # --- the start --------------------------------------------------------------------------------

    async def kept_folders(self) -> set[int]:
        """The folders in which files are kept."""
        rows = await self._rows("SELECT DISTINCT folder FROM item WHERE state < 4")
        return {folder for (folder,) in rows}

    async def kept_in(self, folder: int) -> set[bytes]:
        """The items whose files are kept in a folder."""
        rows = await self._rows("SELECT id FROM item WHERE folder = ? AND state < 4", (folder,))
        return {item for (item,) in rows}

    async def known(self, item: bytes) -> bool:
        """Whether an item has a row, be it over or not."""
        return bool(await self._rows("SELECT 1 FROM item WHERE id = ?", (item,)))

    async def recover(self, items: Sequence[tuple[Batch, Item]], now: float) -> None:
        """Make the rows of items that were kept without one, in this order."""

        def make(connection: apsw.Connection) -> None:
            numbers = set()
            for batch, item in items:
                known = connection.execute(
                    "SELECT number FROM batch WHERE peer = ? AND called = ? AND calling = ?"
                    " AND device = ? AND opened = ?",
                    (batch.peer, batch.called, batch.calling, batch.device, batch.opened),
                ).fetchone()
                batch.closed = now
                number = known[0] if known else insert_batch(connection, batch)
                insert_item(connection, item, number)
                numbers.add(number)
            mark_batches(connection, numbers)

        await self._database.run(make)

    async def settle_slips(self) -> None:
        """No run before this one has left slips without rows."""

        def change(connection: apsw.Connection) -> None:
            _set(connection, "settled", self.run)

        await self._database.run(change)
        self.settled = self.run

    async def lost(self, items: Collection[bytes], reason: str, now: float) -> int:
        """The files of these items are gone: dead letters, of which a person is to be told.

        How many of them were not known to be lost.
        """

        def change(connection: apsw.Connection) -> int:
            return sum(
                change_items(
                    connection,
                    "UPDATE item SET state = ?1, hold = 0, reason = ?2, ended = ?3 WHERE id = ?4"
                    " AND NOT (state = ?1 AND reason = ?2) RETURNING batch",
                    (State.FAILED, reason, now, item),
                )
                for item in items
            )

        return await self._database.run(change)

    async def lock(self, key_name: bytes, reason: str) -> int:
        """Hold what is locked with another spool key, and let go what this one opens; how many
        are held for that."""

        def change(connection: apsw.Connection) -> int:
            key = int.from_bytes(key_name, "big")
            if key != _setting(connection, "key"):
                _change_key(connection, key_name, reason)
                _set(connection, "key", key)
            return int(
                connection.execute(
                    "SELECT count(*) FROM item WHERE called IN (SELECT called FROM tally"
                    " WHERE state = 2 AND items > 0) AND state = 2 AND hold = ?",
                    (Hold.LOCKED,),
                ).get
            )

        return await self._database.run(change)

    # --- the end ----------------------------------------------------------------------------------

    async def expire(self, now: float) -> int:
        """Forget what was delivered or discarded long ago; how many there were, PAGE at most."""

        def change(connection: apsw.Connection) -> int:
            over = connection.execute(
                "SELECT max(0, ifnull(sum(items), 0) - ?) FROM tally WHERE state > 3",
                (MAXIMUM_HISTORY,),
            ).get
            batches = connection.execute(
                "DELETE FROM item WHERE number IN (SELECT number FROM item WHERE state > 3"
                " AND ended <= ? ORDER BY ended LIMIT ?) RETURNING batch",
                (now if over else now - HISTORY, min(PAGE, over) if over else PAGE),
            ).fetchall()
            connection.executemany(
                "DELETE FROM batch WHERE number = ?1 AND closed IS NOT NULL"
                " AND NOT EXISTS (SELECT 1 FROM item WHERE batch = ?1)",
                set(batches),
            )
            return len(batches)

        return await self._database.run(change)


def begin_epoch(connection: apsw.Connection, reason: str) -> int:
    """The database was restored: what waits is doubtful, and a person's to send.

    Gives the new epoch: how often this Router was restored from a backup.

    For use inside a transaction. What was delivered since the backup was made would be sent again:
    also what a key, or the device itself, would let go without a person.
    """
    epoch = _setting(connection, "epoch") + 1
    _set(connection, "epoch", epoch)
    connection.execute("UPDATE item SET doubtful = 1 WHERE state < 4")
    connection.execute(
        "UPDATE item SET state = 2, hold = ?, reason = ? WHERE state < 3", (Hold.DOUBTFUL, reason)
    )
    there = connection.execute("SELECT number FROM batch WHERE done = 0").fetchall()
    mark_batches(connection, (number for (number,) in there))
    return epoch


def _change_key(connection: apsw.Connection, key_name: bytes, reason: str) -> None:
    change_items(
        connection,
        "UPDATE item SET state = 2, hold = ?, reason = ? WHERE called IN (SELECT called FROM tally"
        " WHERE state = 1 AND items > 0) AND state = 1 AND key_name <> ? RETURNING batch",
        (Hold.LOCKED, reason, key_name),
    )
    change_items(
        connection,
        "UPDATE item SET state = 1, hold = 0, reason = '' WHERE called IN (SELECT called FROM tally"
        " WHERE state = 2 AND items > 0) AND state = 2 AND hold = ? AND key_name = ?"
        " RETURNING batch",
        (Hold.LOCKED, key_name),
    )


def _setting(connection: apsw.Connection, name: str) -> int:
    value: bytes | None = connection.execute(
        "SELECT value FROM setting WHERE name = ?", (name,)
    ).get
    return int.from_bytes(value or b"", "big")


def _set(connection: apsw.Connection, name: str, value: int) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value.to_bytes(8, "big"))
    )
