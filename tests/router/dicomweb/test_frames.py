"""Frames that are cut while the object comes in, against those that pydicom finds in the whole."""

import struct
import warnings

import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from relay.dicom.elements import Encoding, encoding_of
from relay.errors import Refused
from relay.router.dicomweb.frames import Cutter, Layout
from relay.router.dicomweb.scanning import PIXELS, BulkBegun, Scanner, UnreadableError
from tests import images

EXPLICIT = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.50"
RLE = "1.2.840.10008.1.2.5"


def cut(
    data: bytes, transfer_syntax: str, wanted: set[int] | None = None, size: int = 1000
) -> dict[int, bytes]:
    """The frames of an object that comes in pieces; all of them without `wanted`."""
    scanner = Scanner(encoding_of(transfer_syntax) or Encoding())
    cutter: Cutter | None = None
    frames: dict[int, bytearray] = {}
    ended: list[int] = []
    for at in range(0, len(data), size):
        for event in scanner.feed(data[at : at + size]):
            if isinstance(event, BulkBegun) and event.tag in PIXELS:
                layout = Layout.read(scanner.head, transfer_syntax, event)
                everything = set(range(1, layout.count + 1))
                cutter = Cutter(layout, event, wanted or everything)
            elif cutter is not None:
                for piece in cutter.feed(event):
                    assert piece.frame not in ended
                    frames.setdefault(piece.frame, bytearray()).extend(piece.data)
                    if piece.last:
                        ended.append(piece.frame)
    assert ended == sorted(frames)
    return {number: bytes(frame) for number, frame in frames.items()}


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    long = vr in (b"OB", b"OW", b"OV", b"OF")
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    return head + struct.pack("<2xI" if long else "<H", len(value)) + value


def image(
    frames: int, *, bits: int = 8, rows: int = 2, columns: int = 3, kind: bytes = b"MONOCHROME2 "
) -> bytes:
    return (
        element(0x0028_0002, b"US", struct.pack("<H", 1))
        + element(0x0028_0004, b"CS", kind)
        + element(0x0028_0008, b"IS", f"{frames:<4}".encode())
        + element(0x0028_0010, b"US", struct.pack("<H", rows))
        + element(0x0028_0011, b"US", struct.pack("<H", columns))
        + element(0x0028_0100, b"US", struct.pack("<H", bits))
    )


PIXEL_DATA = struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFF_FFFF)
END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
# Of even lengths, as fragments are, with the beginning and the end of a JPEG stream.
STREAMS = [b"\xff\xd8" + bytes([number]) * 10 * number + b"\xff\xd9" for number in (1, 2, 3)]
SIZES = [1, 2, 5, 64, 4096]


@pytest.mark.parametrize("size", SIZES)
def test_uncompressed_frames_lie_one_behind_the_other(size: int) -> None:
    data = image(3) + element(0x7FE0_0010, b"OB", bytes(range(18)))
    expected = {1: bytes(range(6)), 2: bytes(range(6, 12)), 3: bytes(range(12, 18))}
    assert cut(data, EXPLICIT, size=size) == expected
    assert cut(data, EXPLICIT, {2}, size) == {2: expected[2]}


@pytest.mark.parametrize("size", SIZES)
def test_frames_of_single_bits(size: int) -> None:
    # Three frames of six bits each, the lowest bit first: 000001, 000010, 100000.
    packed = (0b000001 | 0b000010 << 6 | 0b100000 << 12).to_bytes(4, "little")
    data = image(3, bits=1) + element(0x7FE0_0010, b"OB", packed)
    assert cut(data, EXPLICIT, size=size) == {1: b"\x01", 2: b"\x02", 3: b"\x20"}


def test_pixels_that_share_their_colour() -> None:
    data = image(2, kind=b"YBR_FULL_422", columns=2) + element(0x7FE0_0010, b"OB", bytes(range(16)))
    assert cut(data, EXPLICIT) == {1: bytes(range(8)), 2: bytes(range(8, 16))}


def test_pixels_of_floating_point() -> None:
    data = image(2) + element(0x7FE0_0008, b"OF", bytes(range(48)))
    assert cut(data, EXPLICIT) == {1: bytes(range(24)), 2: bytes(range(24, 48))}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fragments", [1, 2])
@pytest.mark.parametrize("table", [False, True])
def test_compressed_frames(table: bool, fragments: int, size: int) -> None:
    value = encapsulate(STREAMS, fragments_per_frame=fragments, has_bot=table)
    data = image(3) + PIXEL_DATA + value + END
    found = cut(data, JPEG, size=size)
    assert found == dict(enumerate(STREAMS, 1))
    assert cut(data, JPEG, {3}, size) == {3: STREAMS[2]}


@pytest.mark.parametrize("size", SIZES)
def test_an_extended_offset_table(size: int) -> None:
    odd = [stream[2:] for stream in STREAMS]  # nothing to be told by but the table
    value, offsets, lengths = encapsulate_extended(odd)
    tables = element(0x7FE0_0001, b"OV", offsets) + element(0x7FE0_0002, b"OV", lengths)
    data = image(3) + tables + PIXEL_DATA + value + END
    assert cut(data, JPEG, size=size) == dict(enumerate(odd, 1))


def test_without_any_table_each_fragment_is_a_frame() -> None:
    frames = [b"\x01\0\0\0" + bytes([number] * 8) for number in range(4)]
    data = image(4) + PIXEL_DATA + encapsulate(frames, has_bot=False) + END
    assert cut(data, RLE) == dict(enumerate(frames, 1))


def test_one_frame_is_all_fragments() -> None:
    value = encapsulate([b"ab" * 20], fragments_per_frame=4, has_bot=False)
    assert cut(image(1) + PIXEL_DATA + value + END, JPEG) == {1: b"ab" * 20}


def test_a_table_that_does_not_name_each_frame_is_no_table() -> None:
    value = encapsulate(STREAMS, has_bot=False)
    table = struct.pack("<HHII", 0xFFFE, 0xE000, 4, 0)
    assert value[:8] == struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    data = image(3) + PIXEL_DATA + table + value[8:] + END
    assert cut(data, JPEG) == dict(enumerate(STREAMS, 1))


def test_a_frame_that_there_is_not() -> None:
    with pytest.raises(Refused, match="no frame 4: the object has 3") as refused:
        cut(image(3) + element(0x7FE0_0010, b"OB", bytes(18)), EXPLICIT, {4})
    assert refused.value.status == 404


def test_more_frames_than_there_can_be() -> None:
    with pytest.raises(Refused, match="says that there are 2000000000 frames"):
        cut(image(2_000_000_000) + element(0x7FE0_0010, b"OB", bytes(18)), EXPLICIT, {1})


def test_what_is_no_image_has_no_frames() -> None:
    with pytest.raises(Refused, match="no image"):
        cut(element(0x7FE0_0010, b"OB", bytes(18)), EXPLICIT)


def test_frames_of_real_objects() -> None:
    seen = 0
    for found in images.shipped():
        encoding = encoding_of(found.transfer_syntax)
        if encoding is None or not encoding.little_endian:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                whole = pydicom.dcmread(found.path)
                count = int(whole.get("NumberOfFrames") or 1)
                if whole.get("PixelData") is None or not whole.Rows:
                    continue
                if whole.file_meta.TransferSyntaxUID.is_encapsulated:
                    expected = list(generate_frames(whole.PixelData, number_of_frames=count))
                else:
                    size = len(whole.PixelData) // count
                    expected = [whole.PixelData[at * size : (at + 1) * size] for at in range(count)]
                    bits = whole.Rows * whole.Columns * whole.SamplesPerPixel * whole.BitsAllocated
                    if bits % 8 or bits // 8 * count != len(whole.PixelData):
                        continue
            except Exception:  # broken on purpose
                continue
        try:
            frames = cut(found.data_set(), found.transfer_syntax)
        except UnreadableError:  # in another transfer syntax than its meta information says
            continue
        assert frames == dict(enumerate(expected, 1)), found.path
        seen += 1
    assert seen > 50


def with_table(offsets: list[int]) -> bytes:
    """STREAMS in a fragment each, behind this table."""
    value = encapsulate(STREAMS, has_bot=False)
    table = struct.pack(f"<HHI{len(offsets)}I", 0xFFFE, 0xE000, 4 * len(offsets), *offsets)
    return image(3) + PIXEL_DATA + table + value[8:] + END


# Where the fragments begin: 14, 24 and 34 bytes and their items' headers.
TRUE_OFFSETS = [0, 8 + len(STREAMS[0]), 16 + len(STREAMS[0]) + len(STREAMS[1])]


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("wanted", [{1}, {2}, {3}])
def test_a_table_that_lies_gives_no_other_frame(wanted: set[int], at: int) -> None:
    offsets = list(TRUE_OFFSETS)
    assert cut(with_table(offsets), JPEG, wanted) == {n: STREAMS[n - 1] for n in wanted}
    offsets[at] += 2
    with pytest.raises(Refused, match="offset table") as refused:
        cut(with_table(offsets), JPEG, wanted)
    assert refused.value.status == 502


def test_more_fragments_than_frames_are_not_cut_by_their_number() -> None:
    value = encapsulate([b"\x01\0\0\0" + bytes([n] * 8) for n in range(4)], has_bot=False)
    with pytest.raises(Refused, match="more than the 3 frames"):
        cut(image(3) + PIXEL_DATA + value + END, RLE)


def test_colours_that_are_not_shared_though_it_says_so() -> None:
    """As after a decompression that has left the attribute as it was."""
    rgb = image(2, kind=b"YBR_FULL_422", columns=2).replace(
        element(0x0028_0002, b"US", b"\1\0"), element(0x0028_0002, b"US", b"\3\0")
    )
    data = rgb + element(0x7FE0_0010, b"OB", bytes(range(24)))
    assert cut(data, EXPLICIT) == {1: bytes(range(12)), 2: bytes(range(12, 24))}


def test_a_number_of_frames_of_thousands_of_digits() -> None:
    many = element(0x0028_0008, b"IS", b"9" * 5000)
    data = image(1).replace(element(0x0028_0008, b"IS", b"1   "), many)
    with pytest.raises(Refused, match="frames"):
        cut(data + element(0x7FE0_0010, b"OB", bytes(18)), EXPLICIT, {1})
