"""Reads, replaces and writes single elements of encoded data sets (PS3.5 §7).

What is relayed is carried as bytes and never decoded. Of some messages one value must be known all
the same, such as the Transaction UID of a storage commitment. Elements lie in the order of their
tags (PS3.5 §7.1), so that a prefix is enough to find one of a low group, or to know that it is not
there. Nothing else of the data set is looked at.
"""

import struct
from enum import Enum

import attrs

from relay.dicom.atoms import Buffer
from relay.dicom.uids import EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

RETRIEVE_AE_TITLE = 0x0008_0054
TRANSACTION_UID = 0x0008_1195
STUDY_INSTANCE_UID = 0x0020_000D

ITEM, ITEM_END, SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
UNDEFINED_LENGTH = 0xFFFF_FFFF

# PS3.5 §7.1.2: these have two reserved bytes and a length of four.
LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)

# What two bytes of length can say; values of AE titles and UIDs are even (PS3.5 §6.2, §7.1.2).
LONGEST_VALUE = 0xFFFE

# Sequences in sequences of undefined length, in what stands before the element. Real data sets
# have two or three; each level is a call of our own.
MAXIMUM_DEPTH = 16


@attrs.frozen(slots=True)
class Encoding:
    """How a transfer syntax writes elements."""

    little_endian: bool = True
    explicit_vr: bool = True


_IMPLICIT = Encoding(explicit_vr=False)

# What has to be inflated before it can be read: PS3.5 §A.5, and JPIP's deflated forms.
_DEFLATED = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)


def encoding_of(transfer_syntax: str) -> Encoding | None:
    """How data sets of this transfer syntax are encoded; None if they are deflated."""
    if transfer_syntax in _DEFLATED:
        return None
    if transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN:
        return _IMPLICIT
    return Encoding(little_endian=transfer_syntax != EXPLICIT_VR_BIG_ENDIAN)


class Missing(Enum):
    """Why there is no element."""

    NEED_MORE = "need more"  # the prefix ends before it
    ABSENT = "absent"  # it is not there, or what stands before it cannot be read


@attrs.frozen(slots=True)
class Element:
    """Where an element lies: its header from `start`, its value from `value` to `end`."""

    tag: int
    start: int
    value: int
    length: int
    vr: bytes = b""

    @property
    def end(self) -> int:
        return self.value + self.length

    def text(self, data: Buffer) -> str:
        """Its value without padding, each byte one character."""
        return bytes(data[self.value : self.end]).decode("latin-1").strip(" \0")


def find(prefix: Buffer, tag: int, encoding: Encoding, *, whole: bool = False) -> Element | Missing:
    """The top-level element `tag` in the beginning of a data set; `whole`: that is all there is."""
    view = memoryview(prefix)
    at = 0
    try:
        while (at := _plain_ones(view, at, tag, encoding)) < len(view):
            element = _header(view, at, encoding)
            if element.tag > tag or (element.tag == tag and element.length == UNDEFINED_LENGTH):
                return Missing.ABSENT
            if element.tag == tag:
                if element.end <= len(view):
                    return element
                raise _ShortError
            at = _after(view, element, encoding, MAXIMUM_DEPTH)
    except _ShortError:
        pass
    except _UnreadableError:
        return Missing.ABSENT
    return Missing.ABSENT if whole else Missing.NEED_MORE


def top_level(data: Buffer, encoding: Encoding) -> list[Element] | None:
    """All elements of a whole data set, without those in sequences; None if it cannot be read.

    The length of one that has none of its own is 0.
    """
    view = memoryview(data)
    found: list[Element] = []
    at = 0
    try:
        while at < len(view):
            element = _header(view, at, encoding)
            at = _after(view, element, encoding, MAXIMUM_DEPTH)
            if at > len(view):
                return None
            if element.length == UNDEFINED_LENGTH:
                element = attrs.evolve(element, length=0)
            found.append(element)
    except (_ShortError, _UnreadableError):
        return None
    return found


def replace(data: Buffer, element: Element, text: str, encoding: Encoding) -> bytes:
    """`data` with another value in `element`, which is of a VR that is padded with a space.

    `text` is ASCII and no longer than LONGEST_VALUE. The length of its group, a retired element
    (PS3.5 §7.2), follows if there is one.
    """
    value = text.encode("ascii")
    value += b" " * (len(value) % 2)
    order = "<" if encoding.little_endian else ">"
    short = encoding.explicit_vr and element.vr not in LONG_VRS
    size = struct.pack(f"{order}{'H' if short else 'I'}", len(value))
    head = bytearray(data[: element.value - len(size)])
    group = find(head, element.tag & 0xFFFF_0000, encoding, whole=True)
    if isinstance(group, Element) and group.length == 4:
        (length,) = struct.unpack_from(f"{order}I", head, group.value)
        length += len(value) - element.length
        # A length that was wrong stays wrong by as much: the sum need not be one that fits.
        struct.pack_into(f"{order}I", head, group.value, length & 0xFFFF_FFFF)
    return bytes(head) + size + value + bytes(data[element.end :])


def encode(tag: int, vr: bytes, value: bytes, encoding: Encoding) -> bytes:
    """An element, or an item (which has no VR), of this value, padded already. PS3.5 §7.1, §7.5."""
    order = "<" if encoding.little_endian else ">"
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if not encoding.explicit_vr or tag == ITEM:
        return head + struct.pack(f"{order}I", len(value)) + value
    if vr in LONG_VRS:
        return head + vr + bytes(2) + struct.pack(f"{order}I", len(value)) + value
    return head + vr + struct.pack(f"{order}H", len(value)) + value


class _ShortError(Exception):
    """The prefix ends here."""


class _UnreadableError(Exception):
    """This is no data set that we could find our way in."""


# Headers without and with a VR, the latter with a length of two bytes; by byte order.
_IMPLICIT_HEADER = struct.Struct("<HHI")
_SHORT_HEADERS = {True: struct.Struct("<HH2sH"), False: struct.Struct(">HH2sH")}
# PS3.5 §7.1.2: those that have it.
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())


def _plain_ones(view: memoryview, at: int, tag: int, encoding: Encoding) -> int:
    """Where the first element lies that is not below `tag`, or has to be looked at more closely.

    Before the element that is looked for there are a hundred and more in each object.
    """
    last = len(view) - 8
    if not encoding.explicit_vr:
        while at <= last:
            group, number, length = _IMPLICIT_HEADER.unpack_from(view, at)
            if group << 16 | number >= tag or length == UNDEFINED_LENGTH:
                break
            at += 8 + length
        return at
    unpack = _SHORT_HEADERS[encoding.little_endian].unpack_from
    while at <= last:
        group, number, vr, length = unpack(view, at)
        if group << 16 | number >= tag or vr not in _SHORT_VRS:
            break
        at += 8 + length
    return at


def _header(view: memoryview, at: int, encoding: Encoding) -> Element:
    if len(view) - at < 8:
        raise _ShortError
    order = "<" if encoding.little_endian else ">"
    group, number = struct.unpack_from(f"{order}HH", view, at)
    tag = group << 16 | number
    if not encoding.explicit_vr or group == 0xFFFE:
        return Element(tag, at, at + 8, struct.unpack_from(f"{order}I", view, at + 4)[0])
    vr = bytes(view[at + 4 : at + 6])
    if not (vr.isalpha() and vr.isupper()):
        raise _UnreadableError
    if vr not in LONG_VRS:
        return Element(tag, at, at + 8, struct.unpack_from(f"{order}H", view, at + 6)[0], vr)
    if len(view) - at < 12:
        raise _ShortError
    return Element(tag, at, at + 12, struct.unpack_from(f"{order}I", view, at + 8)[0], vr)


def _after(view: memoryview, element: Element, encoding: Encoding, depth: int) -> int:
    """Where the next element begins."""
    if element.length != UNDEFINED_LENGTH:
        return element.end
    if not depth:
        raise _UnreadableError
    if element.vr == b"UN":
        encoding = _IMPLICIT  # PS3.5 §6.2.2, note 4
    at = element.value
    while True:
        item = _header(view, at, encoding)
        if item.tag == SEQUENCE_END:
            return item.value
        if item.tag != ITEM:
            raise _UnreadableError
        at = (
            item.end
            if item.length != UNDEFINED_LENGTH
            else _after_item(view, item, encoding, depth)
        )


def _after_item(view: memoryview, item: Element, encoding: Encoding, depth: int) -> int:
    at = item.value
    while True:
        element = _header(view, at, encoding)
        if element.tag == ITEM_END:
            return element.value
        at = _after(view, element, encoding, depth - 1)
