"""What the tests of this room share: PDUs byte by byte, strategies, two ends that are joined."""

from typing import Literal, TypeAlias

import attrs
from hypothesis import strategies as st

from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
    PresentationContext,
    PresentationContextResult,
    UserItem,
    encode,
)
from relay.dicom.statemachine import State
from relay.dicom.upperlayer import Action, Close, Indicate, Role, Send, UpperLayer

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


def text(characters: str) -> str:
    """A UID or name as hex digits."""
    return characters.encode("ascii").hex()


APPLICATION_CONTEXT_ITEM = "10 00 0015" + text("1.2.840.10008.3.1.1.1")

A_ASSOCIATE_RQ = bytes.fromhex(
    "01 00 000000B2"  # PDU type, reserved, length 178
    "0001 0000"  # protocol version, reserved
    + text("PACS            ")  # called
    + text("CT1             ")  # calling
    + "00" * 32  # reserved
    + APPLICATION_CONTEXT_ITEM  # 25 bytes
    + "20 00 002E 01 00 00 00"  # presentation context 1: 4 + 21 + 21 bytes
    + ("30 00 0011" + text(VERIFICATION))
    + ("40 00 0011" + text(IMPLICIT))
    + "50 00 001F"  # user information: 8 + 14 + 9 bytes
    + "51 00 0004 00004000"
    + ("52 00 000A" + text("1.2.3.4.55"))
    + ("55 00 0005" + text("DEV_1"))
)
RQ = AAssociateRQ(
    "PACS",
    "CT1",
    (PresentationContext(1, VERIFICATION, (IMPLICIT,)),),
    (
        UserItem(0x51, bytes.fromhex("00004000")),
        UserItem(0x52, b"1.2.3.4.55"),
        UserItem(0x55, b"DEV_1"),
    ),
)

A_ASSOCIATE_AC = bytes.fromhex(
    "02 00 00000098"  # PDU type, reserved, length 152
    "0001 0000" + text("PACS            ") + text("CT1             ") + "00" * 32
    + APPLICATION_CONTEXT_ITEM
    + "21 00 0019 01 00 00 00"  # presentation context 1, accepted: 4 + 21 bytes
    + ("40 00 0011" + text(IMPLICIT))
    + "21 00 0008 03 00 03 00 40 00 0000"  # context 3, abstract syntax not supported, empty
    + "50 00 000E 52 00 000A" + text("1.2.3.4.55")
)  # fmt: skip
AC = AAssociateAC(
    "PACS",
    "CT1",
    (PresentationContextResult(1, 0, IMPLICIT), PresentationContextResult(3, 3, "")),
    (UserItem(0x52, b"1.2.3.4.55"),),
)

# One table for both directions: what it is called, the atom, its bytes.
CASES: tuple[tuple[str, Atom, bytes], ...] = (
    ("A-ASSOCIATE-RQ", RQ, A_ASSOCIATE_RQ),
    ("A-ASSOCIATE-AC", AC, A_ASSOCIATE_AC),
    ("A-ASSOCIATE-RJ", AAssociateRJ(1, 3, 2), bytes.fromhex("03 00 00000004 00 01 03 02")),
    ("A-RELEASE-RQ", AReleaseRQ(), bytes.fromhex("05 00 00000004 00000000")),
    ("A-RELEASE-RP", AReleaseRP(), bytes.fromhex("06 00 00000004 00000000")),
    ("A-ABORT", AAbort(2, 5), bytes.fromhex("07 00 00000004 00 00 02 05")),
)
CASE_IDS = [name for name, _, _ in CASES]

# Two PDVs: the end of a command and the beginning of its data set (PS3.8 §9.3.5).
P_DATA_TF = bytes.fromhex(
    "04 00 00000010"  # PDU type, reserved, length 16
    "00000004 01 03 AABB"  # PDV length, context 1, command and last
    "00000004 01 00 CCDD"  # PDV length, context 1, data set and not last
)
PDVS = (PDV(1, True, True, b"\xaa\xbb"), PDV(1, False, False, b"\xcc\xdd"))

A_RELEASE_RQ = CASES[3][2]
A_ABORT = CASES[5][2]


# --- strategies -------------------------------------------------------------------------------

uids = st.text("0123456789.", min_size=1, max_size=64)
ae_titles = st.text(
    [chr(c) for c in range(0x20, 0x7F) if chr(c) != "\\"], max_size=16
).map(lambda title: title.strip(" "))  # fmt: skip
octets = st.integers(0, 255)
context_ids = st.integers(0, 127).map(lambda n: 2 * n + 1)
user_items = st.lists(
    st.builds(UserItem, type=octets, value=st.binary(max_size=40), reserved=octets), max_size=6
).map(tuple)
contexts = st.lists(
    st.builds(
        PresentationContext,
        id=context_ids,
        abstract_syntax=uids,
        transfer_syntaxes=st.lists(uids, min_size=1, max_size=3).map(tuple),
    ),
    max_size=5,
    unique_by=lambda context: context.id,
).map(tuple)
context_results = st.lists(
    st.builds(PresentationContextResult, id=context_ids, result=octets, transfer_syntax=uids)
    | st.builds(
        PresentationContextResult,
        id=context_ids,
        result=st.integers(1, 255),
        transfer_syntax=st.just(""),
    ),
    max_size=5,
    unique_by=lambda context: context.id,
).map(tuple)
associate_rqs = st.builds(
    AAssociateRQ,
    called=ae_titles,
    calling=ae_titles,
    contexts=contexts,
    user_items=user_items,
    application_context=uids,
    protocol_version=st.integers(0, 0xFFFF),
)
associate_acs = st.builds(
    AAssociateAC,
    called=ae_titles,
    calling=ae_titles,
    contexts=context_results,
    user_items=user_items,
    application_context=uids,
    protocol_version=st.integers(0, 0xFFFF),
)
control_atoms = (
    associate_rqs
    | associate_acs
    | st.builds(AAssociateRJ, octets, octets, octets)
    | st.just(AReleaseRQ())
    | st.just(AReleaseRP())
    | st.builds(AAbort, octets, octets)
)
pdvs = st.builds(
    PDV,
    context_id=context_ids,
    is_command=st.booleans(),
    is_last=st.booleans(),
    fragment=st.binary(max_size=60),
)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Real bytes with a few changed, cut or doubled: deeper than noise gets."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["change", "cut", "insert"])):
            case "change" if data:
                data[at] = draw(octets)
            case "cut":
                del data[at : at + draw(st.integers(1, 8))]
            case _:
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)


# --- ends -------------------------------------------------------------------------------------


def in_state(
    state: State, role: Role, *, peer_maximum_length: int = 0, maximum_length: int = 16384
) -> UpperLayer:
    """An upper layer that a real exchange has led into this state."""
    end = UpperLayer(role, maximum_length)
    peer_item = UserItem(0x51, peer_maximum_length.to_bytes(4, "big"))
    for step in PATHS[state][role]:
        match step:
            case "connected":
                end.connected()
            case "send", atom:
                end.send(atom)
            case _, AAssociateRQ() | AAssociateAC() as atom:
                end.receive(encode(attrs.evolve(atom, user_items=(peer_item,))))
            case _, atom:
                end.receive(encode(atom))
    assert end.state is state
    return end


class ConnectionPair:
    """Two upper layers with a connection between them that carries `piece` bytes at a time."""

    def __init__(
        self, piece: int = 0, *, requestor_maximum: int = 16384, acceptor_maximum: int = 16384
    ) -> None:
        self.requestor = UpperLayer(Role.REQUESTOR, requestor_maximum)
        self.acceptor = UpperLayer(Role.ACCEPTOR, acceptor_maximum)
        self.indications: dict[Role, list[Atom]] = {role: [] for role in Role}
        self.actions: dict[Role, list[Action]] = {role: [] for role in Role}
        self._piece = piece
        for end in self.requestor, self.acceptor:
            self._carry_out(end, end.connected())

    def send(self, end: UpperLayer, *atoms: Atom) -> None:
        for atom in atoms:
            self._carry_out(end, end.send(atom))

    def close(self, end: UpperLayer) -> None:
        """This end's holder closes; the other end sees the end of the stream."""
        other = self.acceptor if end is self.requestor else self.requestor
        self._carry_out(other, other.receive(b""))

    def associate(self, rq: AAssociateRQ = RQ, ac: AAssociateAC = AC) -> None:
        self.send(self.requestor, rq)
        self.send(self.acceptor, ac)
        for indications in self.indications.values():
            indications.clear()

    def _carry_out(self, end: UpperLayer, actions: list[Action]) -> None:
        other = self.acceptor if end is self.requestor else self.requestor
        self.actions[end.role] += actions
        for action in actions:
            match action:
                case Send():
                    data = action.data
                    piece = self._piece or len(data)
                    for at in range(0, len(data), piece):
                        self._carry_out(other, other.receive(data[at : at + piece]))
                case Indicate(PDV() as pdv):
                    kept = attrs.evolve(pdv, fragment=bytes(pdv.fragment))
                    self.indications[end.role].append(kept)
                case Indicate(atom):
                    self.indications[end.role].append(atom)
                case Close():
                    self._carry_out(other, other.receive(b""))
                case _:
                    pass


Path: TypeAlias = tuple[Literal["connected"] | tuple[Literal["send", "receive"], Atom], ...]

_REQUESTED: Path = ("connected", ("send", RQ))
_ESTABLISHED: dict[Role, Path] = {
    Role.REQUESTOR: (*_REQUESTED, ("receive", AC)),
    Role.ACCEPTOR: ("connected", ("receive", RQ), ("send", AC)),
}
_RELEASING: dict[Role, Path] = {
    role: (*path, ("send", AReleaseRQ())) for role, path in _ESTABLISHED.items()
}
_COLLISION: dict[Role, Path] = {
    role: (*path, ("receive", AReleaseRQ())) for role, path in _RELEASING.items()
}
_ASKED: dict[Role, Path] = {
    role: (*path, ("receive", AReleaseRQ())) for role, path in _ESTABLISHED.items()
}
_ABORTED: dict[Role, Path] = {
    role: (*path, ("send", AAbort(0, 0))) for role, path in _ESTABLISHED.items()
}

PATHS: dict[State, dict[Role, Path]] = {
    State.STA1: {Role.REQUESTOR: (), Role.ACCEPTOR: ()},
    State.STA2: {Role.ACCEPTOR: ("connected",)},
    State.STA3: {Role.ACCEPTOR: ("connected", ("receive", RQ))},
    State.STA4: {Role.REQUESTOR: (("send", RQ),)},
    State.STA5: {Role.REQUESTOR: _REQUESTED},
    State.STA6: _ESTABLISHED,
    State.STA7: _RELEASING,
    State.STA8: _ASKED,
    State.STA9: {Role.REQUESTOR: _COLLISION[Role.REQUESTOR]},
    State.STA10: {Role.ACCEPTOR: _COLLISION[Role.ACCEPTOR]},
    State.STA11: {Role.REQUESTOR: (*_COLLISION[Role.REQUESTOR], ("send", AReleaseRP()))},
    State.STA12: {Role.ACCEPTOR: (*_COLLISION[Role.ACCEPTOR], ("receive", AReleaseRP()))},
    State.STA13: _ABORTED,
}
