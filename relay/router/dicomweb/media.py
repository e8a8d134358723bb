"""What a client accepts, and what that allows to be sent (PS3.18 §8.7, RFC 9110 §12.5.1).

Nothing is transcoded here: an object or a frame goes out in the transfer syntax in which a device
gives it, if the client takes that, and otherwise not.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import attrs
from starlette.requests import Request

from relay.dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    TRANSFER_SYNTAXES,
)

DICOM: Final = "application/dicom"
JSON: Final = "application/dicom+json"
PLAIN_JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
MULTIPART: Final = "multipart/related"

# What a client that says nothing of transfer syntaxes takes (PS3.18 §8.7.3.5.2), and any.
DEFAULT: Final = EXPLICIT_VR_LITTLE_ENDIAN
ANY: Final = "*"

# A frame's media type by its transfer syntax (PS3.18 Table 8.7.3-5, and the ones before it); what
# is not here is a frame of uncompressed pixels, or no frame at all but a video.
FRAME_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "1.2.840.10008.1.2.4.50": "image/jpeg",
        "1.2.840.10008.1.2.4.51": "image/jpeg",
        "1.2.840.10008.1.2.4.57": "image/jpeg",
        "1.2.840.10008.1.2.4.70": "image/jpeg",
        "1.2.840.10008.1.2.4.80": "image/jls",
        "1.2.840.10008.1.2.4.81": "image/jls",
        "1.2.840.10008.1.2.4.90": "image/jp2",
        "1.2.840.10008.1.2.4.91": "image/jp2",
        "1.2.840.10008.1.2.4.92": "image/jpx",
        "1.2.840.10008.1.2.4.93": "image/jpx",
        "1.2.840.10008.1.2.4.201": "image/jphc",
        "1.2.840.10008.1.2.4.202": "image/jphc",
        "1.2.840.10008.1.2.4.203": "image/jphc",
        "1.2.840.10008.1.2.5": "image/dicom-rle",
        EXPLICIT_VR_LITTLE_ENDIAN: OCTETS,
        IMPLICIT_VR_LITTLE_ENDIAN: OCTETS,
        ENCAPSULATED_UNCOMPRESSED: OCTETS,
    }
)

# What may be sent as a whole object: all that devices use, the default first, but for big endian,
# which PS3.18 §8.7.3.5.2 leaves out. Implicit VR is left out there too, and is here what a device
# that has nothing else may give to a client that takes anything.
OBJECT_SYNTAXES: Final = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    *(
        uid
        for uid in TRANSFER_SYNTAXES
        if uid not in (EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
    ),
)
# What is read here, for metadata and bulk data: the same, if it need not be inflated.
READ_SYNTAXES: Final = tuple(
    uid for uid in OBJECT_SYNTAXES if uid != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
)

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TYPE = re.compile(rf"\s*({_TOKEN})/({_TOKEN})\s*")
_PARAMETER = re.compile(rf';\s*({_TOKEN})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*)\s*')


@attrs.frozen(slots=True)
class MediaRange:
    """One of the things that a client accepts.

    `type` is that of the parts where `multipart`, and may have stars; `transfer_syntax` is empty
    where nothing is said of it.
    """

    type: str
    multipart: bool = False
    transfer_syntax: str = ""
    quality: float = 1.0

    def covers(self, media: str) -> bool:
        """Whether `media` is of this type."""
        major, _, minor = self.type.partition("/")
        theirs, _, kind = media.partition("/")
        return major in ("*", theirs) and minor in ("*", kind)


EVERYTHING: Final = MediaRange("*/*", transfer_syntax=ANY)


def parse_type(text: str) -> tuple[str, dict[str, str]]:
    """A Content-Type: the type and its parameters, names in lower case; ("", {}) if it is none."""
    match = _TYPE.match(text)
    if match is None:
        return "", {}
    kind, parameters, end = _parameters(text, match)
    return (kind, parameters) if end == len(text) else ("", {})


def parse_accept(text: str) -> tuple[MediaRange, ...]:
    """What an Accept header names, the dearest first; everything where it names nothing."""
    ranges: list[MediaRange] = []
    at = 0
    while True:
        if match := _TYPE.match(text, at):
            kind, parameters, at = _parameters(text, match)
            found = _range(kind, parameters)
            if found.quality:
                ranges.append(found)
        at = text.find(",", at) + 1
        if not at:
            break
    if not text.strip():
        return (EVERYTHING,)
    return tuple(sorted(ranges, key=lambda found: -found.quality))


def accepted_by(request: Request) -> tuple[MediaRange, ...]:
    """What a request accepts, by its parameter (PS3.18 §8.3.3.1) or by all of its headers."""
    said = request.query_params.get("accept") or ", ".join(request.headers.getlist("accept"))
    return parse_accept(said)


def _parameters(text: str, match: re.Match[str]) -> tuple[str, dict[str, str], int]:
    kind = f"{match[1]}/{match[2]}".lower()
    at = match.end()
    parameters: dict[str, str] = {}
    while found := _PARAMETER.match(text, at):
        value = found[2]
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        parameters[found[1].lower()] = value
        at = found.end()
    return kind, parameters, at


def _range(kind: str, parameters: dict[str, str]) -> MediaRange:
    try:
        quality = min(1.0, max(0.0, float(parameters.get("q", "1"))))
    except ValueError:
        quality = 0.0
    syntax = parameters.get("transfer-syntax", "")
    if kind == MULTIPART:
        # Without a type of its parts: whichever there is.
        return MediaRange(parameters.get("type", "*/*").lower(), True, syntax, quality)
    if kind == "*/*":
        syntax = syntax or ANY
    return MediaRange(kind, False, syntax, quality)


@attrs.frozen(slots=True)
class ObjectsAccepted:
    """How whole objects may be sent: in which transfer syntaxes, and whether without parts."""

    syntaxes: tuple[str, ...]
    single: bool

    @property
    def any(self) -> bool:
        return len(self.syntaxes) == len(OBJECT_SYNTAXES)


def objects(ranges: Sequence[MediaRange]) -> ObjectsAccepted | None:
    """What `ranges` say of objects as application/dicom; None if they are not accepted."""
    wanted: set[str] = set()
    fitting = [accepted for accepted in ranges if accepted.covers(DICOM)]
    if not fitting:
        return None
    for accepted in fitting:
        syntax = accepted.transfer_syntax or DEFAULT
        wanted |= set(OBJECT_SYNTAXES) if syntax == ANY else {syntax}
    single = not any(accepted.multipart or accepted.type == "*/*" for accepted in fitting)
    return ObjectsAccepted(tuple(uid for uid in OBJECT_SYNTAXES if uid in wanted), single)


def frame_type(ranges: Sequence[MediaRange], transfer_syntax: str) -> tuple[str, bool] | None:
    """As which media type a frame in this transfer syntax may be sent, and whether without parts.

    None if it may not. What is uncompressed is OCTETS, and other frames too for who accepts those
    with their transfer syntax, as viewers in a browser do (PS3.18 before 2017).
    """
    own = FRAME_TYPES.get(transfer_syntax)
    if own is None:
        return None
    said = as_said(transfer_syntax)
    for accepted in ranges:
        single = not accepted.multipart and accepted.type != "*/*"
        if accepted.covers(own):
            # The default of a compressed type is one of its transfer syntaxes. The part names the
            # one that it has, so that who does not say which is not sent away.
            default = ("", ANY, said)
            if accepted.transfer_syntax in default:
                return own, single
        elif accepted.type == OCTETS and accepted.transfer_syntax in (ANY, said):
            return OCTETS, single
    return None


def as_said(transfer_syntax: str) -> str:
    """By which transfer syntax pixels go: uncompressed ones are the same in all little endian."""
    return DEFAULT if FRAME_TYPES.get(transfer_syntax) == OCTETS else transfer_syntax


def takes_json(ranges: Sequence[MediaRange]) -> str:
    """The media type for JSON (PS3.18 §8.7.4); empty if it is not accepted."""
    for accepted in ranges:
        if accepted.multipart:
            continue
        for media in (JSON, PLAIN_JSON):
            if accepted.covers(media):
                return media
    return ""


def takes_octets(ranges: Sequence[MediaRange]) -> tuple[str, bool] | None:
    """Whether bulk data may be sent as OCTETS, and without parts; None if it may not."""
    for accepted in ranges:
        if accepted.covers(OCTETS) and accepted.transfer_syntax in ("", ANY, DEFAULT):
            return OCTETS, not accepted.multipart and accepted.type != "*/*"
    return None
