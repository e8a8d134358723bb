"""Objects' content: sealed and opened again at every size, and every damage seen."""

import errno
import random
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio
from blake3 import blake3

from relay.errors import ObjectDamaged, SpoolBroken, SpoolError, SpoolFull
from relay.spool.objects import Objects
from relay.spool.segments import (
    COPIED,
    MAXIMUM_PREFIX,
    SEGMENT,
    TAG_SIZE,
    ObjectWriter,
    StoredObject,
)
from relay.spool.space import Space
from relay.spool.vault import SpoolKey
from tests.spool.disks import Disk

CONTENT = random.Random(1).randbytes(2 * SEGMENT + 12345)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.fixture
def objects(disk: Disk) -> Objects:
    return Objects(disk, SpoolKey(b"k" * 32), Space(disk, 2**40, 0))


async def store(objects: Objects, content: bytes, fragment: int = 16382) -> StoredObject:
    writer = await objects.begin()
    for at in range(0, len(content), fragment):
        await writer.write(memoryview(content)[at : at + fragment])
    return await writer.finish()


async def load(objects: Objects, stored: StoredObject) -> bytes:
    async with objects.reading(stored) as reader:
        return b"".join([segment async for segment in reader.segments()])


@pytest.mark.parametrize(
    "size",
    [0, 1, 2, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 2 * SEGMENT + 1, len(CONTENT)],
)
@pytest.mark.parametrize("fragment", [1021, 65536, 3 * SEGMENT])
async def test_what_was_written_is_read(
    objects: Objects, disk: Disk, size: int, fragment: int
) -> None:
    content = CONTENT[:size]
    stored = await store(objects, content, fragment)
    segments = max(1, -(-size // SEGMENT))
    assert stored.length == size
    assert stored.digest == b"\x01" + blake3(content).digest()
    assert stored.size == size + segments * TAG_SIZE == objects.space.used
    assert disk.contents == {stored.item.hex(): stored.size}
    assert stored.prefix == content[:MAXIMUM_PREFIX]
    assert await load(objects, stored) == content


async def test_one_sync_is_what_an_object_costs(objects: Objects, disk: Disk) -> None:
    await store(objects, b"first")
    before = disk.done.copy()
    await store(objects, CONTENT)
    # Three segments, and what is said behind them.
    assert disk.done - before == {"write": 3 + 1, "sync": 1, "close": 1}


async def test_fragments_of_all_sizes_come_together(objects: Objects) -> None:
    """Those that are kept as they come, those that are copied, and none at all."""
    source, at = random.Random(7), 0
    writer = await objects.begin()
    while at < len(CONTENT):
        size = source.choice((0, 1, 2, 100, COPIED - 1, COPIED, COPIED + 1, 100_000))
        await writer.write(memoryview(CONTENT)[at : at + size])
        at += size
    assert await load(objects, await writer.finish()) == CONTENT


async def test_many_small_fragments_take_no_more_memory_than_they_hold(objects: Objects) -> None:
    writer = await objects.begin()
    for at in range(0, 200_000, 2):
        await writer.write(memoryview(CONTENT)[at : at + 2])
    assert len(writer._gathered) == 1
    await writer.discard()


async def test_segments_come_one_at_a_time(objects: Objects) -> None:
    stored = await store(objects, CONTENT)
    async with objects.reading(stored) as reader:
        sizes = [len(segment) async for segment in reader.segments()]
    assert sizes == [SEGMENT, SEGMENT, 12345]


async def test_what_is_read_soon_is_left_whole_if_it_is_one_segment(objects: Objects) -> None:
    for size, soon in ((0, True), (5, True), (SEGMENT, True), (SEGMENT + 1, True), (5, False)):
        writer = await objects.begin()
        for at in range(0, size, 65536):
            await writer.write(memoryview(CONTENT)[at : min(at + 65536, size)])
        assert writer.content is None
        stored = await writer.finish(soon=soon)
        assert writer.content == (CONTENT[:size] if soon and size <= SEGMENT else None)
        assert await load(objects, stored) == CONTENT[:size]


@pytest.mark.parametrize("size", [0, 7, SEGMENT, SEGMENT + 1])
async def test_what_is_said_of_it_is_behind_it_and_synced_with_it(
    objects: Objects, disk: Disk, size: int
) -> None:
    writer = await objects.begin()
    await writer.write(CONTENT[:size])

    def make(stored: StoredObject) -> tuple[StoredObject, bytes]:
        assert threading.current_thread() is not threading.main_thread()
        assert disk.done["sync"] == synced
        assert stored.digest == b"\x01" + blake3(CONTENT[:size]).digest()
        return stored, b"what is said"

    synced = disk.done["sync"]
    stored = await writer.finish_with(make)
    assert disk.done["sync"] == synced + 1
    raw = (disk.root / stored.name).read_bytes()
    assert raw[stored.size :] == b"what is said"
    assert objects.space.used == stored.size  # as its row says it
    assert await load(objects, stored) == CONTENT[:size]
    await objects.remove([stored])
    assert (disk.contents, objects.space.used) == ({}, 0)


async def test_what_cannot_be_said_of_it_leaves_nothing(objects: Objects, disk: Disk) -> None:
    def make(stored: StoredObject) -> tuple[None, bytes]:
        disk.fail["write"] = errno.ENOSPC
        return None, b"what is said"

    def fails(stored: StoredObject) -> tuple[None, bytes]:
        raise ZeroDivisionError("a fault")

    for call, error in ((make, SpoolFull), (fails, ZeroDivisionError)):
        writer = await objects.begin()
        await writer.write(b"content")
        synced = disk.done["sync"]
        with pytest.raises(error):
            await writer.finish_with(call)
        assert disk.done["sync"] == synced
        disk.fail.clear()
        await writer.discard()
        assert (disk.contents, objects.space.used) == ({}, 0)


async def test_nothing_of_it_is_on_the_disk_as_it_was(objects: Objects, disk: Disk) -> None:
    stored = await store(objects, b"patient name " * 100)
    there = (disk.root / stored.name).read_bytes()
    assert b"patient" not in there
    assert stored.key_name == SpoolKey(b"k" * 32).name
    assert repr(b"patient") not in repr(stored)


def _flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


SEALED = SEGMENT + TAG_SIZE


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_flip(0), "not as it was written"),
        (_flip(SEGMENT), "not as it was written"),
        (_flip(SEALED + 5), "not as it was written"),
        (lambda data: data[:-1], "cut short"),
        (lambda data: data[: 2 * SEALED], "cut short"),
        (lambda data: data[:SEALED], "cut short"),
        (lambda data: b"", "cut short"),
        (lambda data: bytes(len(data)), "not as it was written"),
        (
            lambda data: data[SEALED : 2 * SEALED] + data[:SEALED] + data[2 * SEALED :],
            "not as it was written",
        ),
        (lambda data: data[:SEALED] * 2 + data[2 * SEALED :], "not as it was written"),
    ],
)
async def test_damage_is_seen(
    objects: Objects, disk: Disk, damage: Callable[[bytes], bytes], words: str
) -> None:
    stored = await store(objects, CONTENT)
    path = disk.root / stored.name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ObjectDamaged, match=words):
        await load(objects, stored)


async def test_files_cannot_be_exchanged(objects: Objects, disk: Disk) -> None:
    """Nor those of two spools that have one key."""
    one, two = await store(objects, b"one"), await store(objects, b"two")
    first, second = disk.root / one.name, disk.root / two.name
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    for stored in (one, two):
        with pytest.raises(ObjectDamaged, match="not as it was written"):
            await load(objects, stored)
    with pytest.raises(ObjectDamaged, match="does not open with this spool key"):
        await load(objects, attrs.evolve(one, key=two.key))


@pytest.mark.parametrize(
    ("operation", "number", "kind"),
    [
        ("open", errno.ENOENT, ObjectDamaged),
        ("open", errno.EIO, ObjectDamaged),
        ("open", errno.EMFILE, SpoolError),
        ("open", errno.EACCES, SpoolError),
        ("read", errno.EIO, ObjectDamaged),
        ("read", errno.ENOMEM, SpoolError),
    ],
)
async def test_what_may_pass_is_not_called_damage(
    objects: Objects, disk: Disk, operation: str, number: int, kind: type[SpoolError]
) -> None:
    """A dead letter for each object, because too many files were open, would be a disaster."""
    stored = await store(objects, b"content")
    disk.fail[operation] = number
    with pytest.raises(SpoolError, match="its file cannot be read") as raised:
        await load(objects, stored)
    assert type(raised.value) is kind
    disk.fail.clear()
    assert await load(objects, stored) == b"content"


async def test_a_full_disk_refuses_an_object_and_the_next_one_is_taken(
    objects: Objects, disk: Disk
) -> None:
    writer = await objects.begin()
    disk.fail["write"] = errno.ENOSPC
    with pytest.raises(SpoolFull, match="No space left"):
        await writer.write(CONTENT)
    await writer.discard()
    assert (disk.contents, objects.space.used) == ({}, 0)
    disk.fail.clear()
    assert await load(objects, await store(objects, b"next")) == b"next"


async def test_what_is_left_of_a_full_disk_is_used(disk: Disk) -> None:
    objects = Objects(disk, SpoolKey(b"k" * 32), Space(disk, 1000, 0))
    writer = await objects.begin()
    await writer.write(bytes(990))
    with pytest.raises(SpoolFull, match="holds 0 bytes of at most 1000"):
        await writer.finish()
    await writer.discard()
    await store(objects, bytes(984))
    assert objects.space.used == 1000


@pytest.mark.parametrize("operation", ["sync", "close"])
async def test_a_sync_that_fails_stops_everything(
    objects: Objects, disk: Disk, operation: str
) -> None:
    writer, other = await objects.begin(), await objects.begin()
    await writer.write(b"content")
    await other.write(b"content")
    disk.fail[operation] = errno.EIO
    with pytest.raises(SpoolBroken, match="cannot be synced to the disk: Input/output error"):
        await writer.finish()
    disk.fail.clear()
    with pytest.raises(SpoolBroken):
        await objects.begin()
    with pytest.raises(SpoolBroken):
        await other.finish()
    await writer.discard()
    await other.discard()
    assert (disk.contents, objects.space.used) == ({}, 0)


async def test_discard_leaves_nothing_at_any_stage(objects: Objects, disk: Disk) -> None:
    async def nothing(writer: ObjectWriter) -> None:
        await trio.lowlevel.checkpoint()

    async def some(writer: ObjectWriter) -> None:
        await writer.write(b"some")

    async def segments(writer: ObjectWriter) -> None:
        await writer.write(CONTENT)

    async def everything(writer: ObjectWriter) -> None:
        await writer.write(CONTENT)
        await writer.finish()

    stages: tuple[Callable[[ObjectWriter], Awaitable[None]], ...] = (
        nothing, some, segments, everything,
    )  # fmt: skip
    for stage in stages:
        writer = await objects.begin()
        await stage(writer)
        await writer.discard()
        await writer.discard()
        assert (disk.contents, objects.space.used) == ({}, 0), stage.__name__
    await objects.close()
    assert list(disk.root.glob("*/*")) == []


async def test_what_cannot_be_removed_keeps_its_space(objects: Objects, disk: Disk) -> None:
    writer = await objects.begin()
    await writer.write(CONTENT)
    used = objects.space.used
    disk.fail["remove"] = errno.EIO
    await writer.discard()
    assert objects.space.used == used > 0
    disk.fail.clear()
    await writer.discard()
    assert (disk.contents, objects.space.used) == ({}, 0)


@pytest.mark.parametrize("awaits", range(12))
async def test_a_sender_that_is_cancelled_anywhere_leaves_nothing(
    objects: Objects, disk: Disk, awaits: int
) -> None:
    """Cancelled after so many of its checkpoints: whoever took it in discards it."""
    kept: list[StoredObject] = []

    async def send(cancelled: trio.CancelScope) -> None:
        left = awaits

        def step() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                cancelled.cancel()

        step()
        writer = await objects.begin()
        try:
            for at in range(0, len(CONTENT), SEGMENT // 2):
                step()
                await writer.write(CONTENT[at : at + SEGMENT // 2])
            step()
            kept.append(await writer.finish())
        finally:
            if not kept:
                await writer.discard()

    with trio.CancelScope() as scope:
        await send(scope)
    assert objects.space.used == sum(stored.size for stored in kept)
    assert disk.contents == {stored.item.hex(): stored.size for stored in kept}
    assert bool(kept) is (awaits >= 7)
