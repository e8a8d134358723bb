"""The database: transactions, migrations, cancellation, and how foreign errors are told."""

import stat
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest
import trio

from relay.database import Database, copy_database, open_database
from relay.errors import DatabaseError
from tests.statements import Statements

FIRST = "CREATE TABLE device (ae_title TEXT PRIMARY KEY, port INTEGER NOT NULL) STRICT"
SECOND = "ALTER TABLE device ADD COLUMN host TEXT NOT NULL DEFAULT ''"


def titles(connection: apsw.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT ae_title FROM device ORDER BY 1")]


def insert(title: str, port: int = 104):
    def run(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO device (ae_title, port) VALUES (?, ?)", (title, port))

    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


async def test_what_is_committed_is_there_after_reopening(path: Path) -> None:
    async with open_database(path, [FIRST]) as database:
        await database.run(insert("PACS"))
    async with open_database(path, [FIRST]) as database:
        assert await database.run(titles) == ["PACS"]


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


@pytest.fixture
def public_file(path: Path) -> Path:
    path.touch(mode=0o644)
    return path


@pytest.fixture
def foreign_file(path: Path) -> Path:
    path.write_bytes(b"patient list\n" * 100)
    return path


async def test_file_is_private_even_if_it_was_not(public_file: Path) -> None:
    async with open_database(public_file, [FIRST]) as database:
        await database.run(insert("PACS"))
        assert modes(public_file.parent) == {0o600}


async def test_durable_settings(path: Path) -> None:
    async with open_database(path) as database:

        def settings(connection: apsw.Connection) -> tuple[object, object]:
            return connection.pragma("journal_mode"), connection.pragma("synchronous")

        assert await database.run(settings) == ("wal", 2)


async def test_migrations_run_once_each_and_in_order(path: Path) -> None:
    async with open_database(path, [FIRST]) as database:
        await database.run(insert("PACS"))
    for _ in range(2):
        async with open_database(path, [FIRST, SECOND]) as database:
            rows = await database.run(lambda db: list(db.execute("SELECT * FROM device")))
            assert rows == [("PACS", 104, "")]


async def test_failing_migration_changes_nothing(path: Path) -> None:
    broken = "CREATE TABLE half (a INTEGER); INSERT INTO nowhere VALUES (1)"
    with pytest.raises(DatabaseError, match="nowhere"):
        async with open_database(path, [FIRST, broken]):
            pass
    async with open_database(path, [FIRST]) as database:
        tables = await database.run(
            lambda db: [r[0] for r in db.execute("SELECT name FROM sqlite_schema")]
        )
    assert "device" in tables
    assert "half" not in tables


async def test_newer_schema_is_refused(path: Path) -> None:
    async with open_database(path, [FIRST, SECOND]):
        pass
    with pytest.raises(DatabaseError, match="newer Relay"):
        async with open_database(path, [FIRST]):
            pass


async def test_not_a_database(foreign_file: Path) -> None:
    with pytest.raises(DatabaseError, match=r"relay\.db"):
        async with open_database(foreign_file, [FIRST]):
            pass


async def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="missing"):
        async with open_database(tmp_path / "missing" / "relay.db"):
            pass


async def test_what_fn_raises_rolls_back_and_arrives_as_it_was(path: Path) -> None:
    async with open_database(path, [FIRST]) as database:

        def fail(connection: apsw.Connection) -> None:
            insert("PACS")(connection)
            raise LookupError("no such thing")

        with pytest.raises(LookupError, match="no such thing"):
            await database.run(fail)
        assert await database.run(titles) == []


async def test_constraint_is_a_database_error_without_values(path: Path) -> None:
    async with open_database(path, [FIRST]) as database:
        await database.run(insert("PACS"))
        with pytest.raises(DatabaseError, match="UNIQUE") as caught:
            await database.run(insert("PACS"))
        assert "PACS" not in str(caught.value)
        await database.run(insert("OTHER"))
        assert await database.run(titles) == ["OTHER", "PACS"]


async def test_cancelled_caller_does_not_halve_a_transaction(path: Path) -> None:
    async with open_database(path, [FIRST]) as database:
        inside = threading.Event()
        go_on = threading.Event()

        def slow(connection: apsw.Connection) -> None:
            insert("FIRST")(connection)
            inside.set()
            go_on.wait(10)
            insert("SECOND")(connection)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.run, slow)
            await trio.to_thread.run_sync(inside.wait, 10)
            nursery.cancel_scope.cancel()
            go_on.set()
        assert await database.run(titles) == ["FIRST", "SECOND"]


async def test_expired_deadline_does_not_stop_a_transaction(path: Path) -> None:
    async with open_database(path, [FIRST]) as database:
        with trio.move_on_after(0):
            await database.run(insert("PACS"))
        assert await database.run(titles) == ["PACS"]


async def test_transactions_do_not_mix(path: Path) -> None:
    async with open_database(path, [FIRST]) as database:
        await database.run(insert("COUNT", 0))

        def increment(connection: apsw.Connection) -> None:
            port = connection.execute("SELECT port FROM device").get
            connection.execute("UPDATE device SET port = ?", (port + 1,))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(database.run, increment)
        assert await database.run(lambda db: db.execute("SELECT port FROM device").get) == 100


async def test_a_layer_that_is_not_there(path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"relay\.db"):
        async with open_database(path, vfs="nobody's"):
            pass


class WithoutSharedMemory(apsw.VFS):
    """Files as on a network disk: no write-ahead log can be made on them."""

    class File:
        def __init__(self, inner: apsw.VFSFile) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    def __init__(self) -> None:
        super().__init__("no-shm", "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return self.File(apsw.VFSFile("", name, flags))


async def test_without_a_write_ahead_log_nothing_is_committed(path: Path) -> None:
    """SQLite itself would go on with a rollback journal, which a power cut can bring back."""
    layer = WithoutSharedMemory()
    with pytest.raises(DatabaseError, match="no write-ahead log"):
        async with open_database(path, [FIRST], vfs="no-shm"):
            pass
    layer.unregister()


async def test_a_transaction_in_the_callers_thread_is_one_of_all(path: Path) -> None:
    async with open_database(path, [FIRST]) as database:
        await database.run(insert("COUNT", 0))

        def increment(connection: apsw.Connection) -> None:
            port = connection.execute("SELECT port FROM device").get
            connection.execute("UPDATE device SET port = ?", (port + 1,))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(database.run, increment)
                nursery.start_soon(trio.to_thread.run_sync, database.run_here, increment)
        assert database.run_here(lambda db: db.execute("SELECT port FROM device").get) == 100
        with pytest.raises(DatabaseError, match="UNIQUE"):
            database.run_here(insert("COUNT"))


async def test_closed_database_says_so(path: Path) -> None:
    async with open_database(path, [FIRST]) as database:
        pass
    with pytest.raises(DatabaseError, match="closed"):
        await database.run(titles)


async def test_a_copy_is_of_one_moment_and_one_file(path: Path) -> None:
    copy = path.parent / "copy" / "copy.db"
    copy.parent.mkdir()
    async with open_database(path, [FIRST]) as database:
        await database.run(insert("PACS"))
        await copy_database(path, copy)
        await database.run(insert("LATER"))
    assert modes(copy.parent) == {0o600}
    assert list(copy.parent.iterdir()) == [copy]
    async with open_database(copy, [FIRST]) as database:
        assert await database.run(titles) == ["PACS"]


async def test_a_copy_does_not_wait_for_a_writer_nor_a_writer_for_it(path: Path) -> None:
    async with open_database(path, [FIRST]) as database:
        await database.run(insert("PACS"))
        inside, go_on = threading.Event(), threading.Event()

        def slow(connection: apsw.Connection) -> None:
            insert("HALF")(connection)
            inside.set()
            go_on.wait(10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.run, slow)
            await trio.to_thread.run_sync(inside.wait, 10)
            with trio.fail_after(5):
                await copy_database(path, path.with_name("copy.db"))
            go_on.set()
    async with open_database(path.with_name("copy.db"), [FIRST]) as database:
        assert await database.run(titles) == ["PACS"]


async def test_nothing_is_copied_over_a_file(path: Path, public_file: Path) -> None:
    async with open_database(path.with_name("source.db"), [FIRST]):
        with pytest.raises(DatabaseError, match="cannot be copied"):
            await copy_database(path.with_name("source.db"), public_file)
    assert public_file.stat().st_size == 0


async def test_what_cannot_be_copied_is_a_database_error(path: Path, foreign_file: Path) -> None:
    with pytest.raises(DatabaseError, match=r"missing\.db cannot be copied"):
        await copy_database(path.with_name("missing.db"), path.with_name("a.db"))
    with pytest.raises(DatabaseError, match=r"relay\.db cannot be copied"):
        await copy_database(foreign_file, path.with_name("b.db"))


async def test_who_reads_long_keeps_no_writer_waiting(path: Path) -> None:
    going, enough = threading.Event(), threading.Event()

    def slow(connection: apsw.Connection) -> list[str]:
        before = titles(connection)
        going.set()
        assert enough.wait(10)
        assert titles(connection) == before, "it is one moment's"
        return before

    async with open_database(path, [FIRST]) as database, trio.open_nursery() as nursery:
        await database.run(insert("CT"))
        read: list[list[str]] = []

        async def ask() -> None:
            read.append(await database.read(slow))

        nursery.start_soon(ask)
        await trio.to_thread.run_sync(going.wait, 10)
        with trio.fail_after(10):
            await database.run(insert("PACS"))
        enough.set()
    assert read == [["CT"]]


async def test_who_reads_sees_what_is_committed_and_changes_nothing(path: Path) -> None:
    async with open_database(path, [FIRST]) as database:
        await database.run(insert("PACS"))
        assert await database.read(titles) == ["PACS"]
        with pytest.raises(DatabaseError, match="readonly"):
            await database.read(insert("CT"))
        with pytest.raises(ZeroDivisionError):
            await database.read(lambda connection: 1 / 0)
        assert await database.read(titles) == ["PACS"]


# --- what precedes a transaction ------------------------------------------------------------------


@attrs.define
class Waiting:
    """Titles that wait to be written, and what became of them."""

    titles: list[str] = attrs.field(factory=list)
    fail: BaseException | None = None
    written: list[str] = attrs.field(factory=list)
    told: list[object] = attrs.field(factory=list)
    threads: set[int] = attrs.field(factory=set)

    @property
    def waits(self) -> bool:
        return bool(self.titles)

    def write(self, connection: apsw.Connection) -> None:
        self.threads.add(threading.get_ident())
        self.written, self.titles = self.titles, []
        for title in self.written:
            insert(title)(connection)
        if self.fail is not None:
            raise self.fail

    def committed(self) -> None:
        self.threads.add(threading.get_ident())
        self.told.append("committed")

    def undone(self, error: BaseException | None) -> None:
        self.threads.add(threading.get_ident())
        self.titles = self.written
        self.told.append(error)


@pytest.fixture
async def preceded(path: Path) -> AsyncIterator[tuple[Database, Waiting]]:
    async with open_database(path, [FIRST]) as database:
        waiting = Waiting(["CT", "MR"])
        database.precede(waiting)
        yield database, waiting


Preceded = tuple[Database, Waiting]


async def test_what_waits_is_written_in_front_of_whatever_comes(preceded: Preceded) -> None:
    database, waiting = preceded
    assert await database.run(titles) == ["CT", "MR"]
    assert waiting.told == ["committed"]
    waiting.titles = ["PACS"]
    assert database.run_here(titles) == ["CT", "MR", "PACS"]
    assert waiting.told == ["committed"] * 2


async def test_it_is_told_that_it_is_committed_only_then(
    path: Path, preceded: Preceded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And before whoever has asked for the transaction hears of it."""
    database, _ = preceded
    seen: list[list[str]] = []

    def look() -> None:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as other:
            seen.append(titles(other))

    monkeypatch.setattr(Waiting, "committed", lambda _: look())
    await database.run(lambda connection: look())
    assert seen == [[], ["CT", "MR"]]


async def test_it_is_called_in_the_thread_of_the_transaction(preceded: Preceded) -> None:
    database, waiting = preceded
    await database.run(titles)
    (thread,) = waiting.threads
    assert thread != threading.get_ident()
    database.run_here(titles)
    assert waiting.threads == {thread, threading.get_ident()}


@pytest.mark.parametrize("of_sqlite", [True, False])
async def test_a_failure_of_what_comes_behind_it_is_not_its_own(
    preceded: Preceded, of_sqlite: bool
) -> None:
    database, waiting = preceded
    behind = insert("CT") if of_sqlite else lambda connection: 1 // 0
    with pytest.raises(DatabaseError if of_sqlite else ZeroDivisionError):
        await database.run(behind)
    assert waiting.told == [None]
    assert waiting.titles == ["CT", "MR"]
    assert await database.run(titles) == ["CT", "MR"]
    assert waiting.told == [None, "committed"]


async def test_its_own_failure_is_the_transactions_end(preceded: Preceded) -> None:
    database, waiting = preceded
    waiting.fail = apsw.IOError("disk I/O error")
    called: list[bool] = []
    with pytest.raises(DatabaseError, match=r"relay\.db: disk I/O error"):
        await database.run(lambda connection: called.append(True))
    assert not called
    assert waiting.told == [waiting.fail]
    waiting.fail, waiting.titles = None, []
    assert await database.run(titles) == []  # nothing of it is there


@pytest.mark.parametrize("here", [True, False])
async def test_but_where_it_has_no_room_what_comes_behind_it_is_tried_alone(
    preceded: Preceded, here: bool
) -> None:
    """Which may be what frees some."""
    database, waiting = preceded
    waiting.fail = apsw.FullError("no room")
    if here:
        database.run_here(insert("PACS"))
    else:
        await database.run(insert("PACS"))
    assert waiting.told == [waiting.fail]
    assert waiting.titles == ["CT", "MR"]
    waiting.fail, waiting.titles = None, []
    assert await database.run(titles) == ["PACS"]


async def test_also_where_there_is_no_more_for_what_comes_behind_it(preceded: Preceded) -> None:
    """Its own part is undone with it, and has found no fault."""
    database, waiting = preceded
    found: list[list[str]] = []

    def behind(connection: apsw.Connection) -> None:
        found.append(titles(connection))
        if len(found) == 1:
            raise apsw.FullError("no room")

    await database.run(behind)
    assert found == [["CT", "MR"], []]
    assert waiting.told == [None]


async def test_what_has_no_room_alone_fails(preceded: Preceded) -> None:
    database, waiting = preceded
    called: list[list[str]] = []

    def behind(connection: apsw.Connection) -> None:
        called.append(titles(connection))
        raise apsw.FullError("no room")

    with pytest.raises(DatabaseError, match=r"relay\.db: no room"):
        await database.run(behind)
    assert called == [["CT", "MR"], []]
    waiting.titles = []
    with pytest.raises(DatabaseError, match=r"relay\.db: no room"):
        await database.run(behind)
    assert len(called) == 3  # it was alone


async def test_it_is_told_that_it_is_undone_also_where_undoing_fails(preceded: Preceded) -> None:
    database, waiting = preceded
    statements = Statements(database._connection)
    database._connection = statements  # type: ignore[assignment]
    statements.fail["ROLLBACK"] = apsw.IOError("disk I/O error")
    with pytest.raises(DatabaseError, match="disk I/O error"):
        await database.run(lambda connection: 1 // 0)
    assert waiting.told == [None]
    statements.fail.clear()
    assert await database.run(titles) == ["CT", "MR"]


async def test_a_commit_that_fails_is_told_to_it(preceded: Preceded) -> None:
    """As where the disk has no room for it: here a promise that is kept only at the end."""
    database, waiting = preceded
    broken = (
        "CREATE TABLE child (title TEXT REFERENCES device DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO child VALUES ('NOBODY')"
    )
    with pytest.raises(DatabaseError, match="FOREIGN KEY"):
        await database.run(lambda connection: connection.execute(broken) and None)
    (error,) = waiting.told
    assert isinstance(error, apsw.ConstraintError)
    waiting.titles = ["LATER"]
    assert await database.run(titles) == ["LATER"]


async def test_who_only_reads_has_it_written_first(preceded: Preceded) -> None:
    database, waiting = preceded
    assert await database.read(titles) == ["CT", "MR"]
    assert waiting.told == ["committed"]
    assert await database.read(titles) == ["CT", "MR"]
    assert waiting.told == ["committed"]  # nothing waited


async def test_who_only_reads_reads_where_it_cannot_be_written(preceded: Preceded) -> None:
    """Whose it is has heard of it."""
    database, waiting = preceded
    waiting.fail = apsw.FullError("no room")
    assert await database.read(titles) == []
    assert waiting.told == [waiting.fail]
    waiting.fail = None
    assert await database.read(titles) == ["CT", "MR"]
