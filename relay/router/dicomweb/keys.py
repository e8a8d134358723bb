"""The parameters of a search as the keys of a C-FIND (PS3.18 §8.3.4, §10.6.1; PS3.4 §C.4.1).

    PatientName=Doe*  00100020=123  includefield=StudyDescription  limit=50  offset=100

Values are text in Unicode, and the identifier says so.
"""

import re
import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

import attrs
from pydicom.datadict import dictionary_VR, tag_for_keyword

from relay.dicom.pdu import is_uid
from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from relay.errors import Refused
from relay.router.federation import attributes
from relay.router.federation.attributes import Attribute
from relay.router.federation.identifiers import QUERY_RETRIEVE_LEVEL, Level

STUDY_UID: Final = 0x0020_000D
SERIES_UID: Final = 0x0020_000E
INSTANCE_UID: Final = 0x0008_0018
_CHARACTER_SET: Final = 0x0008_0005

# Parameters of one request: all attributes that a device could know, and more.
MAXIMUM_PARAMETERS: Final = 256
# Sequences in sequences of one attribute's name. No information model has more than two.
MAXIMUM_SEQUENCES: Final = 8
# Results of one answer, which is made whole before it is sent.
MAXIMUM_RESULTS: Final = 5000

# What comes unasked: PS3.18 Tables 10.6.3-3 to 10.6.3-5, with the descriptions that people know a
# study and a series by. Those of the Router's own making are not asked for.
_REQUESTED = 0x0040_0275  # Request Attributes Sequence
_DEFAULTS: Mapping[Level, tuple[int, ...]] = MappingProxyType(
    {
        Level.STUDY: (
            0x0008_0020,  # Study Date
            0x0008_0030,  # Study Time
            0x0008_0050,  # Accession Number
            0x0008_0061,  # Modalities in Study
            0x0008_0090,  # Referring Physician's Name
            0x0008_0201,  # Timezone Offset From UTC
            0x0008_1030,  # Study Description
            0x0010_0010,  # Patient's Name
            0x0010_0020,  # Patient ID
            0x0010_0021,  # Issuer of Patient ID
            0x0010_0030,  # Patient's Birth Date
            0x0010_0040,  # Patient's Sex
            STUDY_UID,
            0x0020_0010,  # Study ID
            0x0020_1206,  # Number of Study Related Series
            0x0020_1208,  # Number of Study Related Instances
        ),
        Level.SERIES: (
            0x0008_0060,  # Modality
            0x0008_0201,
            0x0008_103E,  # Series Description
            SERIES_UID,
            0x0020_0011,  # Series Number
            0x0020_1209,  # Number of Series Related Instances
            0x0040_0244,  # Performed Procedure Step Start Date
            0x0040_0245,  # Performed Procedure Step Start Time
            _REQUESTED,
        ),
        Level.IMAGE: (
            0x0008_0016,  # SOP Class UID
            INSTANCE_UID,
            0x0008_0201,
            0x0020_0013,  # Instance Number
            0x0028_0008,  # Number of Frames
            0x0028_0010,  # Rows
            0x0028_0011,  # Columns
            0x0028_0100,  # Bits Allocated
        ),
    }
)
# What includefield=all adds: a C-FIND cannot ask for whatever there is.
_ALL: Mapping[Level, tuple[int, ...]] = MappingProxyType(
    {
        Level.STUDY: (
            0x0008_0062,  # SOP Classes in Study
            0x0008_1060,  # Name of Physician(s) Reading Study
            0x0008_1080,  # Admitting Diagnoses Description
            0x0010_0032,  # Patient's Birth Time
            0x0010_1000,  # Other Patient IDs
            0x0010_1010,  # Patient's Age
            0x0010_1020,  # Patient's Size
            0x0010_1030,  # Patient's Weight
            0x0010_4000,  # Patient Comments
        ),
        Level.SERIES: (
            0x0008_0021,  # Series Date
            0x0008_0031,  # Series Time
            0x0008_0070,  # Manufacturer
            0x0008_0080,  # Institution Name
            0x0008_1010,  # Station Name
            0x0018_0015,  # Body Part Examined
            0x0018_1030,  # Protocol Name
            0x0020_0060,  # Laterality
        ),
        Level.IMAGE: (
            0x0008_0008,  # Image Type
            0x0008_0023,  # Content Date
            0x0008_0033,  # Content Time
            0x0020_0012,  # Acquisition Number
            0x0020_4000,  # Image Comments
        ),
    }
)
_OF_REQUESTED = (0x0040_0009, 0x0040_1001)

_INTEGERS = MappingProxyType(
    {"US": "<H", "UL": "<I", "SS": "<h", "SL": "<i", "UV": "<Q", "SV": "<q"}
)
_LISTS_OF_UIDS = "UI"
_TAG = re.compile(r"[0-9A-Fa-f]{8}")


@attrs.frozen(slots=True)
class Search:
    """What is searched for. `identifier` is in Explicit VR Little Endian; `unheeded` are the
    parameters that ask for a matching that there is not."""

    level: Level
    identifier: bytes = attrs.field(repr=False)
    limit: int = MAXIMUM_RESULTS
    offset: int = 0
    unheeded: tuple[str, ...] = ()


Keys = dict[int, "str | Keys"]


def parse(level: Level, fixed: Mapping[int, str], query: str) -> Search:
    """The search at `level` that `query`, a URL's, asks for.

    `fixed` are the UIDs that the URL's path names. Raises Refused (400).
    """
    try:
        rows = parse_qsl(
            query, keep_blank_values=True, errors="strict", max_num_fields=MAXIMUM_PARAMETERS
        )
    except UnicodeDecodeError:
        raise Refused(400, "a parameter is not in UTF-8") from None
    except ValueError:
        raise Refused(400, f"more than {MAXIMUM_PARAMETERS} parameters") from None
    keys: Keys = {tag: "" for tag in _DEFAULTS[level] if tag != _REQUESTED}
    if level is Level.SERIES:
        keys[_REQUESTED] = dict.fromkeys(_OF_REQUESTED, "")
    limit, offset = MAXIMUM_RESULTS, 0
    unheeded = []
    for name, value in rows:
        match name:
            case "limit":
                limit = min(MAXIMUM_RESULTS, _count(name, value))
            case "offset":
                offset = _count(name, value)
            case "includefield":
                _include(keys, level, value)
            case "fuzzymatching" | "emptyvaluematching" | "multiplevaluematching":
                if value.lower() == "true":
                    unheeded.append(name)
            case "accept":
                pass  # what is answered, not what is searched for
            case _:
                _put(keys, _path(name), value)
    for tag, uid in fixed.items():
        keys[tag] = uid
    read = _encode(keys)
    read[_CHARACTER_SET] = (b"CS", b"ISO_IR 192")
    read[QUERY_RETRIEVE_LEVEL] = (b"CS", level.value.encode("ascii"))
    identifier = attributes.write(read, EXPLICIT_VR_LITTLE_ENDIAN)
    return Search(level, identifier, limit, offset, tuple(unheeded))


def value_of(query: str, tag: int) -> str:
    """The value that a parameter gives the attribute `tag`; empty if none does. Raises Refused."""
    keys: Keys = {}
    for name, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
        if name in _NO_ATTRIBUTES:
            continue
        _put(keys, _path(name), value)
    found = keys.get(tag, "")
    return found if isinstance(found, str) else ""


def without(query: str, *tags: int) -> list[tuple[str, str]]:
    """The parameters but those of these attributes."""
    return [
        (name, value)
        for name, value in parse_qsl(query, keep_blank_values=True, errors="replace")
        if name in _NO_ATTRIBUTES or _path(name) not in [(tag,) for tag in tags]
    ]


_NO_ATTRIBUTES = frozenset(
    {
        "limit",
        "offset",
        "includefield",
        "fuzzymatching",
        "emptyvaluematching",
        "multiplevaluematching",
        "accept",
    }
)


def _count(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise Refused(400, f"{name} is a whole number")
    return int(value)


def _include(keys: Keys, level: Level, value: str) -> None:
    for field in value.split(","):
        if field == "all":
            for tag in _ALL[level]:
                keys.setdefault(tag, "")
        elif field:
            _put(keys, _path(field), "")


def _path(name: str) -> tuple[int, ...]:
    """The tags in an attribute's name: "00100020", "PatientID", "00400275.00400009"."""
    words = name.split(".", MAXIMUM_SEQUENCES + 1)
    if len(words) > MAXIMUM_SEQUENCES + 1:
        raise Refused(400, f"sequences in sequences, more than {MAXIMUM_SEQUENCES} deep")
    *sequences, last = map(_tag, words)
    for tag in sequences:
        if _vr(tag) not in ("SQ", "UN"):
            raise Refused(400, f"{tag:08X} is no sequence: there is no attribute in it")
    return *sequences, last


def _tag(name: str) -> int:
    tag = int(name, 16) if _TAG.fullmatch(name) else name and tag_for_keyword(name)
    if not tag:
        shown = name[:64] if name.isascii() and name.isalnum() else "a parameter"
        raise Refused(400, f"{shown}: no attribute, and no other parameter of a search")
    group, element = divmod(int(tag), 0x1_0000)
    # What is no element of a data set (PS3.5 §7.1, PS3.10 §7.1), or only its group's length.
    if group < 8 or group == 0xFFFE or not element:
        raise Refused(400, f"{int(tag):08X} is nothing that can be searched by")
    return int(tag)


def _put(keys: Keys, path: Iterable[int], value: str) -> None:
    """Ask for `value` of the attribute; an empty one does not take back another."""
    tag, *rest = path
    if rest:
        inner = keys.setdefault(tag, {})
        if isinstance(inner, str):
            inner = keys[tag] = {}
        _put(inner, rest, value)
    elif value or tag not in keys:
        keys[tag] = value


def _encode(keys: Keys) -> dict[int, Attribute]:
    found: dict[int, Attribute] = {}
    for tag, value in keys.items():
        if isinstance(value, dict):
            item = attributes.write(_encode(value), EXPLICIT_VR_LITTLE_ENDIAN)
            found[tag] = (b"SQ", attributes.sequence([item]))
        else:
            vr = _vr(tag)
            found[tag] = (vr.encode("ascii"), _value(tag, vr, value))
    return found


def _vr(tag: int) -> str:
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return "UN"
    return vr if len(vr) == 2 else "US" if vr.startswith("US") else "OW"


def _value(tag: int, vr: str, text: str) -> bytes:
    if not text:
        return b""
    if vr == "SQ":
        raise Refused(400, f"{tag:08X} is a sequence: name an attribute in it")
    if vr == _LISTS_OF_UIDS:
        uids = text.replace(",", "\\").split("\\")
        if not all(map(is_uid, uids)):
            raise Refused(400, f"{tag:08X} is a UID, or several with commas between them")
        return "\\".join(uids).encode("ascii")
    if vr in _INTEGERS:
        try:
            return b"".join(struct.pack(_INTEGERS[vr], int(one)) for one in text.split("\\"))
        except (ValueError, struct.error):
            raise Refused(400, f"{tag:08X} is a whole number") from None
    if vr in ("AT", "FL", "FD", "OB", "OD", "OF", "OL", "OV", "OW", "UN"):
        raise Refused(400, f"{tag:08X} is nothing that can be searched by")
    return text.encode()
