"""A C-GET in the words of a C-MOVE, and back: what is proposed, answered, and counted."""

import attrs
import pytest

from relay.dicom import dimse, elements, uids
from relay.dicom.dimse import CommandField, CommandSet, Status, Tag
from relay.dicom.negotiation import (
    AsynchronousOperationsWindow,
    RoleSelection,
    SOPClassExtended,
    TypedItem,
    find,
)
from relay.dicom.pdu import ContextResult, PresentationContextResult
from relay.router import get_as_move
from relay.router.get_as_move import Stored
from relay.router.moves import MAXIMUM_NAMED
from tests.router.fakes import (
    CT,
    IMPLICIT,
    JPEG,
    MR,
    PRIVATE_CLASS,
    acceptance,
    get_rq,
    proposal,
    store_rq,
)

GET, MOVE, FIND = uids.STUDY_ROOT_GET, uids.STUDY_ROOT_MOVE, uids.STUDY_ROOT_FIND
EXPLICIT = uids.EXPLICIT_VR_LITTLE_ENDIAN
ENCODING = elements.encoding_of(IMPLICIT)


@pytest.mark.parametrize(
    ("get", "move"),
    [
        (uids.PATIENT_ROOT_GET, uids.PATIENT_ROOT_MOVE),
        (GET, MOVE),
        (uids.PATIENT_STUDY_ONLY_GET, uids.PATIENT_STUDY_ONLY_MOVE),
        (uids.COMPOSITE_INSTANCE_ROOT_GET, uids.COMPOSITE_INSTANCE_ROOT_MOVE),
    ],
)
def test_each_model_has_both(get: str, move: str) -> None:
    assert get_as_move.is_get(get)
    (context,) = get_as_move.as_move(proposal(get)).contexts
    assert (context.id, context.abstract_syntax) == (1, move)
    command = dimse.request(CommandField.C_GET_RQ, 3, get)
    moved = get_as_move.moved(command, 0x8001, "RELAY")
    assert moved.affected_sop_class_uid == move
    assert (moved.message_id, moved.move_destination) == (0x8001, "RELAY")
    assert moved.has_data_set
    assert moved.number(Tag.PRIORITY) == 0


@pytest.mark.parametrize("other", [MOVE, FIND, uids.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET, CT])
def test_other_classes_are_none_of_them(other: str) -> None:
    assert not get_as_move.is_get(other)
    assert get_as_move.as_move(proposal(other)).contexts == proposal(other).contexts


def test_the_device_hears_nothing_of_what_the_requestor_takes() -> None:
    request = proposal(GET, CT, MR, PRIVATE_CLASS, FIND, scp=[CT, PRIVATE_CLASS])
    others: list[TypedItem] = [
        RoleSelection(uids.STORAGE_COMMITMENT_PUSH_MODEL, True, True),
        AsynchronousOperationsWindow(0, 0),
        SOPClassExtended(GET, b"\1"),
        SOPClassExtended(FIND, b"\1"),
    ]
    request = attrs.evolve(
        request, user_items=(*request.user_items, *(item.encode() for item in others))
    )
    assert get_as_move.get_contexts(request) == {1}
    assert set(get_as_move.taking_contexts(request)) == {3, 7}
    moved = get_as_move.as_move(request)
    assert [(c.id, c.abstract_syntax) for c in moved.contexts] == [(1, MOVE), (5, MR), (9, FIND)]
    assert find(moved.user_items, RoleSelection) == (others[0],)
    assert find(moved.user_items, SOPClassExtended) == (others[3],)
    assert not find(moved.user_items, AsynchronousOperationsWindow)


def test_the_requestor_is_answered_for_all() -> None:
    request = proposal(GET, CT, FIND, MR, scp=[CT, MR], transfer_syntaxes=[JPEG, IMPLICIT])
    contexts = [*request.contexts]
    contexts[3] = attrs.evolve(contexts[3], transfer_syntaxes=(JPEG, EXPLICIT))
    request = attrs.evolve(request, contexts=tuple(contexts))
    refused = PresentationContextResult(5, ContextResult.USER_REJECTION, "")
    device = acceptance(get_as_move.as_move(request))
    device = attrs.evolve(
        device,
        contexts=(device.contexts[0], refused),
        user_items=(AsynchronousOperationsWindow(5, 5).encode(),),
    )
    answer = get_as_move.as_get(device, request)
    # The default that every device can store in, else what the requestor names first.
    assert [(r.id, r.accepted, r.transfer_syntax) for r in answer.contexts] == [
        (1, True, JPEG),
        (3, True, IMPLICIT),
        (5, False, ""),
        (7, True, JPEG),
    ]
    assert find(answer.user_items, RoleSelection) == (
        RoleSelection(CT, False, True),
        RoleSelection(MR, False, True),
    )
    assert not find(answer.user_items, AsynchronousOperationsWindow)


def test_what_the_device_stores_in_is_chosen_as_the_requestor_prefers() -> None:
    request = proposal(GET, CT, MR, scp=[CT, MR], transfer_syntaxes=[JPEG, EXPLICIT, IMPLICIT])
    known = {CT: [IMPLICIT, EXPLICIT], MR: ["1.2.3"]}
    answer = get_as_move.as_get(
        acceptance(get_as_move.as_move(request)), request, lambda sop_class: known[sop_class]
    )
    assert [r.transfer_syntax for r in answer.contexts] == [JPEG, EXPLICIT, IMPLICIT]


def test_what_the_device_does_not_answer_is_not_answered() -> None:
    request = proposal(GET, CT, scp=[CT])
    device = attrs.evolve(acceptance(get_as_move.as_move(request)), contexts=())
    assert [r.id for r in get_as_move.as_get(device, request).contexts] == [3]


def test_a_suboperation_has_no_move_originator() -> None:
    request = store_rq(5).evolve(
        {Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: "WS", Tag.MOVE_ORIGINATOR_MESSAGE_ID: 9}
    )
    assert get_as_move.suboperation(request, 77) == store_rq(77)


def stored(completed: int = 0, warned: int = 0, *failed: str) -> Stored:
    return Stored(completed, warned, len(failed), list(failed))


def said(status: int, *counts: int, **extra: object) -> CommandSet:
    """The device's final response, with its counters: completed, failed, warning."""
    tags = (
        Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS,
        Tag.NUMBER_OF_FAILED_SUBOPERATIONS,
        Tag.NUMBER_OF_WARNING_SUBOPERATIONS,
    )
    asked = get_as_move.moved(get_rq(7), 0x8001, "RELAY")
    return dimse.response_to(asked, status, extra=dict(zip(tags, counts, strict=False)))


@pytest.mark.parametrize(
    ("response", "what", "status", "counts"),
    [
        (said(0, 2, 0, 0), stored(2), 0, (2, 0, 0)),
        (said(0, 2, 0, 0), stored(1, 1), 0xB000, (1, 0, 1)),  # it counts a warning as completed
        (said(0, 2, 0, 0), stored(1), 0xB000, (1, 1, 0)),  # one has not come
        (said(0, 2, 0, 0), stored(0), 0xA702, (0, 2, 0)),
        (said(0xB000, 1, 3, 0), stored(1, 0, "1.2"), 0xB000, (1, 3, 0)),
        (said(0xA702, 1, 1, 0), stored(1, 0, "1.2"), 0xB000, (1, 1, 0)),
        (said(0xA702, 0, 2, 0), stored(), 0xA702, (0, 2, 0)),
        (said(0), stored(3), 0, (3, 0, 0)),  # it counts nothing
        (said(0), stored(3, 0, "1.2"), 0xB000, (3, 1, 0)),
        (said(0), stored(), 0, (0, 0, 0)),  # nothing has matched
        (said(0, 1, 0, 0), stored(5), 0, (5, 0, 0)),  # it counts studies
        (said(0xA702), stored(), 0xA702, (0, 0, 0)),
        (said(0xFE00, 1, 0, 0), stored(1), 0xFE00, (1, 0, 0)),
        (said(0xFE00, 1, 0, 0), stored(1, 0, "1.2"), 0xFE00, (1, 1, 0)),
    ],
)
def test_what_is_counted(
    response: CommandSet, what: Stored, status: int, counts: tuple[int, ...]
) -> None:
    answer, _ = get_as_move.final(response, get_rq(7), b"", what, ENCODING)
    assert answer.command_field == CommandField.C_GET_RSP
    assert answer.message_id_responded_to == 7
    assert answer.affected_sop_class_uid == GET
    assert answer.status == status
    assert counts == tuple(
        answer.number(tag)
        for tag in (
            Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS,
            Tag.NUMBER_OF_FAILED_SUBOPERATIONS,
            Tag.NUMBER_OF_WARNING_SUBOPERATIONS,
        )
    )


@pytest.mark.parametrize("status", [0xA701, 0xA900, 0xC000, 0x0122, 0x0124])
def test_another_failure_is_passed_on(status: int) -> None:
    response = said(status).evolve({Tag.ERROR_COMMENT: "why"})
    answer, data_set = get_as_move.final(response, get_rq(7), b"data", stored(1), ENCODING)
    assert (answer.status, answer.text(Tag.ERROR_COMMENT)) == (status, "why")
    assert answer.number(Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS) is None
    assert data_set == b"data"


def test_the_failed_are_named_by_the_device_or_by_us() -> None:
    what = stored(1, 0, "1.2", "1.3")
    answer, data_set = get_as_move.final(said(0xB000, 1, 2, 0), get_rq(7), b"", what, ENCODING)
    assert answer.has_data_set
    assert data_set.endswith(b"1.2\\1.3\0")
    named = said(0xB000, 1, 2, 0).evolve({Tag.COMMAND_DATA_SET_TYPE: 1})
    answer, data_set = get_as_move.final(named, get_rq(7), b"device's", what, ENCODING)
    assert (answer.has_data_set, data_set) == (True, b"device's")
    answer, data_set = get_as_move.final(said(0xB000, 1, 2, 0), get_rq(7), b"", what, None)
    assert (answer.has_data_set, data_set) == (False, b"")


def test_no_more_are_named_than_a_value_holds() -> None:
    what = Stored()
    for _ in range(MAXIMUM_NAMED + 5):
        what.count(store_rq(), 0xC000)
    assert (what.failed, len(what.named)) == (MAXIMUM_NAMED + 5, MAXIMUM_NAMED)
    what.named = ["1" * 64] * 2000
    answer, data_set = get_as_move.final(said(0xA702), get_rq(7), b"", what, ENCODING)
    assert answer.number(Tag.NUMBER_OF_FAILED_SUBOPERATIONS) == MAXIMUM_NAMED + 5
    assert 65000 < len(data_set) <= 8 + elements.LONGEST_VALUE
    assert set(data_set[8:].decode().strip("\0").split("\\")) == {"1" * 64}


def test_counters_have_two_bytes() -> None:
    answer, _ = get_as_move.final(said(0), get_rq(7), b"", stored(70_000), ENCODING)
    assert answer.number(Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS) == 0xFFFF


@pytest.mark.parametrize(
    ("status", "counts"),
    [(0, (1, 0, 0)), (0xB007, (0, 1, 0)), (0x0001, (0, 1, 0)), (0x0111, (0, 0, 1))],
)
def test_an_answer_counts_as_what_it_is(status: int, counts: tuple[int, int, int]) -> None:
    what = Stored()
    what.count(store_rq(), status)
    assert (what.completed, what.warned, what.failed) == counts
    assert what.named == (["1.2.3"] if counts[2] else [])


def test_a_destination_that_is_not_known_is_no_answer_to_a_c_get() -> None:
    answer, _ = get_as_move.final(
        said(Status.MOVE_DESTINATION_UNKNOWN), get_rq(7), b"", stored(), ENCODING
    )
    assert answer.status == Status.UNABLE_TO_PERFORM_SUBOPERATIONS
    comment = answer.text(Tag.ERROR_COMMENT)
    assert comment is not None
    assert len(comment) <= 64
