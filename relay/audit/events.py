"""What an entry of the audit holds: one event, whom it concerns and what.

An event is kept as JSON, whose bytes the chain of hashes is over, and shown as a DICOM Audit
Message (relay.audit.document). It holds nothing that such a message has no place for.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import attrs

from relay.audit.codes import Action, EventType, IDType, Kind, Outcome, RoleID

# Of what a wire or a person says: an AE title has 16 characters, a UID 64, a hospital's name 64; a
# cause is a line. One entry stays a message that every collector takes (PS3.15 §A.6: 32768 bytes).
MAXIMUM_TEXT = 512

# SOP classes and instances that one entry names. An association brings a handful of classes; of the
# instances, counted in full, one is enough for an archive to find its study by.
MAXIMUM_CLASSES = 32
MAXIMUM_INSTANCES = 32

# The identifier of a query. What is longer is left out, and the entry says so by an empty one.
MAXIMUM_QUERY = 8 * 1024


def text(value: object) -> str:
    """`value` as an entry may hold it: what XML 1.0 §2.2 cannot hold is escaped, and it is short.

    Lone surrogates and control characters come from wires; a newline would be lost in an attribute.
    """
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in str(value)[:MAXIMUM_TEXT]
    )
    return shown[:MAXIMUM_TEXT]


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(text(value) for value, _ in zip(values, range(MAXIMUM_INSTANCES), strict=False))


@attrs.frozen(slots=True)
class Participant:
    """Who or what took part. PS3.15 §A.5.2, ActiveParticipant.

    `id` is an AE title, a person's name or a fingerprint; `ae_title` says that it is one. `name` is
    for people. `address` is where it was on the network: an IP address, or a machine's name.
    """

    id: str = attrs.field(converter=text)
    role: RoleID | None = None
    requestor: bool = False
    name: str = attrs.field(default="", converter=text)
    address: str = attrs.field(default="", converter=text)
    ae_title: bool = False
    person: bool = False


@attrs.frozen(slots=True)
class Instances:
    """So many instances of a SOP class; some of them by their UIDs."""

    sop_class: str = attrs.field(converter=text)
    count: int
    uids: Sequence[str] = attrs.field(default=(), converter=_texts)


@attrs.frozen(slots=True)
class Query:
    """What was asked: the data set of a DICOM query, or another one as its protocol writes it.

    `sealed` is set in what is kept: the bytes are encrypted (relay.audit.entries).
    """

    content: bytes = attrs.field(repr=False)
    transfer_syntax: str = attrs.field(default="", converter=text)
    sealed: bool = False


def _classes(instances: Iterable[Instances]) -> tuple[Instances, ...]:
    return tuple(instances)[:MAXIMUM_CLASSES]


def _pairs(details: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, text(value)) for name, value in details)


@attrs.frozen(slots=True)
class Subject:
    """What the event was about. PS3.15 §A.5.2, ParticipantObjectIdentification.

    `details` are pairs of a name and a text.
    """

    type: IDType
    id: str = attrs.field(converter=text)
    instances: Sequence[Instances] = attrs.field(default=(), converter=_classes)
    query: Query | None = None
    details: Sequence[tuple[str, str]] = attrs.field(default=(), converter=_pairs)

    @property
    def objects(self) -> int:
        """How many instances there were."""
        return sum(of.count for of in self.instances)


def _participants(those: Iterable[Participant]) -> tuple[Participant, ...]:
    return tuple(those)


def _subjects(those: Iterable[Subject]) -> tuple[Subject, ...]:
    return tuple(those)


@attrs.frozen(slots=True, kw_only=True)
class AuditEvent:
    """One event. `at` is in Unix seconds; `why` is the outcome in words."""

    kind: Kind
    type: EventType | None = None
    action: Action = Action.EXECUTE
    outcome: Outcome = Outcome.SUCCESS
    why: str = attrs.field(default="", converter=text)
    participants: Sequence[Participant] = attrs.field(converter=_participants)
    subjects: Sequence[Subject] = attrs.field(default=(), converter=_subjects)
    at: float = attrs.field(factory=time.time)

    @property
    def parties(self) -> frozenset[str]:
        """All whom it concerns, by the names that an entry is looked for by."""
        return frozenset(participant.id for participant in self.participants if participant.id)

    def of_role(self, role: RoleID) -> Participant | None:
        """The first participant in this role."""
        return next((p for p in self.participants if p.role is role), None)

    @property
    def requestor(self) -> Participant | None:
        """Who asked for it."""
        return next((p for p in self.participants if p.requestor), None)

    def encode(self) -> bytes:
        """As JSON, without what is empty."""
        return json.dumps(_plain(self), separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises ValueError if it is not what `encode` makes."""
        try:
            event: Self = _event(cls, json.loads(data))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no audit event: {error!r}") from None
        return event


def _full(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if value not in ("", (), [], None, False)}


def _plain(event: AuditEvent) -> dict[str, Any]:
    return _full(
        (
            ("kind", event.kind.word),
            ("type", event.type and event.type.name),
            ("action", event.action.value),
            ("outcome", event.outcome.value),
            ("why", event.why),
            ("participants", [_plain_participant(p) for p in event.participants]),
            ("subjects", [_plain_subject(s) for s in event.subjects]),
            ("at", event.at),
        )
    )


def _plain_participant(participant: Participant) -> dict[str, Any]:
    plain = attrs.asdict(participant)
    plain["role"] = participant.role and participant.role.name
    return _full(plain.items())


def _plain_subject(subject: Subject) -> dict[str, Any]:
    query = subject.query
    return _full(
        (
            ("type", subject.type.name),
            ("id", subject.id),
            ("instances", [_full(attrs.asdict(of).items()) for of in subject.instances]),
            ("query", query and query.content.hex()),
            ("syntax", query and query.transfer_syntax),
            ("sealed", query and query.sealed),
            # An empty query is one all the same.
            ("asked", query is not None),
            ("details", [list(pair) for pair in subject.details]),
        )
    )


def _event(cls: type[AuditEvent], plain: Mapping[str, Any]) -> Any:
    return cls(
        kind=Kind.of(plain["kind"]),
        type=EventType[plain["type"]] if "type" in plain else None,
        action=Action(plain["action"]),
        outcome=Outcome(plain["outcome"]),
        why=plain.get("why", ""),
        participants=[_participant(participant) for participant in plain.get("participants", ())],
        subjects=[_subject(subject) for subject in plain.get("subjects", ())],
        at=float(plain["at"]),
    )


def _participant(plain: Mapping[str, Any]) -> Participant:
    role = RoleID[plain["role"]] if "role" in plain else None
    return Participant(**{"id": "", **plain, "role": role})


def _subject(plain: Mapping[str, Any]) -> Subject:
    query = None
    if plain.get("asked"):
        content = bytes.fromhex(plain.get("query", ""))
        query = Query(content, plain.get("syntax", ""), plain.get("sealed", False))
    return Subject(
        type=IDType[plain["type"]],
        id=plain.get("id", ""),
        instances=[
            Instances(of.get("sop_class", ""), of.get("count", 0), of.get("uids", ()))
            for of in plain.get("instances", ())
        ],
        query=query,
        details=[(name, value) for name, value in plain.get("details", ())],
    )
