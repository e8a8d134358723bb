"""Files from spool to spool: linked or copied, whole, and what is missing is told."""

import errno
import os
from math import inf
from pathlib import Path
from typing import Any

import pytest

from relay.database import open_database
from relay.errors import SpoolError
from relay.spool import carrying as module
from relay.spool.carrying import Carried, carry
from relay.spool.files import File, Files
from relay.spool.items import Item, State
from relay.spool.schema import DATABASE_FILE, MIGRATIONS
from relay.spool.spool import FOLDER
from tests.spool.rows import a_batch
from tests.spool.stock import accept, become, crash, opened, stock

COUNT = 7


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    monkeypatch.setattr(module, "BLOCK", 5)


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", link)


async def carried(
    tmp_path: Path, told: list[tuple[int, int]] | None = None, before: float = inf
) -> Carried:
    """What is in the spool of `tmp_path`/a, to a folder beside it."""
    source, target = tmp_path / "a" / FOLDER, tmp_path / "b"
    target.mkdir()
    calls = told if told is not None else []
    async with open_database(source / DATABASE_FILE, MIGRATIONS) as database:
        return await carry(
            database, source, target, lambda *words: calls.append(words), before=before
        )


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(DATABASE_FILE)
    }


async def test_on_one_disk_they_get_a_second_name(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    async with opened(tmp_path / "a") as spool:
        items = await stock(spool, COUNT)
        await become(spool, items[:2], State.FAILED)
        await become(spool, items[2:4], State.DELIVERED)
    done = await carried(tmp_path, told)
    assert files(tmp_path / "b") == files(tmp_path / "a" / FOLDER)
    assert (done.linked, done.copied, done.damaged, done.missing) == (5, 0, 0, [])
    assert done.size == sum(len(content) for content in files(tmp_path / "b").values())
    assert told == [(0, 5), (3, 5), (5, 5)]


@pytest.mark.usefixtures("no_links")
async def test_elsewhere_they_are_copied(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as spool:
        await stock(spool, COUNT)
    done = await carried(tmp_path)
    assert files(tmp_path / "b") == files(tmp_path / "a" / FOLDER)
    assert (done.linked, done.copied, done.damaged, done.missing) == (0, COUNT, 0, [])
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "b").glob("*/*")} == {0o600}


@pytest.mark.parametrize("copied", [False, True])
async def test_missing_and_damaged_ones_are_told(
    tmp_path: Path, copied: bool, request: pytest.FixtureRequest
) -> None:
    if copied:
        request.getfixturevalue("no_links")
    async with opened(tmp_path / "a") as spool:
        items = await stock(spool, COUNT)
    folder = tmp_path / "a" / FOLDER
    (folder / items[1].stored.name).unlink()
    os.truncate(folder / items[4].stored.name, 3)
    done = await carried(tmp_path)
    assert done.missing == [items[1].id]
    assert (done.objects, done.damaged) == (COUNT - 1, 1)


@pytest.mark.usefixtures("no_links")
async def test_one_that_the_disk_does_not_give_back_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "a") as spool:
        await stock(spool, COUNT)
    reads = 0
    read = File.read

    def failing(self: File, size: int, offset: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 2:
            raise OSError(errno.EIO, "Input/output error")
        return read(self, size, offset)

    monkeypatch.setattr(module, "THREADS", 1)
    monkeypatch.setattr(File, "read", failing)
    done = await carried(tmp_path)
    assert len(done.missing) == 1
    assert done.copied == COUNT - 1
    assert len(files(tmp_path / "b")) == COUNT - 1


@pytest.mark.usefixtures("no_links")
async def test_a_full_disk_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path / "a") as spool:
        await stock(spool, COUNT)

    def write(self: File, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(File, "write", write)
    with pytest.raises(SpoolError, match="No space left on device"):
        await carried(tmp_path)


# --- what has no row ------------------------------------------------------------------------------


async def unnoted(tmp_path: Path, count: int = 3) -> tuple[list[Item], list[Item]]:
    """A spool as a process holds it: objects with rows, and some that have none yet."""
    async with opened(tmp_path / "live") as spool:
        items = await stock(spool, COUNT)
        await become(spool, items[:1], State.FAILED)
        batch = a_batch()
        taken = [await accept(spool, batch, b"object %d" % number) for number in range(count)]
        crash(tmp_path / "live", tmp_path / "a")
    return items, taken


@pytest.mark.parametrize("copied", [False, True])
async def test_what_is_in_custody_by_its_slip_is_carried_too(
    tmp_path: Path, copied: bool, request: pytest.FixtureRequest
) -> None:
    if copied:
        request.getfixturevalue("no_links")
    items, taken = await unnoted(tmp_path)
    told: list[tuple[int, int]] = []
    done = await carried(tmp_path, told)
    there = files(tmp_path / "a" / FOLDER)
    wanted = {item.stored.name: there[item.stored.name] for item in items + taken}
    assert len(there) > len(wanted)  # those made ahead
    assert files(tmp_path / "b") == wanted
    assert (done.objects, done.unnoted, done.damaged, done.missing) == (COUNT, 3, 0, [])
    assert done.size == sum(map(len, wanted.values()))
    assert told[-1] == (COUNT, COUNT)


async def test_what_has_no_row_and_no_whole_slip_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path / "live") as spool:
        whole = await accept(spool, a_batch(), b"whole")
        cut = await accept(spool, a_batch(), b"cut")
        without = await spool.objects.begin()
        await without.write(b"without")
        await without.finish()
        crash(tmp_path / "live", tmp_path / "a")
    path = tmp_path / "a" / FOLDER / cut.stored.name
    path.write_bytes(path.read_bytes()[:-1])
    done = await carried(tmp_path)
    assert files(tmp_path / "b").keys() == {whole.stored.name}
    assert (done.objects, done.unnoted) == (0, 1)


async def test_nor_what_came_later(tmp_path: Path) -> None:
    items, (early, late, later) = await unnoted(tmp_path)
    for item, when in ((early, 999.0), (late, 1000.0), (later, 1001.0)):
        os.utime(tmp_path / "a" / FOLDER / item.stored.name, (when, when))
    done = await carried(tmp_path, before=1000.0)
    assert done.unnoted == 1
    assert files(tmp_path / "b").keys() == {item.stored.name for item in [*items, early]}


async def test_nor_what_is_over(tmp_path: Path) -> None:
    """Its row says so, and its file is there still."""
    async with opened(tmp_path / "live") as spool:
        items = await stock(spool, 2)
        kept = files(tmp_path / "live" / FOLDER)
        await become(spool, items[:1], State.DELIVERED)
    for name, content in kept.items():
        if name == items[0].stored.name:
            (tmp_path / "live" / FOLDER / name).write_bytes(content)
    (tmp_path / "live").rename(tmp_path / "a")
    done = await carried(tmp_path)
    assert (done.objects, done.unnoted) == (1, 0)
    assert files(tmp_path / "b").keys() == {items[1].stored.name}


async def test_one_that_goes_as_it_is_looked_for_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, taken = await unnoted(tmp_path)
    names = Files.names
    monkeypatch.setattr(Files, "names", lambda self, folder: [*names(self, folder), "0" * 32])
    done = await carried(tmp_path)
    assert (done.unnoted, done.missing) == (len(taken), [])


async def test_one_whose_slip_the_disk_does_not_give_back_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one object's loss, and not the end of the others' backup."""
    items, taken = await unnoted(tmp_path)
    reads = 0
    read = File.read

    def failing(self: File, size: int, offset: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 1:
            raise OSError(errno.EIO, "Input/output error")
        return read(self, size, offset)

    monkeypatch.setattr(File, "read", failing)
    done = await carried(tmp_path)
    assert done.objects == len(items)
    assert done.unnoted in (len(taken), len(taken) - 1)
