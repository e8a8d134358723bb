"""One device dead for the whole run: what the others of its hospital get meanwhile.

Two live devices get a series each from a sender each; a third sender sends one to the device that
is dead. Measured is the time from the first association to the last arrival at the live devices,
with that third sender and without, in turn. A device is dead when nothing listens at its port, or
when it accepts the connection and never says a word. `paused` is for comparison: the third sender's
objects are taken in, and nobody tries to deliver them. So are those that it has sent before the
clock starts: then nothing is taken in for the dead device, and it is tried all the same.
"""

import statistics
import time
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from scripts.benchmark import leftovers, work
from scripts.benchmark.hospitals import QueueSite
from scripts.benchmark.ingest import in_turn
from tests import images
from tests.interop import peers
from tests.interop.peers import Peer
from tests.interop.processes import LOOPBACK

LIVE = ("LIVE1", "LIVE2")
DEAD, SILENT, PAUSED = "DEAD", "SILENT", "PAUSED"

# Between two looks at what has arrived.
POLL = 0.02

# By kind: whom the third sender sends to, and whether it is done when the others begin.
KINDS = {
    "without": ("", False),
    "paused": (PAUSED, False),
    "dead": (DEAD, False),
    "silent": (SILENT, False),
    "dead before": (DEAD, True),
    "silent before": (SILENT, True),
}


async def dead(options: Namespace, directory: Path) -> dict[str, Any]:
    """Objects a second at the live devices, and for each kind its share of the rate without."""
    series = {}
    for number, ae_title in enumerate((*LIVE, "THIRD"), start=1):
        series[ae_title] = directory / ae_title.lower()
        series[ae_title].mkdir(parents=True)
        images.make_series(series[ae_title], options.objects, seed=number)
    async with AsyncExitStack() as stack:
        devices = {
            ae_title: await stack.enter_async_context(
                peers.storescp(directory / f"scp-{ae_title}", ae_title=ae_title)
            )
            for ae_title in (*LIVE, PAUSED)
        }
        ports = {ae_title: peer.port for ae_title, peer in devices.items()}
        async with _to_be_dead(directory, DEAD) as one, _to_be_dead(directory, SILENT) as other:
            ports |= {DEAD: one.port, SILENT: other.port}
            site = await stack.enter_async_context(QueueSite.running(directory / "net", ports))
            for ae_title in ports:
                await site.learn(ae_title)  # of a device that was never there nothing is accepted
        for peer in devices.values():
            _clear(peer)
        await site.near.relay("queue", "pause", PAUSED)
        await stack.enter_async_context(_silent(ports[SILENT]))
        times = await in_turn(
            {
                kind: partial(_run, site, [devices[name] for name in LIVE], series, third, before)
                for kind, (third, before) in KINDS.items()
            },
            options.runs,
        )
    total = len(LIVE) * options.objects
    return {
        "objects": options.objects,
        "per_second": {kind: total / statistics.median(took) for kind, took in times.items()},
        "ratio": {
            kind: statistics.median(
                whole / part for whole, part in zip(times["without"], took, strict=True)
            )
            for kind, took in times.items()
        },
        "seconds": times,
    }


async def _run(
    site: QueueSite, live: list[Peer], series: dict[str, Path], third: str, before: bool
) -> float:
    """Send, and give the seconds until all is at the live devices."""
    expected = sum(1 for peer in live for _ in series[peer.ae_title].iterdir())
    if before:
        await work.store(site.address(third), series["THIRD"])
    if third in (DEAD, SILENT):
        # Its pauses have grown in the last run: it is to be tried as often in this one.
        await site.near.relay("queue", "resume", third)
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for peer in live:
            nursery.start_soon(work.store, site.address(peer.ae_title), series[peer.ae_title])
        if third and not before:
            nursery.start_soon(work.store, site.address(third), series["THIRD"])
        with trio.fail_after(work.DEADLINE):
            while sum(len(_arrived(peer)) for peer in live) < expected:
                await trio.sleep(POLL)
        elapsed = time.perf_counter() - began
    for peer in live:
        await site.delivered(peer.ae_title)  # the last one's answer is on its way
        _clear(peer)
    if third:
        await site.near.relay("queue", "discard", "--to", third, "--yes")
    return elapsed


def _arrived(peer: Peer) -> list[Path]:
    return [path for path in peer.directory.iterdir() if path.suffix != ".log"]


def _clear(peer: Peer) -> None:
    leftovers.set_aside(_arrived(peer), peer.directory)


@asynccontextmanager
async def _to_be_dead(directory: Path, ae_title: str) -> AsyncIterator[Peer]:
    """A device that is there at first."""
    async with peers.storescp(directory / f"scp-{ae_title}", ae_title=ae_title) as peer:
        yield peer


@asynccontextmanager
async def _silent(port: int) -> AsyncIterator[None]:
    """What accepts connections, reads what comes, and says nothing."""

    async def ignore(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                async for _ in stream:
                    pass
            except trio.BrokenResourceError:
                return  # whoever called has given up

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, ignore, port, host=LOOPBACK))
        yield
        nursery.cancel_scope.cancel()
