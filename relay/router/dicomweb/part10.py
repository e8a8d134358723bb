"""The DICOM file format around a data set that is carried as it is (PS3.10 §7.1)."""

import struct
from typing import Final

import attrs

from relay.dicom.elements import LONG_VRS, Encoding, encode
from relay.dicom.negotiation import (
    RELAY_IMPLEMENTATION_CLASS_UID,
    RELAY_IMPLEMENTATION_VERSION_NAME,
)
from relay.dicom.pdu import is_uid
from relay.errors import Refused

PREAMBLE: Final = bytes(128) + b"DICM"

# PS3.10 Table 7.1-1.
_GROUP_LENGTH = 0x0002_0000
_VERSION = 0x0002_0001
_SOP_CLASS = 0x0002_0002
_SOP_INSTANCE = 0x0002_0003
_TRANSFER_SYNTAX = 0x0002_0010
_IMPLEMENTATION_CLASS = 0x0002_0012
_IMPLEMENTATION_VERSION = 0x0002_0013

_EXPLICIT = Encoding()

# Real ones have some hundred bytes; private information may add some KiB.
MAXIMUM_META: Final = 64 * 1024


@attrs.frozen(slots=True)
class Meta:
    """What a file says of its data set, which begins at `size`."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    size: int = 0


def write(meta: Meta) -> bytes:
    """All that stands before the data set."""
    rows = [
        (_VERSION, b"OB", b"\x00\x01"),
        (_SOP_CLASS, b"UI", _uid(meta.sop_class)),
        (_SOP_INSTANCE, b"UI", _uid(meta.sop_instance)),
        (_TRANSFER_SYNTAX, b"UI", _uid(meta.transfer_syntax)),
        (_IMPLEMENTATION_CLASS, b"UI", _uid(RELAY_IMPLEMENTATION_CLASS_UID)),
        (_IMPLEMENTATION_VERSION, b"SH", _padded(RELAY_IMPLEMENTATION_VERSION_NAME, b" ")),
    ]
    group = b"".join(encode(tag, vr, value, _EXPLICIT) for tag, vr, value in rows)
    length = encode(_GROUP_LENGTH, b"UL", struct.pack("<I", len(group)), _EXPLICIT)
    return PREAMBLE + length + group


def read(prefix: bytes | bytearray, *, whole: bool = False) -> Meta | None:
    """What the beginning of a file says; None if more of it is needed, and there is more.

    Raises Refused (400) for what is no DICOM file, or does not name what is in it.
    """
    begins = len(PREAMBLE)
    if len(prefix) >= begins and prefix[begins - 4 : begins] != b"DICM":
        raise Refused(400, "no DICOM file: no DICM after 128 bytes")
    values: dict[int, str] = {}
    at = begins
    ends: int | None = None  # as the group's length has it, which not all files say
    while True:
        if at == ends:  # what follows may be deflated
            return _meta(values, at)
        found = _element(prefix, at)
        if found is None:
            if whole or len(prefix) > MAXIMUM_META:
                raise Refused(400, "a DICOM file that ends in its meta information")
            return None
        tag, value, end = found
        if tag >> 16 != 2:
            return _meta(values, at)
        if end > MAXIMUM_META:
            raise Refused(400, f"meta information of more than {MAXIMUM_META} bytes")
        if end > len(prefix):
            if whole:
                raise Refused(400, "a DICOM file that ends in its meta information")
            return None
        if tag == _GROUP_LENGTH and end - value == 4:
            ends = end + int.from_bytes(prefix[value:end], "little")
        values[tag] = bytes(prefix[value:end]).decode("latin-1").strip(" \0")
        at = end


def _meta(values: dict[int, str], size: int) -> Meta:
    names = (_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX)
    said = [values.get(tag, "") for tag in names]
    for tag, value in zip(names, said, strict=True):
        if not value:
            raise Refused(400, f"meta information without (0002,{tag & 0xFFFF:04X})")
        if not is_uid(value):
            raise Refused(400, f"(0002,{tag & 0xFFFF:04X}) is no UID")
    sop_class, sop_instance, transfer_syntax = said
    return Meta(sop_class, sop_instance, transfer_syntax, size)


def _element(data: bytes | bytearray, at: int) -> tuple[int, int, int] | None:
    """(tag, where its value begins, where it ends) in Explicit VR Little Endian."""
    if len(data) < at + 8:
        return None
    group, number, vr, length = struct.unpack_from("<HH2sH", data, at)
    tag = group << 16 | number
    if vr not in LONG_VRS or group != 2:  # of what follows the meta only the group counts
        return tag, at + 8, at + 8 + length
    if len(data) < at + 12:
        return None
    (length,) = struct.unpack_from("<I", data, at + 8)
    return tag, at + 12, at + 12 + length


def _uid(text: str) -> bytes:
    return _padded(text, b"\0")


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    return value + padding * (len(value) % 2)
