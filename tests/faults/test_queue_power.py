"""Power cuts at every sync of a short run: what the spool has promised is there afterwards.

Near side: an object that is in custody is there, whole, or was settled, by its row or by its slip;
a row that is there has its file. Far side: an answer that was told to the near Router has its
receipt. In one process, over the disk of tests/faults/power.py; each tree that a cut may leave is
opened as a Router opens it.
"""

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from blake3 import blake3

from relay.dicom.commandset import CommandSet
from relay.dicom.pdu import PDV
from relay.errors import DatabaseError, SpoolError
from relay.spool.files import Files
from relay.spool.items import KEPT, Batch, Change, Item, Selection, State
from relay.spool.receipts import Receipt, Recorder
from relay.spool.segments import StoredObject
from relay.spool.spool import Spool, open_spool
from relay.spool.syncs import KernelSyncs, Syncs
from relay.tunnel.notes import Outcome
from relay.workers import Workers
from tests.faults.power import Disk, Moment, PoweredFiles, PoweredSyncs, Survival, until_cut
from tests.router.queue.consignments import (
    ORIGIN,
    Near,
    World,
    consigned,
    consignment,
    receipt,
)

pytestmark = pytest.mark.timeout(1800)

CALLED = "PACS"
SENDERS, OBJECTS = 3, 4
RECEIPTS = 12

# After the cut, in seconds: what must not be said any more would be said by then.
LAST_WORDS = 0.05

# More than a segment, in one of them: an object is synced once, however many it is of.
LARGE = 1024 * 1024 + 1000


@asynccontextmanager
async def spool_on(
    disk: Disk, syncs: Callable[[Workers], Syncs] = KernelSyncs
) -> AsyncIterator[Spool]:
    """The spool on a disk that may lose its power; `objects.run` does not run: by threads, unless
    other `syncs` are given."""
    key = disk.root.parent / "spool.key"
    if not key.exists():
        key.write_bytes(random.Random(1).randbytes(32))

    def files(root: Path) -> Files:
        return PoweredFiles(disk, root)

    async with open_spool(
        disk.root, key=key, space=2**30, reserve=0, files=files, syncs=syncs, vfs=disk.vfs
    ) as spool:
        yield spool


@attrs.define
class Promised:
    """What the spool has said while there was power."""

    kept: dict[bytes, bytes] = attrs.field(factory=dict)
    """The data set of each item in custody."""
    settled: dict[bytes, State] = attrs.field(factory=dict)


def data_set(source: random.Random) -> bytes:
    return source.randbytes(LARGE if source.random() < 0.1 else source.randint(1, 3000))


async def near_side(
    disk: Disk, promised: Promised, seed: int, syncs: Callable[[Workers], Syncs] = KernelSyncs
) -> None:
    """Senders at once, whose objects are taken into custody; some are delivered, some discarded."""
    async with spool_on(disk, syncs) as spool, trio.open_nursery() as senders:
        for sender in range(SENDERS):
            senders.start_soon(_send, spool, disk, promised, random.Random(f"{seed} {sender}"))


async def _send(spool: Spool, disk: Disk, promised: Promised, source: random.Random) -> None:
    """Every second one has its row with that of the one before: until then there is its slip."""
    batch = a_batch(1.0)
    items: list[Item] = []
    for number in range(OBJECTS):
        content = data_set(source)
        kept = await _keep(spool, batch, content, items.append)
        if not disk.off:
            promised.kept[kept.id] = content
        if number % 2:
            with _going_on(disk):
                await spool.custody.flush()
                await _settle(spool, disk, promised, items[-2:-1], State.DELIVERED)
    with _going_on(disk):
        await spool.items.close_batch(batch, 2.0)
    if items:
        with _going_on(disk):
            numbers = Selection(called=CALLED, numbers=(items[-1].number,))
            discarded = await spool.items.discard(numbers, "a person said so", 3.0)
            if not disk.off:
                promised.settled[items[-1].id] = State.DISCARDED
            await spool.objects.remove(discarded)
    # And one that has its slip alone.
    content = data_set(source)
    kept = await _keep(spool, batch, content)
    if not disk.off:
        promised.kept[kept.id] = content


def a_batch(opened: float) -> Batch:
    return Batch(peer=bytes(32), called=CALLED, calling="CT", device="CT", opened=opened)


@contextmanager
def _going_on(disk: Disk) -> Iterator[None]:
    """As a delivery does whose results cannot be noted: others go on, if the spool lets them."""
    try:
        yield
    except DatabaseError:
        if disk.off:
            raise


async def _keep(
    spool: Spool, batch: Batch, content: bytes, then: Callable[[Item], None] | None = None
) -> Item:
    writer = await spool.objects.begin()
    await writer.write(content)
    return await spool.custody.finish(batch, writer, _item, soon=False, then=then)


def _item(stored: StoredObject) -> Item:
    return Item(
        number=0,
        id=stored.item,
        batch=0,
        called=CALLED,
        state=State.WAITING,
        sop_class="1.2.840.10008.5.1.4.1.1.2",
        sop_instance="1.2.3",
        transfer_syntax="1.2.840.10008.1.2",
        command=b"command",
        length=stored.length,
        digest=stored.digest,
        key=stored.key,
        key_name=stored.key_name,
        folder=stored.folder,
        size=stored.size,
        accepted=1.0,
        study="1.2",
    )


async def _settle(
    spool: Spool, disk: Disk, promised: Promised, items: list[Item], state: State
) -> None:
    await spool.items.settle(
        [Change(number=item.number, state=state, attempts=1, ended=2.0) for item in items]
    )
    if not disk.off:
        promised.settled.update((item.id, state) for item in items)
    await spool.objects.remove(item.stored for item in items)


async def check_near_side(folder: Path, promised: Promised) -> None:
    """Open what a cut has left, and hold it against what was promised."""
    async with spool_on(Disk(folder)) as spool:
        rows = {item.id: item for item in await spool.items.select(Selection())}
        for item in rows.values():
            if item.state is State.FAILED:
                assert item.id not in promised.kept, f"not as it was promised: {item.reason}"
                assert "has only a part" in item.reason
        for id_, content in promised.kept.items():
            assert id_ in rows, "an object in custody is gone"
            item = rows[id_]
            if id_ in promised.settled:
                assert item.state is promised.settled[id_]
            if item.state in KEPT:
                assert await _content(spool, item) == content
        # And it goes on.
        item = await _keep(spool, a_batch(4.0), b"after the cut")
        assert await _content(spool, item) == b"after the cut"


async def _content(spool: Spool, item: Item) -> bytes:
    async with spool.objects.reading(item.stored) as reader:
        content = b"".join([segment async for segment in reader.segments()])
    assert b"\x01" + blake3(content).digest() == item.digest
    return content


async def far_side(disk: Disk, told: set[Receipt]) -> None:
    """A consignment: what the device takes is written down, and then told."""
    async with (
        spool_on(disk) as spool,
        consignment(window=4, recorder=Recorder(spool.receipts)) as world,
    ):
        for number in range(RECEIPTS):
            world.near.say(*consigned(number))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_store, world)
            await _told(world.near, told, disk)
            nursery.cancel_scope.cancel()
        # The device's machine is gone: nobody waits for it to close its connection.
        await trio.aclose_forcefully(world.device._stream)


async def _store(world: World) -> None:
    """The device stores all that comes, until it is aborted."""
    asked = None
    while isinstance(pdv := await world.device.receive(), PDV):
        if pdv.is_command:
            asked = CommandSet.decode(pdv.fragment)
        elif pdv.is_last:
            assert asked is not None
            await world.answer(asked)


async def _told(near: Near, told: set[Receipt], disk: Disk) -> None:
    """Note what the near Router hears, until it has heard of all, or a moment after the cut."""
    results = {receipt(number).item: receipt(number) for number in range(RECEIPTS)}
    over = trio.CancelScope()
    with over:
        while len(told) < RECEIPTS:
            await trio.sleep(0.001)
            heard = await near.results(0)
            told.update(results[r.id] for r in heard if r.outcome is Outcome.ANSWERED)
            if disk.off or disk.failed:
                over.deadline = min(over.deadline, trio.current_time() + LAST_WORDS)


async def check_far_side(folder: Path, told: set[Receipt]) -> None:
    async with spool_on(Disk(folder)) as spool:
        asked = [(one.item, one.digest) for one in told]
        assert set((await spool.receipts.find(ORIGIN, asked)).values()) == told


# --- the cuts -------------------------------------------------------------------------------------


@attrs.frozen
class Side:
    """What runs until the cut, and how what is left is judged; both share what was promised."""

    run: Callable[[Disk], Awaitable[None]]
    check: Callable[[Path], Awaitable[None]]
    promises: Callable[[], int]


def near(seed: int, syncs: Callable[[Workers], Syncs] = KernelSyncs) -> Side:
    promised = Promised()
    return Side(
        run=lambda disk: near_side(disk, promised, seed, syncs),
        check=lambda folder: check_near_side(folder, promised),
        promises=lambda: len(promised.kept),
    )


def far(seed: int) -> Side:
    told: set[Receipt] = set()
    return Side(
        run=lambda disk: far_side(disk, told),
        check=lambda folder: check_far_side(folder, told),
        promises=lambda: len(told),
    )


@attrs.define
class Found:
    """What a test has done, in figures."""

    cuts: Counter[Moment] = attrs.field(factory=Counter)
    trees: int = 0
    promises: int = 0

    def words(self) -> str:
        cuts = ", ".join(f"{count} {moment.name.lower()}" for moment, count in self.cuts.items())
        return f"syncs cut: {cuts}; {self.trees} trees opened; {self.promises} promises held"


async def cut_everywhere(
    folder: Path, side: Callable[[int], Side], found: Found, *, seeds: int
) -> None:
    """Cut at each sync of a run, and look at all that this may leave."""
    point = 0
    for seed in range(1, seeds + 1):
        for point in range(1, await _syncs(folder / f"whole{seed}", side(seed)) + 1):
            for moment in Moment:
                await _cut(
                    folder / f"{seed}-{point}-{moment.name}", side(seed), point, moment, found
                )
    assert found.cuts[Moment.BEFORE] >= point
    assert found.promises > point


async def _syncs(folder: Path, side: Side) -> int:
    """How many syncs a run takes; more or fewer than another's, as groups fall."""
    disk = _disk(folder)
    await side.run(disk)
    return len(disk.points)


def _disk(folder: Path) -> Disk:
    (folder / "disk").mkdir(parents=True)
    return Disk(folder / "disk")


async def _cut(folder: Path, side: Side, point: int, moment: Moment, found: Found) -> None:
    disk = _disk(folder)
    disk.cut_at(point, moment)
    with until_cut(disk):
        try:
            await side.run(disk)
        except* (SpoolError, DatabaseError):
            assert moment is Moment.FAIL or disk.off
    if not disk.off:  # a sync that failed, or a run of fewer syncs: the cut comes at its end
        disk.cut()
    found.cuts[moment] += 1
    for survival in Survival:
        tree = folder / survival.name
        disk.lay_out(tree, survival, random.Random(f"{folder.name} {survival.name}"))
        try:
            await side.check(tree)
        except* (AssertionError, SpoolError, DatabaseError) as wrong:
            last = disk.points[max(0, point - 5) : point]
            wrong.add_note(f"cut {moment.name} sync {point}, the last of {last}, {survival.name}")
            raise
        found.trees += 1
        found.promises += side.promises()


async def test_near_side(tmp_path: Path, full_size: bool, figure: Callable[[str], None]) -> None:
    found = Found()
    await cut_everywhere(tmp_path, near, found, seeds=20 if full_size else 1)
    figure(found.words())


async def test_near_side_without_threads(
    tmp_path: Path, full_size: bool, figure: Callable[[str], None]
) -> None:
    """As most objects go (relay.spool.promptly)."""
    found = Found()
    side = partial(near, syncs=PoweredSyncs)
    await cut_everywhere(tmp_path, side, found, seeds=20 if full_size else 1)
    figure(found.words())


async def test_far_side(tmp_path: Path, full_size: bool, figure: Callable[[str], None]) -> None:
    found = Found()
    await cut_everywhere(tmp_path, far, found, seeds=10 if full_size else 1)
    figure(found.words())
