"""Identifiers as their attributes: from the bytes of any transfer syntax, and back to bytes.

A federated query has thousands of answers, and of each only a few values must be known. So an
answer is never made into objects: it is a mapping of tag to VR and value, the value as bytes in
Explicit VR Little Endian, in which all sites' answers meet. Only where a site speaks Implicit VR is
the dictionary asked for the VR. Sequences are read through, and written with defined lengths.
"""

import struct
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TypeAlias

from pydicom.datadict import dictionary_VR

from relay.dicom.elements import ITEM, ITEM_END, LONG_VRS, SEQUENCE_END, UNDEFINED_LENGTH
from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

# What identifiers are read and written in, the preferred one first: the answers of a site that
# speaks it need no conversion. All must know the other (PS3.5 §10.1).
TRANSFER_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)

Attribute: TypeAlias = tuple[bytes, bytes]
"""VR, and value in Explicit VR Little Endian, with its padding."""

# Sequences in sequences. Identifiers have one or two; each level is a call of our own.
MAXIMUM_DEPTH = 16

# Of tags whose VR was looked up: all that sites send, many times over.
_CACHED_VRS = 4096

_PADDED_WITH_NUL = LONG_VRS - {b"UC", b"UR", b"UT"} | {b"UI"}
# VRs of values that are bytes and nothing else, with two bytes of length (PS3.5 §7.1.2).
_PLAIN = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UI".split())
_TOO_LONG = "an element is longer than what it stands in"
_TWICE = "an element stands twice in the data set"
_ENCAPSULATED = frozenset({b"OB", b"OW"})
_LONGEST_SHORT = 0xFFFF  # what a length of two bytes can say
_IMPLICIT = struct.Struct("<HHI")
_EXPLICIT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<I")
_LONG_EXPLICIT = struct.Struct("<HH2s2xI")


def read(
    encoded: bytes, transfer_syntax: str, wanted: Container[int] | None = None
) -> dict[int, Attribute]:
    """The attributes at the top level, those in `wanted` (None: all), group lengths left out.

    Compressed pixel data, which only an icon in a sequence has here, is given as an empty value: no
    defined length can say it. `transfer_syntax` is one of TRANSFER_SYNTAXES. Raises ValueError,
    which names no value, for what is no data set in it.
    """
    reader = _Reader(encoded, transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN)
    try:
        return reader.level(len(encoded), MAXIMUM_DEPTH, wanted)
    except struct.error:
        raise ValueError("the data set ends in the middle of an element") from None


def write(attributes: Mapping[int, Attribute], transfer_syntax: str) -> bytes:
    """The data set of `attributes`, in the order of their tags, in one of TRANSFER_SYNTAXES."""
    encode = _implicit if transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN else _explicit
    parts: list[bytes] = []
    for tag in sorted(attributes):
        vr, value = attributes[tag]
        parts += encode(tag, vr, _padded(vr, value) if len(value) & 1 else value)
    return b"".join(parts)


def sequence(items: Iterable[bytes]) -> bytes:
    """The value of a sequence of `items`, each a data set."""
    return b"".join(_IMPLICIT.pack(ITEM >> 16, ITEM & 0xFFFF, len(i)) + i for i in items)


def items(value: bytes) -> Iterator[bytes]:
    """The items of a sequence that `read` has given, as data sets in Explicit VR Little Endian."""
    at = 0
    while at < len(value):
        _, _, length = _IMPLICIT.unpack_from(value, at)
        at += _IMPLICIT.size
        yield value[at : at + length]
        at += length


def text(attribute: Attribute | None) -> str:
    """A value of plain ASCII, as UIDs and code strings are, without padding; "" for none.

    Each byte is one character, so that two different values never look the same.
    """
    return attribute[1].decode("latin-1").strip(" \0") if attribute is not None else ""


class _Reader:
    def __init__(self, data: bytes, implicit: bool) -> None:
        self._data = data
        self._implicit = implicit
        self._at = 0

    def level(
        self, end: int | None, depth: int, wanted: Container[int] | None = None
    ) -> dict[int, Attribute]:
        """The attributes up to `end`, or, where that is None, to the end of the item."""
        attributes: dict[int, Attribute] = {}
        data = self._data
        limit = len(data) if end is None else end
        while (at := self._at) != end:
            # Most of what an answer has, in two thirds of the time that it takes otherwise.
            if self._implicit:
                group, number, length = _IMPLICIT.unpack_from(data, at)
                tag = group << 16 | number
                vr = _vr(tag)
            else:
                group, number, vr, length = _EXPLICIT.unpack_from(data, at)
                tag = group << 16 | number
            if vr in _PLAIN and length != UNDEFINED_LENGTH:
                self._at = at + 8 + length
                if self._at > limit:
                    raise ValueError(_TOO_LONG)
                if number and (wanted is None or tag in wanted):
                    if tag in attributes:
                        raise ValueError(_TWICE)
                    attributes[tag] = vr, data[at + 8 : self._at]
                continue
            tag, vr, length = self._header()
            if tag == ITEM_END and end is None:
                break
            if length == UNDEFINED_LENGTH and vr in _ENCAPSULATED:
                self._skip_fragments()
                value = b""
            elif vr == b"SQ" or length == UNDEFINED_LENGTH:
                vr, value = b"SQ", self._sequence(vr, length, depth)
            else:
                value = data[self._at : self._at + length]
                self._at += length
            if self._at > limit:
                raise ValueError(_TOO_LONG)
            if not tag & 0xFFFF or (wanted is not None and tag not in wanted):
                continue
            if tag in attributes:
                raise ValueError(_TWICE)
            attributes[tag] = vr, value
        return attributes

    def _header(self) -> tuple[int, bytes, int]:
        at = self._at
        if self._implicit:
            group, number, length = _IMPLICIT.unpack_from(self._data, at)
            self._at = at + 8
            tag = group << 16 | number
            return tag, _vr(tag) if group != 0xFFFE else b"", length
        group, number, vr, length = _EXPLICIT.unpack_from(self._data, at)
        tag = group << 16 | number
        if group == 0xFFFE:
            (length,) = _LONG.unpack_from(self._data, at + 4)
            self._at = at + 8
            return tag, b"", length
        if vr not in LONG_VRS:
            if not (vr.isalpha() and vr.isupper()):
                raise ValueError("an element has no VR")
            self._at = at + 8
            return tag, vr, length
        (length,) = _LONG.unpack_from(self._data, at + 8)
        self._at = at + 12
        return tag, vr, length

    def _sequence(self, vr: bytes, length: int, depth: int) -> bytes:
        """The items of a sequence as they stand in Explicit VR Little Endian."""
        if not depth:
            raise ValueError("too many sequences in each other")
        explicit = not self._implicit
        if explicit and vr not in (b"SQ", b"UN"):
            raise ValueError("a value of undefined length is no sequence")
        self._implicit |= vr == b"UN"  # PS3.5 §6.2.2, note 4
        end = None if length == UNDEFINED_LENGTH else self._at + length
        found = []
        while self._at != end:
            tag, _, size = self._header()
            if tag == SEQUENCE_END and end is None:
                break
            if tag != ITEM:
                raise ValueError("something that is no item stands in a sequence")
            inner = None if size == UNDEFINED_LENGTH else self._at + size
            found.append(write(self.level(inner, depth - 1), EXPLICIT_VR_LITTLE_ENDIAN))
        self._implicit = not explicit
        return sequence(found)

    def _skip_fragments(self) -> None:
        """Pass over compressed pixel data, as of an icon (PS3.5 §A.4)."""
        while True:
            tag, _, size = self._header()
            if tag == SEQUENCE_END:
                return
            if tag != ITEM or size == UNDEFINED_LENGTH or self._at + size > len(self._data):
                raise ValueError("something that is no fragment stands in pixel data")
            self._at += size


def _padded(vr: bytes, value: bytes) -> bytes:
    """PS3.5 §6.2: text with a space, all else with NUL."""
    return value + (b"\0" if vr in _PADDED_WITH_NUL else b" ")


def _explicit(tag: int, vr: bytes, value: bytes) -> tuple[bytes, bytes]:
    if vr in LONG_VRS:
        return _LONG_EXPLICIT.pack(tag >> 16, tag & 0xFFFF, vr, len(value)), value
    if len(value) > _LONGEST_SHORT:  # PS3.5 §6.2.2, note 5: read from Implicit VR
        return _LONG_EXPLICIT.pack(tag >> 16, tag & 0xFFFF, b"UN", len(value)), value
    return _EXPLICIT.pack(tag >> 16, tag & 0xFFFF, vr, len(value)), value


def _implicit(tag: int, vr: bytes, value: bytes) -> tuple[bytes, bytes]:
    if vr == b"SQ":
        inner = (read(item, EXPLICIT_VR_LITTLE_ENDIAN) for item in items(value))
        value = sequence(write(item, IMPLICIT_VR_LITTLE_ENDIAN) for item in inner)
    return _IMPLICIT.pack(tag >> 16, tag & 0xFFFF, len(value)), value


@lru_cache(_CACHED_VRS)
def _vr(tag: int) -> bytes:
    """The VR in the dictionary; UN, which says nothing wrong, where there is none or a choice."""
    if tag & 0x1_0000:  # private: only its creators are known (PS3.5 §7.8.1)
        return b"LO" if 0x10 <= tag & 0xFFFF <= 0xFF else b"UN"
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return b"UN"
    return vr.encode("ascii") if len(vr) == 2 else b"UN"
