"""What queued delivery costs the sender: the rate at which objects are taken into custody.

Beside it, in the same run: the same bytes written and synced by a program that does nothing else,
in the usual pattern and in custody's own, Relay's own custody fed from memory
(scripts.benchmark.custody has all three), and DCMTK's storescp, which syncs nothing.
"""

import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from scripts.benchmark import leftovers, work
from scripts.benchmark.hospitals import QueueSite
from tests import images
from tests.interop import peers
from tests.interop.peers import Address, Peer

SENDERS = (1, 4)

# What each ratio is of: Relay's own part beside the disk's, and all of it beside the whole of each.
RATIOS = {
    "custody_of_two_syncs": ("custody", "two_syncs"),
    "custody_of_one_sync": ("custody", "one_sync"),
    "relay_of_two_syncs": ("relay", "two_syncs"),
    "relay_of_storescp": ("relay", "storescp"),
}


async def ingest(options: Namespace, directory: Path) -> dict[str, Any]:
    """Objects a second into custody, with one sender and with four."""
    folders = []
    for number in range(max(SENDERS)):
        folders.append(directory / f"ct{number}")
        folders[-1].mkdir(parents=True)
        images.make_series(folders[-1], options.objects, seed=number + 1)
    size = sum(path.stat().st_size for path in folders[0].iterdir())
    cells: dict[str, Any] = {"objects": options.objects, "bytes": size}
    async with (
        peers.storescp(directory / "scp") as scp,
        QueueSite.running(directory / "net", {"STORESCP": scp.port}) as site,
    ):
        queued = site.address("STORESCP")
        await site.learn("STORESCP")
        await site.near.relay("queue", "pause", "STORESCP")  # nothing is delivered meanwhile
        for count in SENDERS:
            ways: dict[str, Callable[[], Awaitable[float]]] = {
                "two_syncs": partial(from_memory, "two-syncs", directory, count, folders[0]),
                "one_sync": partial(from_memory, "one-sync", directory, count, folders[0]),
                "custody": partial(from_memory, "relay", directory, count, folders[0]),
                "storescp": partial(to_storescp, scp, folders[:count]),
                "relay": partial(senders, queued, folders[:count]),
            }
            times = await in_turn(ways, options.runs)
            total = count * options.objects
            cells[str(count)] = {
                name: {"seconds": seconds, "per_second": total / statistics.median(seconds)}
                for name, seconds in times.items()
            }
            cells[str(count)] |= {
                name: statistics.median(
                    whole / part for part, whole in zip(times[mine], times[theirs], strict=True)
                )
                for name, (mine, theirs) in RATIOS.items()
            }
    return cells


async def in_turn(
    ways: dict[str, Callable[[], Awaitable[float]]], runs: int
) -> dict[str, list[float]]:
    """The seconds of each way, one after the other in each run."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, run in ways.items():
            times[name].append(await run())
    return times


async def senders(target: Address, folders: list[Path]) -> float:
    """Seconds for DCMTK's storescu, one for each folder, all at once."""
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for folder in folders:
            nursery.start_soon(work.store, target, folder)
    return time.perf_counter() - began


async def to_storescp(scp: Peer, folders: list[Path]) -> float:
    """Seconds for as many to DCMTK's storescp: as files that are new, which is what Relay makes."""
    seconds = await senders(Address(scp.port, scp.ae_title), folders)
    leftovers.set_aside(scp.directory.glob("CT.*"), scp.directory)
    return seconds


async def from_memory(way: str, directory: Path, keepers: int, folder: Path) -> float:
    """Seconds for scripts.benchmark.custody."""
    done = await peers.run(
        *(sys.executable, "-m", "scripts.benchmark.custody", way),
        *(str(directory), str(keepers), str(folder)),
        deadline=work.DEADLINE,
    )
    return float(done.check().output)
