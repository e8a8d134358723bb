"""Data sets in pieces: the head is kept, bulk passes by, whatever the pieces."""

import pydicom
import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from relay.dicom.elements import Encoding, encoding_of
from relay.router.dicomweb.scanning import (
    BULK,
    PIXEL_DATA,
    BulkBegun,
    BulkEnded,
    Event,
    FragmentBegun,
    Scanner,
    UnreadableError,
)
from tests import images

EXPLICIT = Encoding()
IMPLICIT = Encoding(explicit_vr=False)


def scan(data: bytes, encoding: Encoding, size: int = 4096) -> tuple[Scanner, list[Event]]:
    scanner = Scanner(encoding)
    events: list[Event] = []
    for at in range(0, len(data), size):
        events += scanner.feed(data[at : at + size])
    return scanner, events


def joined(events: list[Event]) -> bytes:
    return b"".join(bytes(event) for event in events if isinstance(event, memoryview))


def explicit(tag: bytes, vr: bytes, value: bytes) -> bytes:
    long = vr in (b"OB", b"OW", b"SQ", b"UN")
    length = len(value).to_bytes(4 if long else 2, "little")
    return tag + vr + (b"\0\0" if long else b"") + length + value


ROWS = explicit(b"\x28\0\x10\0", b"US", b"\x02\0")
PIXELS = b"\xe0\x7f\x10\0"


@pytest.mark.parametrize("size", [1, 3, 8, 13, 4096])
def test_the_head_is_all_but_the_pixels(size: int) -> None:
    pixels = bytes(range(256)) * 4
    trailing = explicit(b"\xfc\xff\xfc\xff", b"OB", b"\0\0")
    scanner, events = scan(ROWS + explicit(PIXELS, b"OW", pixels) + trailing, EXPLICIT, size)
    assert bytes(scanner.head) == ROWS + trailing
    assert scanner.bulk == [BulkBegun(PIXEL_DATA, b"OW", len(pixels))]
    assert joined(events) == pixels
    assert events[0] == scanner.bulk[0]
    assert events[-1] == BulkEnded(PIXEL_DATA)
    assert scanner.whole


def item(value: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + len(value).to_bytes(4, "little") + value


END = b"\xfe\xff\xdd\xe0\0\0\0\0"


@pytest.mark.parametrize("size", [1, 5, 4096])
def test_fragments_are_told_apart(size: int) -> None:
    undefined = PIXELS + b"OB\0\0\xff\xff\xff\xff"
    data = ROWS + undefined + item(b"") + item(b"abcd") + item(b"efgh") + END
    scanner, events = scan(data, EXPLICIT, size)
    assert [event for event in events if not isinstance(event, memoryview)] == [
        BulkBegun(PIXEL_DATA, b"OB", None),
        FragmentBegun(0),
        FragmentBegun(4),
        FragmentBegun(4),
        BulkEnded(PIXEL_DATA),
    ]
    assert joined(events) == b"abcdefgh"
    assert bytes(scanner.head) == ROWS
    assert scanner.whole


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("implicit", [False, True])
def test_pixels_in_a_sequence_are_of_the_head(implicit: bool, undefined: bool, size: int) -> None:
    icon = pydicom.Dataset()
    icon.Rows = 2
    icon.PixelData = bytes(range(100))
    icon["PixelData"].VR = "OW"
    found = pydicom.Dataset()
    found.IconImageSequence = [icon, icon]
    found["IconImageSequence"].is_undefined_length = undefined
    icon.is_undefined_length_sequence_item = undefined
    found.PatientID = "1"
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, implicit
    write_dataset(file, found)
    scanner, events = scan(file.getvalue(), IMPLICIT if implicit else EXPLICIT, size)
    assert bytes(scanner.head) == file.getvalue()
    assert not events
    assert scanner.whole


def test_a_long_value_of_the_top_level_is_bulk() -> None:
    document = explicit(b"\x42\0\x11\0", b"OB", bytes(BULK))
    scanner, _ = scan(ROWS + document, EXPLICIT)
    assert scanner.bulk == [BulkBegun(0x0042_0011, b"OB", BULK)]
    assert bytes(scanner.head) == ROWS


def test_real_files_are_read_to_their_end() -> None:
    seen = 0
    for image in images.shipped():
        encoding = encoding_of(image.transfer_syntax)
        if encoding is None or "bad" in image.path.name.lower():
            continue
        data = image.data_set()
        try:
            expected = pydicom.dcmread(image.path)
            named = [int(element.tag) for element in expected]
        except Exception:  # broken on purpose
            continue
        scanner, _ = scan(data, encoding, 1000)
        if not scanner.whole:  # cut short on purpose
            continue
        assert len(scanner.bulk) == len(
            [tag for tag in named if tag in {b.tag for b in scanner.bulk}]
        )
        assert (PIXEL_DATA in named) == (PIXEL_DATA in {bulk.tag for bulk in scanner.bulk})
        seen += 1
    assert seen > 50


@pytest.mark.parametrize(
    "data",
    [
        b"\x28\0\x10\0\x01\x02\0\0",
        END,
        PIXELS + b"OB\0\0\xff\xff\xff\xff" + ROWS,
        b"\x08\0\x15\x11SQ\0\0\xff\xff\xff\xff" + ROWS,
        (b"\x08\0\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff") * 40,
    ],
    ids=["no VR", "an item alone", "no fragment", "no item", "too deep"],
)
def test_what_is_no_data_set_is_told(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        scan(data, EXPLICIT)


def test_the_head_has_a_limit() -> None:
    scanner = Scanner(EXPLICIT, maximum=100)
    with pytest.raises(UnreadableError, match="more than 100"):
        scanner.feed(explicit(b"\x28\0\x10\0", b"LT", bytes(200)))
