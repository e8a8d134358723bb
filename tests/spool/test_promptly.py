"""Objects that go to the disk without a thread: which ones do, and that they are as all others."""

import errno
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.errors import SpoolBroken, SpoolFull
from relay.spool import segments
from relay.spool.files import File, Files
from relay.spool.objects import CLOSING, NAMES, Objects
from relay.spool.promptly import MAXIMUM_SEALED, QUICK_SYNC, QUICK_WRITE, REST, Promptly
from relay.spool.sealing import SEGMENT, TAG_SIZE, SegmentSealer, nonce
from relay.spool.segments import COPIED, MAXIMUM_PREFIX, PIECE, StoredObject
from relay.spool.space import Space
from relay.spool.vault import SpoolKey
from tests.spool.disks import Disk

KEY = bytes(range(32))
CONTENT = random.Random(5).randbytes(2 * SEGMENT + 5)


class LoopSyncs:
    """Syncs in the event loop, and counts them; as quick as it is told to be."""

    def __init__(self) -> None:
        self.serving = True
        self.waited = 0.0
        self.synced = 0
        self.runs = False

    async def sync(self, file: File) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        file.sync()
        self.synced += 1

    async def run(self) -> None:
        self.runs = True
        await trio.sleep_forever()


@pytest.fixture
def syncs() -> LoopSyncs:
    return LoopSyncs()


@pytest.fixture
def promptly(syncs: LoopSyncs) -> Promptly:
    return Promptly(syncs)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.fixture
def objects(disk: Disk, syncs: LoopSyncs) -> Objects:
    return Objects(disk, SpoolKey(b"k" * 32), Space(disk, 2**40, 0), lambda workers: syncs)


async def store(
    objects: Objects, content: bytes, fragment: int = 16382, *, soon: bool = True
) -> StoredObject:
    writer = await objects.begin()
    for at in range(0, len(content), fragment):
        await writer.write(memoryview(content)[at : at + fragment])
    return await writer.finish(soon=soon)


async def load(objects: Objects, stored: StoredObject) -> bytes:
    async with objects.reading(stored) as reader:
        return b"".join([segment async for segment in reader.segments()])


# --- who may ----------------------------------------------------------------------------------


async def test_where_the_disk_is_asked_without_a_thread_an_object_may(
    promptly: Promptly, syncs: LoopSyncs
) -> None:
    assert promptly.ready
    sealer = promptly.begin(KEY)
    assert sealer is not None
    sealer.add(b"content")
    assert sealer.end() == AESGCM(KEY).encrypt(nonce(0), b"content", None)


async def test_where_threads_sync_none_may(promptly: Promptly, syncs: LoopSyncs) -> None:
    syncs.serving = False
    assert not promptly.ready
    assert promptly.begin(KEY) is None
    syncs.serving = True
    assert promptly.begin(KEY) is not None


async def test_so_many_may_at_a_time_and_memory_is_used_again(promptly: Promptly) -> None:
    sealers: list[SegmentSealer] = []
    for _ in range(MAXIMUM_SEALED):
        sealer = promptly.begin(KEY)
        assert sealer is not None
        sealers.append(sealer)
    assert len({id(sealer.memory.obj) for sealer in sealers}) == MAXIMUM_SEALED
    assert {len(sealer.memory) for sealer in sealers} == {SEGMENT + TAG_SIZE}
    assert promptly.begin(KEY) is None
    assert promptly.ready
    promptly.end(sealers[3])
    again = promptly.begin(KEY)
    assert again is not None
    assert again is not sealers[3]
    assert again.memory.obj is sealers[3].memory.obj
    assert promptly.begin(KEY) is None


async def test_no_more_memory_than_is_needed(promptly: Promptly) -> None:
    memory: set[int] = set()
    for _ in range(3 * MAXIMUM_SEALED):
        sealer = promptly.begin(KEY)
        assert sealer is not None
        memory.add(id(sealer.memory.obj))
        promptly.end(sealer)
    assert len(memory) == 1


async def test_a_write_that_took_long_leaves_the_disk_to_threads(
    promptly: Promptly, autojump_clock: MockClock
) -> None:
    promptly.wrote(QUICK_WRITE * 1.01)
    assert not promptly.ready
    assert promptly.begin(KEY) is None
    await trio.sleep(REST * 0.99)
    assert not promptly.ready
    await trio.sleep(REST * 0.02)
    assert promptly.ready
    assert promptly.begin(KEY) is not None


async def test_writes_that_are_quick_change_nothing(
    promptly: Promptly, autojump_clock: MockClock
) -> None:
    for seconds in (0.0, QUICK_WRITE / 2, QUICK_WRITE):
        promptly.wrote(seconds)
        assert promptly.ready
    promptly.wrote(QUICK_WRITE * 2)
    await trio.sleep(REST * 0.9)
    promptly.wrote(QUICK_WRITE / 2)
    assert not promptly.ready
    await trio.sleep(REST * 0.2)
    assert promptly.ready


async def test_a_sync_that_takes_long_leaves_the_disk_to_threads(
    promptly: Promptly, syncs: LoopSyncs, autojump_clock: MockClock
) -> None:
    syncs.waited = QUICK_SYNC
    assert promptly.ready
    syncs.waited = QUICK_SYNC * 1.01
    assert not promptly.ready
    assert promptly.begin(KEY) is None
    syncs.waited = 0.0
    await trio.sleep(REST * 0.99)
    assert not promptly.ready
    await trio.sleep(REST * 0.02)
    assert promptly.ready


async def test_what_syncs_runs_with_it(promptly: Promptly, syncs: LoopSyncs, disk: Disk) -> None:
    disk.make_folder("a")
    file = disk.create("a/one")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(promptly.run)
        await wait_all_tasks_blocked()
        assert syncs.runs
        await promptly.sync(file)
        assert (syncs.synced, disk.done["sync"]) == (1, 1)
        nursery.cancel_scope.cancel()
    file.close()


# --- whole objects ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [0, 1, COPIED - 1, COPIED, COPIED + 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 5],
)
@pytest.mark.parametrize("fragment", [1021, COPIED - 1, COPIED, 65537, 3 * SEGMENT])
@pytest.mark.parametrize("soon", [False, True])
async def test_what_was_written_is_read(
    objects: Objects, disk: Disk, syncs: LoopSyncs, size: int, fragment: int, soon: bool
) -> None:
    content = CONTENT[:size]
    writer = await objects.begin()
    for at in range(0, size, fragment):
        await writer.write(memoryview(content)[at : at + fragment])
    stored = await writer.finish(soon=soon)
    count = max(1, -(-size // SEGMENT))
    assert writer.content == (content if soon and count == 1 else None)
    assert stored.length == size
    assert stored.digest == b"\x01" + blake3(content).digest()
    assert stored.size == size + count * TAG_SIZE == objects.space.used
    assert stored.prefix == content[:MAXIMUM_PREFIX]
    assert disk.contents == {stored.item.hex(): stored.size}
    assert await load(objects, stored) == content
    assert disk.done["sync"] == 1
    assert syncs.synced == (1 if count == 1 and min(size, fragment) <= PIECE else 0)
    await objects.close()


@pytest.mark.parametrize("size", [1, 2, COPIED, COPIED + 3])
async def test_byte_by_byte_it_is_the_same(objects: Objects, syncs: LoopSyncs, size: int) -> None:
    stored = await store(objects, CONTENT[:size], 1)
    assert stored.digest == b"\x01" + blake3(CONTENT[:size]).digest()
    assert await load(objects, stored) == CONTENT[:size]
    assert syncs.synced == 1
    await objects.close()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [SEGMENT, len(CONTENT)])
async def test_fragments_of_all_sizes_come_together(objects: Objects, seed: int, size: int) -> None:
    source, at = random.Random(seed), 0
    writer = await objects.begin()
    while at < size:
        fragment = source.choice((0, 1, 2, 100, COPIED - 1, COPIED, COPIED + 1, 100_000))
        await writer.write(memoryview(CONTENT)[at : min(at + fragment, size)])
        at += fragment
    stored = await writer.finish()
    assert stored.digest == b"\x01" + blake3(CONTENT[:size]).digest()
    assert await load(objects, stored) == CONTENT[:size]
    await objects.close()


@pytest.mark.parametrize(("size", "prompt"), [(7, True), (SEGMENT, True), (SEGMENT + 1, False)])
async def test_what_is_said_of_it_is_made_where_it_is_written(
    objects: Objects, disk: Disk, size: int, prompt: bool
) -> None:
    writer = await objects.begin()
    for at in range(0, size, PIECE):
        await writer.write(CONTENT[at : min(at + PIECE, size)])
    main = threading.get_ident()

    def make(stored: StoredObject) -> tuple[StoredObject, bytes]:
        assert (threading.get_ident() == main) is prompt
        assert disk.done["sync"] == 0
        return stored, b"what is said"

    stored = await writer.finish_with(make)
    assert disk.done["sync"] == 1
    assert (disk.root / stored.name).read_bytes()[stored.size :] == b"what is said"
    assert await load(objects, stored) == CONTENT[:size]
    await objects.close()


async def test_more_at_a_time_than_may_go_by_threads(objects: Objects, syncs: LoopSyncs) -> None:
    writers = [await objects.begin() for _ in range(MAXIMUM_SEALED + 3)]
    contents = [CONTENT[number : number + 50_000] for number in range(len(writers))]
    for at in range(0, 50_000, 9_999):
        for writer, content in zip(writers, contents, strict=True):
            await writer.write(content[at : at + 9_999])
    stored = [await writer.finish() for writer in writers]
    assert [await load(objects, one) for one in stored] == contents
    assert syncs.synced == MAXIMUM_SEALED
    await objects.close()


async def test_a_disk_that_becomes_slow_meanwhile(objects: Objects, syncs: LoopSyncs) -> None:
    """What was sealed by then is written by a thread."""
    writer = await objects.begin()
    for at in range(0, 100_000, 9_999):
        await writer.write(CONTENT[at : min(at + 9_999, 100_000)])
    syncs.waited = 2 * QUICK_SYNC
    stored = await writer.finish()
    assert syncs.synced == 0
    assert writer.content == CONTENT[:100_000]
    assert stored.digest == b"\x01" + blake3(CONTENT[:100_000]).digest()
    assert await load(objects, stored) == CONTENT[:100_000]
    await objects.close()


async def test_an_object_whose_write_took_long_is_the_last_one(
    objects: Objects,
    syncs: LoopSyncs,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    now, step = 0.0, QUICK_WRITE / 2

    def clock() -> float:
        nonlocal now
        now += step
        return now

    monkeypatch.setattr(segments, "time", SimpleNamespace(perf_counter=clock))
    for _ in range(3):
        await store(objects, b"content")
    assert syncs.synced == 3
    step = 2 * QUICK_WRITE
    for _ in range(3):
        await store(objects, b"content")
    assert syncs.synced == 4
    await trio.sleep(REST * 1.01)
    step = QUICK_WRITE / 2
    await store(objects, b"content")
    assert syncs.synced == 5
    await objects.close()


# --- what goes wrong --------------------------------------------------------------------------


async def test_a_full_disk_refuses_an_object_and_the_next_one_is_taken(
    objects: Objects, disk: Disk, syncs: LoopSyncs
) -> None:
    """As often as there is memory for, and once more: it is given back."""
    for size in [7] * MAXIMUM_SEALED + [SEGMENT + 1]:
        writer = await objects.begin()
        disk.fail["write"] = errno.ENOSPC

        with pytest.raises(SpoolFull, match="No space left"):  # noqa: PT012
            await writer.write(CONTENT[:size])
            await writer.finish()
        await writer.discard()
        assert (disk.contents, objects.space.used) == ({}, 0)
        disk.fail.clear()
    assert syncs.synced == 0
    assert await load(objects, await store(objects, b"next")) == b"next"
    assert syncs.synced == 1
    await objects.close()


async def test_a_spool_that_is_full_refuses_an_object(disk: Disk, syncs: LoopSyncs) -> None:
    space = Space(disk, 1000, 0)
    objects = Objects(disk, SpoolKey(b"k" * 32), space, lambda workers: syncs)
    for _ in range(MAXIMUM_SEALED + 1):
        writer = await objects.begin()
        await writer.write(bytes(990))
        with pytest.raises(SpoolFull, match="holds 0 bytes of at most 1000"):
            await writer.finish()
        await writer.discard()
    await store(objects, bytes(984))
    assert (space.used, syncs.synced) == (1000, 1)
    await objects.close()


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EIO, "Input/output error"), (errno.ENOSPC, "No space left")]
)
async def test_a_sync_that_fails_stops_everything(
    objects: Objects, disk: Disk, syncs: LoopSyncs, number: int, words: str
) -> None:
    writer, other = await objects.begin(), await objects.begin()
    await writer.write(b"content")
    await other.write(b"content")
    disk.fail["sync"] = number
    with pytest.raises(SpoolBroken, match=f"cannot be synced to the disk: {words}"):
        await writer.finish()
    disk.fail.clear()
    with pytest.raises(SpoolBroken):
        await objects.begin()
    with pytest.raises(SpoolBroken):
        await other.finish()
    await writer.discard()
    await other.discard()
    assert (disk.contents, objects.space.used, syncs.synced) == ({}, 0, 0)
    await objects.close()
    assert disk.done["close"] >= disk.done["create"]


async def test_what_cannot_be_said_of_it_leaves_nothing(
    objects: Objects, disk: Disk, syncs: LoopSyncs
) -> None:
    def make(stored: StoredObject) -> tuple[None, bytes]:
        disk.fail["write"] = errno.ENOSPC
        return None, b"what is said"

    def fails(stored: StoredObject) -> tuple[None, bytes]:
        raise ZeroDivisionError("a fault")

    cases: list[tuple[Callable[[StoredObject], tuple[None, bytes]], type[Exception]]] = [
        (make, SpoolFull),
        (fails, ZeroDivisionError),
    ]
    for call, error in cases * MAXIMUM_SEALED:
        writer = await objects.begin()
        await writer.write(b"content")
        with pytest.raises(error):
            await writer.finish_with(call)
        assert disk.done["sync"] == 0
        disk.fail.clear()
        await writer.discard()
        assert (disk.contents, objects.space.used) == ({}, 0)
    await store(objects, b"next")
    assert syncs.synced == 1
    await objects.close()


@pytest.mark.parametrize("size", [0, 7, 50_000, SEGMENT, SEGMENT + 1])
async def test_an_object_that_is_discarded_leaves_nothing(
    objects: Objects, disk: Disk, syncs: LoopSyncs, size: int
) -> None:
    for _ in range(MAXIMUM_SEALED + 1):
        writer = await objects.begin()
        await writer.write(CONTENT[:size])
        await writer.discard()
        await writer.discard()
        assert (disk.contents, objects.space.used) == ({}, 0)
    others = [await objects.begin() for _ in range(MAXIMUM_SEALED)]
    for other in others:
        await other.write(b"content")
        await other.finish()
    # None was given back twice either.
    assert syncs.synced == MAXIMUM_SEALED
    await objects.close()


async def test_an_object_that_is_discarded_when_it_is_on_the_disk(
    objects: Objects, disk: Disk, syncs: LoopSyncs
) -> None:
    writer = await objects.begin()
    await writer.write(b"content")
    await writer.finish()
    await writer.discard()
    assert (disk.contents, objects.space.used, syncs.synced) == ({}, 0, 1)
    await objects.close()
    assert list(disk.root.glob("*/*")) == []


@pytest.mark.parametrize("soon", [False, True])
async def test_nothing_is_said_of_a_file_that_was_discarded(
    objects: Objects, soon: bool, logs: list[MutableMapping[str, Any]]
) -> None:
    writer = await objects.begin()
    await writer.write(b"content")
    await writer.finish(soon=soon)
    await writer.discard()
    await objects.close()
    assert [entry for entry in logs if entry["log_level"] == "warning"] == []


async def test_who_is_cancelled_before_the_end_has_written_nothing(
    objects: Objects, disk: Disk, syncs: LoopSyncs
) -> None:
    writer = await objects.begin()
    await writer.write(b"content")
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.finish()
    assert scope.cancelled_caught
    assert (disk.contents, objects.space.used, disk.done["sync"]) == ({}, 0, 0)
    await writer.discard()
    await objects.close()


# --- files that are closed later --------------------------------------------------------------


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads in which the system was told to forget a file."""
    threads: list[int] = []
    forget = File.forget

    def noting(file: File) -> None:
        threads.append(threading.get_ident())
        forget(file)

    monkeypatch.setattr(File, "forget", noting)
    return threads


async def test_all_files_are_closed_at_the_end(
    objects: Objects, disk: Disk, forgotten: list[int]
) -> None:
    await store(objects, b"one")
    await store(objects, b"two", soon=False)
    await store(objects, b"three")
    assert (disk.done["close"], disk.done["create"]) == (0, NAMES)
    assert not forgotten
    await objects.close()
    assert disk.done["close"] == NAMES
    # What is read again soon is kept; no file is worked on in the event loop.
    assert len(forgotten) == 1
    assert threading.get_ident() not in forgotten


async def test_who_makes_the_next_files_closes_those_that_are_written(
    objects: Objects, disk: Disk
) -> None:
    for _ in range(NAMES):
        await store(objects, b"content")
    assert disk.done["close"] == 0
    await objects.begin()
    assert (disk.done["close"], disk.done["create"]) == (NAMES, 2 * NAMES)
    await objects.close()


async def test_files_are_closed_after_a_while(
    objects: Objects, disk: Disk, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        await store(objects, b"content")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(objects.run)
        await trio.sleep(CLOSING * 0.9)
        assert disk.done["close"] == 0
        await trio.sleep(CLOSING * 0.2)
        while objects._workers.busy:
            await trio.lowlevel.checkpoint()
        assert disk.done["close"] == 3
        nursery.cancel_scope.cancel()
    await objects.close()
    assert disk.done["close"] == NAMES


async def test_a_file_that_does_not_close_is_on_the_disk(
    objects: Objects, disk: Disk, logs: list[MutableMapping[str, Any]]
) -> None:
    one, two = await store(objects, b"one"), await store(objects, b"two")
    disk.fail["close"] = errno.EIO
    await objects._workers.run(objects._close_written)
    disk.fail.clear()
    assert [entry["event"] for entry in logs] == ["a file does not close"] * 2
    assert await load(objects, one) + await load(objects, two) == b"onetwo"
    objects.check()
    await objects.close()


class Contended(deque[tuple[File, bool]]):
    """Who sees that one is left goes on once another one has seen it, or cannot."""

    def __init__(self, files: Iterable[tuple[File, bool]]) -> None:
        super().__init__(files)
        self._both = threading.Barrier(2)

    def __len__(self) -> int:
        length = super().__len__()
        if length == 1:
            with suppress(threading.BrokenBarrierError):
                self._both.wait(0.2)
        return length


async def test_files_are_closed_by_two_at_a_time(objects: Objects, disk: Disk) -> None:
    """By who makes the next ones, and because a while has passed."""
    await store(objects, b"content")
    objects._written = Contended(objects._written)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(objects._workers.run, objects._close_written)
    assert disk.done["close"] == 1
    await objects.close()
    assert disk.done["close"] == NAMES


async def test_a_sync_that_took_long_leaves_the_disk_to_threads(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    times = [QUICK_SYNC / 2, QUICK_SYNC * 2]

    class Slow(LoopSyncs):
        async def sync(self, file: File) -> None:
            await trio.sleep(times.pop(0))

    promptly = Promptly(Slow())
    with closing(Files(tmp_path).create("one")) as file:
        for ready in (True, False):
            await promptly.sync(file)
            assert promptly.ready is ready
    await trio.sleep(REST)
    assert promptly.ready


async def test_what_is_being_synced_at_the_end_is_waited_for(tmp_path: Path) -> None:
    """By the kernel itself, as a Router ends whose senders are still shielded."""
    disk = Files(tmp_path)
    objects = Objects(disk, SpoolKey(b"k" * 32), Space(disk, 2**40, 0))
    kept: list[StoredObject] = []

    async def keep(number: int) -> None:
        with trio.CancelScope(shield=True):
            writer = await objects.begin()
            await writer.write(bytes([number]) * 100_000)
            kept.append(await writer.finish(soon=False))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(objects.run)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(20):
            nursery.start_soon(keep, number)
        while not kept:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert len(kept) == 20
    await objects.close()
    for stored in kept:
        assert (tmp_path / stored.name).stat().st_size == stored.size


async def test_what_is_said_of_it_and_cannot_be_made_takes_no_place(objects: Objects) -> None:
    def make(stored: StoredObject) -> tuple[StoredObject, bytes]:
        raise ZeroDivisionError

    for _ in range(MAXIMUM_SEALED + 1):
        writer = await objects.begin()
        assert writer._sealer is not None
        await writer.write(CONTENT[:100])
        with pytest.raises(ZeroDivisionError):
            await writer.finish_with(make)
    await objects.close()
