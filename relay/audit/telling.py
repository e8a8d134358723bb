"""Entries for people and scripts: as JSON, in a plain sentence, and as CSV."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from relay.audit.codes import EventType, IDType, Kind, Outcome, RoleID
from relay.audit.document import moment
from relay.audit.entries import Entry
from relay.audit.events import AuditEvent, Participant
from relay.audit.happenings import (
    ALERT_DESCRIPTION,
    ASSOCIATION,
    DESTINATION,
    REQUEST,
    REQUESTS,
    UNKNOWN,
)

# What a spreadsheet takes for the beginning of a formula, some in their full width, too; and where
# one begins: in half of Europe a semicolon ends a cell, whatever quotes stand around it.
_FORMULA = re.compile(r"(^|;)(?=\s*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])")

COLUMNS = (
    "number",
    "time",
    "kind",
    "outcome",
    "words",
    "why",
    "requestor",
    "source",
    "destination",
    "address",
    "studies",
    "objects",
    "association",
    "hash",
)


def to_json(entry: Entry, event: AuditEvent, *, studies: bool) -> dict[str, Any]:
    """What GET /v1/audit says of an entry; `studies`: also what may point to a patient."""
    source, destination = event.of_role(RoleID.SOURCE), event.of_role(RoleID.DESTINATION)
    # Whoever caused an alert is no requestor of it (PS3.15 §A.5.3.11), and who people look for.
    person = next((p for p in event.participants if p.person), None)
    cause = _cause(event)
    caller = cause if event.type is EventType.NODE_AUTHENTICATION else None
    requestor = event.requestor or person or source or cause
    # A node, and no URI: that of a request by DICOMweb has the study in it.
    nodes = [subject.id for subject in event.subjects if subject.type is IDType.NODE]
    called = nodes[0] if caller is not None and nodes else None
    shown: dict[str, Any] = {
        "number": entry.number,
        "at": event.at,
        "kind": event.kind.word,
        "type": event.type.value.meaning if event.type is not None else None,
        "outcome": _OUTCOMES[event.outcome],
        "words": words(event),
        "why": event.why,
        "requestor": requestor.id if requestor is not None else None,
        "source": source.id if source is not None else caller.id if caller is not None else None,
        "destination": destination.id if destination is not None else called,
        "participants": [_shown(p) for p in event.participants],
        "objects": _objects(event),
        "association": detail(event, ASSOCIATION) or None,
        "request": detail(event, REQUEST) or None,
        "studies": [],
        "hash": entry.hash.hex(),
    }
    if studies:
        shown["studies"] = [
            {
                "study": subject.id if subject.id != UNKNOWN else None,
                "instances": [
                    {"sop_class": of.sop_class, "count": of.count, "uids": list(of.uids)}
                    for of in subject.instances
                ],
            }
            for subject in event.subjects
            if subject.type is IDType.STUDY
        ]
    return shown


_OUTCOMES = {
    Outcome.SUCCESS: "success",
    Outcome.MINOR_FAILURE: "failure",
    Outcome.SERIOUS_FAILURE: "serious failure",
    Outcome.MAJOR_FAILURE: "major failure",
}


def _cause(event: AuditEvent) -> Participant | None:
    """What has caused an alert, and is no person: who called, or joined.

    The first participant of an alert reports it, the others caused it (PS3.15 §A.5.3.11).
    """
    caused = event.participants[1:] if event.kind is Kind.ALERT else ()
    return next((p for p in caused if not p.person), None)


def _shown(participant: Participant) -> dict[str, Any]:
    return {
        "id": participant.id,
        "name": participant.name,
        "address": participant.address,
        "role": _ROLES[participant.role] if participant.role is not None else None,
        "person": participant.person,
    }


_ROLES = {
    RoleID.SOURCE: "source",
    RoleID.DESTINATION: "destination",
    RoleID.APPLICATION: "application",
    RoleID.LAUNCHER: "launcher",
}


def detail(event: AuditEvent, name: str) -> str:
    """The first detail of this name; empty if there is none."""
    return next((v for s in event.subjects for n, v in s.details if n == name), "")


def _objects(event: AuditEvent) -> int:
    return sum(s.objects for s in event.subjects) if event.kind is Kind.TRANSFER else 0


def words(event: AuditEvent) -> str:
    """The event in a sentence, without studies and patients."""
    source, destination = event.of_role(RoleID.SOURCE), event.of_role(RoleID.DESTINATION)
    a, b = _name(source), _name(destination)
    failed = event.outcome is not Outcome.SUCCESS
    count = _objects(event)
    requests = detail(event, REQUESTS)
    objects = f"{count} object{'' if count == 1 else 's'}" if count else "objects"
    if requests:
        objects = f"objects in {requests} request{'' if requests == '1' else 's'}"
    final = detail(event, DESTINATION)
    beyond = f", for {final}" if final else ""
    match event.kind:
        case Kind.APPLICATION:
            return "Relay starts" if event.type is EventType.START else "Relay stops"
        case Kind.BEGIN:
            return f"{a} begins to send to {b}{beyond}"
        case Kind.TRANSFER if failed:
            return f"{objects} from {a} not taken by {b}{beyond}"
        case Kind.TRANSFER:
            return f"{a} has sent {objects} to {b}{beyond}"
        case Kind.QUERY:
            return f"{a} asks {b}" if not failed else f"{a} asks {b}, and is refused"
        case Kind.SIGN_IN:
            verb = "signs out" if event.type is EventType.LOGOUT else "signs in"
            who = _name(event.requestor)
            return f"{who} {verb}" if not failed else f"{who} does not get in"
        case Kind.ALERT:
            return detail(event, ALERT_DESCRIPTION)


def _name(participant: Participant | None) -> str:
    return participant.id if participant is not None else "somebody"


def to_csv(rows: Iterable[tuple[Entry, AuditEvent]], *, header: bool) -> str:
    """As CSV (RFC 4180), one line each; no field is a formula to a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out)
    if header:
        writer.writerow(COLUMNS)
    for entry, event in rows:
        writer.writerow(map(_cell, _line(entry, event)))
    return out.getvalue()


def _line(entry: Entry, event: AuditEvent) -> Sequence[object]:
    shown = to_json(entry, event, studies=True)
    addresses = [p.address for p in event.participants if p.address]
    studies = [row["study"] for row in shown["studies"] if row["study"]]
    return (
        shown["number"],
        moment(event.at),
        shown["kind"],
        shown["outcome"],
        shown["words"],
        shown["why"],
        shown["requestor"] or "",
        shown["source"] or "",
        shown["destination"] or "",
        " ".join(addresses),
        " ".join(studies),
        shown["objects"],
        shown["association"] or "",
        shown["hash"],
    )


def _cell(value: object) -> object:
    """With a quote before whatever a spreadsheet would calculate (CWE-1236)."""
    return _FORMULA.sub(r"\1'", value) if isinstance(value, str) else value
