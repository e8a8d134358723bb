"""The layer that cuts the power: what was synced is there afterwards, and the rest may be lost."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from relay.database import open_database
from tests.faults.power import Disk, Moment, PowerCut, PoweredFiles, Survival, until_cut

MIGRATION = "CREATE TABLE kept (number INTEGER PRIMARY KEY, words BLOB NOT NULL) STRICT"

# Rows of more than a page, so that a commit is of several sectors.
WORDS = random.Random(1).randbytes(5000)
ROWS = 6


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    (tmp_path / "disk").mkdir()
    return Disk(tmp_path / "disk")


class Variants:
    """The trees that a cut may leave, one after the other."""

    def __init__(self, disk: Disk, folder: Path, seeds: int = 4) -> None:
        self.disk, self.folder, self.seeds = disk, folder, seeds

    def __iter__(self) -> Iterator[Path]:
        for survival in Survival:
            for seed in range(self.seeds):
                path = self.folder / f"{survival.name}-{seed}"
                self.disk.lay_out(path, survival, random.Random(seed))
                yield path


def rows(path: Path) -> list[int]:
    """The rows of a database that is whole."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'kept'").fetchone():
            return []
        found = connection.execute("SELECT number, words FROM kept ORDER BY 1").fetchall()
    assert all(words == WORDS for _, words in found)
    return [number for number, _ in found]


async def commit_rows(disk: Disk, told: list[int]) -> None:
    """Insert rows, one a transaction, until the power goes off; `told` are those that are in."""

    def insert(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO kept (words) VALUES (?)", (WORDS,))

    async with open_database(disk.root / "kept.db", [MIGRATION], vfs=disk.vfs) as database:
        for number in range(1, ROWS + 1):
            await database.run(insert)
            told.append(number)


async def test_what_was_committed_survives_a_cut_at_every_sync(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    await commit_rows(whole := Disk(tmp_path / "whole"), [])
    assert len(whole.points) > ROWS
    for point in range(1, len(whole.points) + 1):
        for moment in (Moment.BEFORE, Moment.AFTER):
            folder = tmp_path / f"{point}-{moment.name}"
            (folder / "disk").mkdir(parents=True)
            disk, told = Disk(folder / "disk"), list[int]()
            disk.cut_at(point, moment)
            with until_cut(disk):
                await commit_rows(disk, told)
            assert disk.off
            for tree in Variants(disk, folder):
                found = rows(tree / "kept.db") if (tree / "kept.db").exists() else []
                assert found[: len(told)] == told, (disk.points[-1], tree)
                assert len(found) <= len(told) + 1


def test_without_syncs_a_commit_is_lost(tmp_path: Path, disk: Disk) -> None:
    connection = apsw.Connection(str(disk.root / "kept.db"), vfs=disk.vfs)
    connection.pragma("journal_mode", "wal")
    connection.execute(MIGRATION)
    connection.pragma("synchronous", "off")
    connection.execute("INSERT INTO kept (words) VALUES (?)", (WORDS,))
    disk.cut()
    with until_cut(disk):
        connection.close()
    disk.lay_out(tmp_path / "nothing", Survival.NOTHING, random.Random(1))
    disk.lay_out(tmp_path / "everything", Survival.EVERYTHING, random.Random(1))
    assert rows(tmp_path / "nothing" / "kept.db") == []
    assert rows(tmp_path / "everything" / "kept.db") == [1]


def test_a_commit_whose_sync_fails_is_said_to_have_failed(disk: Disk) -> None:
    connection = apsw.Connection(str(disk.root / "kept.db"), vfs=disk.vfs)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.execute(MIGRATION)
    disk.cut_at(1, Moment.FAIL)
    with pytest.raises(apsw.IOError, match="to fail"):
        connection.execute("INSERT INTO kept (words) VALUES (?)", (WORDS,))
    connection.execute("INSERT INTO kept (words) VALUES (?)", (WORDS,))
    assert connection.execute("SELECT count(*) FROM kept").get == 1
    connection.close()


def written(files: PoweredFiles, *, synced: bool, folder_synced: bool) -> None:
    files.make_folder("00000001")
    file = files.create("00000001/a")
    file.write(b"one" * 1000)
    file.write(b"two" * 1000)
    if synced:
        file.sync()
    file.close()
    if folder_synced:
        files.sync_folder("00000001")


CONTENT = b"one" * 1000 + b"two" * 1000


def left(disk: Disk, path: Path, survival: Survival, seed: int = 1) -> bytes | None:
    """What of the file of `written` is on the disk."""
    disk.lay_out(path, survival, random.Random(seed))
    file = path / "00000001" / "a"
    return file.read_bytes() if file.exists() else None


def test_a_file_that_was_synced_with_its_folder_survives(tmp_path: Path, disk: Disk) -> None:
    written(PoweredFiles(disk), synced=True, folder_synced=True)
    disk.cut()
    for survival in Survival:
        assert left(disk, tmp_path / survival.name, survival) == CONTENT


def test_a_file_that_was_not_synced_is_lost(tmp_path: Path, disk: Disk) -> None:
    written(PoweredFiles(disk), synced=False, folder_synced=True)
    disk.cut()
    assert left(disk, tmp_path / "nothing", Survival.NOTHING) == b""
    assert left(disk, tmp_path / "everything", Survival.EVERYTHING) == CONTENT
    prefixes = [left(disk, tmp_path / f"p{n}", Survival.PREFIX, n) for n in range(20)]
    assert all(part is not None and CONTENT.startswith(part) for part in prefixes)
    assert len(set(prefixes)) > 5
    subsets = [left(disk, tmp_path / f"s{n}", Survival.SUBSET, n) for n in range(20)]
    assert any(part is not None and not CONTENT.startswith(part) for part in subsets)


def test_a_file_whose_folder_was_not_synced_has_no_name(tmp_path: Path, disk: Disk) -> None:
    written(PoweredFiles(disk), synced=True, folder_synced=False)
    disk.cut()
    assert left(disk, tmp_path / "nothing", Survival.NOTHING) is None
    found = {left(disk, tmp_path / f"s{n}", Survival.SUBSET, n) for n in range(20)}
    assert found == {None, CONTENT}


def test_a_removed_file_may_be_there_again(tmp_path: Path, disk: Disk) -> None:
    files = PoweredFiles(disk)
    written(files, synced=True, folder_synced=True)
    files.remove("00000001/a")
    files.remove("00000001/a")
    assert files.names("00000001") == []
    disk.cut()
    assert left(disk, tmp_path / "nothing", Survival.NOTHING) == CONTENT
    assert left(disk, tmp_path / "everything", Survival.EVERYTHING) is None


def test_what_a_failed_sync_should_have_written_a_later_one_does_not_write(
    tmp_path: Path, disk: Disk
) -> None:
    files = PoweredFiles(disk)
    files.make_folder("00000001")
    file = files.create("00000001/a")
    files.sync_folder("00000001")
    file.write(b"lost")
    disk.cut_at(1, Moment.FAIL)
    with pytest.raises(OSError, match="to fail"):
        file.sync()
    file.sync()
    file.close()
    assert (disk.root / "00000001" / "a").read_bytes() == b"lost"  # as long as the power is on
    disk.cut()
    assert left(disk, tmp_path / "everything", Survival.EVERYTHING) == b""


@pytest.mark.parametrize("moment", [Moment.BEFORE, Moment.AFTER])
def test_without_power_nothing_can_be_done(tmp_path: Path, disk: Disk, moment: Moment) -> None:
    files = PoweredFiles(disk)
    files.make_folder("00000001")
    file = files.create("00000001/a")
    file.write(b"content")
    disk.cut_at(2, moment)
    file.sync()
    with pytest.raises(PowerCut):
        files.sync_folder("00000001")
    assert disk.points == [".", "00000001/a", "00000001"]
    for call in (
        lambda: file.write(b"more"),
        file.sync,
        lambda: file.read(1, 0),
        lambda: files.create("00000001/b"),
        lambda: files.open("00000001/a"),
        lambda: files.remove("00000001/a"),
        lambda: files.make_folder("00000002"),
        lambda: files.remove_folder("00000001"),
        lambda: files.sync_folder(""),
        files.folders,
        lambda: files.names("00000001"),
    ):
        with pytest.raises(PowerCut):
            call()
    file.close()
    with pytest.raises(apsw.CantOpenError):
        apsw.Connection(str(disk.root / "kept.db"), vfs=disk.vfs)
    there = left(disk, tmp_path / "nothing", Survival.NOTHING)
    assert there == (b"content" if moment is Moment.AFTER else None)


def test_what_is_there_at_the_start_is_on_the_disk(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    (root / "00000001").mkdir(parents=True)
    (root / "00000001" / "a").write_bytes(CONTENT)
    disk = Disk(root)
    file = PoweredFiles(disk).open("00000001/a")
    assert file.read(3, 3000) == b"two"
    file.close()
    (root / "beside").write_bytes(b"by nobody's layer")
    disk.cut()
    assert left(disk, tmp_path / "nothing", Survival.NOTHING) == CONTENT
    assert not (tmp_path / "nothing" / "beside").exists()
