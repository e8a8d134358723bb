"""SQLite under trio: one file, one worker thread, one transaction at a time; others only read.

`Database.run(fn)` hands `fn` the connection inside one transaction in the database's own thread. A
cancelled caller gets its cancellation only when the transaction is through: once asked for, a write
is neither lost nor left without its outcome known. What may be written a little later is written in
front of whatever comes first (`Preceding`), so that nobody who asks the database misses it.
"""

import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import apsw
import trio

from relay.errors import DatabaseError
from relay.workers import Workers

T = TypeVar("T")

# Another process (a backup, the sqlite3 shell) may hold the file's lock for a moment; nobody holds
# it for longer than this without being at fault.
BUSY_TIMEOUT_MS = 5000

# Who read at once, each with a thread and a connection: people, who look through years of entries.
READERS = 2

_MIGRATIONS_TABLE = """
CREATE TABLE IF NOT EXISTS migration (
    number INTEGER PRIMARY KEY,
    applied INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT
"""


class Preceding(Protocol):
    """What waits to be written, in front of any transaction. All but `waits` is called in the
    thread of that transaction, one after the other."""

    @property
    def waits(self) -> bool:
        """Whether there is anything. From any thread."""

    def write(self, connection: apsw.Connection) -> None:
        """Write it. What this raises is the transaction's end."""

    def committed(self) -> None:
        """It is on the disk."""

    def undone(self, error: BaseException | None) -> None:
        """It is not; `error` is why, or None where what came behind it has failed by itself."""


class Database:
    """An open database. Made by `open_database`."""

    def __init__(self, path: Path, connection: apsw.Connection, worker: Workers, vfs: str) -> None:
        self.path = path
        self._connection = connection  # for who has the lock
        self._lock = threading.Lock()
        self._worker = worker
        self._readers = trio.CapacityLimiter(READERS)
        self._vfs = vfs
        self._preceding: Preceding | None = None

    def precede(self, preceding: Preceding) -> None:
        """Have what it holds written in front of each transaction from now on."""
        assert self._preceding is None
        self._preceding = preceding

    async def write_preceding(self) -> None:
        """Have that written now, some of it at least. Raises DatabaseError."""
        await self.run(_nothing)

    async def run(self, fn: Callable[[apsw.Connection], T]) -> T:
        """Return `fn(connection)`, run in the worker thread as one transaction.

        What `fn` raises rolls everything back and arrives here as it was; SQLite's own errors
        arrive as DatabaseError. `fn` must not keep the connection or a cursor.
        """
        # Shielded: trio must not abandon a transaction whose outcome the caller would never learn.
        with trio.CancelScope(shield=True):
            result = await self._worker.run(partial(self.run_here, fn))
        return result

    def run_here(self, fn: Callable[[apsw.Connection], T]) -> T:
        """As `run`, in the caller's own thread, which waits for it."""
        try:
            with self._lock:
                preceding = self._preceding
                carries = preceding is not None and preceding.waits
                try:
                    return self._in_transaction(fn, preceding)
                except apsw.FullError:
                    # All of it is undone. Alone it may have room; and what it frees, others need.
                    if not carries:
                        raise
                    return self._in_transaction(fn, None)
        except apsw.Error as error:
            raise DatabaseError(f"{self.path}: {error}") from error

    async def read(self, fn: Callable[[apsw.Connection], T]) -> T:
        """As `run`, for what only reads and may take its time: nobody who writes waits for it.

        Over a connection of its own, which sees what was committed before, and what waits to be.
        A cancelled caller does not wait for it either.
        """
        if self._preceding is not None and self._preceding.waits:
            with suppress(DatabaseError):  # whose it is has heard of it: who only reads, reads
                await self.write_preceding()
        return await trio.to_thread.run_sync(
            self._read_here, fn, limiter=self._readers, abandon_on_cancel=True
        )

    def _read_here(self, fn: Callable[[apsw.Connection], T]) -> T:
        try:
            flags = apsw.SQLITE_OPEN_READONLY
            with closing(apsw.Connection(str(self.path), flags, vfs=self._vfs or None)) as reading:
                reading.set_busy_timeout(BUSY_TIMEOUT_MS)
                reading.execute("PRAGMA trusted_schema = OFF")
                reading.execute("BEGIN")
                return fn(reading)
        except apsw.Error as error:
            raise DatabaseError(f"{self.path}: {error}") from error

    def _in_transaction(self, fn: Callable[[apsw.Connection], T], preceding: Preceding | None) -> T:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        behind = False  # what is raised is `fn`'s own
        try:
            if preceding is not None:
                preceding.write(connection)
            behind = True
            result = fn(connection)
            behind = False
            connection.execute("COMMIT")
        except BaseException as error:
            try:
                # SQLite may have rolled back by itself, on a full disk for one.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            finally:
                if preceding is not None:
                    preceding.undone(None if behind else error)
            raise
        if preceding is not None:
            preceding.committed()
        return result


@asynccontextmanager
async def open_database(
    path: Path | str, migrations: Sequence[str] = (), *, vfs: str = ""
) -> AsyncIterator[Database]:
    """Open (or create, mode 0600) the database at `path` and bring its schema up to date.

    `migrations` are SQL scripts in order, of which the first is number 1; each not yet recorded in
    the file is carried out in a transaction of its own. `vfs` names the layer under SQLite, and is
    empty for the operating system's files. Raises DatabaseError if the file cannot be opened, or
    holds a migration that this program does not know: it was written by a newer one.
    """
    path = Path(path)
    # Of one thread: transactions come in the order in which they were asked for.
    worker = Workers(1)
    try:
        with trio.CancelScope(shield=True):
            connection = await worker.run(partial(_connect, path, vfs))
    except (apsw.Error, OSError) as error:
        worker.close()
        raise DatabaseError(f"{path}: {error}") from error
    try:
        database = Database(path, connection, worker, vfs)
        await _migrate(database, migrations)
        yield database
    finally:
        with trio.CancelScope(shield=True):
            try:
                await worker.run(connection.close)
            except apsw.Error as error:
                raise DatabaseError(f"{path}: {error}") from error
            finally:
                worker.close()


async def copy_database(source: Path, target: Path) -> None:
    """Copy the database at `source`, as it is at one moment, into the new file `target`, synced.

    Another process may have it open, and goes on reading and writing: a reader of the write-ahead
    log keeps no writer waiting. What a crash has left in that log is in the copy, which is one file
    of mode 0600 without companions, and sound. Raises DatabaseError; what there is of `target` is
    left then.
    """
    try:
        await trio.to_thread.run_sync(_copy, source, target)
    except (apsw.Error, OSError) as error:
        raise DatabaseError(f"{source} cannot be copied to {target}: {error}") from error


def _copy(source: Path, target: Path) -> None:
    with closing(apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)) as original:
        original.set_busy_timeout(BUSY_TIMEOUT_MS)
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE)) as copy:
            with copy.backup("main", original, "main") as backup:
                # All at once: between two steps a commit of another process would begin it anew.
                backup.step()
            # What is carried about is to be whole in one file.
            copy.execute("PRAGMA journal_mode = DELETE")
            found = copy.execute("PRAGMA quick_check(1)").get
    if found != "ok":
        raise DatabaseError(f"{source} is damaged: {found}")


def _connect(path: Path, vfs: str) -> apsw.Connection:
    _create_private(path)
    connection = apsw.Connection(str(path), vfs=vfs or None)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _create_private(path: Path) -> None:
    """Make the file readable by its owner only; SQLite gives its companions the same mode."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _prepare(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    # SQLite raises nothing where it cannot, and goes on with a journal whose removal, which is the
    # commit, it does not sync: after a power cut what was committed would be undone.
    if connection.pragma("journal_mode", "wal") != "wal":
        raise apsw.IOError("no write-ahead log can be made: is it on a network disk?")
    # FULL: what was committed survives a power cut, as custody of an object demands.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # A file from a stranger must not run functions by way of its schema.
    connection.execute("PRAGMA trusted_schema = OFF")


def _nothing(connection: apsw.Connection) -> None:
    """A transaction of what precedes it alone."""


async def _migrate(database: Database, migrations: Sequence[str]) -> None:
    def applied(connection: apsw.Connection) -> int:
        connection.execute(_MIGRATIONS_TABLE)
        return int(connection.execute("SELECT ifnull(max(number), 0) FROM migration").get)

    def apply(number: int, script: str, connection: apsw.Connection) -> None:
        connection.execute(script)
        connection.execute("INSERT INTO migration (number) VALUES (?)", (number,))

    done = await database.run(applied)
    if done > len(migrations):
        raise DatabaseError(
            f"{database.path}: schema {done} was written by a newer Relay "
            f"(this one knows {len(migrations)}): install that version, or restore a backup"
        )
    for number, script in enumerate(migrations[done:], start=done + 1):
        await database.run(partial(apply, number, script))
