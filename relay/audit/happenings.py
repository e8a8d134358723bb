"""What is audited, one function for each kind of event of PS3.15 §A.5.3 that Relay has.

Each makes an AuditEvent with the participants and objects that the standard's table asks for.
"""

from collections.abc import Iterable, Sequence

import attrs

from relay.audit.codes import Action, EventType, IDType, Kind, Outcome, RoleID
from relay.audit.events import AuditEvent, Instances, Participant, Query, Subject

# PS3.15 §A.5.3.11 asks for one of this name, with what it was.
ALERT_DESCRIPTION = "Alert Description"

# The request of REST by which somebody has changed something.
REQUEST = "Request"

ASSOCIATION = "Association"  # by which number the log knows it
REQUESTS = "Requests"
DESTINATION = "Destination"  # for whom it is in the end, where it goes there later

# What stands for a study or a patient that is not known: no UID and no Patient ID looks so.
UNKNOWN = "<none>"


def application(id: str, *, started: bool, ae_title: bool = False, why: str = "") -> AuditEvent:
    """Relay starts or stops. PS3.15 §A.5.3.1."""
    return AuditEvent(
        kind=Kind.APPLICATION,
        type=EventType.START if started else EventType.STOP,
        why=why,
        participants=[Participant(id, RoleID.APPLICATION, ae_title=ae_title)],
    )


@attrs.frozen(slots=True, kw_only=True)
class Transfer:
    """Between whom instances go, and by what. `others` are third parties, as far as known.

    `association` is its number in the log; `destination` for whom the objects are in the end.
    """

    source: Participant
    destination: Participant
    others: Sequence[Participant] = ()
    association: str = ""
    final: str = ""

    def begins(self, study: str, *first: Instances) -> AuditEvent:
        """The first instance of `study`, empty where that is not known, goes. PS3.15 §A.5.3.3."""
        return AuditEvent(
            kind=Kind.BEGIN,
            participants=self._participants(),
            subjects=self._subjects(study, first),
        )

    def ended(
        self, study: str, instances: Sequence[Instances], why: str = "", *, requests: int = 0
    ) -> AuditEvent:
        """These instances of `study` have gone; with a `why`, they have not. PS3.15 §A.5.3.7.

        `requests` is in how many requests they went, where that is known and nothing else.

        What succeeded and what failed are two events (PS3.15 §A.5.2, EventOutcomeIndicator). The
        action is "read": whether the receiver held copies before is not known here.
        """
        return AuditEvent(
            kind=Kind.TRANSFER,
            action=Action.READ,
            outcome=Outcome.MINOR_FAILURE if why else Outcome.SUCCESS,
            why=why,
            participants=self._participants(),
            subjects=self._subjects(study, instances, requests),
        )

    def asked(self, sop_class: str, query: Query, why: str = "") -> AuditEvent:
        """The source asks the destination for what it holds. PS3.15 §A.5.3.10."""
        details = [(ASSOCIATION, self.association)] if self.association else []
        return AuditEvent(
            kind=Kind.QUERY,
            outcome=Outcome.MINOR_FAILURE if why else Outcome.SUCCESS,
            why=why,
            participants=self._participants(),
            subjects=[Subject(IDType.SOP_CLASS, sop_class, query=query, details=details)],
        )

    def _participants(self) -> list[Participant]:
        source = attrs.evolve(self.source, role=RoleID.SOURCE)
        return [source, attrs.evolve(self.destination, role=RoleID.DESTINATION), *self.others]

    def _subjects(
        self, study: str, instances: Sequence[Instances], requests: int = 0
    ) -> list[Subject]:
        said = (
            (ASSOCIATION, self.association),
            (DESTINATION, self.final),
            (REQUESTS, str(requests or "")),
        )
        return [
            Subject(IDType.STUDY, study or UNKNOWN, instances, details=[p for p in said if p[1]]),
            # The table asks for one. Of a patient nothing is known here: what is relayed is never
            # read, and what is queued only up to its study.
            Subject(IDType.PATIENT, UNKNOWN),
        ]


def web_query(transfer: Transfer, resource: str, query: bytes, why: str = "") -> AuditEvent:
    """A search by DICOMweb, whose query is not a data set. PS3.15 §A.5.3.10."""
    event = transfer.asked(resource, Query(query), why)
    subject = attrs.evolve(event.subjects[0], type=IDType.URI)
    return attrs.evolve(event, subjects=[subject])


def alert(
    type: EventType,
    reporter: Participant,
    words: str,
    *,
    subject: str,
    performers: Iterable[Participant] = (),
    subject_type: IDType = IDType.NODE,
    outcome: Outcome = Outcome.MINOR_FAILURE,
    why: str = "",
    details: Iterable[tuple[str, str]] = (),
) -> AuditEvent:
    """Something that concerns security has happened. PS3.15 §A.5.3.11.

    Success is an informative alert; a minor failure was prevented. `words` say what it was;
    `subject` is what it was about.
    """
    return AuditEvent(
        kind=Kind.ALERT,
        type=type,
        outcome=outcome,
        why=why,
        participants=[reporter, *(attrs.evolve(p, requestor=False) for p in performers)],
        subjects=[Subject(subject_type, subject, details=[(ALERT_DESCRIPTION, words), *details])],
    )


def sign_in(
    name: str,
    address: str,
    *,
    by: Participant | None = None,
    out: bool = False,
    refused: str = "",
    last: bool = False,
) -> AuditEvent:
    """A person signs in, or out. PS3.15 §A.5.3.12.

    `refused` is why not; `last` that the next attempt has to wait. `by` is the process that asked.
    """
    outcome = Outcome.SUCCESS
    if refused:
        outcome = Outcome.SERIOUS_FAILURE if last else Outcome.MINOR_FAILURE
    person = Participant(name, requestor=True, address=address or "localhost", person=True)
    return AuditEvent(
        kind=Kind.SIGN_IN,
        type=EventType.LOGOUT if out else EventType.LOGIN,
        outcome=outcome,
        why=refused,
        participants=[person, by] if by is not None else [person],
    )
