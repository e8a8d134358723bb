"""The meta information of DICOM files, written and read, and read as pydicom reads it."""

from io import BytesIO

import attrs
import pydicom
import pytest

from relay.errors import Refused
from relay.router.dicomweb import part10
from relay.router.dicomweb.part10 import Meta
from tests import images

META = Meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1")


def test_what_is_written_is_a_file_for_others() -> None:
    file = part10.write(META) + b"\x10\x00\x20\x00LO\x02\x00ab"
    found = pydicom.dcmread(BytesIO(file))
    assert found.file_meta.MediaStorageSOPClassUID == META.sop_class
    assert found.file_meta.MediaStorageSOPInstanceUID == META.sop_instance
    assert found.file_meta.TransferSyntaxUID == META.transfer_syntax
    assert found.PatientID == "ab"


def test_what_is_written_is_read() -> None:
    file = part10.write(META)
    for size in range(len(file)):
        assert part10.read(file[:size]) is None
    # What follows need not be there, or may be deflated.
    for more in (b"", b"abc", b"\x02\x00\xff\xffOB\x00\x00\xff\xff\xff\xff"):
        assert part10.read(file + more) == attrs.evolve(META, size=len(file))
    found = part10.read(file + b"\x08\0\x05\0CS\x02\0ab")
    assert found == Meta(META.sop_class, META.sop_instance, META.transfer_syntax, len(file))


def test_real_files_are_read_as_by_others() -> None:
    seen = 0
    for image in images.shipped():
        meta = part10.read(image.path.read_bytes()[: part10.MAXIMUM_META])
        assert meta == Meta(
            image.sop_class, image.sop_instance, image.transfer_syntax, image.offset
        )
        seen += 1
    assert seen > 50


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (bytes(132), "no DICM"),
        (part10.PREAMBLE, "ends in"),
        (part10.write(META)[:200], "ends in"),
        (part10.PREAMBLE + b"\x02\0\x02\0UI\xff\xffab", "more than"),
        (part10.PREAMBLE + b"\x08\0\x05\0CS\x02\0ab", "without (0002,0002)"),
        (
            part10.PREAMBLE
            + b"\x02\0\x02\0UI\x02\0ab\x02\0\x03\0UI\x02\0"
            + b"1\0\x02\0\x10\0UI\x02\0001\0"
            + bytes([8, 0, 5, 0, 67, 83, 0, 0]),
            "is no UID",
        ),
    ],
)
def test_what_is_no_file_is_refused(file: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words.replace("(", r"\(").replace(")", r"\)")):
        part10.read(file, whole=True)
