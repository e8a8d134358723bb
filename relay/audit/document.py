"""An event as a DICOM Audit Message: XML by the schema of PS3.15 §A.5.1."""

import base64
import ipaddress
from datetime import UTC, datetime
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import attrs

from relay.audit.codes import Code, IDType, Kind
from relay.audit.events import AuditEvent, Participant, Query, Subject, text

# PS3.15 §A.5.1, NetworkAccessPointTypeCode.
_MACHINE_NAME, _IP_ADDRESS = "1", "2"

# PS3.15 §A.5.1: ParticipantObjectTypeCode, and the roles of §A.5.1.2.2.
_PERSON, _SYSTEM_OBJECT = "1", "2"
_PATIENT, _REPORT, _SECURITY_RESOURCE = "1", "3", "13"

# PS3.15 §A.5.1.2.1: an application server.
_SOURCE_TYPE = "4"


@attrs.frozen(slots=True)
class AuditSource:
    """Who reports: `id` names the process in its hospital, `site` the hospital.

    PS3.15 §A.5.2, AuditSourceIdentification.
    """

    id: str
    site: str = ""


def to_xml(event: AuditEvent, source: AuditSource) -> bytes:
    """The message, UTF-8 with its XML declaration."""
    root = Element("AuditMessage")
    _identification(root, event)
    for participant in event.participants:
        _participant(root, participant, source)
    said = _full(AuditEnterpriseSiteID=text(source.site)) | {"AuditSourceID": text(source.id)}
    reported = SubElement(root, "AuditSourceIdentification", said)
    SubElement(reported, "AuditSourceTypeCode", {"csd-code": _SOURCE_TYPE})
    for subject in event.subjects:
        _subject(root, subject, event.kind)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def moment(at: float) -> str:
    """Unix seconds as xsd:dateTime, and as a timestamp of RFC 5424 §6.2.3: UTC, microseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _full(**values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _coded(parent: Element, tag: str, code: Code) -> None:
    SubElement(
        parent,
        tag,
        {
            "csd-code": code.value,
            "codeSystemName": code.scheme,
            "displayName": code.meaning,
            "originalText": code.meaning,
        },
    )


def _identification(root: Element, event: AuditEvent) -> None:
    identified = SubElement(
        root,
        "EventIdentification",
        {
            "EventActionCode": event.action.value,
            "EventDateTime": moment(event.at),
            "EventOutcomeIndicator": event.outcome.value,
        },
    )
    _coded(identified, "EventID", event.kind.code)
    if event.type is not None:
        _coded(identified, "EventTypeCode", event.type.value)
    if event.why:
        SubElement(identified, "EventOutcomeDescription").text = event.why


def _participant(root: Element, participant: Participant, source: AuditSource) -> None:
    id_ = text(participant.id)
    said = {
        # PS3.15 §A.5.2.1: a person's as loginName@domain-name.
        "UserID": f"{id_}@{text(source.id)}" if participant.person else id_,
        "UserIsRequestor": "true" if participant.requestor else "false",
    }
    if participant.ae_title:
        said["AlternativeUserID"] = f"AETITLES={id_}"  # PS3.15 §A.5.2.2
    said |= _full(UserName=text(participant.name))
    if participant.address:
        said["NetworkAccessPointID"] = text(participant.address)
        said["NetworkAccessPointTypeCode"] = _access_point(participant.address)
    element = SubElement(root, "ActiveParticipant", said)
    if participant.role is not None:
        _coded(element, "RoleIDCode", participant.role.value)


def _access_point(address: str) -> str:
    try:
        ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return _MACHINE_NAME
    return _IP_ADDRESS


def _subject(root: Element, subject: Subject, kind: Kind) -> None:
    patient = subject.type is IDType.PATIENT
    role = _PATIENT if patient else _SECURITY_RESOURCE if kind is Kind.ALERT else _REPORT
    element = SubElement(
        root,
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": text(subject.id),
            "ParticipantObjectTypeCode": _PERSON if patient else _SYSTEM_OBJECT,
            "ParticipantObjectTypeCodeRole": role,
        },
    )
    _coded(element, "ParticipantObjectIDTypeCode", subject.type.value)
    details = list(subject.details)
    if subject.query is None:
        # The schema has either a name or a query, and no third: of what has no name, an empty one.
        SubElement(element, "ParticipantObjectName")
    else:
        SubElement(element, "ParticipantObjectQuery").text = _query(subject.query)
        if subject.query.transfer_syntax:
            details.insert(0, ("TransferSyntax", subject.query.transfer_syntax))
    for name, value in details:
        encoded = base64.b64encode(value.encode()).decode("ascii")
        SubElement(element, "ParticipantObjectDetail", {"type": name, "value": encoded})
    if subject.instances:
        _description(element, subject)


def _query(query: Query) -> str:
    """What does not open any more is as if it had been left out."""
    return "" if query.sealed else base64.b64encode(query.content).decode("ascii")


def _description(element: Element, subject: Subject) -> None:
    description = SubElement(element, "ParticipantObjectDescription")
    for of in subject.instances:
        said = {"UID": of.sop_class, "NumberOfInstances": str(of.count)}
        sop_class = SubElement(description, "SOPClass", _full(**said))
        for uid in of.uids:
            SubElement(sop_class, "Instance", {"UID": uid})
