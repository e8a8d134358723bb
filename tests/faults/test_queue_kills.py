"""SIGKILL at random while senders send to queues: nothing that was answered is lost.

Near Router, far Router, Bridge and object store are killed and started again, by a seed's plan
(tests/faults/chaos.py), while several senders send to several devices. Afterwards every object that
was answered 0000 is at its device byte for byte, none is reported delivered that is not, and each
duplicate is explained by what was struck between its arrivals.

RELAY_TEST_SEED sets the seed of another run.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.faults.chaos import Chaos, Kill, SiteVictim, StoreVictim, Victim, kills
from tests.faults.queued import World, queued_hospitals
from tests.providers.seaweed import seaweed

pytestmark = [pytest.mark.interop]

SEED = int(os.environ.get("RELAY_TEST_SEED", "1"))

# One that takes its time, one that is full now and then and has few places, and a good one.
DEVICES = {
    "PACS1": ("--slow", "0.05"),
    "PACS2": ("--answer", "A700:0.05:1", "--answer", "B007:0.05:1", "--reject", "0.05"),
    "PACS3": (),
}
SENDERS = ("CT1", "CT2")

WEIGHTS = {"near": 3, "far": 3, "bridge": 2}


async def send_under_kills(
    world: World,
    count: int,
    plan: list[Kill],
    further: dict[str, Victim],
    figure: Callable[[str], None],
    *,
    settling: float,
) -> None:
    """Send `count` objects while `plan` is carried out, and judge what came of it."""
    victims: dict[str, Victim] = {
        "near": SiteVictim(world.near),
        "far": SiteVictim(world.far),
        "bridge": SiteVictim(world.net.bridge),
        **further,
    }
    chaos = Chaos(victims)
    share = count / (len(plan) + 1)
    await world.learn()
    learned = len(world.ledger.answered)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.send, count, SEED)
        world.pace.let(share)
        await chaos.run(plan, lambda: world.pace.let(share))
        world.pace.let(count)
    sent = trio.current_time() - start
    settled = await world.settle(settling)
    verdict = await world.judge(chaos.blows)
    figure(f"seed {SEED}: {count} objects sent in {sent:.0f} s, then settled in {settled:.0f} s")
    for words in (f"injected: {chaos.words()}", *verdict.found):
        figure(words)
    assert not verdict.wrong, "\n".join(verdict.wrong)
    assert len(world.ledger.answered) == learned + count


@pytest.mark.timeout(180)
async def test_six_kills(tmp_path: Path, figure: Callable[[str], None]) -> None:
    plan = kills(SEED, 6, WEIGHTS)
    two = {name: DEVICES[name] for name in ("PACS1", "PACS2")}
    async with queued_hospitals(tmp_path, two) as world:
        await send_under_kills(world, 60, plan, {}, figure, settling=90.0)


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_two_hundred_kills(tmp_path: Path, figure: Callable[[str], None]) -> None:
    (tmp_path / "store").mkdir()
    plan = kills(SEED, 200, WEIGHTS | {"store": 2})
    with seaweed(tmp_path / "store") as server:
        async with queued_hospitals(
            tmp_path / "world", DEVICES, senders=SENDERS, store=server
        ) as world:
            further: dict[str, Victim] = {"store": StoreVictim(server)}
            await send_under_kills(world, 2000, plan, further, figure, settling=900.0)
