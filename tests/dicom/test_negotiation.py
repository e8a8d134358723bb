"""Proposing, answering, and what both sides then hold."""

import uuid

import attrs
import pytest

from relay.dicom import negotiation
from relay.dicom.negotiation import (
    AcceptedContext,
    ImplementationClassUID,
    ImplementationVersionName,
    RoleSelection,
    UserIdentityRQ,
    UserIdentityType,
    accepted_contexts,
    answer,
    batches,
    find,
    propose,
    request,
)
from relay.dicom.pdu import (
    AAssociateAC,
    ContextResult,
    PresentationContext,
    PresentationContextResult,
    decode,
    encode,
)
from relay.errors import LocalProtocolError, RemoteProtocolError
from tests.dicom.samples import CT, EXPLICIT, IMPLICIT, VERIFICATION

PAIRS = [(VERIFICATION, [IMPLICIT]), (CT, [EXPLICIT, IMPLICIT])]
RQ = request("PACS", "RELAY", propose(PAIRS))


def results(
    *contexts: PresentationContextResult, roles: tuple[RoleSelection, ...] = ()
) -> AAssociateAC:
    return AAssociateAC("PACS", "RELAY", contexts, tuple(role.encode() for role in roles))


def test_who_we_are() -> None:
    uid = negotiation.RELAY_IMPLEMENTATION_CLASS_UID
    assert uid.startswith("2.25.")
    assert uuid.UUID(int=int(uid[5:])).version == 4
    name = negotiation.RELAY_IMPLEMENTATION_VERSION_NAME
    assert name.startswith("RELAY_")
    assert len(name) <= 16


def test_propose_numbers_with_odd_ids() -> None:
    assert propose(PAIRS) == (
        PresentationContext(1, VERIFICATION, (IMPLICIT,)),
        PresentationContext(3, CT, (EXPLICIT, IMPLICIT)),
    )


def test_128_contexts_and_no_more() -> None:
    """FIELD 4: 128 contexts as requestor; the rest goes to another association."""
    assert [context.id for context in propose(PAIRS * 64)] == list(range(1, 256, 2))
    with pytest.raises(LocalProtocolError, match="129"):
        propose([*PAIRS * 64, PAIRS[0]])
    split = list(batches(PAIRS * 100))
    assert [len(contexts) for contexts in split] == [128, 72]
    assert split[1][0].id == 1
    assert list(batches([])) == []


def test_request_says_who_we_are_and_what_else_is_asked() -> None:
    rq = request("PACS", "RELAY", propose(PAIRS), RoleSelection(CT, True, True))
    assert decode(encode(rq)) == rq
    assert [item.type for item in rq.user_items] == [0x52, 0x55, 0x54]
    assert find(rq.user_items, ImplementationClassUID) == (
        ImplementationClassUID(negotiation.RELAY_IMPLEMENTATION_CLASS_UID),
    )
    assert find(rq.user_items, ImplementationVersionName) == (
        ImplementationVersionName(negotiation.RELAY_IMPLEMENTATION_VERSION_NAME),
    )


class TestAnswer:
    def test_one_transfer_syntax_for_what_is_accepted(self) -> None:
        """FIELD 4: the acceptor picks the transfer syntax, one only."""
        ac = answer(RQ, lambda c: c.transfer_syntaxes[-1] if c.id == 3 else None)
        assert ac.contexts == (
            PresentationContextResult(1, ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, IMPLICIT),
            PresentationContextResult(3, ContextResult.ACCEPTANCE, IMPLICIT),
        )
        assert decode(encode(ac)) == ac

    def test_any_reason_not_to(self) -> None:
        ac = answer(RQ, lambda _: ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED)
        assert {context.result for context in ac.contexts} == {4}

    def test_a_transfer_syntax_that_was_not_proposed(self) -> None:
        with pytest.raises(LocalProtocolError, match="context 1"):
            answer(RQ, lambda _: EXPLICIT)

    def test_what_was_asked_is_not_answered(self) -> None:
        """FIELD 4: roles, extended negotiation, async window: nothing we don't do is echoed.

        User identity: an answer (59H) only from who can say that it is true.
        """
        asked = request(
            "PACS",
            "RELAY",
            propose(PAIRS),
            RoleSelection(CT, True, True),
            negotiation.AsynchronousOperationsWindow(0, 0),
            negotiation.SOPClassExtended(CT, b"\1"),
            UserIdentityRQ(UserIdentityType.USERNAME, True, b"me"),
        )
        ac = answer(asked, lambda c: c.transfer_syntaxes[0])
        assert [item.type for item in ac.user_items] == [0x52, 0x55]


class TestAccepted:
    def test_by_id(self) -> None:
        ac = results(PresentationContextResult(3, 0, IMPLICIT), PresentationContextResult(1, 1, ""))
        assert accepted_contexts(RQ, ac) == {3: AcceptedContext(3, CT, IMPLICIT, True, False)}

    def test_what_the_answer_leaves_out_is_rejected(self) -> None:
        assert accepted_contexts(RQ, results()) == {}

    @pytest.mark.parametrize(
        ("result", "words"),
        [
            (PresentationContextResult(5, 0, IMPLICIT), "context 5: was not proposed"),
            (PresentationContextResult(1, 0, EXPLICIT), "transfer syntax was not proposed"),
        ],
    )
    def test_what_was_not_proposed(self, result: PresentationContextResult, words: str) -> None:
        with pytest.raises(RemoteProtocolError, match=words):
            accepted_contexts(RQ, results(result))

    @pytest.mark.parametrize(
        ("proposed", "answered", "roles"),
        [
            (None, None, (True, False)),
            ((True, True), None, (True, False)),  # not answered: the default
            (None, (True, True), (True, False)),  # not asked: the default
            ((True, True), (True, True), (True, True)),
            ((False, True), (False, True), (False, True)),
            ((False, True), (True, True), (False, True)),  # 1 where 0 was proposed: lenient
            ((True, True), (False, False), (False, False)),
        ],
    )
    def test_roles(
        self,
        proposed: tuple[bool, bool] | None,
        answered: tuple[bool, bool] | None,
        roles: tuple[bool, bool],
    ) -> None:
        """FIELD 4: absent is the default; never 1 where 0 was proposed (PS3.7 §D.3.3.4)."""
        asked = (RoleSelection(CT, *proposed).encode(),) if proposed else ()
        rq = attrs.evolve(RQ, user_items=RQ.user_items + asked)
        ac = results(
            PresentationContextResult(3, 0, IMPLICIT),
            roles=(RoleSelection(CT, *answered),) if answered else (),
        )
        (context,) = accepted_contexts(rq, ac).values()
        assert (context.scu, context.scp) == roles
