"""The upper layer: Table 9-10 at work, two ends joined, and everything that a peer can do wrong."""

import copy
import time

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dicom import framing
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
    UserItem,
    decode,
    decode_pdata,
    encode,
    encode_pdata,
)
from relay.dicom.statemachine import TRANSITIONS, Event, State
from relay.dicom.upperlayer import (
    LONGEST_SENT,
    Action,
    Close,
    Indicate,
    Role,
    Send,
    StartARTIM,
    StopARTIM,
    UpperLayer,
)
from relay.errors import LocalProtocolError
from tests.dicom import samples
from tests.dicom.samples import AC, IMPLICIT, PATHS, RQ, ConnectionPair, in_state

RJ = AAssociateRJ(1, 1, 7)
ABORT = AAbort(0, 0)
PIECES = [0, 1]  # whole, byte by byte


PDU_NAMES = ("RQ", "AC", "RJ", "PDATA", "RELEASE_RQ", "RELEASE_RP", "ABORT")


def what(actions: list[Action]) -> str:
    """Actions in short: what is sent by its PDU type, what is indicated by its class."""
    words = []
    for action in actions:
        match action:
            case Send():
                data = action.data
                words.append("Send" + PDU_NAMES[data[0] - 1])
                if data[0] == 7:
                    words[-1] += f"({data[8]},{data[9]})"
            case Indicate(AAbort(source, reason)):
                words.append(f"IndicateAAbort({source},{reason})")
            case Indicate(atom):
                words.append(f"Indicate{type(atom).__name__}")
            case _:
                words.append(type(action).__name__)
    return " ".join(words)


def feed(end: UpperLayer, octets: bytes, piece: int = 0) -> list[Action]:
    piece = piece or max(len(octets), 1)
    return [
        action
        for at in range(0, len(octets), piece)
        for action in end.receive(octets[at : at + piece])
    ]


def snapshot(end: UpperLayer) -> dict[str, object]:
    state = dict(vars(end))
    del state["_reader"]
    return copy.copy(state)


# --- every cell of Table 9-10 -----------------------------------------------------------------

# PS3.8 Tables 9-6 to 9-9 once more, as what comes out of the machine. X stands for the PDU or
# primitive of the event, R for the reason (an unexpected PDU, or one that cannot be understood).
WHAT_ACTIONS_DO = {
    "AE-1": "",
    "AE-2": "SendRQ",
    "AE-3": "IndicateX",
    "AE-4": "IndicateX Close",
    "AE-5": "StartARTIM",
    "AE-6": "StopARTIM IndicateX",
    "AE-7": "SendX",
    "AE-8": "SendX StartARTIM",
    "DT-1": "SendX",
    "DT-2": "IndicateX IndicateX",  # the sample holds two PDVs
    "AR-1": "SendX",
    "AR-2": "IndicateX",
    "AR-3": "IndicateX Close",
    "AR-4": "SendX StartARTIM",
    "AR-5": "StopARTIM",
    "AR-6": "IndicateX IndicateX",
    "AR-7": "SendX",
    "AR-8": "IndicateX",
    "AR-9": "SendX",
    "AR-10": "IndicateX",
    "AA-1": "SendABORT(0,0) StartARTIM",
    "AA-2": "StopARTIM Close",
    "AA-3": "IndicateX Close",
    "AA-4": "IndicateAAbort(2,0)",
    "AA-5": "StopARTIM",
    "AA-6": "",
    "AA-7": "SendABORT(2,R)",
    "AA-8": "SendABORT(2,R) IndicateAAbort(2,R) StartARTIM",
}

PRIMITIVES: dict[Event, Atom] = {
    Event.EVT1: RQ,
    Event.EVT7: AC,
    Event.EVT8: RJ,
    Event.EVT9: PDV(1, True, True, b"ab"),
    Event.EVT11: AReleaseRQ(),
    Event.EVT14: AReleaseRP(),
    Event.EVT15: ABORT,
}
SENT = {
    Event.EVT7: "AC",
    Event.EVT8: "RJ",
    Event.EVT9: "PDATA",
    Event.EVT11: "RELEASE_RQ",
    Event.EVT14: "RELEASE_RP",
}
PDUS: dict[Event, tuple[bytes, str]] = {
    Event.EVT3: (samples.A_ASSOCIATE_AC, "AAssociateAC"),
    Event.EVT4: (encode(RJ), "AAssociateRJ"),
    Event.EVT6: (samples.A_ASSOCIATE_RQ, "AAssociateRQ"),
    Event.EVT10: (samples.P_DATA_TF, "PDV"),
    Event.EVT12: (samples.A_RELEASE_RQ, "AReleaseRQ"),
    Event.EVT13: (encode(AReleaseRP()), "AReleaseRP"),
    Event.EVT16: (samples.A_ABORT, "AAbort(2,5)"),
    Event.EVT19: (b"\x09\0\0\0\0\0", ""),
}
CELLS = [
    pytest.param(event, state, role, id=f"{event.value}-{state.value}-{role.value}")
    for event in Event
    for state in State
    for role in PATHS[state]
]


def happen(end: UpperLayer, event: Event) -> list[Action]:
    if event in PRIMITIVES:
        return end.send(PRIMITIVES[event])
    if event in PDUS:
        return end.receive(PDUS[event][0])
    match event:
        case Event.EVT17:
            return end.receive(b"")
        case Event.EVT18:
            return end.artim_expired()
        case _:  # Evt2 and Evt5 are one call, and the role says which it is
            return end.connected()


def is_possible(event: Event, state: State, role: Role) -> bool:
    """Some cells are for one role only, though the Table does not say so."""
    match event, state:
        case Event.EVT1, State.STA1:
            return role is Role.REQUESTOR
        case Event.EVT5, State.STA1:
            return role is Role.ACCEPTOR
        case _:
            return (event, state) in TRANSITIONS


@pytest.mark.parametrize(("event", "state", "role"), CELLS)
def test_each_cell(event: Event, state: State, role: Role) -> None:
    end = in_state(state, role)
    if not is_possible(event, state, role):
        check_absent(end, event)
        return
    action = TRANSITIONS[event, state]
    outcome = action.outcome
    if action.name == "AR-8" and role is Role.ACCEPTOR:
        assert action.other is not None
        outcome = action.other
    expected = WHAT_ACTIONS_DO[action.name].replace("R)", "1)" if event is Event.EVT19 else "2)")
    expected = expected.replace("SendX", "Send" + SENT.get(event, ""))
    expected = expected.replace("IndicateX", "Indicate" + PDUS.get(event, (b"", ""))[1])
    assert what(happen(end, event)) == expected
    assert end.state is outcome.next_state


def check_absent(end: UpperLayer, event: Event) -> None:
    """A blank cell: an error for our own side, nothing at all for what comes from outside."""
    before = snapshot(end)
    if event in (Event.EVT2, Event.EVT5) and end.state in (State.STA1, State.STA4):
        return  # the same call does what the other role's cell says
    if event in PRIMITIVES or event in (Event.EVT2, Event.EVT5):
        with pytest.raises(LocalProtocolError):
            happen(end, event)
    else:
        assert happen(end, event) == []
    assert snapshot(end) == before


def test_all_cells_were_tried() -> None:
    tried = {(cell.values[0], cell.values[1]) for cell in CELLS}
    assert len(tried) == 19 * 13
    assert len(CELLS) == 19 * (13 + 5)  # Sta1, Sta6, Sta7, Sta8, Sta13 are known to both roles


# --- establishment ----------------------------------------------------------------------------


class TestEstablishment:
    @pytest.mark.parametrize("piece", PIECES)
    def test_two_ends_agree(self, piece: int) -> None:
        pair = ConnectionPair(piece)
        pair.send(pair.requestor, RQ)
        (rq,) = pair.indications[Role.ACCEPTOR]
        assert isinstance(rq, AAssociateRQ)
        assert attrs.evolve(rq, user_items=()) == attrs.evolve(RQ, user_items=())
        pair.send(pair.acceptor, AC)
        (ac,) = pair.indications[Role.REQUESTOR]
        assert isinstance(ac, AAssociateAC)
        assert ac.contexts == AC.contexts
        assert pair.requestor.state is pair.acceptor.state is State.STA6
        assert pair.requestor.fault is pair.acceptor.fault is None

    def test_a_requestor_may_be_connected_before_or_after_it_asks(self) -> None:
        first, second = (UpperLayer(Role.REQUESTOR, 16384) for _ in range(2))
        assert first.connected() == []
        asked = first.send(RQ)
        assert second.send(RQ) == []
        assert second.connected() == asked
        assert what(asked) == "SendRQ"

    def test_an_acceptor_does_not_ask(self) -> None:
        end = in_state(State.STA2, Role.ACCEPTOR)
        with pytest.raises(LocalProtocolError):
            end.send(RQ)

    def test_an_upper_layer_is_not_used_again(self) -> None:
        end = in_state(State.STA5, Role.REQUESTOR)
        end.receive(encode(RJ))
        assert end.state is State.STA1
        with pytest.raises(LocalProtocolError):
            end.send(RQ)
        with pytest.raises(LocalProtocolError):
            end.connected()
        assert end.receive(samples.P_DATA_TF) == end.receive(b"") == []

    def test_an_answer_repeats_the_ae_titles_of_its_request(self) -> None:
        """PS3.8 §9.3.3, whatever names the far side of a relay has for the two."""
        end = in_state(State.STA3, Role.ACCEPTOR)
        (sent,) = end.send(attrs.evolve(AC, called="FAR", calling="NAMES"))
        assert isinstance(sent, Send)
        answer = decode(sent.data)
        assert isinstance(answer, AAssociateAC)
        assert (answer.called, answer.calling) == ("PACS", "CT1")

    def test_unknown_user_items_cross_verbatim(self) -> None:
        """FIELD 4: unknown user-information sub-items."""
        items = (UserItem(0x99, b"x\xff"), UserItem(0x51, bytes(4)), UserItem(0x58, b"?", 7))
        pair = ConnectionPair(requestor_maximum=0x1234)
        pair.send(pair.requestor, attrs.evolve(RQ, user_items=items))
        (rq,) = pair.indications[Role.ACCEPTOR]
        assert isinstance(rq, AAssociateRQ)
        assert rq.user_items == (items[0], UserItem(0x51, b"\0\0\x12\x34"), items[2])

    @pytest.mark.parametrize("version", [0, 2, 0x8000])
    def test_another_protocol_version_is_rejected_by_the_provider(self, version: int) -> None:
        """AE-6, PS3.8 §9.3.4: rejected-permanent, ACSE, protocol-version-not-supported."""
        end = in_state(State.STA2, Role.ACCEPTOR)
        actions = end.receive(encode(attrs.evolve(RQ, protocol_version=version)))
        assert actions == [StopARTIM(), Send((encode(AAssociateRJ(1, 2, 2)),)), StartARTIM()]
        assert end.state is State.STA13
        assert end.fault is not None
        assert "protocol version" in end.fault

    @pytest.mark.parametrize("version", [1, 3, 0xFFFF])
    def test_only_bit_0_of_the_version_is_tested(self, version: int) -> None:
        end = in_state(State.STA2, Role.ACCEPTOR)
        end.receive(encode(attrs.evolve(RQ, protocol_version=version)))
        assert end.state is State.STA3

    def test_128_contexts_of_a_private_sop_class(self) -> None:
        """FIELD 4: 128 contexts with the odd IDs 1 to 255; private SOP classes."""
        contexts = tuple(
            PresentationContext(n, f"1.2.3.{n}", (IMPLICIT,)) for n in range(1, 256, 2)
        )
        pair = ConnectionPair(1)
        pair.send(pair.requestor, attrs.evolve(RQ, contexts=contexts))
        (rq,) = pair.indications[Role.ACCEPTOR]
        assert isinstance(rq, AAssociateRQ)
        assert rq.contexts == contexts

    def test_a_request_that_is_too_long_is_rejected_unread(self) -> None:
        end = in_state(State.STA2, Role.ACCEPTOR)
        header = b"\x01\0" + (framing.MAXIMUM_ASSOCIATE_LENGTH + 1).to_bytes(4, "big")
        actions = end.receive(header)
        assert actions == [StopARTIM(), Send((encode(AAssociateRJ(1, 2, 1)),)), StartARTIM()]
        assert end.receive(bytes(framing.MAXIMUM_ASSOCIATE_LENGTH + 1)) == []
        assert end.receive(b"") == [StopARTIM()]
        assert end.fault is not None
        assert "length" in end.fault


# --- maximum length ---------------------------------------------------------------------------


def fragments(actions: list[Action]) -> list[PDV]:
    """The PDVs that were sent, checked to be one in each PDU."""
    (send,) = actions
    assert isinstance(send, Send)
    data, pdvs = memoryview(send.data), []
    while data:
        length = int.from_bytes(data[2:6], "big")
        (pdv,) = decode_pdata(data[6 : 6 + length])
        pdvs.append(pdv)
        data = data[6 + length :]
    return pdvs


class TestMaximumLength:
    @pytest.mark.parametrize("role", Role)
    @pytest.mark.parametrize("maximum", [8, 9, 10, 64, 4096, 16384, 65535])
    def test_fragments_fit_and_are_even(self, role: Role, maximum: int) -> None:
        """FIELD 4: small maxima, even fragments; the PDU's own header is not counted."""
        end = in_state(State.STA6, role, peer_maximum_length=maximum)
        assert end.peer_maximum_length == maximum
        data = bytes(range(256)) * 300
        pdvs = fragments(end.send(PDV(5, False, True, data)))
        assert b"".join(pdv.fragment for pdv in pdvs) == data
        assert all(len(pdv.fragment) + 6 <= maximum for pdv in pdvs)
        assert all(len(pdv.fragment) % 2 == 0 for pdv in pdvs)
        assert [pdv.is_last for pdv in pdvs] == [False] * (len(pdvs) - 1) + [True]
        assert {(pdv.context_id, pdv.is_command) for pdv in pdvs} == {(5, False)}
        if maximum == 65535:
            assert len(pdvs) == 2  # as few as there can be

    @pytest.mark.parametrize("role", Role)
    @pytest.mark.parametrize("maximum", [0, 0xFFFFFFFF])
    def test_zero_is_unlimited(self, role: Role, maximum: int) -> None:
        """FIELD 4: 0 is no limit (never `min()`); we still cut to what is sensible."""
        end = in_state(State.STA6, role, peer_maximum_length=maximum)
        assert end.peer_maximum_length == maximum
        pdvs = fragments(end.send(PDV(1, False, True, bytes(LONGEST_SENT - 6))))
        assert len(pdvs) == 1
        assert len(fragments(end.send(PDV(1, False, True, bytes(LONGEST_SENT))))) == 2

    def test_an_absent_item_is_unlimited(self) -> None:
        """FIELD 4: no Maximum Length item."""
        end = in_state(State.STA5, Role.REQUESTOR)
        end.receive(encode(attrs.evolve(AC, user_items=())))
        assert (end.state, end.peer_maximum_length) == (State.STA6, 0)

    @pytest.mark.parametrize("maximum", range(1, 8))
    def test_too_small_for_any_pdv(self, maximum: int) -> None:
        """A peer that cannot be sent anything is refused when it says so, not looped over."""
        item = (UserItem(0x51, maximum.to_bytes(4, "big")),)
        acceptor = in_state(State.STA2, Role.ACCEPTOR)
        actions = acceptor.receive(encode(attrs.evolve(RQ, user_items=item)))
        assert what(actions) == "SendABORT(0,0) StartARTIM"
        requestor = in_state(State.STA5, Role.REQUESTOR)
        actions = requestor.receive(encode(attrs.evolve(AC, user_items=item)))
        assert what(actions) == "SendABORT(2,6) IndicateAAbort(2,6) StartARTIM"
        assert acceptor.fault == requestor.fault == f"Maximum Length {maximum}: no PDV fits into it"

    @pytest.mark.parametrize("value", [b"", bytes(3), bytes(5)])
    def test_an_item_of_another_length(self, value: bytes) -> None:
        end = in_state(State.STA5, Role.REQUESTOR)
        end.receive(encode(attrs.evolve(AC, user_items=(UserItem(0x51, value),))))
        assert end.state is State.STA13
        assert end.fault is not None
        assert "Maximum Length" in end.fault

    @pytest.mark.parametrize("maximum", [-1, 0, 7])
    def test_ours_is_never_unlimited_or_useless(self, maximum: int) -> None:
        with pytest.raises(LocalProtocolError):
            UpperLayer(Role.ACCEPTOR, maximum)

    @pytest.mark.parametrize("role", Role)
    def test_ours_is_enforced(self, role: Role) -> None:
        """FIELD 4: what exceeds it is a protocol error, seen from the header alone."""
        end = in_state(State.STA6, role, maximum_length=1024)
        fits = encode(PDV(1, False, False, bytes(1018)))
        assert what(end.receive(fits)) == "IndicatePDV"
        actions = end.receive(encode(PDV(1, False, False, bytes(1019)))[:6])
        assert what(actions) == "SendABORT(2,6) IndicateAAbort(2,6) StartARTIM"

    def test_ours_stands_in_both_proposals(self) -> None:
        pair = ConnectionPair(requestor_maximum=1000, acceptor_maximum=2000)
        pair.associate()
        assert pair.acceptor.peer_maximum_length == 1000
        assert pair.requestor.peer_maximum_length == 2000


# --- data -------------------------------------------------------------------------------------


class TestData:
    @pytest.mark.parametrize("piece", [0, 1, 7])
    def test_both_ways(self, piece: int) -> None:
        pair = ConnectionPair(piece)
        pair.associate()
        for end, other in (
            (pair.requestor, Role.ACCEPTOR),
            (pair.acceptor, Role.REQUESTOR),
        ):
            sent = [PDV(1, True, True, b"command."), PDV(1, False, True, bytes(3000))]
            pair.send(end, *sent)
            assert pair.indications[other] == sent

    def test_several_pdvs_in_a_pdu(self) -> None:
        """FIELD 4: several PDVs in a PDU, command end and data start in one."""
        end = in_state(State.STA6, Role.ACCEPTOR)
        assert end.receive(samples.P_DATA_TF) == [Indicate(pdv) for pdv in samples.PDVS]

    def test_several_pdus_in_a_read(self) -> None:
        """FIELD 4: several PDUs in one (TLS) read."""
        end = in_state(State.STA6, Role.ACCEPTOR)
        actions = end.receive(samples.P_DATA_TF + samples.A_RELEASE_RQ)
        assert what(actions) == "IndicatePDV IndicatePDV IndicateAReleaseRQ"

    def test_what_was_good_before_the_fault_is_kept(self) -> None:
        end = in_state(State.STA6, Role.ACCEPTOR)
        actions = end.receive(samples.P_DATA_TF + b"\x09\0\0\0\0\0" + samples.P_DATA_TF)
        assert what(actions) == (
            "IndicatePDV IndicatePDV SendABORT(2,1) IndicateAAbort(2,1) StartARTIM"
        )

    @pytest.mark.parametrize("piece", PIECES)
    @pytest.mark.parametrize(
        "octets", ["00000001 01 03", "00000009 01 03 AABB", "FFFFFFFF 01 03 AABB", "00000002 01"]
    )
    def test_pdvs_that_lie(self, octets: str, piece: int) -> None:
        """FIELD 4: PDV item length below 2 or beyond its PDU, no control byte; 5a: near 2^32."""
        end = in_state(State.STA6, Role.ACCEPTOR)
        body = bytes.fromhex(octets)
        actions = feed(end, b"\x04\0" + len(body).to_bytes(4, "big") + body, piece)
        assert what(actions) == "SendABORT(2,6) IndicateAAbort(2,6) StartARTIM"

    def test_received_fragments_are_not_copied(self) -> None:
        end = in_state(State.STA6, Role.ACCEPTOR)
        data = samples.P_DATA_TF
        for action in end.receive(data):
            assert isinstance(action, Indicate)
            assert isinstance(action.atom, PDV)
            assert isinstance(action.atom.fragment, memoryview)
            assert action.atom.fragment.obj is data

    def test_odd_fragments_are_made_even(self) -> None:
        """FIELD 4: each fragment even, also where the peer before us did not care."""
        end = in_state(State.STA6, Role.REQUESTOR)
        sent: list[PDV] = []
        for fragment, is_last in ((b"abc", False), (b"d", False), (b"", False), (b"efghi", True)):
            actions = end.send(PDV(1, False, is_last, fragment))
            sent += fragments(actions) if actions else []
        assert [(bytes(pdv.fragment), pdv.is_last) for pdv in sent] == [
            (b"ab", False),
            (b"cd", False),
            (b"efghi", True),  # the message itself is odd: carried, bit for bit
        ]

    def test_a_lone_odd_byte_waits(self) -> None:
        end = in_state(State.STA6, Role.REQUESTOR)
        assert end.send(PDV(1, False, False, b"a")) == []
        (pdv,) = fragments(end.send(PDV(1, False, True, b"")))
        assert (bytes(pdv.fragment), pdv.is_last) == (b"a", True)

    def test_another_message_between_two_halves_of_a_word_is_our_own_fault(self) -> None:
        end = in_state(State.STA6, Role.REQUESTOR)
        end.send(PDV(1, False, False, b"abc"))
        before = snapshot(end)
        with pytest.raises(LocalProtocolError, match="another message"):
            end.send(PDV(3, False, False, b"abc"))
        assert snapshot(end) == before

    def test_many_at_once_are_sent_as_one_by_one(self) -> None:
        said = [
            PDV(1, True, True, b"command."),
            PDV(1, False, False, b"abc"),
            PDV(1, False, True, b"d"),
        ]
        one_by_one = in_state(State.STA6, Role.REQUESTOR)
        parts = [
            action.data
            for pdv in said
            for action in one_by_one.send(pdv)
            if isinstance(action, Send)
        ]
        end = in_state(State.STA6, Role.REQUESTOR)
        assert b"".join(end.send_data(said)) == b"".join(parts)
        before = snapshot(end)
        with pytest.raises(LocalProtocolError, match="another message"):
            end.send_data([PDV(1, False, False, b"abc"), PDV(3, False, True, b"d")])
        assert snapshot(end) == before
        with pytest.raises(LocalProtocolError):
            in_state(State.STA2, Role.ACCEPTOR).send_data(said)

    def test_an_empty_last_fragment_is_sent(self) -> None:
        end = in_state(State.STA6, Role.REQUESTOR)
        (pdv,) = fragments(end.send(PDV(1, False, True, b"")))
        assert (bytes(pdv.fragment), pdv.is_last) == (b"", True)
        assert end.send(PDV(1, False, False, b"")) == []

    def test_a_value_that_fits_no_field_changes_nothing(self) -> None:
        end = in_state(State.STA6, Role.REQUESTOR)
        before = snapshot(end)
        with pytest.raises(LocalProtocolError):
            end.send(PDV(2, False, True, b"ab"))
        assert snapshot(end) == before
        fresh = UpperLayer(Role.REQUESTOR, 16384)
        with pytest.raises(LocalProtocolError):
            fresh.send(attrs.evolve(RQ, called="A" * 17))
        assert fresh.state is State.STA1

    @given(st.lists(st.binary(max_size=50), max_size=8), st.integers(8, 30))
    def test_whatever_the_cuts_the_message_arrives(self, cuts: list[bytes], maximum: int) -> None:
        pair = ConnectionPair(acceptor_maximum=maximum)
        pair.associate()
        pair.send(pair.requestor, *(PDV(1, False, False, cut) for cut in cuts))
        pair.send(pair.requestor, PDV(1, False, True, b""))
        got = pair.indications[Role.ACCEPTOR]
        assert b"".join(pdv.fragment for pdv in got if isinstance(pdv, PDV)) == b"".join(cuts)
        assert all(isinstance(p, PDV) and len(p.fragment) % 2 == 0 for p in got[:-1])

    def test_more_than_4_gib_on_one_association(self) -> None:
        """FIELD 4: an object beyond 4 GiB is only many fragments; nothing here counts them."""
        end = in_state(State.STA6, Role.ACCEPTOR, maximum_length=2**27)
        pdu = encode(PDV(1, False, False, bytes(2**26)))
        for _ in range(65):
            (action,) = end.receive(pdu)
            assert isinstance(action, Indicate)
        assert end.fault is None


# --- release ----------------------------------------------------------------------------------


class TestRelease:
    @pytest.mark.parametrize("asking", Role)
    @pytest.mark.parametrize("piece", PIECES)
    def test_orderly(self, asking: Role, piece: int) -> None:
        pair = ConnectionPair(piece)
        pair.associate()
        ends = {Role.REQUESTOR: pair.requestor, Role.ACCEPTOR: pair.acceptor}
        first = ends.pop(asking)
        (second,) = ends.values()
        pair.send(first, AReleaseRQ())
        assert (first.state, second.state) == (State.STA7, State.STA8)
        pair.send(second, AReleaseRP())
        assert pair.indications[second.role] == [AReleaseRQ()]
        assert pair.indications[first.role] == [AReleaseRP()]
        assert pair.actions[first.role][-1] == Close()
        assert pair.actions[second.role][-2:] == [StartARTIM(), StopARTIM()]
        assert first.state is second.state is State.STA1
        assert first.fault is second.fault is None

    def test_data_while_releasing(self) -> None:
        """FIELD 4: an N-EVENT-REPORT while releasing: Sta8 may send, Sta7 takes (AR-6, AR-7)."""
        pair = ConnectionPair()
        pair.associate()
        pair.send(pair.requestor, AReleaseRQ())
        pair.send(pair.acceptor, PDV(1, True, True, b"late"), AReleaseRP())
        assert pair.indications[Role.REQUESTOR] == [PDV(1, True, True, b"late"), AReleaseRP()]

    def test_no_data_after_ones_own_release_request(self) -> None:
        end = in_state(State.STA7, Role.REQUESTOR)
        with pytest.raises(LocalProtocolError):
            end.send(PDV(1, True, True, b"late"))

    def test_collision(self) -> None:
        """FIELD 4: release collision, Sta9 to Sta12 (PS3.8 §7.2.2.3, AR-8)."""
        requestor = in_state(State.STA6, Role.REQUESTOR)
        acceptor = in_state(State.STA6, Role.ACCEPTOR)
        (from_requestor,), (from_acceptor,) = (
            requestor.send(AReleaseRQ()),
            acceptor.send(AReleaseRQ()),
        )
        assert isinstance(from_requestor, Send)
        assert isinstance(from_acceptor, Send)
        assert requestor.receive(from_acceptor.data) == [Indicate(AReleaseRQ())]
        assert acceptor.receive(from_requestor.data) == [Indicate(AReleaseRQ())]
        assert (requestor.state, acceptor.state) == (State.STA9, State.STA10)
        with pytest.raises(LocalProtocolError):
            acceptor.send(AReleaseRP())  # the association's requestor answers first
        (answer,) = requestor.send(AReleaseRP())
        assert isinstance(answer, Send)
        assert acceptor.receive(answer.data) == [Indicate(AReleaseRP())]
        assert (requestor.state, acceptor.state) == (State.STA11, State.STA12)
        answer, artim = acceptor.send(AReleaseRP())
        assert isinstance(answer, Send)
        assert artim == StartARTIM()
        assert requestor.receive(answer.data) == [Indicate(AReleaseRP()), Close()]
        assert acceptor.receive(b"") == [StopARTIM()]
        assert requestor.state is acceptor.state is State.STA1


# --- aborts, ends and the ARTIM timer ---------------------------------------------------------


class TestAbort:
    @pytest.mark.parametrize("abort", [AAbort(0, 0), AAbort(2, 0), AAbort(2, 6), AAbort(1, 99)])
    @pytest.mark.parametrize("role", Role)
    def test_goes_out_and_arrives_as_it_is(self, abort: AAbort, role: Role) -> None:
        """FIELD 4: abort source and reason codes."""
        pair = ConnectionPair()
        pair.associate()
        end = pair.requestor if role is Role.REQUESTOR else pair.acceptor
        (other,) = set(Role) - {role}
        pair.send(end, abort)
        assert pair.indications[other] == [abort]
        assert pair.actions[other][-1] == Close()
        assert pair.indications[role] == []
        assert pair.requestor.state is pair.acceptor.state is State.STA1

    def test_of_a_connection_that_is_not_there_yet(self) -> None:
        end = in_state(State.STA4, Role.REQUESTOR)
        assert end.send(ABORT) == [StopARTIM(), Close()]

    @pytest.mark.parametrize("piece", PIECES)
    def test_data_after_an_abort_is_ignored(self, piece: int) -> None:
        """FIELD 4: the peer never closes and sends on (Sta13, AA-6)."""
        end = in_state(State.STA13, Role.ACCEPTOR)
        assert feed(end, samples.P_DATA_TF * 50 + samples.A_RELEASE_RQ, piece) == []
        assert end.artim_expired() == [StopARTIM(), Close()]

    @pytest.mark.parametrize("piece", PIECES)
    def test_noise_after_an_abort_is_answered_once(self, piece: int) -> None:
        """AA-7, and then there are no PDUs to be found any more."""
        end = in_state(State.STA13, Role.ACCEPTOR)
        actions = feed(end, b"GET / HTTP/1.1\r\n" * 1000, piece)
        assert what(actions) == "SendABORT(2,1)"

    def test_a_release_within_the_same_read_as_the_abort(self) -> None:
        end = in_state(State.STA6, Role.ACCEPTOR)
        actions = end.receive(samples.A_ABORT + samples.A_RELEASE_RQ)
        assert what(actions) == "IndicateAAbort(2,5) Close"
        assert end.state is State.STA1

    @pytest.mark.parametrize("role", Role)
    @pytest.mark.parametrize(
        ("state", "octets", "words"),
        [
            (State.STA6, samples.A_ASSOCIATE_RQ, "unexpected A-ASSOCIATE-RQ in Sta6"),
            (State.STA6, samples.A_ASSOCIATE_AC, "unexpected A-ASSOCIATE-AC in Sta6"),
            (State.STA8, samples.P_DATA_TF, "unexpected P-DATA-TF in Sta8"),
            (State.STA7, encode(RJ), "unexpected A-ASSOCIATE-RJ in Sta7"),
        ],
    )
    @pytest.mark.parametrize("piece", PIECES)
    def test_out_of_sequence(
        self, state: State, octets: bytes, words: str, role: Role, piece: int
    ) -> None:
        """FIELD 4: an out-of-sequence PDU is AA-8. 5a: a second A-ASSOCIATE in the data's place."""
        end = in_state(state, role)
        actions = feed(end, octets, piece)
        assert what(actions) == "SendABORT(2,2) IndicateAAbort(2,2) StartARTIM"
        assert end.fault == words

    def test_the_first_fault_is_the_one_for_the_log(self) -> None:
        end = in_state(State.STA6, Role.ACCEPTOR)
        end.receive(samples.A_ASSOCIATE_AC)
        end.receive(samples.A_ASSOCIATE_RQ)
        end.artim_expired()
        assert end.fault == "unexpected A-ASSOCIATE-AC in Sta6"


class TestEnd:
    @pytest.mark.parametrize(
        "state", [State.STA3, State.STA5, State.STA6, State.STA7, State.STA8, State.STA12]
    )
    def test_without_a_word_is_a_provider_abort(self, state: State) -> None:
        for role in PATHS[state]:
            end = in_state(state, role)
            assert end.receive(b"") == [Indicate(AAbort(2, 0))]
            assert end.fault == f"connection closed in {state.value}"
            assert end.receive(b"") == []

    def test_in_the_middle_of_a_pdu(self) -> None:
        end = in_state(State.STA6, Role.ACCEPTOR)
        assert end.receive(samples.P_DATA_TF[:-1]) == []
        assert end.receive(b"") == [Indicate(AAbort(2, 0))]

    def test_before_any_request(self) -> None:
        end = in_state(State.STA2, Role.ACCEPTOR)
        assert end.receive(b"") == [StopARTIM()]
        assert end.state is State.STA1

    def test_that_we_wait_for_is_no_fault(self) -> None:
        end = in_state(State.STA13, Role.ACCEPTOR)
        assert end.receive(b"") == [StopARTIM()]
        assert end.fault is None


class TestARTIM:
    def test_runs_from_the_connection_to_the_request(self) -> None:
        """FIELD 4: ARTIM on open (AE-5, AE-6)."""
        end = UpperLayer(Role.ACCEPTOR, 16384)
        assert end.connected() == [StartARTIM()]
        assert end.receive(samples.A_ASSOCIATE_RQ[:40]) == []  # dripping does not stop it
        assert end.receive(samples.A_ASSOCIATE_RQ[40:])[0] == StopARTIM()

    def test_expires_on_silence(self) -> None:
        end = in_state(State.STA2, Role.ACCEPTOR)
        assert end.artim_expired() == [StopARTIM(), Close()]
        assert end.fault == "no A-ASSOCIATE-RQ within the ARTIM time"

    def test_runs_after_a_rejection(self) -> None:
        """FIELD 4: ARTIM after reject (AE-8)."""
        end = in_state(State.STA3, Role.ACCEPTOR)
        assert end.send(RJ) == [Send((encode(RJ),)), StartARTIM()]
        assert end.artim_expired() == [StopARTIM(), Close()]

    @pytest.mark.parametrize("role", Role)
    def test_runs_after_an_abort(self, role: Role) -> None:
        """FIELD 4: ARTIM after abort (AA-1), for a peer that never closes."""
        end = in_state(State.STA6, role)
        assert end.send(ABORT) == [Send((encode(ABORT),)), StartARTIM()]
        assert end.artim_expired() == [StopARTIM(), Close()]

    def test_that_was_stopped_meanwhile_changes_nothing(self) -> None:
        end = in_state(State.STA6, Role.ACCEPTOR)
        assert end.artim_expired() == []
        assert end.state is State.STA6


class TestForeignProtocols:
    @pytest.mark.parametrize("piece", PIECES)
    @pytest.mark.parametrize(
        ("octets", "words"),
        [
            (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", "HTTP on the DICOM port"),
            (bytes.fromhex("160301020001000105a0"), "TLS on a plain port"),
        ],
    )
    def test_are_named_to_the_acceptor(self, octets: bytes, words: str, piece: int) -> None:
        """FIELD 5a: `GET / HTTP/1.1` and a TLS ClientHello on the plain port (AA-1)."""
        end = in_state(State.STA2, Role.ACCEPTOR)
        assert what(feed(end, octets, piece)) == "SendABORT(0,0) StartARTIM"
        assert end.fault == words

    def test_are_named_to_the_requestor(self) -> None:
        end = in_state(State.STA5, Role.REQUESTOR)
        actions = end.receive(b"HTTP/1.1 400 Bad Request\r\n")
        assert what(actions) == "SendABORT(2,1) IndicateAAbort(2,1) StartARTIM"
        assert end.fault == "HTTP on the DICOM port"

    @pytest.mark.parametrize("length", [0, 1, 0x80000000, 0xFFFFFFFF])
    def test_lengths_of_a_request(self, length: int) -> None:
        """FIELD 5a: A-ASSOCIATE length 0, 1, 80000000H, FFFFFFFFH."""
        end = in_state(State.STA2, Role.ACCEPTOR)
        actions = end.receive(b"\x01\0" + length.to_bytes(4, "big") + bytes(min(length, 100)))
        assert what(actions) == "SendABORT(0,0) StartARTIM"
        assert end.fault is not None


# --- anything at all --------------------------------------------------------------------------


@given(
    st.sampled_from([(state, role) for state in State for role in PATHS[state]]),
    st.lists(
        st.binary(max_size=40)
        | samples.damaged(st.sampled_from([octets for octets, _ in PDUS.values()])),
        max_size=5,
    ),
)
def test_no_bytes_make_it_raise(where: tuple[State, Role], pieces: list[bytes]) -> None:
    end = in_state(*where)
    for piece in pieces:
        for action in end.receive(piece):
            match action:
                case Send() if action.data[0] != 4:
                    decode(action.data)
                case Indicate(PDV() as pdv):
                    encode_pdata([pdv])
                case Indicate(atom):
                    assert decode(encode(atom)) == atom


def test_speed() -> None:
    """100 MB through both ends, in a time that quadratic code could not keep."""
    pair = ConnectionPair(65536)
    pair.associate()
    fragment = bytes(500_000)
    began = time.perf_counter()
    for _ in range(200):
        (sent,) = pair.requestor.send(PDV(1, False, True, fragment))
        assert isinstance(sent, Send)
        data = memoryview(sent.data)
        received = 0
        for at in range(0, len(data), 65536):
            for action in pair.acceptor.receive(data[at : at + 65536]):
                assert isinstance(action, Indicate)
                assert isinstance(action.atom, PDV)
                received += len(action.atom.fragment)
        assert received == len(fragment)
    assert time.perf_counter() - began < 10
