"""Works that ask the far hospital's archive: C-ECHO, C-FIND, and a study by C-GET and C-MOVE."""

import statistics
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import attrs

from scripts.benchmark import calls, trial
from scripts.benchmark.archive import ARCHIVE, MANY, Archive, archive
from scripts.benchmark.links import Place
from scripts.benchmark.objects import Series, ct
from scripts.benchmark.receiver import Receiver, receiver
from scripts.benchmark.setting import DIRECT, RELAY, Setting
from tests.interop.peers import Address, Target, free_port

DEADLINE = 1800.0

# Destinations of a C-MOVE at the near hospital: confirmed, queued, and called straight.
MOVED, MOVED_QUEUED, MOVED_DIRECT = "MOVED", "MOVED_QUEUED", "MOVED_DIRECT"

RELAY_QUEUED = "relay-queued"


@attrs.frozen(slots=True)
class Retrieving:
    """The archive, the study that it has, and the near device that a C-MOVE sends to."""

    archive: Archive
    series: Series
    destination: Receiver
    relayed: Target
    direct: Target

    @classmethod
    async def at(cls, setting: Setting) -> "Retrieving":
        """Set up once for a line."""
        return await setting.once("retrieving", lambda stack: _retrieving(setting, stack))


async def _retrieving(setting: Setting, stack: AsyncExitStack) -> Retrieving:
    made, line = setting.made, setting.line
    series = await setting.series("ct", ct, setting.sizes.objects)
    port, here = free_port(), setting.here
    destination = await stack.enter_async_context(receiver(line.a, here / "destination", port))
    for ae_title in (MOVED, MOVED_QUEUED):
        await made.publish(made.near, ae_title, port)
    await made.queue(made.far, MOVED_QUEUED)
    destinations = {
        MOVED: Address(made.far.port, MOVED),
        MOVED_QUEUED: Address(made.far.port, MOVED_QUEUED),
        MOVED_DIRECT: Address(port, MOVED_DIRECT, line.a.address),
    }
    running = await stack.enter_async_context(
        archive(line.b, here / "archive", free_port(), series, destinations)
    )
    await made.publish(made.far, ARCHIVE, running.port)
    return Retrieving(
        running,
        series,
        destination,
        Address(made.near.port, ARCHIVE),
        Address(running.port, ARCHIVE, line.b.address),
    )


async def echo(setting: Setting) -> dict[str, Any]:
    """C-ECHO inside an open association: milliseconds."""
    there = await Retrieving.at(setting)
    return await _latency(setting, there, lambda t: calls.echo(setting.line.a, t, 20))


async def find_1(setting: Setting) -> dict[str, Any]:
    """C-FIND with one answer."""
    there = await Retrieving.at(setting)
    identifier = there.archive.one_answer()
    return await _latency(
        setting, there, lambda target: calls.find(setting.line.a, target, 10, identifier, 1)
    )


async def find_1000(setting: Setting) -> dict[str, Any]:
    """C-FIND with a thousand answers."""
    there = await Retrieving.at(setting)
    await setting.once("many", lambda _: there.archive.add_many())
    identifier = there.archive.many_answers()
    return await _latency(
        setting, there, lambda target: calls.find(setting.line.a, target, 3, identifier, MANY)
    )


async def _latency(
    setting: Setting, there: Retrieving, ask: Callable[[Target], Awaitable[list[float]]]
) -> dict[str, Any]:
    ways = setting.asked({RELAY: there.relayed, DIRECT: there.direct})
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(setting.sizes.runs):
        for name, target in ways.items():
            watch = trial.clock(setting.made, there.archive.pid)
            watch.start()
            milliseconds = statistics.median(await ask(target)) * 1e3
            runs[name].append({"milliseconds": milliseconds, "processor": watch.read()})
            setting.tell(name, runs[name][-1])
    return {"ways": runs}


async def get(setting: Setting) -> dict[str, Any]:
    """C-GET of a study, by DCMTK's getscu."""
    there = await Retrieving.at(setting)
    directory = setting.here / "got"
    directory.mkdir(exist_ok=True)
    into = Receiver(directory, pids=(there.archive.pid,))

    def way(target: Target) -> trial.Way:
        words = ("+B", "-od", str(directory))
        return lambda: _ask(setting.line.a, "getscu", target, *words, *there.archive.keys())

    ways = {RELAY: way(there.relayed), DIRECT: way(there.direct)}
    return await setting.stored(there.series, ways, into)


async def move(setting: Setting) -> dict[str, Any]:
    """C-MOVE of a study to the asker's own hospital, by DCMTK's movescu."""
    there = await Retrieving.at(setting)
    into = attrs.evolve(there.destination, pids=(*there.destination.pids, there.archive.pid))

    def way(target: Target, destination: str) -> trial.Way:
        words = ("-aem", destination, *there.archive.keys())
        return lambda: _ask(setting.line.a, "movescu", target, *words)

    async def queued() -> None:
        await way(there.relayed, MOVED_QUEUED)()
        await into.receives(len(there.series.files))
        await setting.made.delivered(setting.made.far, MOVED_QUEUED)

    ways = {
        RELAY: way(there.relayed, MOVED),
        RELAY_QUEUED: queued,
        DIRECT: way(there.direct, MOVED_DIRECT),
    }
    return await setting.stored(there.series, ways, into)


async def _ask(place: Place, program: str, target: Target, *words: str) -> None:
    done = await place.run(
        *(program, "-aet", "BENCH", "-aec", target.ae_title, *words),
        *(target.host, str(target.port)),
        deadline=DEADLINE,
    )
    done.check()
