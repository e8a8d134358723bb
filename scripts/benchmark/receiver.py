"""The device at the end of the way: what came when, and whether it is what was sent."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from scripts.benchmark import leftovers
from scripts.benchmark.links import Place
from tests.hospital_networks.world import running
from tests.interop import peers

# Between two looks at what has come.
POLL = 0.02

DEADLINE = 1800.0

# The steady rate leaves out how it begins and how it ends.
STEADY = (0.1, 0.9)


class DifferentError(Exception):
    """What arrived is not what was sent."""


@attrs.frozen(slots=True)
class Receiver:
    """A device that keeps each object in a file; `pids` are its processes.

    Not `exact`: it keeps what it has made of an object, so that no more than their number is known.
    """

    directory: Path
    port: int = 0
    pids: tuple[int, ...] = ()
    exact: bool = True

    async def receives(self, count: int) -> None:
        """Wait until `count` objects have begun to come."""
        with trio.fail_after(DEADLINE):
            while len(self.files()) < count:
                await trio.sleep(POLL)

    def arrivals(self) -> list[float]:
        """When each object was last written to, in seconds of time.time()."""
        return sorted(path.stat().st_mtime for path in self.files())

    def files(self) -> list[Path]:
        return [path for path in self.directory.rglob("*") if path.is_file()]

    def clear(self) -> None:
        """Have nothing here of what came so far."""
        leftovers.set_aside(self.directory.iterdir(), self.directory)

    def compare(self, digests: frozenset[bytes]) -> None:
        """Raises DifferentError where the data sets are not those of these digests."""
        files = self.files()
        if len(files) != len(digests):
            raise DifferentError(f"{len(files)} objects came of {len(digests)}")
        came = digests_of(files) if self.exact else digests
        if came != digests:
            raise DifferentError(
                f"{len(digests - came)} of {len(digests)} objects missing or changed,"
                f" {len(came - digests)} that were not sent"
            )


@asynccontextmanager
async def receiver(place: Place, directory: Path, port: int) -> AsyncIterator[Receiver]:
    """DCMTK's storescp, which keeps what comes byte for byte. It looks nobody's name up, and its
    environment has Nagle's algorithm off."""
    stored = directory / "stored"
    stored.mkdir(parents=True)
    words = ("storescp", "-dhl", "+B", "+xa", "-pm", "--fork", "-od", str(stored), str(port))
    async with running(directory / "storescp.log", None, *place.inside, *words) as service:
        await service.listens(port)
        yield Receiver(stored, port, (service.process.pid,))


def digests_of(files: Sequence[Path]) -> frozenset[bytes]:
    """SHA-256 of each data set."""
    return frozenset(hashlib.sha256(peers.data_set_of(path)).digest() for path in files)


def steady(arrivals: Sequence[float], began: float) -> float:
    """Objects a second between a tenth and nine tenths of the work; of few objects, over all."""
    first, last = (int(share * (len(arrivals) - 1)) for share in STEADY)
    if last == first or arrivals[last] == arrivals[first]:
        return len(arrivals) / (arrivals[-1] - began)
    return (last - first) / (arrivals[last] - arrivals[first])
