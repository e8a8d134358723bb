"""Objects by the thousand for runs in which things go wrong: real images under new names.

Each is one of the shipped images of 9 to 210 KB, in any transfer syntax, with a SOP Instance UID of
its own in its data set; its bytes are made when they are asked for, and are the same each time.
"""

import hashlib
import random
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, ImplicitVRLittleEndian

from tests import images
from tests.images import Image

# Large enough to go by the object store, and small enough that thousands are quick.
SMALLEST, LARGEST = 9_000, 210_000

# Ultrasound and Nuclear Medicine Image Storage of before 1993: no device is asked whether it takes
# them, and so they are not queued.
RETIRED = ("1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.5")

# (0008,0018) SOP Instance UID.
_TAG = b"\x08\x00\x18\x00"


@attrs.frozen(slots=True)
class Source:
    """A shipped image, around its SOP Instance UID."""

    image: Image
    head: bytes = attrs.field(repr=False)
    tail: bytes = attrs.field(repr=False)


@attrs.frozen(slots=True)
class Specimen:
    """One object of a run."""

    source: Source = attrs.field(repr=False)
    uid: str

    @property
    def sop_class(self) -> str:
        return self.source.image.sop_class

    @property
    def transfer_syntax(self) -> str:
        return self.source.image.transfer_syntax

    def data_set(self) -> bytes:
        """The data set, as a sender sends it."""
        return self.source.head + _element(self.source.image, self.uid) + self.source.tail

    def sha256(self) -> str:
        return hashlib.sha256(self.data_set()).hexdigest()

    def write(self, path: Path) -> None:
        """A Part 10 file of it (PS3.10 §7.1), for programs that send files."""
        meta = FileMetaDataset()
        meta.FileMetaInformationVersion = b"\x00\x01"
        meta.MediaStorageSOPClassUID = UID(self.sop_class)
        meta.MediaStorageSOPInstanceUID = UID(self.uid)
        meta.TransferSyntaxUID = UID(self.transfer_syntax)
        meta.ImplementationClassUID = UID("2.25.1")
        content = DicomBytesIO()
        content.write(bytes(128) + b"DICM")
        write_file_meta_info(content, meta)
        path.write_bytes(content.getvalue() + self.data_set())


def specimens(seed: int, count: int, *, uncompressed: bool = False) -> list[Specimen]:
    """`count` objects, the same for the same seed; `uncompressed`: for senders that say no more."""
    source = random.Random(seed)
    plain = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
    choice = [s for s in _sources() if not uncompressed or s.image.transfer_syntax in plain]
    return [
        Specimen(source.choice(choice), f"2.25.{uuid.UUID(int=source.getrandbits(128)).int}")
        for _ in range(count)
    ]


@cache
def _sources() -> list[Source]:
    return list(_find_sources())


def _find_sources() -> Iterator[Source]:
    for image in images.shipped():
        data_set = image.data_set() if image.path.stat().st_size <= LARGEST else b""
        if len(data_set) < SMALLEST or image.sop_class in RETIRED:
            continue
        # Not found in big endian and deflated data sets, nor in files that lie about themselves.
        element = _element(image, image.sop_instance)
        if (at := data_set.find(element)) >= 0:
            yield Source(image, data_set[:at], data_set[at + len(element) :])


def _element(image: Image, uid: str) -> bytes:
    """SOP Instance UID as an element (PS3.5 §7.1), padded to even length by NULL (PS3.5 §9.1)."""
    value = uid.encode() + b"\x00" * (len(uid) % 2)
    if image.transfer_syntax == ImplicitVRLittleEndian:
        return _TAG + len(value).to_bytes(4, "little") + value
    return _TAG + b"UI" + len(value).to_bytes(2, "little") + value
