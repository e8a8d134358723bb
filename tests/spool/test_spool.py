"""A whole spool: what an earlier run left is put in order, and what was kept is there."""

import errno
import shutil
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from relay.errors import DatabaseError, ObjectDamaged, SpoolBroken, SpoolError, SpoolFull
from relay.spool.files import Files
from relay.spool.items import Batch, Change, Hold, Item, Selection, State
from relay.spool.objects import NAMES
from relay.spool.spool import Spool, open_spool
from tests.spool.disks import Disk
from tests.spool.rows import a_batch
from tests.spool.stock import accept, crash, item_of


class Disks:
    """The disks of a spool's folders, as they are opened."""

    def __init__(self) -> None:
        self.opened: list[Disk] = []

    def __call__(self, root: Path) -> Disk:
        self.opened.append(Disk(root))
        return self.opened[-1]

    @property
    def spool(self) -> Disk:
        return self.opened[-1]


@asynccontextmanager
async def running(
    data_dir: Path,
    *,
    key: Path | None = None,
    space: int = 2**40,
    reserve: int = 0,
    files: Callable[[Path], Files] = Files,
) -> AsyncIterator[Spool]:
    data_dir.mkdir(exist_ok=True)
    async with open_spool(
        data_dir, key=key, space=space, reserve=reserve, files=files, clock=lambda: 100.0
    ) as spool:
        yield spool


async def keep(spool: Spool, content: bytes = b"content", batch: Batch | None = None) -> Item:
    writer = await spool.objects.begin()
    try:
        await writer.write(content)
        batch = batch or a_batch()
        make = spool.custody.slipped(batch, partial(item_of, batch))
        return await spool.custody.keep(batch, await writer.finish_with(make))
    except SpoolError:
        await writer.discard()
        raise


async def content(spool: Spool, item: Item) -> bytes:
    async with spool.objects.reading(item.stored) as reader:
        return b"".join([segment async for segment in reader.segments()])


async def items(spool: Spool) -> list[Item]:
    return await spool.items.select(Selection())


def files_of(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "spool").glob("*/*"))


async def test_what_was_kept_is_there_in_the_next_run(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        kept = [await keep(spool, b"%d" % number * 1000) for number in range(3)]
        used = spool.objects.space.used
    assert files_of(tmp_path) == sorted(item.id.hex() for item in kept)
    async with running(tmp_path) as spool:
        assert await items(spool) == kept
        assert spool.objects.space.used == used
        for number, item in enumerate(kept):
            assert await content(spool, item) == b"%d" % number * 1000
        assert spool.items.run == 2


async def test_an_object_in_custody_costs_one_sync(tmp_path: Path) -> None:
    """Of its content and its slip: its name was on the disk before, and its row follows."""
    disks = Disks()
    async with running(tmp_path, files=disks) as spool:
        await accept(spool, a_batch(), b"content")
        before = disks.spool.done.copy()
        await accept(spool, a_batch(), b"content")
        assert disks.spool.done - before == {"write": 2, "sync": 1, "close": 1}
        assert spool.custody.groups == 0


async def test_concurrent_senders_share_commits(tmp_path: Path) -> None:
    async with running(tmp_path) as spool, trio.open_nursery() as rows:
        rows.start_soon(spool.custody.run)
        async with trio.open_nursery() as nursery:
            for number in range(64):
                nursery.start_soon(accept, spool, a_batch(), b"%d" % number)
        await spool.custody.flush()
        rows.cancel_scope.cancel()
        assert spool.custody.kept == 64
        assert spool.custody.groups < 64
        assert len(await items(spool)) == 64


async def test_its_folder_is_on_the_disk_before_anything_is_in_it(tmp_path: Path) -> None:
    disks = Disks()
    async with running(tmp_path, files=disks):
        data_dir, spool = disks.opened
        assert (data_dir.root, spool.root) == (tmp_path, tmp_path / "spool")
        assert data_dir.done == {"make_folder": 1, "sync_folder": 1}


async def test_a_spool_that_cannot_be_made_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(b"a file")
    with pytest.raises(SpoolError, match="File exists"):
        async with running(tmp_path):
            pass
    (tmp_path / "spool").unlink()
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "queue.db").write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseError):
        async with running(tmp_path):
            pass


# --- crashes --------------------------------------------------------------------------------------


async def test_an_object_that_came_whole_and_has_no_slip_is_removed(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    async with running(tmp_path / "a") as spool:
        kept = await keep(spool)
        half, whole = await spool.objects.begin(), await spool.objects.begin()
        await half.write(bytes(3 * 2**20))
        await whole.write(b"whole")
        await whole.finish()
        crashed = crash(tmp_path / "a", tmp_path / "b")
    assert len(files_of(crashed)) == NAMES
    async with running(crashed) as spool:
        assert files_of(crashed) == [kept.id.hex()]
        assert spool.objects.space.used == kept.size
        assert await content(spool, kept) == b"content"
    (line,) = [line for line in logs if "removed" in line["event"]]
    assert line["files"] == NAMES - 1


async def test_a_file_whose_row_says_it_is_over_goes_at_the_next_start(tmp_path: Path) -> None:
    """The crash came between the row and the file, or a power cut has brought the file back."""
    async with running(tmp_path / "a") as spool:
        one, two, left = [await keep(spool) for _ in range(3)]
        change = Change(number=one.number, state=State.DELIVERED, attempts=1, ended=5.0)
        await spool.items.settle([change])
        await spool.items.discard(Selection(numbers=(two.number,)), "not wanted", 5.0)
        crashed = crash(tmp_path / "a", tmp_path / "b")
    async with running(crashed) as spool:
        assert files_of(crashed) == [left.id.hex()]
        assert spool.objects.space.used == left.size
        assert [item.state for item in await items(spool)] == [
            State.DELIVERED, State.DISCARDED, State.WAITING,
        ]  # fmt: skip


async def test_a_lost_file_is_a_dead_letter_and_said_once(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    async with running(tmp_path) as spool:
        lost, left = await keep(spool), await keep(spool)
    (tmp_path / "spool" / lost.stored.name).unlink()
    for _ in range(2):
        async with running(tmp_path) as spool:
            now = {item.number: item for item in await items(spool)}
            assert now[lost.number].state is State.FAILED
            assert now[lost.number].reason == "its file is not there: the disk has lost it"
            assert now[lost.number].ended == 100.0
            assert now[left.number] == left
    (line,) = [line for line in logs if line["event"] == "objects lost"]
    assert line["objects"] == 1
    async with running(tmp_path) as spool:
        assert await spool.items.retry(Selection()) == 1
        with pytest.raises(ObjectDamaged, match="No such file"):
            await content(spool, lost)
        gone = await spool.items.discard(Selection(numbers=(lost.number,)), "lost", 5.0)
        await spool.objects.remove(gone)
        assert spool.objects.space.used == left.size


async def test_a_lost_folder_is_the_loss_of_all_in_it(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        await keep(spool)
        await keep(spool)
    shutil.rmtree(tmp_path / "spool" / "00000001")
    async with running(tmp_path) as spool:
        assert {item.state for item in await items(spool)} == {State.FAILED}
        assert await content(spool, await keep(spool)) == b"content"


async def test_a_damaged_file_is_kept_for_a_person(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        item = await keep(spool)
    path = tmp_path / "spool" / item.stored.name
    path.write_bytes(bytes(len(path.read_bytes())))
    async with running(tmp_path) as spool:
        with pytest.raises(ObjectDamaged):
            await content(spool, item)
        assert [i.state for i in await items(spool)] == [State.WAITING]


# --- the key --------------------------------------------------------------------------------------


async def test_objects_wait_for_the_key_that_opens_them(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    keys = [tmp_path / name for name in ("one.key", "two.key")]
    for number, key in enumerate(keys):
        key.write_bytes(bytes([number]) * 32)
    async with running(tmp_path, key=keys[0]) as spool:
        first = await keep(spool, b"first")
        batch = await spool.items.next_batch("PACS", ())
        assert batch is not None
    async with running(tmp_path, key=keys[1]) as spool:
        (now,) = await items(spool)
        assert (now.state, now.hold) == (State.HELD, Hold.LOCKED)
        with pytest.raises(ObjectDamaged, match="does not open with this spool key"):
            await content(spool, first)
        assert await spool.items.retry(Selection()) == 0
        assert spool.objects.space.used == first.size
        second = await keep(spool, b"second")
    (line,) = [line for line in logs if "another spool key" in line["event"]]
    assert line["objects"] == 1
    async with running(tmp_path, key=keys[0]) as spool:
        now, later = await items(spool)
        assert (now, later.hold) == (first, Hold.LOCKED)
        assert await content(spool, now) == b"first"
        batch = await spool.items.next_batch("PACS", ())
        assert batch is not None
        assert await spool.items.firsts(batch, 0, 9) == [first]
    async with running(tmp_path, key=keys[1]) as spool:
        assert await content(spool, second) == b"second"


async def test_two_spools_with_one_key_do_not_open_each_others_objects(tmp_path: Path) -> None:
    key = tmp_path / "spool.key"
    key.write_bytes(bytes(32))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with (
        running(tmp_path / "a", key=key) as one,
        running(tmp_path / "b", key=key) as two,
    ):
        mine, theirs = await keep(one, b"mine"), await keep(two, b"not!")
        path = tmp_path / "a" / "spool" / mine.stored.name
        path.write_bytes((tmp_path / "b" / "spool" / theirs.stored.name).read_bytes())
        with pytest.raises(ObjectDamaged):
            await content(one, mine)
        with pytest.raises(ObjectDamaged):
            await content(one, attrs.evolve(mine, key=theirs.key))


# --- room, and disks that fail --------------------------------------------------------------------


async def test_no_more_is_accepted_than_there_is_room_for(tmp_path: Path) -> None:
    async with running(tmp_path, space=3 * 116) as spool:
        kept = [await keep(spool, bytes(100)) for _ in range(3)]
        with pytest.raises(SpoolFull):
            await keep(spool, bytes(100))
        spool.objects.check()  # it is full to the last byte, and no more
    async with running(tmp_path, space=2 * 116) as spool:
        with pytest.raises(SpoolFull, match="holds 348 bytes of at most 232"):
            await spool.objects.begin()
        for item in kept[:2]:
            change = Change(number=item.number, state=State.DELIVERED, attempts=1, ended=5.0)
            assert await spool.items.settle([change]) == {item.number}
            await spool.objects.remove([item.stored])
        await keep(spool, bytes(100))
        assert spool.objects.space.used == 2 * 116
    assert len(files_of(tmp_path)) == 2


async def test_the_disk_keeps_its_reserve(tmp_path: Path) -> None:
    async with running(tmp_path, reserve=2**60) as spool:
        with pytest.raises(SpoolFull, match="must stay"):
            await spool.objects.begin()


@pytest.mark.parametrize("operation", ["sync", "close"])
async def test_what_cannot_be_synced_is_refused_until_the_next_run(
    tmp_path: Path, operation: str
) -> None:
    disks = Disks()
    async with running(tmp_path, files=disks) as spool:
        kept = await keep(spool)
        disks.spool.fail[operation] = errno.EIO
        with pytest.raises(SpoolBroken):
            await keep(spool)
        disks.spool.fail.clear()
        for refused in (spool.objects.check, spool.objects.space.check_disk):
            with pytest.raises(SpoolBroken):
                refused()
        with pytest.raises(SpoolBroken):
            await keep(spool)
        assert await content(spool, kept) == b"content"  # what is kept is delivered
    async with running(tmp_path) as spool:
        assert await items(spool) == [kept]
        await keep(spool)


async def test_a_full_disk_refuses_and_goes_on(tmp_path: Path) -> None:
    disks = Disks()
    async with running(tmp_path, files=disks) as spool:
        await keep(spool)
        disks.spool.fail["write"] = errno.ENOSPC
        with pytest.raises(SpoolFull):
            await keep(spool)
        disks.spool.fail.clear()
        await keep(spool)
        assert spool.objects.space.used == 2 * (7 + 16)
    assert len(files_of(tmp_path)) == 2


async def test_a_disk_that_cannot_be_looked_at_is_said_at_the_start(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        await keep(spool)
    for operation in ("make_folder", "folders", "names"):

        def failing(root: Path, operation: str = operation) -> Disk:
            disk = Disk(root)
            disk.fail[operation] = errno.EIO
            return disk

        with pytest.raises(SpoolError, match="Input/output error"):
            async with running(tmp_path, files=failing):
                pass
    assert len(files_of(tmp_path)) == 1
