"""Requests for storage commitment in custody (PS3.4 Annex J): kept until the far device has them,
or until whoever asked has heard that it will not.

A request has no file: its data set, which names what is to be committed to, lies in its row, locked
as an object is (relay.spool.vault). With it is remembered which of the objects that it names were
in the queue still.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any

import apsw
import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.database import Database
from relay.errors import ObjectDamaged, SpoolFull
from relay.spool.vault import SpoolKey, fresh_key

# Requests that are open: of each sender one for each study, for a day in which nothing goes out.
# The bytes are those of their data sets, of which a study of a thousand images has 150 KiB.
MAXIMUM_OPEN = 4096
MAXIMUM_BYTES = 256 * 2**20

# Of them, what one device has at the most: the others can still ask.
MAXIMUM_OPEN_OF_ONE = 1024
MAXIMUM_BYTES_OF_ONE = 64 * 2**20

# No pause between two attempts is so long: what is due later was written before the clock was set
# back, and is due.
LONGEST_PAUSE = 3600.0

# What is over stays listed for so long.
HISTORY = 30 * 86400.0

# Rows that one transaction forgets.
PAGE = 1000

# A key of its own seals one data set, once.
_NONCE = bytes(12)


class Stage(IntEnum):
    """How a request stands. The first two are open."""

    OBJECTS = 1  # it waits for its objects to be delivered, or to be forwarded
    REPORT = 2  # it failed, and whoever asked is to be told
    ASKED = 3  # the device has it, and will report
    REPORTED = 4  # it failed, and whoever asked knows
    UNREPORTED = 5  # it failed, and whoever asked could not be told


@attrs.frozen(slots=True, kw_only=True)
class Transaction:
    """One request of `device`, by its local AE title, for storage commitment by `called`.

    `called` and `calling` are published AE titles; `command` is the N-ACTION-RQ. Times are Unix
    seconds: `since` is when its stage began, `due` when to try again.
    """

    peer: bytes
    called: str
    calling: str
    device: str
    uid: str
    transfer_syntax: str
    command: bytes = attrs.field(repr=False)
    accepted: float
    number: int = 0
    id: bytes = attrs.field(factory=lambda: os.urandom(16))
    stage: Stage = Stage.OBJECTS
    since: float = attrs.field(default=attrs.Factory(lambda self: self.accepted, takes_self=True))
    due: float = 0.0
    attempts: int = 0
    reason: str = ""
    ended: float | None = None


_COLUMNS = tuple(field.name for field in attrs.fields(Transaction))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM commitment"


class TransactionTable:
    """All requests, in SQLite only. What is changed is on the disk when the call returns."""

    def __init__(self, database: Database, key: SpoolKey) -> None:
        self._database = database
        self._key = key

    async def keep(
        self, transaction: Transaction, data_set: bytes, instances: Iterable[str]
    ) -> bool:
        """Take a request into custody, which names these SOP instances; its number is given here.

        Also where the very same is open already, since its sender may not have heard the answer.
        False where another one of this Transaction UID is. Raises SpoolFull, DatabaseError.
        """
        key = fresh_key()
        values: dict[str, Any] = {
            name: getattr(transaction, name) for name in _COLUMNS if name != "number"
        }
        values |= {
            "sha256": hashlib.sha256(data_set).digest(),
            "key": self._key.wrap(key, transaction.id),
            "sealed": AESGCM(key).encrypt(_NONCE, data_set, None),
        }
        named = [(instance, transaction.called) for instance in instances]

        def write(connection: apsw.Connection) -> bool:
            known = connection.execute(
                "SELECT sha256 FROM commitment WHERE device = ? AND called = ? AND uid = ?"
                " AND ended IS NULL",
                (transaction.device, transaction.called, transaction.uid),
            ).fetchone()
            if known is not None:
                return bool(known[0] == values["sha256"])
            _check_room(connection, transaction.device, len(data_set))
            connection.execute(
                f"INSERT INTO commitment ({', '.join(values)})"
                f" VALUES ({', '.join('?' * len(values))})",
                tuple(values.values()),
            )
            number = connection.last_insert_rowid()
            connection.executemany(
                f"INSERT OR IGNORE INTO commitment_item SELECT {number}, number FROM item"
                " WHERE sop_instance = ? AND called = ? AND state IN (1, 2)",
                named,
            )
            return True

        return await self._database.run(write)

    async def content(self, transaction: Transaction) -> bytes:
        """The data set of an open request. Raises ObjectDamaged, DatabaseError."""
        row = await self._database.run(
            lambda connection: connection.execute(
                "SELECT key, sealed FROM commitment WHERE number = ?", (transaction.number,)
            ).fetchone()
        )
        if row is None:
            raise ObjectDamaged("its row is gone")
        key = self._key.unwrap(row[0], transaction.id)
        try:
            return AESGCM(key).decrypt(_NONCE, row[1], None)
        except InvalidTag:
            raise ObjectDamaged("its data set is not as it was written") from None

    async def due(self, now: float, overdue: float, limit: int) -> list[Transaction]:
        """What there is to do: requests none of whose objects waits any more, those accepted by
        `overdue` whatever waits, and failures to be reported; the oldest first.

        Of each destination one, and one that is to be reported to each device: many for one that is
        away hide no other. Nothing is forwarded to a destination that is stopped.
        """

        def read(connection: apsw.Connection) -> list[Transaction]:
            connection.execute(
                "DELETE FROM commitment_item WHERE NOT EXISTS (SELECT 1 FROM item"
                " WHERE number = commitment_item.item AND state IN (1, 2))"
            )
            rows = connection.execute(
                f"{_SELECT} WHERE number IN (SELECT min(number) FROM commitment"
                " WHERE ended IS NULL AND (due <= ? OR due > ?) AND (stage = 2 OR accepted <= ?"
                " OR (called NOT IN (SELECT called FROM pause) AND NOT EXISTS"
                " (SELECT 1 FROM commitment_item WHERE commitment = commitment.number)))"
                " GROUP BY stage, iif(stage = 2, device, called)) ORDER BY number LIMIT ?",
                (now, now + LONGEST_PAUSE, overdue, limit),
            )
            return [_transaction(row) for row in rows]

        return await self._database.run(read)

    async def next_due(self, now: float) -> float | None:
        """When the next one is to be tried again."""
        row = await self._database.run(
            lambda connection: connection.execute(
                "SELECT min(due) FROM commitment WHERE ended IS NULL AND due > ?", (now,)
            ).fetchone()
        )
        return None if row is None or row[0] is None else float(row[0])

    async def settle(self, transaction: Transaction) -> None:
        """Note its stage, and with it what else of it has changed. Raises DatabaseError."""
        over = transaction.stage not in (Stage.OBJECTS, Stage.REPORT)

        def write(connection: apsw.Connection) -> None:
            connection.execute(
                "UPDATE commitment SET stage = ?, since = ?, due = ?, attempts = ?, reason = ?,"
                " ended = ? WHERE number = ? AND ended IS NULL",
                (
                    transaction.stage,
                    transaction.since,
                    transaction.due,
                    transaction.attempts,
                    transaction.reason,
                    transaction.since if over else None,
                    transaction.number,
                ),
            )
            if over:
                connection.execute(
                    "UPDATE commitment SET sealed = x'' WHERE number = ?", (transaction.number,)
                )
            if transaction.stage is not Stage.OBJECTS:
                connection.execute(
                    "DELETE FROM commitment_item WHERE commitment = ?", (transaction.number,)
                )

        await self._database.run(write)

    async def expire(self, now: float) -> int:
        """Forget what was over long ago; how many there were, PAGE at most."""

        def change(connection: apsw.Connection) -> int:
            connection.execute(
                "DELETE FROM commitment WHERE number IN"
                " (SELECT number FROM commitment WHERE ended <= ? LIMIT ?)",
                (now - HISTORY, PAGE),
            )
            return connection.changes()

        return await self._database.run(change)


def _check_room(connection: apsw.Connection, device: str, size: int) -> None:
    row = connection.execute(
        "SELECT count(*), ifnull(sum(size), 0), ifnull(sum(own), 0), ifnull(sum(own * size), 0)"
        " FROM (SELECT length(sealed) AS size, device = ? AS own FROM commitment"
        " WHERE ended IS NULL)",
        (device,),
    ).fetchone()
    assert row is not None, "an aggregate has a row"
    count, total, own_count, own_total = row
    if count >= MAXIMUM_OPEN or total + size > MAXIMUM_BYTES:
        raise SpoolFull(f"{count} requests for storage commitment are open, of {total} bytes")
    if own_count >= MAXIMUM_OPEN_OF_ONE or own_total + size > MAXIMUM_BYTES_OF_ONE:
        raise SpoolFull(
            f"{own_count} requests of {device} for storage commitment are open, of {own_total}"
            " bytes"
        )


def _transaction(row: Sequence[Any]) -> Transaction:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["stage"] = Stage(values["stage"])
    return Transaction(**values)
