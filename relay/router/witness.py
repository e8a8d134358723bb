"""Sees what passes over one association, for the audit, as far as command sets tell it.

Objects are counted by study, SOP class and outcome; of queries the identifier is kept where the
audit wants it. No data set of an object is looked at: which study it belongs to is known only where
the queue has read it for its index (DESIGN §6), and empty everywhere else.
"""

from collections.abc import Callable, Iterator, Mapping

import attrs

from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import CommandField, Tag
from relay.dicom.pdu import PDV, AAssociateAC
from relay.dicom.status import means_stored
from relay.router.direction import Verdict
from relay.router.passthrough import DIMSEGuard

# Instances that are told by name where their study is not known: one is enough for an archive to
# find it by, and an association may bring some thousands.
NAMED = 32

# The identifier of a query that is kept; a longer one is told without it.
MAXIMUM_IDENTIFIER = 8 * 1024


@attrs.define(slots=True)
class Seen:
    """Instances of one SOP class: how many, and the first of them by their UIDs."""

    count: int = 0
    uids: list[str] = attrs.field(factory=list)


@attrs.define(slots=True)
class Tally:
    """What became of the objects of one study in one direction: by SOP class, and why not."""

    stored: dict[str, Seen] = attrs.field(factory=dict)
    failed: dict[str, Seen] = attrs.field(factory=dict)
    why: str = ""

    def add(self, sop_class: str, instance: str, why: str, *, named: bool) -> None:
        """One more; a `why` says that it was not stored."""
        kind = self.failed if why else self.stored
        seen = kind.get(sop_class)
        if seen is None:
            seen = kind[sop_class] = Seen()
        seen.count += 1
        if named and len(seen.uids) < NAMED and instance:
            seen.uids.append(instance)
        if why and not self.why:
            self.why = why


@attrs.frozen(slots=True)
class Asked:
    """A query that has passed: its SOP class, its identifier and how that is encoded."""

    sop_class: str
    identifier: bytes = attrs.field(repr=False)
    transfer_syntax: str


def _nobody(*_: object) -> None:
    """Nobody is told."""


@attrs.define(slots=True, eq=False)
class Witness:
    """What has passed. `inward` is from who was called to who calls, as the objects of a C-GET.

    `began` is told the first object of each study, `asked` each query, and `ended` all of it.
    """

    began: Callable[[bool, str, str, str], None] = _nobody
    asked: Callable[[Asked], None] = _nobody
    ended: "Callable[[Witness], None]" = _nobody
    denied: int = 0
    _tallies: dict[tuple[bool, str], Tally] = attrs.field(factory=dict)
    _watching: "Watching | None" = None

    def watch(self, guard: DIMSEGuard) -> "Watching":
        """`guard`, whose verdicts are seen here."""
        self._watching = Watching(guard, self)
        return self._watching

    def begins(self, study: str, sop_class: str, instance: str, *, inward: bool = False) -> None:
        """An object is on its way."""
        if (inward, study) not in self._tallies:
            self._tallies[inward, study] = Tally()
            self.began(inward, study, sop_class, instance)

    def over(
        self, study: str, sop_class: str, instance: str, why: str = "", *, inward: bool = False
    ) -> None:
        """It was stored; with a `why`, it was not."""
        tally = self._tallies.get((inward, study))
        if tally is None:
            self.begins(study, sop_class, instance, inward=inward)
            tally = self._tallies[inward, study]
        tally.add(sop_class, instance, why, named=not study)

    def stored(self, sop_class: str, seen: Seen, *, inward: bool) -> None:
        """So many objects of a study that is not known were stored."""
        self._tallies.setdefault((inward, ""), Tally()).stored[sop_class] = seen

    def tallies(self) -> Iterator[tuple[bool, str, Tally]]:
        """Direction, study and what became of it."""
        for (inward, study), tally in self._tallies.items():
            yield inward, study, tally

    def close(self) -> None:
        """The association is over."""
        if self._watching is not None:
            self._watching.close()
        self.ended(self)
        self._tallies.clear()


# Of a command as on the wire (PS3.7 §E.1): what each object's two commands are known by. Read so,
# and not by the properties of a CommandSet, watching costs 6 µs an object in place of 14.
_FIELD, _MESSAGE_ID, _RESPONDED_TO = 0x0100, 0x0110, 0x0120
_STATUS, _SOP_CLASS, _INSTANCE = 0x0900, 0x0002, 0x1000
_C_STORE_RQ, _C_STORE_RSP, _C_FIND_RQ = (
    field.to_bytes(2, "little")
    for field in (CommandField.C_STORE_RQ, CommandField.C_STORE_RSP, CommandField.C_FIND_RQ)
)
_SUCCESS = bytes(2)

_Elements = Mapping[int, bytes]


class Watching:
    """A guard whose verdicts a witness sees."""

    def __init__(self, guard: DIMSEGuard, witness: Witness) -> None:
        self._guard = guard
        self._witness = witness
        self._syntaxes: dict[int, str] = {}
        # Requests that wait for their response: by direction, inward or not, and Message ID.
        self._stores: dict[tuple[bool, bytes | None], _Elements] = {}
        self._begun = [False, False]
        # What was stored, by direction and SOP class.
        self._seen: tuple[dict[bytes, Seen], dict[bytes, Seen]] = ({}, {})
        self._query: tuple[str, int] | None = None
        self._identifier = bytearray()

    def negotiated(self, answer: AAssociateAC) -> None:
        """See relay.router.guard."""
        self._guard.negotiated(answer)
        self._syntaxes = {r.id: r.transfer_syntax for r in answer.contexts if r.accepted}

    def outward(self, pdv: PDV) -> Verdict:
        """See relay.router.guard."""
        verdict = self._guard.outward(pdv)
        if verdict.command is not None:
            self._see(verdict.command, pdv.context_id, inward=False)
        elif self._query is not None and not pdv.is_command:
            self._read(pdv)
        if verdict.reply is not None:
            self._witness.denied += 1
        return verdict

    def inward(self, pdv: PDV) -> Verdict:
        """See relay.router.guard."""
        verdict = self._guard.inward(pdv)
        if verdict.command is not None:
            self._see(verdict.command, pdv.context_id, inward=True)
        if verdict.reply is not None:
            self._witness.denied += 1
        return verdict

    def close(self) -> None:
        """What was not answered was not stored, as far as anybody knows."""
        for (inward, _), request in self._stores.items():
            self._failed(request, "not answered", inward=inward)
        self._stores.clear()
        for way, seen in enumerate(self._seen):
            for sop_class, of in seen.items():
                self._witness.stored(_text(sop_class), of, inward=bool(way))
            seen.clear()

    def _see(self, command: CommandSet, context_id: int, *, inward: bool) -> None:
        elements = command.elements
        field = elements.get(_FIELD)
        if field == _C_STORE_RQ:
            self._stores[inward, elements.get(_MESSAGE_ID)] = elements
            if not self._begun[inward]:
                self._begun[inward] = True
                self._witness.begins("", *_named(elements), inward=inward)
        elif field == _C_STORE_RSP:
            request = self._stores.pop((not inward, elements.get(_RESPONDED_TO)), None)
            if request is not None and elements.get(_STATUS) == _SUCCESS:
                self._stored(request, inward=not inward)
            elif request is not None:
                self._answered(request, command.status, inward=not inward)
        elif field == _C_FIND_RQ:
            self._query = (command.text(Tag.AFFECTED_SOP_CLASS_UID) or "", context_id)
            self._identifier.clear()

    def _answered(self, request: _Elements, status: int, *, inward: bool) -> None:
        if means_stored(status):
            self._stored(request, inward=inward)
        else:
            self._failed(request, f"{status:04X}H", inward=inward)

    def _stored(self, request: _Elements, *, inward: bool) -> None:
        sop_class = request.get(_SOP_CLASS, b"")
        seen = self._seen[inward].get(sop_class)
        if seen is None:
            seen = self._seen[inward][sop_class] = Seen()
        seen.count += 1
        if seen.count <= NAMED and (instance := _text(request.get(_INSTANCE, b""))):
            seen.uids.append(instance)

    def _failed(self, request: _Elements, why: str, *, inward: bool) -> None:
        self._witness.over("", *_named(request), why, inward=inward)

    def _read(self, pdv: PDV) -> None:
        assert self._query is not None, "it was looked at"
        if len(self._identifier) <= MAXIMUM_IDENTIFIER:
            self._identifier += pdv.fragment
        if pdv.is_last:
            (sop_class, context_id), self._query = self._query, None
            whole = len(self._identifier) <= MAXIMUM_IDENTIFIER
            identifier = bytes(self._identifier) if whole else b""
            syntax = self._syntaxes.get(context_id, "")
            self._witness.asked(Asked(sop_class, identifier, syntax))


def _named(request: _Elements) -> tuple[str, str]:
    """The SOP class and instance of a C-STORE-RQ."""
    return _text(request.get(_SOP_CLASS, b"")), _text(request.get(_INSTANCE, b""))


def _text(value: bytes) -> str:
    """A UID without its padding; each byte is one character."""
    return value.decode("latin-1").strip(" \0")
