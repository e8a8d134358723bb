"""What compression of chunks gains and costs, by itself: `python -m scripts.benchmark.compression`.

For each kind of image that pydicom and pydicom-data bring, cut to a chunk: the ratio, and the
milliseconds of processor time for each MB (10^6 bytes, in plain), of each way of packing; then what
Relay's writer chooses at each rate of the link, and what that takes with its trials.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import attrs
import pydicom
from pydicom.uid import UID
from rich.console import Console
from rich.table import Table

from relay.tunnel import records
from relay.tunnel.chunks import TARGET_SIZE
from relay.tunnel.compression import (
    FAST_LEVEL,
    LEVEL,
    SLOW_LEVEL,
    UNTIMED_BODIES,
    Compressor,
    Decompressor,
    Filter,
    Way,
)
from tests import images
from tests.images import Image

LEVELS = (FAST_LEVEL, -1, LEVEL, SLOW_LEVEL)
# Bytes a second: 100 Mbit/s, 1 and 10 Gbit/s.
RATES = {"unknown": None, "100 Mbit/s": 12.5e6, "1 Gbit/s": 125e6, "10 Gbit/s": 1.25e9}
# Each is timed so often, and the least counts: nothing makes it faster than it is.
RUNS = 5
# Bodies of one kind in a session: as many as go by one trial, and the one with the next.
BODIES = 33
SMALLEST = 64 * 1024  # a data set under this says little of a chunk


@attrs.frozen(slots=True)
class Specimen:
    """The body of a chunk: a record of a data set's first part."""

    kind: str
    body: bytes


def specimens(directory: Path) -> Iterator[Specimen]:
    """The largest file of each kind: modality, pixels and transfer syntax."""
    yield _specimen("made CT", images.make_series(directory, 1)[0])
    kinds: dict[str, Image] = {}
    for image in sorted(images.shipped(), key=lambda image: image.path.stat().st_size):
        if image.path.stat().st_size >= SMALLEST:
            kinds[_kind(image)] = image
    for kind, image in sorted(kinds.items()):
        yield _specimen(kind, image)


def _kind(image: Image) -> str:
    data_set = pydicom.dcmread(image.path, specific_tags=["Modality", "BitsStored"])
    syntax = UID(image.transfer_syntax)
    words = [
        str(data_set.get("Modality", "no modality")),
        f"{data_set.BitsStored} bit" if "BitsStored" in data_set else "no pixels",
        syntax.name.split(" (")[0] if syntax.is_compressed else "",
        "big endian" if not syntax.is_little_endian else "",
    ]
    return ", ".join(filter(None, words))


def _specimen(kind: str, image: Image) -> Specimen:
    fragment = image.data_set()[: (TARGET_SIZE - records.PDV_OVERHEAD) & ~1]
    header = records.pdv_header(1, False, True, len(fragment))
    return Specimen(kind, header + fragment)


def milliseconds(call: Callable[[], object], size: int, runs: int = RUNS) -> float:
    """The least processor time of `call`, for each MB of `size` bytes."""
    least = float("inf")
    for _ in range(runs):
        begun = time.thread_time()
        call()
        least = min(least, time.thread_time() - begun)
    return least * 1e3 / (size / 1e6)


def measure_ways(specimen: Specimen) -> list[str]:
    """Of each filter and level: ratio, milliseconds to pack, milliseconds to unpack."""
    body, cells = specimen.body, []
    for filter_ in Filter:
        for level in LEVELS:
            way = Way(filter_, level)
            packed = way.pack(body)
            unpack = partial(Decompressor().decompress, packed, filter_, len(body))
            there = milliseconds(partial(way.pack, body), len(body))
            back = milliseconds(unpack, len(body))
            cells.append(f"{len(body) / len(packed):.2f} {there:.2f} {back:.2f}")
    return cells


def measure_choice(body: bytes, rate: float | None) -> str:
    """What is chosen, its ratio, and the mean cost to the writer, trials included."""
    compressor = Compressor()
    for _ in range(UNTIMED_BODIES + 1):
        compressor.compress(body, rate)
    begun = time.thread_time()
    for _ in range(BODIES):
        compression, filter_, packed = compressor.compress(body, rate)
    cost = (time.thread_time() - begun) * 1e3 / (BODIES * len(body) / 1e6)
    what = filter_.name.lower() if compression else "as it is"
    if compression and not filter_:
        what = "plain"
    return f"{what} {len(body) / len(packed):.2f} {cost:.2f}"


def main() -> None:
    console = Console(width=260)
    ways = Table(title="ratio, ms/MB to pack, ms/MB to unpack, by filter and level")
    choices = Table(title="chosen at what rate: how, ratio, ms/MB to pack")
    ways.add_column("image")
    choices.add_column("image")
    for filter_ in Filter:
        for level in LEVELS:
            ways.add_column(f"{filter_.name.lower()} {level}")
    for name in RATES:
        choices.add_column(name)
    with tempfile.TemporaryDirectory() as directory:
        for specimen in specimens(Path(directory)):
            ways.add_row(specimen.kind, *measure_ways(specimen))
            choices.add_row(
                specimen.kind, *(measure_choice(specimen.body, rate) for rate in RATES.values())
            )
    console.print(ways)
    console.print(choices)


if __name__ == "__main__":
    main()
