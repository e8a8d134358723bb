"""The schema of PS3.15 §A.5.1 as a table, and what checks a message against it.

Each element: its attributes with the values that they may have ("?" behind the name: it may be
missing), and its children as a regular expression over their names, each followed by a space; or
the kind of its text. Written from the standard's RELAX NG, whose patterns it has one by one.
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import attrs


def _token(value: str) -> bool:
    return value == " ".join(value.split()) and not re.search(r"[\t\n\r]", value)


def _text(value: str) -> bool:
    return True


def _boolean(value: str) -> bool:
    return value in ("true", "false", "0", "1")


def _date_time(value: str) -> bool:
    return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value) is not None


def _integer(value: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", value) is not None


def _base64(value: str) -> bool:
    return base64.b64encode(base64.b64decode(value, validate=True)).decode() == value


def _one_of(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


def _numbers(last: int) -> Callable[[str], bool]:
    return _one_of(*map(str, range(1, last + 1)))


_CODED = {
    "csd-code": _token,
    "codeSystemName": _token,
    "displayName?": _token,
    "originalText": _token,
}


@attrs.frozen(slots=True)
class Pattern:
    attributes: Mapping[str, Callable[[str], bool]] = attrs.Factory(dict)
    children: str = ""
    text: Callable[[str], bool] | None = None


CODE = Pattern(_CODED)

SCHEMA = {
    "AuditMessage": Pattern(
        children="EventIdentification (ActiveParticipant )+AuditSourceIdentification"
        " (ParticipantObjectIdentification )*"
    ),
    "EventIdentification": Pattern(
        {
            "EventActionCode?": _one_of(*"CRUDE"),
            "EventDateTime": _date_time,
            "EventOutcomeIndicator": _one_of("0", "4", "8", "12"),
        },
        "EventID (EventTypeCode )*(EventOutcomeDescription )?",
    ),
    "EventID": CODE,
    "EventTypeCode": CODE,
    "EventOutcomeDescription": Pattern(text=_text),
    "ActiveParticipant": Pattern(
        {
            "UserID": _text,
            "AlternativeUserID?": _text,
            "UserName?": _text,
            "UserIsRequestor": _boolean,
            "NetworkAccessPointID?": _token,
            "NetworkAccessPointTypeCode?": _numbers(5),
        },
        "(RoleIDCode )*(MediaIdentifier )?",
    ),
    "RoleIDCode": CODE,
    "AuditSourceIdentification": Pattern(
        {"AuditEnterpriseSiteID?": _token, "AuditSourceID": _token}, "(AuditSourceTypeCode )*"
    ),
    # One digit alone, or a token with the other attributes of a code.
    "AuditSourceTypeCode": Pattern({"csd-code": _numbers(9)}),
    "ParticipantObjectIdentification": Pattern(
        {
            "ParticipantObjectID": _token,
            "ParticipantObjectTypeCode?": _numbers(4),
            "ParticipantObjectTypeCodeRole?": _numbers(26),
            "ParticipantObjectDataLifeCycle?": _numbers(15),
            "ParticipantObjectSensitivity?": _token,
        },
        "ParticipantObjectIDTypeCode (ParticipantObjectName |ParticipantObjectQuery )"
        "(ParticipantObjectDetail )*(ParticipantObjectDescription )*",
    ),
    "ParticipantObjectIDTypeCode": CODE,
    "ParticipantObjectName": Pattern(text=_token),
    "ParticipantObjectQuery": Pattern(text=_base64),
    "ParticipantObjectDetail": Pattern({"type": _token, "value": _base64}),
    "ParticipantObjectDescription": Pattern(
        children="(MPPS )*(Accession )*(SOPClass )*(ParticipantObjectContainsStudy )?"
        "(Encrypted )?(Anonymized )?"
    ),
    "SOPClass": Pattern({"UID?": _token, "NumberOfInstances": _integer}, "(Instance )*"),
    "Instance": Pattern({"UID": _token}),
}


def faults(document: bytes) -> list[str]:
    """What in this message is not by the schema."""
    root = ElementTree.fromstring(document)
    if root.tag != "AuditMessage":
        return [f"the root is {root.tag}"]
    return list(_faults(root))


def _faults(element: Element) -> Iterator[str]:
    pattern = SCHEMA.get(element.tag)
    if pattern is None:
        yield f"{element.tag} is in no pattern"
        return
    known = {name.rstrip("?"): kind for name, kind in pattern.attributes.items()}
    for name, value in element.attrib.items():
        if name not in known:
            yield f"{element.tag} has an attribute {name}"
        elif not known[name](value):
            yield f"{element.tag}/@{name} cannot be {value!r}"
    for name in pattern.attributes:
        if not name.endswith("?") and name not in element.attrib:
            yield f"{element.tag} lacks {name}"
    names = "".join(f"{child.tag} " for child in element)
    if not re.fullmatch(pattern.children, names):
        yield f"{element.tag} cannot hold {names!r}"
    if pattern.text is None and (element.text or "").strip():
        yield f"{element.tag} holds text"
    if pattern.text is not None and not pattern.text(element.text or ""):
        yield f"{element.tag} cannot be {element.text!r}"
    for child in element:
        yield from _faults(child)
