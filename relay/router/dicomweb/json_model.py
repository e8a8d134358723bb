"""The DICOM JSON Model (PS3.18 Annex F) of a data set that a device has sent.

Text comes out in Unicode whatever character set it is in, each data set by its own (0008,0005),
which then says ISO_IR 192 (§F.2.2). What does not hold what its VR promises comes out as text
where that may be, and is left out otherwise: a viewer should get the rest. Nothing here goes to a
log.
"""

import base64
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pydicom.datadict import dictionary_VR

from relay.dicom import character_sets
from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from relay.router.dicomweb.scanning import BulkBegun
from relay.router.federation import attributes, characters
from relay.router.federation.attributes import Attribute

SPECIFIC_CHARACTER_SET: Final = 0x0008_0005
_PIXEL_REPRESENTATION: Final = 0x0028_0103

# Binary values up to this length stand in the JSON; longer ones are bulk data with a URI.
INLINE: Final = 1024

_UNICODE: Final = "ISO_IR 192"

# What a JSON number holds exactly everywhere (RFC 8259 §6).
_EXACT: Final = 2**53

# Attributes by their keywords' tags, as strings: "00080018".
Model = dict[str, dict[str, Any]]
# The URI of bulk data by the path of its element: "7FE00010", or "54000100/0/54001010".
URI = Callable[[str], str]

_PLAIN = frozenset({b"AE", b"AS", b"CS", b"DA", b"DT", b"TM", b"UI"})
_TEXTS = frozenset({b"LO", b"SH", b"UC"})
_LONG_TEXTS = frozenset({b"LT", b"ST", b"UT", b"UR"})
_BINARY = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN"})
_NUMBERS: Mapping[bytes, struct.Struct] = MappingProxyType(
    {
        vr: struct.Struct(f"<{code}")
        for vr, code in (
            (b"FL", "f"),
            (b"FD", "d"),
            (b"SL", "i"),
            (b"SS", "h"),
            (b"SV", "q"),
            (b"UL", "I"),
            (b"US", "H"),
            (b"UV", "Q"),
        )
    }
)


def model(
    encoded: bytes | bytearray,
    transfer_syntax: str,
    *,
    bulk: Iterable[BulkBegun] = (),
    uri: URI | None = None,
) -> Model:
    """The attributes of the data set; `bulk` are those that are not in `encoded`.

    `transfer_syntax` is Explicit or Implicit VR Little Endian. Without `uri` long values are left
    out. Raises ValueError, which names no value, for what is no data set.
    """
    found = _attributes(attributes.read(bytes(encoded), transfer_syntax), ("",), b"US", "", uri)
    for begun in bulk:
        vr = begun.vr.decode("ascii") or _vr_of(begun.tag, b"US").decode("ascii")
        if uri is not None:
            found[_key(begun.tag)] = {"vr": vr, "BulkDataURI": uri(_key(begun.tag))}
    return dict(sorted(found.items()))


def _attributes(
    read: Mapping[int, Attribute],
    terms: Sequence[str],
    pixels: bytes,
    path: str,
    uri: URI | None,
) -> Model:
    """`terms` and `pixels` are of the data set around it (PS3.5 §7.5.3)."""
    said = read.get(SPECIFIC_CHARACTER_SET)
    if said is not None:
        terms = character_sets.values(attributes.text(said))
    if (signed := read.get(_PIXEL_REPRESENTATION)) is not None:
        pixels = b"SS" if signed[1][:1] == b"\x01" else b"US"
    found: Model = {}
    for tag, (vr, value) in sorted(read.items()):
        if vr == b"UN":
            vr = _vr_of(tag, pixels)
        key = _key(tag)
        if tag == SPECIFIC_CHARACTER_SET:
            found[key] = {"vr": "CS", "Value": [_UNICODE]}
        elif vr == b"SQ":
            items = [
                _attributes(item, terms, pixels, f"{path}{key}/{number}/", uri)
                for number, item in enumerate(_items(value))
            ]
            found[key] = {"vr": "SQ"} | ({"Value": items} if items else {})
        elif vr in _BINARY and len(value) > INLINE:
            if uri is not None:
                found[key] = {"vr": vr.decode("ascii"), "BulkDataURI": uri(path + key)}
        else:
            found[key] = _element(vr, value, terms)
    return found


def _items(value: bytes) -> Iterator[Mapping[int, Attribute]]:
    """Of a sequence as `attributes.read` gives it: items of defined length, Explicit VR."""
    at = 0
    while at < len(value):
        (length,) = struct.unpack_from("<I", value, at + 4)
        yield attributes.read(value[at + 8 : at + 8 + length], EXPLICIT_VR_LITTLE_ENDIAN)
        at += 8 + length


def _element(vr: bytes, value: bytes, terms: Sequence[str]) -> dict[str, Any]:
    name: dict[str, Any] = {"vr": vr.decode("ascii")}
    if vr in _BINARY:
        if value:
            name["InlineBinary"] = base64.b64encode(value).decode("ascii")
        return name
    values = _values(vr, value, terms)
    if any(one is not None for one in values):
        name["Value"] = values
    return name


def _values(vr: bytes, value: bytes, terms: Sequence[str]) -> list[Any]:
    number = _NUMBERS.get(vr)
    if number is not None:
        usable = value[: len(value) // number.size * number.size]
        return [_finite(one) for (one,) in number.iter_unpack(usable)]
    if vr == b"AT":
        usable = value[: len(value) // 4 * 4]
        return [f"{group:04X}{element:04X}" for group, element in struct.iter_unpack("<HH", usable)]
    if vr in _LONG_TEXTS:
        text = _decode(value, terms).rstrip(" \0")
        return [text] if text else []
    if vr == b"PN":
        return [_person(one) for one in _decode(value, terms, name=True).split("\\")]
    text = _decode(value, terms) if vr in _TEXTS else value.decode("latin-1")
    values = [one.strip(" \0") for one in text.split("\\")]
    if vr == b"IS":
        return [_integer(one) for one in values]
    if vr == b"DS":
        return [_decimal(one) for one in values]
    return [one or None for one in values]


def _decode(value: bytes, terms: Sequence[str], *, name: bool = False) -> str:
    try:
        return characters.decode(value, terms, name=name)
    except (UnicodeError, LookupError):
        # It is not in the character set that it claims: every byte is a character of this one.
        return value.decode("latin-1")


def _person(text: str) -> dict[str, str] | None:
    """A name by its component groups (PS3.18 §F.2.2)."""
    groups = (group.strip(" \0") for group in text.split("="))
    names = ("Alphabetic", "Ideographic", "Phonetic")
    return {name: group for name, group in zip(names, groups, strict=False) if group} or None


def _integer(text: str) -> int | str | None:
    try:
        value = int(text) if text else None
    except ValueError:
        return text
    exact = value is None or (abs(value) <= _EXACT and "_" not in text)
    return value if exact else text


def _decimal(text: str) -> float | int | str | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        return text
    if not math.isfinite(value) or "_" in text:
        return text
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def _finite(value: float | int) -> float | int | str:
    """JSON has no number that is not finite, and no exact one that is very large (§F.2.2)."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value if abs(value) <= _EXACT else str(value)


def _vr_of(tag: int, pixels: bytes) -> bytes:
    """The VR of the dictionary; of two that which `pixels` says (PS3.5 Annex A)."""
    if tag & 0x1_0000:
        return b"LO" if 0x10 <= tag & 0xFFFF <= 0xFF else b"UN"
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return b"UN"
    if vr == "US or SS":
        return pixels
    if len(vr) > 2:
        return b"OW"  # in Implicit VR all others of them are words (PS3.5 §A.1)
    # A sequence in UN of defined length stays what it is: nobody has looked into it.
    return b"UN" if vr == "SQ" else vr.encode("ascii")


def _key(tag: int) -> str:
    return f"{tag:08X}"
