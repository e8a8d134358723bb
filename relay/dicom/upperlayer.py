"""One end of one association, as a pure machine: bytes and primitives in, actions out.

It does what PS3.8 §9.2 says and nothing else: no socket, no clock. Whoever holds the socket
carries out the actions in their order, tells it what arrived (`receive`, where `b""` is the end of
the stream) and when the ARTIM timer ran out (`artim_expired`).

A fault of the peer is never raised. It comes out as what the standard makes of it (an A-ABORT to
send, an indication to the user), and `fault` holds the words for the log. A connection that ends
in Sta2 or Sta13 ends without an indication, as Table 9-10 says: there is no user to tell.
"""

from collections.abc import Iterable
from enum import Enum

import attrs

from relay.dicom import pdu
from relay.dicom.framing import PDUReader, RequestTooLong, pdu_name
from relay.dicom.pdu import (
    PDV,
    PDV_HEADER_LENGTH,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
    Buffer,
    PDUType,
)
from relay.dicom.rejection import NO_REASON_GIVEN, PROTOCOL_VERSION_NOT_SUPPORTED
from relay.dicom.statemachine import (
    AA_1,
    AA_7,
    AA_8,
    AE_3,
    AE_6,
    TRANSITIONS,
    Event,
    State,
    Step,
)
from relay.dicom.useritems import MaximumLength, find, replace
from relay.errors import AbortReason, AbortSource, LocalProtocolError, RemoteProtocolError

# A P-DATA-TF must hold the header of a PDV and, since fragments are even (PS3.8 Annex E), two bytes
# of it. A peer that takes less can be sent nothing: that is refused when it says so.
SMALLEST_MAXIMUM_LENGTH = PDV_HEADER_LENGTH + 2

# The longest P-DATA-TF that we send, also to a peer that takes more: longer ones gain nothing, and
# a peer that says "unlimited" need not have the memory.
LONGEST_SENT = 256 * 1024

# PS3.8 §9.3.2: bit 0 is the only one to be tested.
_PROTOCOL_VERSION = 1


class Role(Enum):
    """Who asked for the association (not to be confused with SCU and SCP)."""

    REQUESTOR = "requestor"
    ACCEPTOR = "acceptor"


@attrs.frozen(slots=True)
class Send:
    """Write these bytes to the connection, one part behind the other: whole PDUs.

    The fragments of PDVs are parts as they were given, not copies.
    """

    parts: tuple[Buffer, ...]

    @property
    def data(self) -> bytes:
        """All of it in one piece."""
        return b"".join(self.parts)


@attrs.frozen(slots=True)
class Indicate:
    """Hand this to the user of the association."""

    atom: Atom


@attrs.frozen(slots=True)
class StartARTIM:
    """Start the ARTIM timer, or start it anew."""


@attrs.frozen(slots=True)
class StopARTIM:
    """Stop the ARTIM timer if it runs."""


@attrs.frozen(slots=True)
class Close:
    """Close the connection."""


Action = Send | Indicate | StartARTIM | StopARTIM | Close

_PRIMITIVES: dict[type[Atom], Event] = {
    AAssociateRQ: Event.EVT1,
    AAssociateAC: Event.EVT7,
    AAssociateRJ: Event.EVT8,
    PDV: Event.EVT9,
    AReleaseRQ: Event.EVT11,
    AReleaseRP: Event.EVT14,
    AAbort: Event.EVT15,
}

_PDUS: dict[int, Event] = {
    PDUType.A_ASSOCIATE_RQ: Event.EVT6,
    PDUType.A_ASSOCIATE_AC: Event.EVT3,
    PDUType.A_ASSOCIATE_RJ: Event.EVT4,
    PDUType.P_DATA_TF: Event.EVT10,
    PDUType.A_RELEASE_RQ: Event.EVT12,
    PDUType.A_RELEASE_RP: Event.EVT13,
    PDUType.A_ABORT: Event.EVT16,
}

_USER_ABORT = AAbort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED)


@attrs.frozen(slots=True)
class _Cause:
    """What an event brings with it, for the steps of its action."""

    encoded: tuple[Buffer, ...] = ()
    indications: tuple[Atom, ...] = ()
    rejection: AAssociateRJ | None = None
    reason: AbortReason = AbortReason.NOT_SPECIFIED


class UpperLayer:
    """One association, from the connection's first byte to its last; it is not used again."""

    def __init__(self, role: Role, maximum_length: int) -> None:
        """`maximum_length` is what we take in a P-DATA-TF, in bytes: what we tell the peer."""
        if maximum_length < SMALLEST_MAXIMUM_LENGTH:
            raise LocalProtocolError(
                f"maximum length {maximum_length}: at least {SMALLEST_MAXIMUM_LENGTH}"
            )
        self.role = role
        self.state = State.STA1
        self.maximum_length = maximum_length
        self.peer_maximum_length = 0
        """What the peer takes in a P-DATA-TF, in bytes; 0 is unlimited (PS3.8 §D.1)."""
        self.fault: str | None = None
        """What the peer did wrong first, in words for the log; it holds no patient data."""
        self._reader = PDUReader(maximum_length)
        self._lost = False  # where a PDU begins: after a length or type that cannot be true
        self._connected = False
        self._over = False
        self._request: AAssociateRQ | None = None
        self._encoded_request: tuple[Buffer, ...] = ()
        self._fragment_limit = LONGEST_SENT - PDV_HEADER_LENGTH
        self._odd: PDV | None = None  # one byte of a message, waiting for its second

    # --- what the holder of the socket says ---

    def connected(self) -> list[Action]:
        """The connection is up: Evt5 for the acceptor, Evt2 for the requestor.

        A requestor may be told so before or after `send(AAssociateRQ)`. Raises
        `LocalProtocolError` the second time.
        """
        if self._connected or self._over:
            raise LocalProtocolError("connected: this association has had its connection")
        self._connected = True
        if self.role is Role.ACCEPTOR:
            return self._run(Event.EVT5, _Cause())
        if self.state is State.STA4:
            return self._run(Event.EVT2, _Cause(self._encoded_request))
        return []

    def receive(self, data: bytes | memoryview) -> list[Action]:
        """Bytes from the peer, or `b""` when it has closed the connection.

        PDV fragments in the indications are views of `data` or of bytes gathered from earlier
        calls, so `data` must not change afterwards. What comes after the end is dropped.
        """
        if not len(data):
            return self._receive_end()
        actions: list[Action] = []
        if self._lost or self.state in (State.STA1, State.STA4):
            return actions
        try:
            for pdu_type, body in self._reader.read(data):
                actions += self._receive_pdu(pdu_type, body)
                if self._over:
                    break
        except RequestTooLong as error:
            self._lost = True
            self._blame(str(error))
            event = Event.EVT6 if self.state is State.STA2 else Event.EVT19
            actions += self._run(
                event, _Cause(rejection=NO_REASON_GIVEN, reason=error.abort_reason)
            )
        except RemoteProtocolError as error:
            self._lost = True
            actions += self._receive_invalid(error)
        return actions

    def artim_expired(self) -> list[Action]:
        """The ARTIM timer ran out (Evt18). Where it was stopped meanwhile this changes nothing."""
        if (Event.EVT18, self.state) not in TRANSITIONS:
            return []
        if self.state is State.STA2:
            self._blame("no A-ASSOCIATE-RQ within the ARTIM time")
        else:
            self._blame("connection not closed within the ARTIM time")
        return self._run(Event.EVT18, _Cause())

    # --- what the user of the association says ---

    def send(self, atom: Atom) -> list[Action]:
        """A primitive of the local user.

        The Maximum Length item of an A-ASSOCIATE is replaced by ours, and an A-ASSOCIATE-AC
        repeats the AE titles of its request (PS3.8 §9.3.3). A PDV is cut to what the peer takes,
        each fragment even; an odd byte waits for the rest of its message. An A-ABORT goes out as
        it is, source and reason.

        Raises `LocalProtocolError`, and nothing has changed, where Table 9-10 has no entry (an
        A-ABORT in Sta1, Sta2 or Sta13: just close) or where a value does not fit its field.
        """
        event = _PRIMITIVES[type(atom)]
        if (event, self.state) not in TRANSITIONS or self._over:
            raise LocalProtocolError(f"{type(atom).__name__} in {self.state.value}")
        match atom:
            case PDV():
                return self._run(event, _Cause(tuple(self.send_data((atom,)))))
            case AAssociateRQ():
                return self._send_request(event, atom)
            case AAssociateAC():
                assert self._request is not None, "Sta3 is reached by an A-ASSOCIATE-RQ only"
                atom = attrs.evolve(
                    atom,
                    called=self._request.called,
                    calling=self._request.calling,
                    user_items=self._with_maximum_length(atom),
                )
        return self._run(event, _Cause((pdu.encode(atom),)))

    def _send_request(self, event: Event, rq: AAssociateRQ) -> list[Action]:
        if self.role is Role.ACCEPTOR:
            raise LocalProtocolError("AAssociateRQ from the acceptor")
        request = attrs.evolve(rq, user_items=self._with_maximum_length(rq))
        self._encoded_request = (pdu.encode(request),)
        actions = self._run(event, _Cause())
        if self._connected:
            actions += self._run(Event.EVT2, _Cause(self._encoded_request))
        return actions

    def _with_maximum_length(self, atom: AAssociateRQ | AAssociateAC) -> tuple[pdu.UserItem, ...]:
        return replace(atom.user_items, MaximumLength(self.maximum_length))

    def send_data(self, pdvs: Iterable[PDV]) -> list[Buffer]:
        """As `send` of each of `pdvs` in turn: what is to be written, one part behind the other.

        Raises `LocalProtocolError` as `send` does, and nothing has changed.
        """
        # DT-1 and AR-7 send, and leave the state as it is (PS3.8 Table 9-10).
        if (Event.EVT9, self.state) not in TRANSITIONS or self._over:
            raise LocalProtocolError(f"PDV in {self.state.value}")
        parts: list[Buffer] = []
        before = self._odd
        try:
            for pdv in pdvs:
                self._add_pdv(pdv, parts)
        except LocalProtocolError:
            self._odd = before
            raise
        return parts

    def _add_pdv(self, pdv: PDV, parts: list[Buffer]) -> None:
        fragment, odd = self._even(pdv)
        control = pdu.control_header(pdv)
        limit = self._fragment_limit
        at, end = 0, len(fragment)
        if end > limit:
            full = pdu.pdata_header(pdv.context_id, control & 1, limit)
            while end - at > limit:
                parts += full, fragment[at : at + limit]
                at += limit
        if at < end or pdv.is_last:
            header = pdu.pdata_header(pdv.context_id, control, end - at)
            parts += header, fragment[at:] if at else fragment
        self._odd = odd

    def _even(self, pdv: PDV) -> tuple[memoryview, PDV | None]:
        """The fragment with the byte that waited, and the byte that must now wait."""
        fragment = memoryview(pdv.fragment)
        waiting = self._odd
        if waiting is not None:
            if (waiting.context_id, waiting.is_command) != (pdv.context_id, pdv.is_command):
                raise LocalProtocolError("PDV of another message before the last of this one")
            fragment = memoryview(b"".join((waiting.fragment, fragment)))
        if pdv.is_last or not len(fragment) % 2:
            return fragment, None
        return fragment[:-1], attrs.evolve(pdv, fragment=bytes(fragment[-1:]))

    # --- what came from the peer ---

    def _receive_pdu(self, pdu_type: int, body: memoryview) -> list[Action]:
        event = _PDUS[pdu_type]
        try:
            atoms: tuple[Atom, ...]
            if pdu_type == PDUType.P_DATA_TF:
                atoms = tuple(pdu.decode_pdata(body))
                if self.state is State.STA6:  # DT-2, and nothing else; this is for each PDU
                    return list(map(Indicate, atoms))
            else:
                atoms = (pdu.decode_body(pdu_type, body),)
            action = TRANSITIONS[event, self.state]
            if action in (AE_3, AE_6):
                self._learn_maximum_length(atoms[0])
        except RemoteProtocolError as error:
            return self._receive_invalid(error)
        rejection = None
        if action is AE_6:
            rejection = self._examine(atoms[0])
        elif action in (AA_1, AA_7, AA_8):
            self._blame(f"unexpected {pdu_name(pdu_type)} in {self.state.value}")
        return self._run(event, _Cause((), atoms, rejection, AbortReason.UNEXPECTED_PDU))

    def _learn_maximum_length(self, atom: Atom) -> None:
        assert isinstance(atom, AAssociateRQ | AAssociateAC), "AE-3 and AE-6 are for these PDUs"
        items = find(atom.user_items, MaximumLength)
        length = items[0].length if items else 0
        if 0 < length < SMALLEST_MAXIMUM_LENGTH:
            raise RemoteProtocolError(f"Maximum Length {length}: no PDV fits into it")
        self.peer_maximum_length = length
        most = min(length or LONGEST_SENT, LONGEST_SENT) - PDV_HEADER_LENGTH
        self._fragment_limit = most & ~1  # PS3.8 Annex E: even

    def _examine(self, atom: Atom) -> AAssociateRJ | None:
        """Whether the service provider itself rejects this request (AE-6)."""
        assert isinstance(atom, AAssociateRQ), "AE-6 is for this PDU"
        self._request = atom
        if atom.protocol_version & _PROTOCOL_VERSION:
            return None
        self._blame(f"protocol version {atom.protocol_version:04X}H: bit 0 is not set")
        return PROTOCOL_VERSION_NOT_SUPPORTED

    def _receive_invalid(self, error: RemoteProtocolError) -> list[Action]:
        self._blame(str(error))
        return self._run(Event.EVT19, _Cause(reason=error.abort_reason))

    def _receive_end(self) -> list[Action]:
        if (Event.EVT17, self.state) not in TRANSITIONS:
            return []
        if self.state is not State.STA13:  # where the end is what we wait for
            self._blame(f"connection closed in {self.state.value}")
        return self._run(Event.EVT17, _Cause())

    def _blame(self, words: str) -> None:
        if self.fault is None:
            self.fault = words

    # --- the table at work ---

    def _run(self, event: Event, cause: _Cause) -> list[Action]:
        action = TRANSITIONS[event, self.state]
        outcome = action.outcome
        if action.other is not None and (
            cause.rejection is not None if action is AE_6 else self.role is Role.ACCEPTOR
        ):
            outcome = action.other
        self.state = outcome.next_state
        self._over = self.state is State.STA1
        actions: list[Action] = []
        for step in outcome.steps:
            match step:
                case Step.SEND if cause.encoded:
                    actions.append(Send(cause.encoded))
                case Step.SEND_REJECTION:
                    assert cause.rejection is not None, "this outcome is chosen by it"
                    actions.append(Send((pdu.encode(cause.rejection),)))
                case Step.SEND_USER_ABORT:
                    # The local primitive if there is one, else we abort in its stead.
                    actions.append(Send(cause.encoded or (pdu.encode(_USER_ABORT),)))
                case Step.SEND_PROVIDER_ABORT:
                    actions.append(Send((pdu.encode(_provider_abort(cause.reason)),)))
                case Step.INDICATE:
                    actions += map(Indicate, cause.indications)
                case Step.INDICATE_PROVIDER_ABORT:
                    actions.append(Indicate(_provider_abort(cause.reason)))
                case Step.START_ARTIM:
                    actions.append(StartARTIM())
                case Step.STOP_ARTIM:
                    actions.append(StopARTIM())
                case Step.CLOSE:
                    actions.append(Close())
        return actions


def _provider_abort(reason: AbortReason) -> AAbort:
    return AAbort(AbortSource.SERVICE_PROVIDER, reason)
