"""What this Router tells its audit (relay.audit): who moved, asked, changed or was refused what.

The register of associations (relay.router.live) and those who refuse calls say what happened; here
it becomes an event, with the devices, hospitals and addresses that are known.
"""

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from functools import partial

import attrs
import trio

from relay.audit import happenings
from relay.audit.codes import EventType, IDType, Outcome
from relay.audit.events import AuditEvent, Instances, Participant, Query
from relay.audit.happenings import Transfer
from relay.dicom import elements
from relay.dicom.elements import Encoding
from relay.dicom.rejection import PERMANENT, TEMPORARY_CONGESTION, rejected
from relay.errors import AssociationRejected, HandshakeError, Refusal, RelayError
from relay.router.live import LiveAssociation, Side, Work
from relay.router.passthrough import How
from relay.router.witness import Asked, Seen, Tally, Witness

# Elements of a query that say how it is meant and nothing of a patient: they keep their values
# where all others are emptied. PS3.4 §C.4.1.1.3.
_KEPT = frozenset({0x0008_0005, 0x0008_0052, 0x0008_0053})

# Those with another hospital; of the others the peer is this one.
_CROSSING = frozenset({Work.RELAYED, Work.DELIVERY})

# Not the caller's doing, and gone when it tries again.
_PASSING = frozenset({Refusal.BUSY})


# Studies of one retrieve that are told one by one; nobody asks for more by hand.
MAXIMUM_STUDIES = 100


class Queries(Enum):
    """What the audit keeps of what a query asked for (PS3.15 §A.5.3.10)."""

    NONE = "none"  # that it was asked
    KEYS = "keys"  # by which keys, without what they are to match
    WHOLE = "whole"  # all of it, which may name patients: sealed on the disk


def _unheard(event: AuditEvent) -> None:
    """Nobody keeps it."""


async def _roomy() -> None:
    await trio.lowlevel.checkpoint()


def _unknown(name: str) -> str:
    return ""


@attrs.define(slots=True, eq=False, kw_only=True)
class Auditing:
    """What makes events of this Router, whose AE title is `ae_title`.

    `record` has them kept and `room` waits until something new may begin (relay.audit.audit).
    `host_of` gives the address of a device here, `hospital_of` the name of the hospital of a
    fingerprint; empty where there is none.
    """

    ae_title: str = ""
    record: Callable[[AuditEvent], None] = _unheard
    room: Callable[[], Awaitable[None]] = _roomy
    queries: Queries = Queries.KEYS
    host_of: Callable[[str], str] = _unknown
    hospital_of: Callable[[str], str] = _unknown

    @property
    def router(self) -> Participant:
        """This Router."""
        return Participant(self.ae_title, ae_title=True)

    async def admit(self) -> None:
        """Return once something new may begin. Raises AssociationRejected if nothing may."""
        try:
            await self.room()
        except RelayError as error:
            raise rejected(TEMPORARY_CONGESTION, str(error)) from error

    # --- associations -----------------------------------------------------------------------------

    def begun(self, entry: LiveAssociation) -> None:
        """An association begins: its witness tells this what passes."""
        if entry.work is Work.KNOWLEDGE:
            return  # two Routers among themselves
        witness = entry.witness
        witness.began = partial(self._transfer_begins, entry)
        witness.asked = partial(self._asked, entry)
        witness.ended = partial(self._ended, entry)

    def _transfer_begins(
        self, entry: LiveAssociation, inward: bool, study: str, sop_class: str, instance: str
    ) -> None:
        uids = [instance] if instance and not study else []
        transfer = self._transfer(entry, inward=inward)
        self.record(transfer.begins(study, Instances(sop_class, 1, uids)))

    def _asked(self, entry: LiveAssociation, asked: Asked) -> None:
        self.record(self._transfer(entry).asked(asked.sop_class, self.query(asked)))

    def _ended(self, entry: LiveAssociation, witness: Witness) -> None:
        for inward, study, tally in witness.tallies():
            self._transferred(self._transfer(entry, inward=inward), study, tally)
        if witness.denied:
            words = f"{witness.denied} requests refused in association {entry.number}"
            self._alert(words, entry.called, self._parties(entry), why="not granted")
        ending = entry.ending
        if ending is not None and ending.how is How.REJECTED and ending.numbers[:1] == (PERMANENT,):
            words = f"{entry.calling} is not let in by {entry.called}"
            self._alert(words, entry.called, self._parties(entry), why=ending.why)
        if entry.revoked:
            words = f"association {entry.number} ended: it is no longer permitted"
            self._alert(words, entry.called, self._parties(entry))

    def _transferred(self, transfer: Transfer, study: str, tally: Tally) -> None:
        if tally.stored:
            self.record(transfer.ended(study, _instances(tally.stored)))
        if tally.failed:
            self.record(transfer.ended(study, _instances(tally.failed), tally.why))

    def _transfer(self, entry: LiveAssociation, *, inward: bool = False) -> Transfer:
        """Between whom an association carries objects; `inward` from who was called."""
        calling, called = self._parties(entry)
        others: list[Participant] = []
        final = ""
        if entry.work is Work.QUEUED:
            # It is taken in here, and goes to its device later.
            called, final = self.router, entry.called
        elif entry.peer and entry.work in _CROSSING:
            others.append(Participant(entry.peer, name=self.hospital_of(entry.peer)))
        if entry.work is Work.DELIVERY and entry.side is Side.CALLER:
            others.append(calling)
            calling = attrs.evolve(self.router, requestor=True)
        source, destination = (called, calling) if inward else (calling, called)
        return Transfer(
            source=source,
            destination=destination,
            others=others,
            association=entry.number,
            final=final,
        )

    def _parties(self, entry: LiveAssociation) -> tuple[Participant, Participant]:
        """Who calls, and who is called: one of both is a device of this hospital."""
        near, far = self.host_of(entry.device), self.hospital_of(entry.peer)
        own_calls = entry.side is Side.CALLER
        calling = Participant(
            entry.calling,
            requestor=True,
            name="" if own_calls else far,
            address=near if own_calls else "",
            ae_title=True,
        )
        called = Participant(
            entry.called,
            name=far if own_calls else "",
            address="" if own_calls else near,
            ae_title=True,
        )
        return calling, called

    # --- the federation and DICOMweb --------------------------------------------------------------

    def retrieved(
        self,
        entry: LiveAssociation,
        receiver: str,
        studies: Sequence[str],
        *,
        stored: int,
        failed: int,
        why: str,
    ) -> None:
        """Who calls has had so many objects of these studies sent, to itself or to `receiver`.

        The federation knows how many there were, and not of which study each one is.
        """
        asked, holder = self._parties(entry)
        own = not receiver
        transfer = Transfer(
            source=holder,
            destination=asked if own else Participant(receiver, ae_title=True),
            others=() if own else (asked,),
            association=entry.number,
        )
        for count, words in ((stored, ""), (failed, why or "not all was sent")):
            if count:
                instances = [Instances("", count)]
                self.record(transfer.ended(studies[0] if studies else "", instances, words))
                for study in studies[1:MAXIMUM_STUDIES]:
                    self.record(transfer.ended(study, (), words))

    def searched(self, transfer: Transfer, resource: str, names: str) -> None:
        """The source has searched the destination by DICOMweb, by the parameters `names`."""
        kept = b"" if self.queries is Queries.NONE else names.encode()
        self.record(happenings.web_query(transfer, resource, kept))

    # --- refusals ---------------------------------------------------------------------------------

    def refused(self, calling: str, called: str, address: str, error: AssociationRejected) -> None:
        """A call of this hospital's was refused; what passes by itself is no alert."""
        if error.result == PERMANENT:
            words = f"{calling} may not call {called}"
            caller = Participant(calling, address=address, ae_title=True)
            self._alert(words, called, (caller,), why=str(error))

    def refused_opening(self, peer: str, error: HandshakeError) -> None:
        """A call of the Router with this fingerprint was refused."""
        if error.refusal in _PASSING:
            return
        hospital = self.hospital_of(peer)
        words = f"a call of {hospital or 'another Router'} is refused"
        self._alert(words, self.ae_title, (Participant(peer, name=hospital),), why=str(error))

    def refused_move(self, calling: str, called: str, destination: str, why: str) -> None:
        """A C-MOVE that `calling` asked of `called` is refused for its `destination`."""
        words = f"{calling} may not have {called} send to {destination}"
        self._alert(words, destination, (Participant(calling, ae_title=True),), why=why)

    def refused_token(self, address: str, resource: str, why: str) -> None:
        """A request of DICOMweb came with no token that holds."""
        self.record(
            happenings.alert(
                EventType.NODE_AUTHENTICATION,
                self.router,
                "a request of DICOMweb is refused",
                subject=resource,
                subject_type=IDType.URI,
                performers=[Participant(address or "unknown", address=address)],
                why=why,
            )
        )

    def _alert(
        self, words: str, subject: str, performers: tuple[Participant, ...], why: str = ""
    ) -> None:
        self.record(
            happenings.alert(
                EventType.NODE_AUTHENTICATION,
                self.router,
                words,
                subject=subject or "unknown",
                performers=performers,
                outcome=Outcome.MINOR_FAILURE,
                why=why,
            )
        )

    # --- queries ----------------------------------------------------------------------------------

    def query(self, asked: Asked) -> Query:
        """What is kept of a query."""
        match self.queries:
            case Queries.NONE:
                kept = b""
            case Queries.KEYS:
                encoding = elements.encoding_of(asked.transfer_syntax)
                kept = keys_alone(asked.identifier, encoding) if encoding is not None else b""
            case Queries.WHOLE:
                kept = asked.identifier
        return Query(kept, asked.transfer_syntax)


def keys_alone(identifier: bytes, encoding: Encoding) -> bytes:
    """The identifier of a query with its keys and no values to match; nothing of one that cannot
    be read. Of sequences too only that they were asked for."""
    return b"".join(
        elements.encode(
            element.tag,
            element.vr,
            identifier[element.value : element.end] if element.tag in _KEPT else b"",
            encoding,
        )
        for element in elements.top_level(identifier, encoding) or ()
    )


def _instances(seen: dict[str, Seen]) -> list[Instances]:
    return [Instances(sop_class, of.count, of.uids) for sop_class, of in seen.items()]
