"""One way of doing one work, once: how long it took, how fast it went, what it cost."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from scripts.benchmark.distance import Hospitals
from scripts.benchmark.links import HOSPITAL_END
from scripts.benchmark.objects import Series
from scripts.benchmark.processor import Clock, forget_peak, peak_memory
from scripts.benchmark.receiver import Receiver, steady

# Sends everything and returns once the last object is there.
Way = Callable[[], Awaitable[None]]


def clock(made: Hospitals, *devices: int) -> Clock:
    """Of all that takes part: the sites, the line, and devices that run all the time."""
    parts = {name: [site.pid] for name, site in made.sites.items()}
    emulator = made.line.emulator
    return Clock({**parts, "link": [emulator.pid] if emulator else [], "devices": list(devices)})


def wire_bytes(made: Hospitals) -> int:
    """What both hospitals have put on the line so far; 0 where there is none."""
    total = 0
    for site in (made.near, made.far):
        for row in Path(f"/proc/{site.pid}/net/dev").read_text().splitlines():
            device, _, counts = row.partition(":")
            if device.strip() == HOSPITAL_END:
                total += int(counts.split()[8])
    return total


async def stored(made: Hospitals, device: Receiver, series: Series, way: Way) -> dict[str, Any]:
    """Send a series to the receiver; raises DifferentError if something else arrives."""
    device.clear()
    for site in made.sites.values():
        forget_peak(site.pid)
    watch = clock(made, *device.pids)
    sent = wire_bytes(made)
    watch.start()
    began = time.time()
    await way()
    arrivals = device.arrivals()
    used = watch.read()
    device.compare(series.digests)
    seconds = arrivals[-1] - began
    rate = steady(arrivals, began)
    return {
        "seconds": seconds,
        "start_up": arrivals[0] - began,
        "objects_per_second": len(arrivals) / seconds,
        "megabytes_per_second": series.size / seconds / 1e6,
        "steady_objects_per_second": rate,
        "steady_megabytes_per_second": rate * series.object_size / 1e6,
        "wire_bytes": wire_bytes(made) - sent,
        "processor": used,
        "memory": {name: peak_memory(site.pid) for name, site in made.sites.items()},
    }
