"""What is sent over distance: series of real images, made as large and as many as hospitals have.

pydicom's own slices are tiled to the size, and the low two bits of each pixel get seeded noise, so
that no two are alike and a compressor meets what it meets in practice.
"""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

import attrs
import pydicom
import zstandard
from pydicom.uid import UID, generate_uid

from scripts.benchmark import leftovers
from scripts.benchmark.links import Place
from scripts.benchmark.receiver import Receiver, digests_of, receiver
from scripts.benchmark.sending import UNCOMPRESSED, storescu
from tests import images
from tests.interop import peers
from tests.ports import LOOPBACK

MR_SIZE = 256

NEARBY = Place((), LOOPBACK)

# A multi-frame object's frames.
FRAME_SIZE = 512
FRAME = FRAME_SIZE * FRAME_SIZE * 2

# Objects that the compressor's ratio is told of.
SAMPLES = 8

MULTI_FRAME_GRAYSCALE_WORD = UID("1.2.840.10008.5.1.4.1.1.7.3")

# By transfer syntax: DCMTK's option to propose it.
COMPRESSED = {
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}


@attrs.frozen(slots=True)
class Series:
    """Files to send, and SHA-256 of each data set as DCMTK sends it.

    `syntaxes`: those among them by DCMTK's option to propose theirs, an association for each.
    """

    syntaxes: dict[str, tuple[Path, ...]]
    digests: frozenset[bytes]
    size: int
    zstd_1_ratio: float

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for files in self.syntaxes.values() for path in files)

    @property
    def object_size(self) -> float:
        return self.size / len(self.files)


async def ct(directory: Path, count: int) -> Series:
    """CT slices of 512 x 512 pixels of 16 bits: 526 KB each."""
    return await _series([i.path for i in images.make_series(directory, count)], directory)


async def mr(directory: Path, count: int) -> Series:
    """MR slices of 256 x 256 pixels of 16 bits: 130 KB each."""
    source = pydicom.dcmread(_shipped("MR_small.dcm"))
    tile = _tiled(source, MR_SIZE)
    source.Rows = source.Columns = MR_SIZE
    noise = random.Random(2)
    study, series = generate_uid(entropy_srcs=["mr study"]), generate_uid(entropy_srcs=["mr"])
    source.StudyInstanceUID, source.SeriesInstanceUID = study, series
    files = []
    for number in range(1, count + 1):
        source.PixelData = _noisy(tile, noise)
        source.InstanceNumber = number
        instance = generate_uid(entropy_srcs=[f"mr {number}"])
        source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = instance
        files.append(directory / f"mr{number:05}.dcm")
        source.save_as(files[-1])
    return await _series(files, directory)


async def multi_frame(directory: Path, size: int, *, count: int = 1) -> Series:
    """Objects of about `size` bytes: frames of 512 x 512 pixels of 16 bits."""
    source = pydicom.dcmread(_shipped("CT_small.dcm"))
    tile = _tiled(source, FRAME_SIZE)
    noise = random.Random(3)
    frames = max(1, size // FRAME)
    source.Rows = source.Columns = FRAME_SIZE
    source.NumberOfFrames = frames
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = MULTI_FRAME_GRAYSCALE_WORD
    files = []
    for number in range(1, count + 1):
        source.PixelData = b"".join(_noisy(tile, noise) for _ in range(frames))
        instance = generate_uid(entropy_srcs=[f"frames {number}"])
        source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = instance
        files.append(directory / f"frames{number:02}.dcm")
        source.save_as(files[-1])
    return await _series(files, directory)


async def compressed(directory: Path, _count: int) -> Series:
    """The compressed files of pydicom and pydicom-data that DCMTK can send, as they are."""
    groups = images.by_transfer_syntax()
    syntaxes: dict[str, list[Path]] = {option: [] for option in COMPRESSED.values()}
    seen: set[str] = set()
    async with _nearby(directory) as (_, target):
        for syntax, option in COMPRESSED.items():
            for image in groups.get(syntax, []):
                if image.sop_instance in seen:
                    continue
                if await _sendable(target, image.path, option):
                    seen.add(image.sop_instance)
                    syntaxes[option].append(image.path)
    return await _reckoned(
        {option: tuple(paths) for option, paths in syntaxes.items() if paths}, directory
    )


async def _sendable(target: peers.Address, path: Path, option: str) -> bool:
    """Some are broken on purpose."""
    try:
        await storescu(NEARBY, target, [path], syntax=option)
    except* peers.PeerError:
        sent = False
    else:
        sent = True
    return sent


def _shipped(name: str) -> str:
    return str(resources.files("pydicom") / "data" / "test_files" / name)


def _tiled(source: pydicom.Dataset, size: int) -> bytes:
    rows, width, pixels = source.Rows, source.Columns * 2, source.PixelData
    lines = [pixels[row * width : (row + 1) * width] for row in range(rows)]
    return b"".join(lines[row % rows] * (size // source.Columns) for row in range(size))


def _noisy(tile: bytes, noise: random.Random) -> bytes:
    mask = int.from_bytes(b"\x03\x00" * (len(tile) // 2), "little")
    value = noise.getrandbits(len(tile) * 8) & mask
    return (int.from_bytes(tile, "little") ^ value).to_bytes(len(tile), "little")


async def _series(files: Sequence[Path], directory: Path) -> Series:
    return await _reckoned({UNCOMPRESSED: tuple(files)}, directory)


async def _reckoned(syntaxes: dict[str, tuple[Path, ...]], directory: Path) -> Series:
    """Send it once, with nothing between: what then came is what has to come each time."""
    series = Series(syntaxes, frozenset(), 0, 1.0)
    async with _nearby(directory) as (device, target):
        for syntax, files in syntaxes.items():
            await storescu(NEARBY, target, files, syntax=syntax)
        digests = digests_of(device.files())
    sample = b"".join(path.read_bytes()[:FRAME] for path in series.files[:SAMPLES])
    packed = zstandard.ZstdCompressor(level=1).compress(sample)
    size = sum(path.stat().st_size for path in series.files)
    return Series(syntaxes, digests, size, len(sample) / len(packed))


@asynccontextmanager
async def _nearby(directory: Path) -> AsyncIterator[tuple[Receiver, peers.Address]]:
    """A receiver on this machine's loopback."""
    with leftovers.fresh(directory, "nearby") as stored:
        async with receiver(NEARBY, stored, peers.free_port()) as device:
            yield device, peers.Address(device.port, "STORESCP")
