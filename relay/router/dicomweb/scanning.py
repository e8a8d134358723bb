"""A data set that comes in pieces: what is small is kept, what is bulk passes by.

Pixel data may be gigabytes, and lie behind all that says what they are. Of a data set only the
*head* is held, which is all elements but the bulk ones of its top level; those are told of, piece
by piece, and nobody waits for their end. Nothing is decoded (PS3.5 §7).
"""

import struct
from collections.abc import Callable
from typing import Final

import attrs
from pydicom.datadict import dictionary_VR

from relay.dicom.elements import (
    ITEM,
    ITEM_END,
    LONG_VRS,
    MAXIMUM_DEPTH,
    SEQUENCE_END,
    UNDEFINED_LENGTH,
    Encoding,
)

PIXEL_DATA: Final = 0x7FE0_0010
FLOAT_PIXEL_DATA: Final = 0x7FE0_0008
DOUBLE_PIXEL_DATA: Final = 0x7FE0_0009
# Extended Offset Table, and its lengths: where the frames of compressed pixel data are.
_TABLES = frozenset({0x7FE0_0001, 0x7FE0_0002})
PIXELS: Final = frozenset({PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA})

# The functional groups of an enhanced object with some thousand frames have a few MiB; so have
# contours and most waveforms, which lie in sequences.
MAXIMUM_HEAD: Final = 16 * 2**20

# From this length a value of the top level is bulk, if its VR is one that may be long.
BULK: Final = 64 * 1024
_BULK_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN"})

_IMPLICIT = Encoding(explicit_vr=False)


class UnreadableError(Exception):
    """This is no data set that we could find our way in."""


class TooLargeError(UnreadableError):
    """Its head is."""


@attrs.frozen(slots=True)
class BulkBegun:
    """A bulk value begins; `length` None: it is in fragments, each behind its FragmentBegun."""

    tag: int
    vr: bytes
    length: int | None


@attrs.frozen(slots=True)
class FragmentBegun:
    """An item of encapsulated pixel data (PS3.5 §A.4); the first is the Basic Offset Table."""

    length: int


@attrs.frozen(slots=True)
class BulkEnded:
    """Nothing more of this value comes."""

    tag: int


Event = BulkBegun | FragmentBegun | BulkEnded | memoryview


@attrs.define(slots=True)
class _Level:
    """A sequence or an item of undefined length that is open."""

    encoding: Encoding
    sequence: bool


class Scanner:
    """Reads one data set."""

    def __init__(
        self,
        encoding: Encoding,
        *,
        is_bulk: Callable[[int, bytes, int], bool] | None = None,
        maximum: int = MAXIMUM_HEAD,
    ) -> None:
        """`is_bulk` says whether a value of the top level is, by its tag, VR and length."""
        self.encoding = encoding
        self.head = bytearray()
        self.bulk: list[BulkBegun] = []
        """What is not in the head."""
        self._is_bulk = is_bulk or is_long
        self._maximum = maximum
        self._levels: list[_Level] = []
        self._ahead = b""  # of a header that has not come whole
        self._left = 0  # of a value
        self._passing: BulkBegun | None = None

    @property
    def whole(self) -> bool:
        """Whether it may end here."""
        return not (self._left or self._levels or self._passing or self._ahead)

    def feed(self, piece: bytes | bytearray | memoryview) -> list[Event]:
        """Take in the next piece. Raises UnreadableError."""
        view = memoryview(self._ahead + bytes(piece) if self._ahead else piece)
        events: list[Event] = []
        at = 0
        while at < len(view):
            if self._left:
                part = view[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                if self._passing is None:
                    self._keep(part)
                else:
                    events.append(part)
                    if not self._left:
                        self._end_of_value(events)
                continue
            size = self._header(view, at, events)
            if not size:
                break
            at += size
        self._ahead = bytes(view[at:])
        return events

    def _keep(self, part: memoryview) -> None:
        if len(self.head) + len(part) > self._maximum:
            raise TooLargeError(f"more than {self._maximum} bytes beside its pixel data")
        self.head += part

    def _end_of_value(self, events: list[Event]) -> None:
        assert self._passing is not None
        if self._passing.length is not None:
            events.append(BulkEnded(self._passing.tag))
            self._passing = None

    def _header(self, view: memoryview, at: int, events: list[Event]) -> int:
        """The length of the header at `at`, which is taken in; 0 if it has not come whole."""
        level = self._levels[-1] if self._levels else None
        encoding = self.encoding if level is None else level.encoding
        if len(view) - at < 8:
            return 0
        order = "<" if encoding.little_endian else ">"
        group, number, length = struct.unpack_from(f"{order}HHI", view, at)
        tag, vr, size = group << 16 | number, b"", 8
        if encoding.explicit_vr and group != 0xFFFE:
            vr = bytes(view[at + 4 : at + 6])
            if not (vr.isalpha() and vr.isupper()):
                raise UnreadableError(f"no VR at ({group:04X},{number:04X})")
            if vr in LONG_VRS:
                size = 12
                if len(view) - at < size:
                    return 0
                (length,) = struct.unpack_from(f"{order}I", view, at + 8)
            else:
                (length,) = struct.unpack_from(f"{order}H", view, at + 6)
        if self._passing is not None:
            self._fragment(tag, length, events)
            return size
        if level is None and self._bulk_begins(tag, vr, length, events):
            return size
        self._keep(view[at : at + size])
        self._enter(tag, vr, length, encoding, level)
        return size

    def _bulk_begins(self, tag: int, vr: bytes, length: int, events: list[Event]) -> bool:
        fragments = length == UNDEFINED_LENGTH
        if tag in (ITEM, ITEM_END, SEQUENCE_END):
            raise UnreadableError("an item outside of any sequence")
        if not (tag == PIXEL_DATA if fragments else self._is_bulk(tag, vr, length)):
            return False
        begun = BulkBegun(tag, vr, None if fragments else length)
        self.bulk.append(begun)
        events.append(begun)
        self._passing = begun
        self._left = 0 if fragments else length
        if not fragments and not length:
            self._end_of_value(events)
        return True

    def _fragment(self, tag: int, length: int, events: list[Event]) -> None:
        assert self._passing is not None
        if tag == SEQUENCE_END:
            events.append(BulkEnded(self._passing.tag))
            self._passing = None
        elif tag == ITEM and length != UNDEFINED_LENGTH:
            events.append(FragmentBegun(length))
            self._left = length
        else:
            raise UnreadableError("pixel data in something else than fragments")

    def _enter(
        self, tag: int, vr: bytes, length: int, encoding: Encoding, level: _Level | None
    ) -> None:
        """Go on behind a header that was kept."""
        if level is not None and level.sequence:
            if tag == SEQUENCE_END:
                self._levels.pop()
                return
            if tag != ITEM:
                raise UnreadableError("something else than an item in a sequence")
        elif level is not None and tag == ITEM_END:
            self._levels.pop()
            return
        if length != UNDEFINED_LENGTH:
            self._left = length
            return
        if len(self._levels) >= 2 * MAXIMUM_DEPTH:
            raise UnreadableError(f"sequences in sequences, more than {MAXIMUM_DEPTH} deep")
        inner = _IMPLICIT if vr == b"UN" else encoding  # PS3.5 §6.2.2, note 4
        self._levels.append(_Level(inner, tag != ITEM))


def is_long(tag: int, vr: bytes, length: int) -> bool:
    """Whether a value of the top level is bulk for who only wants to know what there is."""
    if tag in PIXELS:
        return True
    return length >= BULK and tag not in _TABLES and (vr or _vr_of(tag)) in _BULK_VRS


def _vr_of(tag: int) -> bytes:
    """In Implicit VR: a long sequence is none that is bulk."""
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return b"UN"
    return vr.encode("ascii") if len(vr) == 2 else b"OW"
