"""Part 10 files as `relay send` needs them: the file meta is read, the data set is only located.

PS3.10 §7.1. The bytes after the meta go out as they are, whatever their transfer syntax.
"""

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import attrs
import trio
from pydicom.errors import InvalidDicomError
from pydicom.filereader import data_element_generator, read_preamble

from relay.dicom.negotiation import MAXIMUM_CONTEXTS
from relay.dicom.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
from relay.errors import RelayError

# PS3.10 Table 7.1-1.
_GROUP_LENGTH = 0x0002_0000
_SOP_CLASS = 0x0002_0002
_SOP_INSTANCE = 0x0002_0003
_TRANSFER_SYNTAX = 0x0002_0010

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR: an index of files, not an object

# The transfer syntaxes whose whole data set is a deflated stream, which may end on an odd byte:
# the last two are JPIP Referenced Deflate and JPIP HTJ2K Referenced Deflate.
DEFLATED = frozenset(
    {DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)

# What is read from the disk at a time: large enough that a disk and a socket are busy, small
# enough that many files at once would not matter.
BLOCK = 256 * 1024


@attrs.frozen(slots=True)
class Part10File:
    """Where an object is and what it says it is. `offset` and `size` locate the data set, bytes."""

    path: Path
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    offset: int
    size: int

    @property
    def pair(self) -> tuple[str, str]:
        """(SOP class, transfer syntax): what a presentation context is proposed for."""
        return self.sop_class, self.transfer_syntax

    async def data_set(self) -> AsyncIterator[bytes]:
        """The data set, block by block. Raises OSError; RelayError if the file has shrunk."""
        left = self.size
        async with await trio.open_file(self.path, "rb") as file:
            await file.seek(self.offset)
            while left:
                block = await file.read(min(BLOCK, left))
                if not block:
                    raise RelayError(f"{self.path}: shorter than it was a moment ago")
                left -= len(block)
                yield block
        if self.size % 2:
            # PS3.5 §A.5: a deflated stream of odd length is followed by one NULL byte.
            yield b"\0"


def read(path: Path) -> Part10File:
    """The object in the file. Raises RelayError in one line if it is none that can be sent."""
    try:
        with path.open("rb") as file:
            elements, offset = _read_meta(file)
            size = os.fstat(file.fileno()).st_size - offset
    except OSError as error:
        raise RelayError(f"{path}: cannot be read: {error.strerror}") from error
    except InvalidDicomError as error:
        raise RelayError(f"{path}: not a DICOM file (no DICM after 128 bytes)") from error
    tags = {
        "SOP class": _SOP_CLASS,
        "SOP instance": _SOP_INSTANCE,
        "transfer syntax": _TRANSFER_SYNTAX,
    }
    for name, tag in tags.items():
        if not set(elements.get(tag) or "?") <= set("0123456789."):
            raise RelayError(f"{path}: its file meta names no {name}")
    sop_class, sop_instance, transfer_syntax = (elements[tag] for tag in tags.values())
    if sop_class == MEDIA_STORAGE_DIRECTORY:
        raise RelayError(f"{path}: a DICOMDIR is an index of files, not an object to send")
    if size <= 0 or (size % 2 and transfer_syntax not in DEFLATED):
        # PS3.5 §7.1.1: every element has an even length, and so has their sequence.
        raise RelayError(f"{path}: its data set has {size} bytes; a data set has an even length")
    return Part10File(path, sop_class, sop_instance, transfer_syntax, offset, size)


def _read_meta(file: BinaryIO) -> tuple[dict[int, str], int]:
    """The meta's UIDs by tag, and where the data set begins."""
    read_preamble(file, force=False)
    begin = file.tell()
    end = None  # of the meta, once its group length said so

    def beyond(tag: int, vr: str | None, length: int) -> bool:
        return tag >> 16 != 2 or (end is not None and file.tell() > end)

    elements: dict[int, str] = {}
    for element in data_element_generator(file, False, True, stop_when=beyond):
        value = element.value
        if not isinstance(value, bytes):
            continue
        if element.tag == _GROUP_LENGTH and len(value) == 4:
            # The group length counts from behind its own element: 8 bytes of header, 4 of value.
            end = begin + 12 + int.from_bytes(value, "little")
        elements[int(element.tag)] = value.decode("ascii", "replace").strip("\0 ")
    return elements, file.tell()


def walk(paths: Iterable[Path]) -> Iterator[Path]:
    """The files among `paths` and under them, in a stable order; symbolic links to folders are not
    followed."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(names))


def batches(files: Sequence[Part10File]) -> list[list[Part10File]]:
    """`files` cut, in order, into what one association's contexts can carry, one pair a context."""
    result: list[list[Part10File]] = []
    pairs: set[tuple[str, str]] = set()
    for file in files:
        if not result or (file.pair not in pairs and len(pairs) == MAXIMUM_CONTEXTS):
            result.append([])
            pairs.clear()
        pairs.add(file.pair)
        result[-1].append(file)
    return result
