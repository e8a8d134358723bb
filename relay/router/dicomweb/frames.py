"""Single frames out of an object's pixel data, as they are stored, while it comes in.

Uncompressed frames lie one behind the other. Compressed ones are made of fragments, and which is
whose the Basic or the Extended Offset Table says (PS3.5 §A.4, PS3.3 §C.7.6.3.1.8); without one, the
beginning of a code stream does, or each fragment is a frame. Of the frames that nobody wants
nothing is kept, nor of the others.
"""

import struct
from collections.abc import Collection, Iterator
from typing import Final

import attrs

from relay.dicom import elements
from relay.dicom.elements import Element, encoding_of
from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from relay.errors import Refused
from relay.router.dicomweb.scanning import (
    DOUBLE_PIXEL_DATA,
    FLOAT_PIXEL_DATA,
    BulkBegun,
    BulkEnded,
    Event,
    FragmentBegun,
)

_SAMPLES = 0x0028_0002
_PHOTOMETRIC = 0x0028_0004
_NUMBER_OF_FRAMES = 0x0028_0008
_ROWS, _COLUMNS = 0x0028_0010, 0x0028_0011
_BITS = 0x0028_0100
_OFFSETS = 0x7FE0_0001

# Whole slides have some hundred thousand.
MAXIMUM_COUNT: Final = 2**20
# A Basic Offset Table has four bytes for each.
MAXIMUM_TABLE: Final = 4 * MAXIMUM_COUNT
# A frame whose first bit is not that of a byte is held whole (PS3.5 §8.1.1). Masks of one bit are
# small.
MAXIMUM_BITS: Final = 64 * 2**20

# What a frame's code stream begins with: JPEG and JPEG-LS, JPEG 2000 (ISO 10918-1, 14495-1, 15444).
_STARTS = (b"\xff\xd8", b"\xff\x4f")


@attrs.frozen(slots=True)
class Layout:
    """What of an image's attributes says where its frames are. `bits` are those of one frame."""

    count: int
    bits: int
    offsets: tuple[int, ...] = ()

    @classmethod
    def read(cls, head: bytes | bytearray, transfer_syntax: str, pixels: BulkBegun) -> "Layout":
        """Raises Refused (404) for what is no image."""
        encoding = encoding_of(transfer_syntax)
        assert encoding is not None, "nothing that is deflated is read here"

        def value(tag: int) -> bytes:
            found = elements.find(head, tag, encoding, whole=True)
            return bytes(head[found.value : found.end]) if isinstance(found, Element) else b""

        def short(tag: int) -> int:
            return int.from_bytes(value(tag)[:2], "little")

        words = value(_NUMBER_OF_FRAMES).strip(b" \0")
        # Longer than an IS may be (PS3.5 §6.2) it is more than any.
        count = int(words[:13]) if words.isdigit() else 1
        if count > MAXIMUM_COUNT:
            raise Refused(502, f"the device says that there are {count} frames")
        size = short(_ROWS) * short(_COLUMNS)
        if not (size and count):
            raise Refused(404, "the object has no frames: it is no image")
        samples = short(_SAMPLES) or 1
        bits = {FLOAT_PIXEL_DATA: 32, DOUBLE_PIXEL_DATA: 64}.get(pixels.tag) or short(_BITS)
        if pixels.length is not None and value(_PHOTOMETRIC).startswith(b"YBR_FULL_422"):
            # Two pixels share their colour (PS3.3 §C.7.6.3.1.2), unless there is one for each: who
            # has decompressed it may have left the attribute as it was.
            whole = count * size * 3 * bits
            samples = 2 if 8 * pixels.length < whole else 3
        table = value(_OFFSETS)
        offsets = struct.unpack(f"<{len(table) // 8}Q", table[: len(table) // 8 * 8])
        if not bits:
            raise Refused(502, "the device sent pixel data without (0028,0100)")
        return cls(count, size * samples * bits, offsets)


@attrs.frozen(slots=True)
class Piece:
    """Some bytes of a frame, counted from 1; `last`: it is whole with them."""

    frame: int
    data: bytes | bytearray | memoryview
    last: bool = False


class Cutter:
    """Cuts `wanted` frames out of the events of one pixel data element, behind its BulkBegun."""

    def __init__(self, layout: Layout, pixels: BulkBegun, wanted: Collection[int]) -> None:
        """Raises Refused (404) for a frame that there is not."""
        beyond = max(wanted)
        if beyond > layout.count:
            raise Refused(404, f"no frame {beyond}: the object has {layout.count}")
        self._wanted = frozenset(wanted)
        self._cut: _Native | _Bits | _Fragments
        if pixels.length is None:
            self._cut = _Fragments(layout)
        elif layout.bits % 8:
            self._cut = _Bits(layout)
        else:
            self._cut = _Native(layout)

    def feed(self, event: Event) -> Iterator[Piece]:
        """The pieces of wanted frames in `event`. Raises Refused (502)."""
        return (piece for piece in self._cut.feed(event) if piece.frame in self._wanted)


class _Native:
    """Frames of whole bytes, one behind the other."""

    def __init__(self, layout: Layout) -> None:
        self._size = layout.bits // 8
        self._count = layout.count
        self._at = 0

    def feed(self, event: Event) -> Iterator[Piece]:
        if not isinstance(event, memoryview):
            return
        at = 0
        while at < len(event):
            frame, inside = divmod(self._at, self._size)
            if frame >= self._count:  # padding to an even length
                return
            piece = event[at : at + self._size - inside]
            at += len(piece)
            self._at += len(piece)
            yield Piece(frame + 1, piece, self._at % self._size == 0)


class _Bits:
    """Frames that may begin inside of a byte: its lowest bit is the first (PS3.5 §8.1.1)."""

    def __init__(self, layout: Layout) -> None:
        self._bits = layout.bits
        self._count = layout.count
        self._held = bytearray()
        self._begin = 0  # the bit of the pixel data at which `_held` begins
        self._frame = 0
        if layout.bits > 8 * MAXIMUM_BITS:
            raise Refused(413, f"a frame of more than {MAXIMUM_BITS} bytes of single bits")

    def feed(self, event: Event) -> Iterator[Piece]:
        if not isinstance(event, memoryview):
            return
        self._held += event
        while self._frame < self._count:
            first = self._frame * self._bits - self._begin
            if len(self._held) * 8 < first + self._bits:
                return
            size = (first + self._bits + 7) // 8
            value = int.from_bytes(self._held[:size], "little") >> first
            value &= (1 << self._bits) - 1
            self._frame += 1
            yield Piece(self._frame, value.to_bytes((self._bits + 7) // 8, "little"), True)
            whole = (first + self._bits) // 8
            del self._held[:whole]
            self._begin += whole * 8


class _Fragments:
    """Frames of fragments."""

    def __init__(self, layout: Layout) -> None:
        self._count = layout.count
        self._starts = _starts(layout.offsets, layout.count)
        self._table: bytearray | None = None
        self._table_left = 0
        self._at = 0  # behind the table: where the next fragment's item begins, by the offsets
        self._frame = 0
        self._marked = False  # whether the beginning of a code stream is that of a frame
        self._opening: bytes | None = None  # of a fragment, as long as that is not decided

    def feed(self, event: Event) -> Iterator[Piece]:
        match event:
            case FragmentBegun(length) if self._table is None:
                if length > MAXIMUM_TABLE:
                    raise Refused(502, f"a Basic Offset Table of more than {MAXIMUM_TABLE} bytes")
                self._table, self._table_left = bytearray(), length
            case FragmentBegun(length):
                yield from self._decide()  # of one that was shorter than that takes
                yield from self._begin()
                self._at += 8 + length  # the item's header is counted too
            case BulkEnded():
                yield from self._decide()
                if self._starts and self._frame < self._count:
                    raise _no_table()
                if self._frame:
                    yield Piece(self._frame, b"", True)
            case memoryview() if self._table_left and self._table is not None:
                self._table += event
                self._table_left -= len(event)
                if not self._table_left:
                    self._starts = self._starts or _starts(_words(self._table), self._count)
            case memoryview() if self._opening is not None:
                self._opening += event
                if len(self._opening) >= len(_STARTS[0]):
                    yield from self._decide()
            case memoryview():
                yield Piece(self._frame, event)

    def _begin(self) -> Iterator[Piece]:
        """A fragment begins: of which frame?"""
        if self._count == 1:
            self._frame = 1
        elif not self._starts:
            self._opening = b""
        elif self._frame < self._count:
            due = self._starts[self._frame]
            if self._at == due:
                yield from self._next()
            elif self._at > due or not self._frame:
                raise _no_table()

    def _decide(self) -> Iterator[Piece]:
        """Without a table: by how the fragment begins, once that is known."""
        if self._opening is None:
            return
        opening, self._opening = self._opening, None
        starts = opening.startswith(_STARTS)
        if not self._frame:
            self._marked = starts
        if starts or not (self._marked and self._frame):
            yield from self._next()
        yield Piece(self._frame, opening)

    def _next(self) -> Iterator[Piece]:
        if self._frame == self._count:
            raise Refused(502, f"the device sent more than the {self._count} frames that it names")
        if self._frame:
            yield Piece(self._frame, b"", True)
        self._frame += 1


def _starts(offsets: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Where frames begin; nothing if the table does not say so of each."""
    return offsets if len(offsets) == len(set(offsets)) == count else ()


def _no_table() -> Refused:
    # Frames that are counted by it would be others than those that were asked for.
    return Refused(502, "the device sent an offset table in which not every frame is a fragment's")


def _words(table: bytearray) -> tuple[int, ...]:
    return struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4])


def encoded_in(transfer_syntax: str) -> str:
    """Explicit or Implicit VR Little Endian: how a data set of this transfer syntax is written."""
    implicit = transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    return transfer_syntax if implicit else EXPLICIT_VR_LITTLE_ENDIAN
