"""All objects of one spool: folders, files made ahead, what is removed and what is missing."""

import errno
import os
from pathlib import Path

import pytest
import trio

from relay.errors import SpoolBroken, SpoolError, SpoolFull
from relay.spool import objects as module
from relay.spool.files import Files
from relay.spool.objects import NAMES, Objects
from relay.spool.segments import StoredObject
from relay.spool.slips import Locked, Slip, Unread
from relay.spool.space import Space
from relay.spool.vault import SpoolKey
from tests.spool.disks import Disk
from tests.spool.rows import a_batch, an_item


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def opened(disk: Files) -> Objects:
    return Objects(disk, SpoolKey(b"k" * 32), Space(disk, 2**40, 0))


@pytest.fixture
def objects(disk: Disk) -> Objects:
    return opened(disk)


async def store(objects: Objects, content: bytes = b"content") -> StoredObject:
    writer = await objects.begin()
    await writer.write(content)
    return await writer.finish()


async def test_names_are_on_the_disk_before_content_is(disk: Disk, objects: Objects) -> None:
    await objects.begin()
    assert disk.done == {"folders": 1, "make_folder": 1, "create": NAMES, "sync_folder": 2}
    for _ in range(NAMES - 1):
        await objects.begin()
    assert disk.done["create"] == NAMES
    await objects.begin()
    assert disk.done["create"] == 2 * NAMES
    assert disk.done["sync_folder"] == 3


async def test_those_that_begin_together_share_the_making(disk: Disk, objects: Objects) -> None:
    async def begin(found: set[bytes]) -> None:
        found.add((await objects.begin()).item)

    found = set[bytes]()
    async with trio.open_nursery() as nursery:
        for _ in range(NAMES):
            nursery.start_soon(begin, found)
    assert len(found) == NAMES == disk.done["create"]


async def test_a_folder_holds_so_many_files_and_a_run_begins_with_its_own(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLDER_FILES", 2 * NAMES)
    objects = opened(disk)
    folders = [(await store(objects)).folder for _ in range(2 * NAMES + 1)]
    assert folders == [1] * (2 * NAMES) + [2]
    assert disk.folders() == ["00000001", "00000002"]
    assert (await store(opened(disk))).folder == 3


async def test_what_is_no_folder_of_objects_is_not_looked_at(disk: Disk) -> None:
    for name in ("lost+found", "0000000A", "1", "000000001"):
        (disk.root / name).mkdir()
    (disk.root / "00000007").write_bytes(b"a file")
    objects = opened(disk)
    assert await objects.folders() == []
    assert (await store(objects)).folder == 1


async def test_what_was_made_and_not_needed_goes_at_the_end(disk: Disk, objects: Objects) -> None:
    stored = await store(objects)
    await objects.close()
    assert [path.name for path in disk.root.glob("*/*")] == [stored.item.hex()]
    await objects.close()


@pytest.mark.parametrize("operation", ["make_folder", "sync_folder"])
async def test_a_name_that_may_not_be_on_the_disk_breaks_the_spool(
    disk: Disk, objects: Objects, operation: str
) -> None:
    disk.fail[operation] = errno.EIO
    with pytest.raises(SpoolBroken, match="no files for objects: Input/output error"):
        await objects.begin()
    disk.fail.clear()
    with pytest.raises(SpoolBroken):
        await objects.begin()
    assert list(disk.root.glob("*/*")) == []


@pytest.mark.parametrize(
    ("operation", "number"),
    [("create", errno.ENOSPC), ("create", errno.EMFILE), ("sync_folder", errno.EMFILE)],
)
async def test_files_that_cannot_be_made_now_can_be_later(
    disk: Disk, objects: Objects, operation: str, number: int
) -> None:
    await store(objects)
    for _ in range(NAMES - 1):
        await objects.begin()
    there = len(list(disk.root.glob("*/*")))
    disk.fail[operation] = number
    with pytest.raises(SpoolFull, match="no files for objects"):
        await objects.begin()
    assert len(list(disk.root.glob("*/*"))) == there
    disk.fail.clear()
    await store(objects)


async def test_removed_files_give_their_space_back(disk: Disk, objects: Objects) -> None:
    kept, *gone = [await store(objects, bytes(100)) for _ in range(3)]
    await objects.remove(gone)
    assert disk.contents == {kept.item.hex(): 116}
    assert objects.space.used == 116


async def test_a_file_that_is_gone_gives_its_space_back_too(disk: Disk, objects: Objects) -> None:
    stored = await store(objects)
    (disk.root / stored.name).unlink()
    await objects.remove([stored])
    assert objects.space.used == 0


async def test_what_cannot_be_removed_keeps_its_space_and_stops_nobody(
    disk: Disk, objects: Objects
) -> None:
    stored = await store(objects)
    disk.fail["remove"] = errno.EIO
    await objects.remove([stored])
    assert objects.space.used == stored.size
    objects.check()


async def test_removing_is_not_cancelled(disk: Disk, objects: Objects) -> None:
    """The rows have changed by then."""
    stored = await store(objects)
    with trio.CancelScope() as scope:
        scope.cancel()
        await objects.remove([stored])
    assert (disk.contents, objects.space.used) == ({}, 0)


# --- the start ------------------------------------------------------------------------------------


async def test_the_start_tells_what_no_row_knows_and_what_is_missing(
    disk: Disk, objects: Objects
) -> None:
    known, unknown, lost = [await store(objects) for _ in range(3)]
    (disk.root / lost.name).unlink()
    (disk.root / "00000001" / "junk").write_bytes(b"x")
    again = opened(disk)
    names, missing = await again.compare(1, {known.item, lost.item})
    # ... and those made ahead, of the run that did not end well.
    assert len(names) == 1 + 1 + NAMES - 3
    assert {unknown.name, "00000001/junk"} <= set(names)
    assert known.name not in names
    assert missing == {lost.item}
    assert (disk.root / unknown.name).exists()  # that is for others to say
    await again.clear(1, names)
    assert [path.name for path in disk.root.glob("*/*")] == [known.item.hex()]


async def test_a_folder_in_which_nothing_is_kept_goes(disk: Disk, objects: Objects) -> None:
    await store(objects)
    again = opened(disk)
    names, missing = await again.compare(1, set())
    assert (len(names), missing) == (NAMES, set())
    await again.clear(1, names[1:])
    assert disk.folders() == ["00000001"]
    await again.clear(1, names[:1])
    assert disk.folders() == []


async def test_a_folder_that_is_missing_is_all_missing(objects: Objects) -> None:
    assert await objects.compare(9, {b"1" * 16}) == ([], {b"1" * 16})
    await objects.clear(9, [])


@pytest.mark.parametrize("operation", ["names", "remove"])
async def test_a_start_that_cannot_look_says_so(
    disk: Disk, objects: Objects, operation: str
) -> None:
    stored = await store(objects)
    disk.fail[operation] = errno.EIO

    async def look() -> None:
        await objects.compare(1, set())
        await objects.clear(1, [stored.name])

    with pytest.raises(SpoolError, match="folder 00000001: Input/output error"):
        await look()


async def slipped(objects: Objects) -> Slip:
    """An object whose slip is behind it."""
    writer = await objects.begin()
    await writer.write(b"content")

    def make(stored: StoredObject) -> tuple[Slip, bytes]:
        slip = Slip(1, 0, a_batch(), an_item(id=stored.item, folder=stored.folder))
        return slip, slip.encode(objects.key)

    return await writer.finish_with(make)


async def test_what_a_slip_says_of_a_file(disk: Disk, objects: Objects) -> None:
    slip = await slipped(objects)
    found = await objects.slip(slip.item.stored.name)
    assert isinstance(found, Slip)
    assert found.item == slip.item
    without = await store(objects)
    assert await objects.slip(without.name) is None
    (disk.root / "00000001" / "junk").write_bytes((disk.root / slip.item.stored.name).read_bytes())
    assert await objects.slip("00000001/junk") is None
    another = Objects(disk, SpoolKey(b"a" * 32), Space(disk, 2**40, 0))
    assert await another.slip(slip.item.stored.name) == Locked(objects.key.name)


@pytest.mark.parametrize(
    ("operation", "number", "passing"),
    [
        ("open", errno.ENOENT, False),
        ("read", errno.EIO, False),
        ("open", errno.EMFILE, True),
        ("read", errno.ENOMEM, True),
    ],
)
async def test_a_slip_that_cannot_be_read(
    disk: Disk, objects: Objects, operation: str, number: int, passing: bool
) -> None:
    name = (await slipped(objects)).item.stored.name
    closed = disk.done["close"]
    disk.fail[operation] = number
    words = f"its file cannot be read: {os.strerror(number)}"
    if passing:
        with pytest.raises(SpoolError, match=words):
            await objects.slip(name)
    else:
        assert await objects.slip(name) == Unread(words)
    assert disk.done["close"] == closed + (operation == "read")  # no descriptor stays
    disk.fail.clear()
    assert isinstance(await objects.slip(name), Slip)


async def test_a_spool_whose_folder_cannot_be_read_is_not_opened(disk: Disk) -> None:
    disk.fail["folders"] = errno.EACCES
    with pytest.raises(SpoolError, match="Permission denied"):
        opened(disk)
