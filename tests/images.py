"""Real DICOM files for tests and benchmarks: those of pydicom and pydicom-data, and made ones.

Nothing here asks the network: only files that the two packages carry are used.
"""

import random
from functools import cache
from importlib import resources
from pathlib import Path

import attrs
import pydicom
from pydicom.uid import generate_uid

# Bytes of preamble and prefix before the file meta information (PS3.10 §7.1).
PREAMBLE = 132


@attrs.frozen(slots=True)
class Image:
    """A Part 10 file: where its data set begins, and what its file meta information says."""

    path: Path
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    offset: int

    def data_set(self) -> bytes:
        """The data set as it stands in the file, byte for byte."""
        return self.path.read_bytes()[self.offset :]


def read(path: Path) -> Image:
    """What a Part 10 file says of itself. Raises ValueError if it is none, or says too little."""
    with path.open("rb") as file:
        if file.read(PREAMBLE)[128:] != b"DICM":
            raise ValueError(f"{path.name}: no Part 10 file")
        file.seek(0)
        meta = pydicom.filereader.read_file_meta_info(path)
        file.seek(PREAMBLE)
        length_element = file.read(12)
        if length_element[:4] != b"\x02\x00\x00\x00":
            raise ValueError(f"{path.name}: no group length in the file meta information")
        offset = PREAMBLE + 12 + int.from_bytes(length_element[8:12], "little")
    try:
        return Image(
            path,
            str(meta.MediaStorageSOPClassUID),
            str(meta.MediaStorageSOPInstanceUID),
            str(meta.TransferSyntaxUID),
            offset,
        )
    except AttributeError as error:
        raise ValueError(f"{path.name}: {error}") from error


@cache
def shipped() -> tuple[Image, ...]:
    """Every Part 10 file of pydicom and pydicom-data that can be sent by its own meta information.

    One file for each SOP Instance UID and transfer syntax, the first by name.
    """
    found: dict[tuple[str, str], Image] = {}
    for package in ("pydicom", "data_store"):
        root = Path(str(resources.files(package)))
        for path in sorted(root.rglob("*")):
            if not path.is_file() or path.suffix in {".py", ".pyc", ".gz", ".zip"}:
                continue
            try:
                image = read(path)
            except (ValueError, EOFError, pydicom.errors.InvalidDicomError):
                continue
            if image.sop_instance and image.sop_class:
                found.setdefault((image.sop_instance, image.transfer_syntax), image)
    return tuple(found.values())


def by_transfer_syntax() -> dict[str, list[Image]]:
    """The shipped files by transfer syntax UID, smallest first."""
    groups: dict[str, list[Image]] = {}
    for image in shipped():
        groups.setdefault(image.transfer_syntax, []).append(image)
    for group in groups.values():
        group.sort(key=lambda image: image.path.stat().st_size)
    return groups


def make_series(directory: Path, count: int, *, size: int = 512, seed: int = 1) -> list[Image]:
    """`count` CT images of `size` x `size` 16-bit pixels in `directory`: one study, one series.

    pydicom's real CT slice (128 x 128) is tiled to the size; the low two bits of every pixel get
    seeded noise, so that no two tiles are alike and a compressor meets what it meets in practice.
    """
    random_source = random.Random(seed)
    source = pydicom.dcmread(resources.files("pydicom") / "data/test_files/CT_small.dcm")
    rows, width = source.Rows, source.Columns * 2
    pixels = source.PixelData
    line_by_line = [pixels[row * width : (row + 1) * width] for row in range(rows)]
    tiled = b"".join(line_by_line[row % rows] * (size // source.Columns) for row in range(size))
    study, series = (
        generate_uid(entropy_srcs=[f"study{seed}"]),
        generate_uid(entropy_srcs=[f"series{seed}"]),
    )
    source.Rows = source.Columns = size
    source.StudyInstanceUID, source.SeriesInstanceUID = study, series
    low_bytes = int.from_bytes(tiled, "little")
    mask = int.from_bytes(b"\x03\x00" * (len(tiled) // 2), "little")
    images = []
    for number in range(1, count + 1):
        noise = random_source.getrandbits(len(tiled) * 8) & mask
        source.PixelData = (low_bytes ^ noise).to_bytes(len(tiled), "little")
        source.InstanceNumber = number
        instance = generate_uid(entropy_srcs=[f"instance{seed}.{number}"])
        source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = instance
        path = directory / f"ct{number:05}.dcm"
        source.save_as(path)
        images.append(read(path))
    return images
