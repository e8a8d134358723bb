"""What a grant leaves of a proposal, and how the answer is made whole again."""

from relay.dicom import uids
from relay.dicom.negotiation import UserIdentityRQ, UserIdentityType
from relay.dicom.pdu import AAssociateRQ, ContextResult, PresentationContextResult, UserItem
from relay.router import contexts
from tests.router.fakes import CT, IMPLICIT, JPEG, MR, PRIVATE_CLASS, acceptance, proposal


def ids(request: AAssociateRQ) -> list[int]:
    return [context.id for context in request.contexts]


def test_granted_contexts_keep_their_ids() -> None:
    request = proposal(uids.VERIFICATION, CT, uids.STUDY_ROOT_FIND)
    assert ids(contexts.granted(request, {"query", "echo"})) == [1, 5]
    assert ids(contexts.granted(request, set())) == []


def test_storage_for_a_get_needs_the_provider_role() -> None:
    request = proposal(CT, MR, uids.STUDY_ROOT_GET, scp=[CT])
    assert ids(contexts.granted(request, {"retrieve"})) == [1, 5]
    assert ids(contexts.granted(request, {"store"})) == [1, 3]


def test_everything_else_passes_as_it_came() -> None:
    items = (
        UserItem(0x56, b"\0\0"),
        UserItem(0xEE, b"unknown"),
        *proposal(CT, scp=[CT]).user_items,
    )
    request = AAssociateRQ("PACS", "WS", proposal(CT, uids.VERIFICATION).contexts, items)
    assert contexts.granted(request, {"echo"}).user_items == items


def test_user_identity_can_be_left_out() -> None:
    identity = UserIdentityRQ(UserIdentityType.USERNAME_AND_PASSCODE, False, b"me", b"secret")
    items = (UserItem(0xEE, b"x"), identity.encode())
    request = AAssociateRQ("PACS", "WS", proposal(CT).contexts, items)
    assert contexts.without_user_identity(request).user_items == items[:1]


def test_what_was_left_out_is_rejected_by_the_user_in_its_place() -> None:
    original = proposal(uids.VERIFICATION, CT, uids.STUDY_ROOT_FIND, transfer_syntaxes=[JPEG])
    proposed = contexts.granted(original, {"echo", "query"})
    answer = contexts.with_rejections(acceptance(proposed), original, proposed)
    assert [(result.id, result.result) for result in answer.contexts] == [
        (1, ContextResult.ACCEPTANCE),
        (3, ContextResult.USER_REJECTION),
        (5, ContextResult.ACCEPTANCE),
    ]


def test_an_acceptor_cannot_accept_what_it_was_not_asked() -> None:
    original = proposal(uids.VERIFICATION, CT)
    proposed = contexts.granted(original, {"echo"})
    answer = acceptance(original)
    extra = PresentationContextResult(99, ContextResult.ACCEPTANCE, IMPLICIT)
    made = contexts.with_rejections(
        type(answer)("PACS", "WS", (*answer.contexts, extra)), original, proposed
    )
    assert [(r.id, r.accepted) for r in made.contexts] == [(1, True), (3, False)]


def test_what_is_brought_back_may_be_of_a_private_class() -> None:
    """By C-GET where the requestor offers to take it, by C-MOVE while that is outstanding."""
    request = proposal(CT, PRIVATE_CLASS, uids.VERIFICATION, scp=[PRIVATE_CLASS])
    assert ids(contexts.granted(request, {"retrieve"})) == [3]
    assert ids(contexts.granted(request, {"query"})) == []
    assert ids(contexts.granted(request, (), {"store"})) == [1, 3]
    assert ids(contexts.granted(request, (), {"commit"})) == []
