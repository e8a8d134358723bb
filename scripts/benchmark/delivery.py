"""What a delivery costs each process: a series queued, and then delivered to a device that ignores.

Intake and delivery are measured one after the other: the destination is paused in between.
"""

import statistics
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from scripts.benchmark import work
from scripts.benchmark.hospitals import QueueSite
from tests import images
from tests.interop import peers

CALLED = "STORESCP"


async def delivery(options: Namespace, directory: Path) -> dict[str, Any]:
    """Rate, and processor time of each process in seconds: medians."""
    series = directory / "ct"
    series.mkdir(parents=True)
    images.make_series(series, options.objects)
    size = sum(path.stat().st_size for path in series.iterdir())
    seconds: list[float] = []
    async with (
        peers.storescp(directory / "scp", "--ignore") as scp,
        QueueSite.running(directory / "net", {CALLED: scp.port}) as site,
    ):
        sites = [site.near, site.far, site.net.bridge]
        used: dict[str, dict[str, list[float]]] = {
            part: {process.name: [] for process in sites} for part in ("intake", "delivery")
        }
        await site.learn(CALLED)
        for _ in range(options.runs):
            await site.near.relay("queue", "pause", CALLED)
            before = {process.name: process.processor_time() for process in sites}
            await work.store(site.address(CALLED), series)
            between = {process.name: process.processor_time() for process in sites}
            began = time.perf_counter()
            await site.near.relay("queue", "resume", CALLED)
            await site.delivered(CALLED)
            seconds.append(time.perf_counter() - began)
            for process in sites:
                name, after = process.name, process.processor_time()
                used["intake"][name].append(between[name] - before[name])
                used["delivery"][name].append(after - between[name])
    return {
        "objects": options.objects,
        "bytes": size,
        "seconds": seconds,
        "per_second": options.objects / statistics.median(seconds),
        "megabytes_per_second": size / statistics.median(seconds) / 1e6,
        "processor": {
            part: {name: statistics.median(times) for name, times in by_name.items()}
            for part, by_name in used.items()
        },
    }
