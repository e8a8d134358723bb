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

from tests.faults.chaos import Chaos, SiteVictim, StoreVictim, Victim, kills
from tests.faults.queued import World, queued_hospitals
from tests.providers.seaweed import seaweed

pytestmark = [pytest.mark.interop]

SEED = int(os.environ.get("RELAY_TEST_SEED", "8"))

# One that takes its time, one that is full now and then and has few places, and a good one.
DEVICES = {
    "PACS1": ("--slow", "0.05"),
    "PACS2": ("--answer", "A700:0.05:1", "--answer", "B007:0.05:1", "--reject", "0.05"),
    "PACS3": (),
}
SENDERS = ("CT1", "CT2")

WEIGHTS = {"near killed": 6, "far killed": 6, "bridge killed": 4}

# The store takes ten seconds to start: more often, and it would never be there.
STORE_WEIGHT = 1


def routers_and_bridge(world: World) -> dict[str, Victim]:
    return {
        "near killed": SiteVictim(world.near),
        "far killed": SiteVictim(world.far),
        "bridge killed": SiteVictim(world.net.bridge),
    }


@pytest.mark.timeout(240)
async def test_six_kills(tmp_path: Path, figure: Callable[[str], None]) -> None:
    plan = kills(SEED, 6, WEIGHTS, objects=8)
    two = {name: DEVICES[name] for name in ("PACS1", "PACS2")}
    async with queued_hospitals(tmp_path, two) as world:
        chaos = Chaos(routers_and_bridge(world))
        await world.run(60, SEED, chaos, plan, figure, limit=150.0, settling=90.0)


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_two_hundred_kills(tmp_path: Path, figure: Callable[[str], None]) -> None:
    (tmp_path / "store").mkdir()
    plan = kills(SEED, 200, WEIGHTS | {"store killed": STORE_WEIGHT})
    with seaweed(tmp_path / "store") as server:
        async with queued_hospitals(
            tmp_path / "world", DEVICES, senders=SENDERS, store=server
        ) as world:
            chaos = Chaos(routers_and_bridge(world) | {"store killed": StoreVictim(server)})
            await world.run(2000, SEED, chaos, plan, figure, limit=3000.0, settling=900.0)
