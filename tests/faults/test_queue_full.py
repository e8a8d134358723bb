"""The spool's disk is full: senders are told so, nothing is lost, and later it goes on.

The near Router's data_dir is a small tmpfs. While the far Router is away somebody else takes all of
the disk, down to the last byte, under the Router's hands, and gives it back; then the queue grows
to where the reserve begins. Once the far Router is back and objects are on their way the disk is
full again, so that results may not be noted; then there is room, and all is delivered.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.faults.chaos import Blow
from tests.faults.queued import World, queued_hospitals
from tests.faults.small_disk import small_disk

pytestmark = [pytest.mark.interop]

SEED = int(os.environ.get("RELAY_TEST_SEED", "1"))

DEVICES = {"PACS1": (), "PACS2": ()}

MIB = 2**20

# Somebody takes the disk once so many objects wait.
WAITING = 10

# Until senders have been refused so often, and devices have got so many objects.
REFUSALS = 20
OBJECTS = 5

# Until it comes to that.
FILLING = 120.0

# What is delivered is erased, and makes room: senders may not be refused any more.
MEANWHILE = 5.0


def refusals(world: World) -> int:
    """How often senders were told that there is no room: A700, or a transient rejection."""
    return world.ledger.statuses["A700"] + world.ledger.ends["rejected"]


async def until(done: Callable[[], bool]) -> None:
    with trio.fail_after(FILLING):
        while not done():
            await trio.sleep(0.05)


async def refused_again(world: World) -> None:
    before = refusals(world)
    await until(lambda: refusals(world) >= before + REFUSALS)


async def mended(world: World) -> bool:
    """Start the near Router anew if a commit has failed: it accepts nothing until then."""
    broken = "spool broken" in world.near.output()
    if broken:
        await world.near.stop()
        await world.near.start()
    return broken


def take_the_rest(disk: Path) -> Path:
    """Fill what is left of the disk."""
    file = disk / "of-somebody-else"
    with file.open("wb", buffering=0) as sink:
        piece = bytes(64 * 1024)
        while piece:
            try:
                sink.write(piece)
            except OSError:
                piece = piece[: len(piece) // 2]
    return file


async def fill_and_go_on(
    folder: Path,
    size: int,
    count: int,
    figure: Callable[[str], None],
    *,
    limit: float,
    settling: float,
) -> None:
    """Send `count` objects to a spool on a disk of `size` bytes, which does not hold them all.

    That may take `limit` seconds, and of these the queue `settling` in the end.
    """
    limits = {"spool_reserve": 2 * MIB}
    with small_disk(folder / "net" / "A" / "data", size) as disk:
        async with queued_hospitals(folder, DEVICES, router=limits) as world:
            with trio.fail_after(limit):
                await _fill_and_go_on(world, disk, size, count, figure, settling)


async def _fill_and_go_on(
    world: World,
    disk: Path,
    size: int,
    count: int,
    figure: Callable[[str], None],
    settling: float,
) -> None:
    await world.learn()
    learned = len(world.ledger.answered)
    fell = time.time()
    await world.far.stop()
    async with trio.open_nursery() as nursery:
        world.pace.let(count)
        nursery.start_soon(world.send, count, SEED)
        await until(lambda: len(world.ledger.answered) >= learned + WAITING)
        rest = take_the_rest(disk)
        await refused_again(world)
        rest.unlink()
        broken = await mended(world)

        await refused_again(world)
        waiting = (await world.states())["waiting"]
        figure(f"{waiting} objects wait in {size // MIB} MiB when the reserve is reached")
        assert waiting >= WAITING

        before = world.came()
        await world.far.start()
        await until(lambda: world.came() >= before + OBJECTS)
        rest, before = take_the_rest(disk), world.came()
        with trio.move_on_after(MEANWHILE):
            await refused_again(world)
        figure(f"{world.came() - before} objects came on a full disk")
        rest.unlink()
        broken |= await mended(world)
    over = time.time()
    settled = await world.settle(settling)
    verdict = await world.judge([Blow("the far Router was away", fell, over)])
    figure(f"the spool broke: {broken}; all delivered after {settled:.0f} s more")
    for words in verdict.found:
        figure(words)
    assert not verdict.wrong, "\n".join(verdict.wrong)
    assert len(world.ledger.answered) == learned + count


@pytest.mark.timeout(360)
async def test_a_full_disk(tmp_path: Path, figure: Callable[[str], None]) -> None:
    await fill_and_go_on(tmp_path, 12 * MIB, 150, figure, limit=300.0, settling=120.0)


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_a_full_disk_of_many(tmp_path: Path, figure: Callable[[str], None]) -> None:
    await fill_and_go_on(tmp_path, 32 * MIB, 2000, figure, limit=3000.0, settling=600.0)
