"""Where the works over distance are done: a line, two hospitals on it, a far device."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs

from scripts.benchmark import objects, receiver, trial
from scripts.benchmark.distance import CONFIRMED, QUEUED, Hospitals, hospitals
from scripts.benchmark.links import Line, Link, checked, laid
from scripts.benchmark.objects import Series
from scripts.benchmark.others import Other
from scripts.benchmark.receiver import Receiver
from scripts.benchmark.sending import storescu
from scripts.benchmark.trial import Way
from tests.interop.peers import Address, free_port

T = TypeVar("T")

# Ways that every work has.
RELAY, DIRECT = "relay", "direct"


@attrs.frozen(slots=True)
class Sizes:
    """How much each work does: runs, CT objects, MR objects, bytes of the large one; `ways`: only
    these, if any are named."""

    runs: int
    objects: int
    small: int
    large: int
    ways: frozenset[str] = frozenset()


@attrs.define(slots=True)
class Setting:
    """One line, and everything on it, for as many works as are asked of it."""

    sizes: Sizes
    line: Line
    made: Hospitals
    device: Receiver
    directory: Path
    series_made: dict[str, Series]
    found: dict[str, float]
    tell: Callable[[str, dict[str, Any]], None]
    stack: AsyncExitStack
    _once: dict[str, Any] = attrs.field(factory=dict)

    @property
    def here(self) -> Path:
        """A folder for this line."""
        return self.directory / self.line.link.name

    async def once(self, name: str, make: Callable[[AsyncExitStack], Awaitable[T]]) -> T:
        """What several works of a line share, made when the first wants it; the stack ends it."""
        if name not in self._once:
            self._once[name] = await make(self.stack)
        made: T = self._once[name]
        return made

    def asked(self, ways: Mapping[str, T]) -> dict[str, T]:
        """Those of a work's ways that are asked for."""
        wanted = self.sizes.ways
        return {name: way for name, way in ways.items() if not wanted or name in wanted}

    async def series(
        self, name: str, make: Callable[[Path, int], Awaitable[Series]], count: int
    ) -> Series:
        """A series; made once, for all lines."""
        if name not in self.series_made:
            directory = self.directory / name
            directory.mkdir(parents=True)
            self.series_made[name] = await make(directory, count)
        return self.series_made[name]

    async def stored(
        self,
        series: Series,
        ways: Mapping[str, Way],
        device: Receiver,
        others: Mapping[str, Other] | None = None,
    ) -> dict[str, Any]:
        """A work that brings a series to `device`, or to others that are there for it: its ways,
        one after the other in each run."""
        asked: dict[str, Other] = self.asked(
            {name: partial(_at, way, device) for name, way in ways.items()} | dict(others or {})
        )
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in asked}
        for _ in range(self.sizes.runs):
            for name, other in asked.items():
                async with other() as (way, target):
                    measured = await trial.stored(self.made, target, series, way)
                self.tell(name, measured)
                runs[name].append(measured)
        return {
            "objects": len(series.files),
            "bytes": series.size,
            "zstd_1_ratio": series.zstd_1_ratio,
            "ways": runs,
        }


@asynccontextmanager
async def _at(way: Way, device: Receiver) -> AsyncIterator[tuple[Way, Receiver]]:
    """A device that is there anyway."""
    yield way, device


Work = Callable[[Setting], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def setting(
    link: Link,
    sizes: Sizes,
    directory: Path,
    series_made: dict[str, Series],
    tell: Callable[[str, dict[str, Any]], None],
) -> AsyncIterator[Setting]:
    """Set it up and take it down. `series_made` outlives it, as `directory` does."""
    here = directory / link.name
    async with laid(link, here) as line:
        found = await checked(line, here)
        port = free_port()
        async with (
            receiver.receiver(line.b, here / "scp", port) as device,
            hospitals(line, here / "net") as made,
            AsyncExitStack() as stack,
        ):
            for ae_title in (QUEUED, CONFIRMED):
                await made.publish(made.far, ae_title, port)
            await made.queue(made.near, QUEUED)
            new = Setting(sizes, line, made, device, directory, series_made, found, tell, stack)
            # What the far device takes is known once it has been sent something.
            series = await new.series("ct", objects.ct, sizes.objects)
            first = series.files[:1]
            await storescu(line.a, Address(made.near.port, QUEUED), first)
            await made.delivered(made.near, QUEUED)
            yield new
