"""A C-GET in the words of a C-MOVE, and back: contexts, commands, counters.

What a requestor proposes for a C-GET is two things at once: the GET itself, and contexts of Storage
in whose provider role it offers itself, over which the objects come back. A device without C-GET is
proposed the MOVE in the place of the GET, and hears nothing of the others: what it stores comes by
associations of its own (relay.router.get_by_move). The identifier is the same for both
(PS3.4 §C.4.2.1.4, §C.4.3.1.3).
"""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import attrs

from relay.dicom import elements, uids
from relay.dicom.dimse import NO_DATA_SET, CommandField, CommandSet, Status, Tag
from relay.dicom.elements import LONGEST_VALUE, Encoding
from relay.dicom.negotiation import (
    AsynchronousOperationsWindow,
    RoleSelection,
    SOPClassExtended,
    find,
    without,
)
from relay.dicom.pdu import (
    AAssociateAC,
    AAssociateRQ,
    ContextResult,
    PresentationContext,
    PresentationContextResult,
)
from relay.dicom.status import is_warning
from relay.router.contexts import provider_roles
from relay.router.moves import MAXIMUM_NAMED
from relay.router.services import may_be_stored, service_of
from relay.router.suboperations import COMPLETE_WITH_FAILURES, FAILED_SOP_INSTANCE_UID_LIST

# The models that have both, with the same identifiers.
_MOVE_OF: Mapping[str, str] = MappingProxyType(
    {
        uids.PATIENT_ROOT_GET: uids.PATIENT_ROOT_MOVE,
        uids.STUDY_ROOT_GET: uids.STUDY_ROOT_MOVE,
        uids.PATIENT_STUDY_ONLY_GET: uids.PATIENT_STUDY_ONLY_MOVE,
        uids.COMPOSITE_INSTANCE_ROOT_GET: uids.COMPOSITE_INSTANCE_ROOT_MOVE,
    }
)

_COMPLETED = Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS
_FAILED = Tag.NUMBER_OF_FAILED_SUBOPERATIONS
_WARNING = Tag.NUMBER_OF_WARNING_SUBOPERATIONS
_MOST = 0xFFFF  # the counters are US: two bytes

# Final statuses beside which the counters stand (PS3.4 Table C.4-3).
_COUNTED = (
    Status.SUCCESS,
    COMPLETE_WITH_FAILURES,
    Status.UNABLE_TO_PERFORM_SUBOPERATIONS,
    Status.CANCEL,
)


def is_get(abstract_syntax: str) -> bool:
    """Whether a C-GET of this SOP class can be asked by a C-MOVE."""
    return abstract_syntax in _MOVE_OF


def get_contexts(request: AAssociateRQ) -> frozenset[int]:
    """The IDs of the contexts for such a C-GET."""
    return frozenset(c.id for c in request.contexts if is_get(c.abstract_syntax))


def taking_contexts(request: AAssociateRQ) -> dict[int, PresentationContext]:
    """The contexts over which the requestor takes objects, by ID.

    In the other role the device is not there for them. Raises RemoteProtocolError for roles that
    cannot be read.
    """
    offered = provider_roles(request)
    return {
        context.id: context
        for context in request.contexts
        if context.abstract_syntax in offered and may_be_stored(service_of(context.abstract_syntax))
    }


# --- negotiation ----------------------------------------------------------------------------------


def as_move(request: AAssociateRQ) -> AAssociateRQ:
    """What the device is proposed in the place of `request`: MOVE for GET, and nothing to store.

    One operation at a time, since of what a C-GET brings nothing says which one it is of. What else
    a GET can do beside its own is not asked for (PS3.7 §D.3.3.5). Raises RemoteProtocolError.
    """
    taking = taking_contexts(request)
    offered = {context.abstract_syntax for context in taking.values()}
    roles = [r for r in find(request.user_items, RoleSelection) if r.sop_class not in offered]
    extended = [e for e in find(request.user_items, SOPClassExtended) if not is_get(e.sop_class)]
    others = without(
        request.user_items, RoleSelection, SOPClassExtended, AsynchronousOperationsWindow
    )
    return attrs.evolve(
        request,
        contexts=tuple(
            attrs.evolve(c, abstract_syntax=_MOVE_OF.get(c.abstract_syntax, c.abstract_syntax))
            for c in request.contexts
            if c.id not in taking
        ),
        user_items=(*others, *(r.encode() for r in roles), *(e.encode() for e in extended)),
    )


def as_get(
    answer: AAssociateAC,
    request: AAssociateRQ,
    stores_in: Callable[[str], Collection[str]] = lambda sop_class: (),
) -> AAssociateAC:
    """The device's `answer` to `as_move(request)`, as one to `request`.

    `stores_in` says in which transfer syntaxes the device is known to store a SOP class. Of those
    of a context that takes objects the first is chosen in which it does; else the default, which
    every device can store in (PS3.5 §10.1); without that the requestor's first.
    """
    taking = taking_contexts(request)
    given = {result.id: result for result in answer.contexts}
    results = [
        _taken(context, stores_in(context.abstract_syntax))
        if context.id in taking
        else given.get(context.id)
        for context in request.contexts
    ]
    roles = {
        c.abstract_syntax: RoleSelection(c.abstract_syntax, False, True) for c in taking.values()
    }
    items = without(answer.user_items, AsynchronousOperationsWindow)
    return attrs.evolve(
        answer,
        contexts=tuple(result for result in results if result is not None),
        user_items=(*items, *(role.encode() for role in roles.values())),
    )


def _taken(context: PresentationContext, stores_in: Collection[str]) -> PresentationContextResult:
    default = uids.IMPLICIT_VR_LITTLE_ENDIAN
    listed = context.transfer_syntaxes
    usual = default if default in listed else listed[0]
    chosen = next((syntax for syntax in listed if syntax in stores_in), usual)
    return PresentationContextResult(context.id, ContextResult.ACCEPTANCE, chosen)


# --- commands -------------------------------------------------------------------------------------


def moved(asked: CommandSet, message_id: int, destination: str) -> CommandSet:
    """The C-MOVE-RQ for the C-GET-RQ `asked` (PS3.7 §9.3.3.1, §9.3.4.1)."""
    sop_class = asked.affected_sop_class_uid or ""
    return asked.evolve(
        {
            Tag.AFFECTED_SOP_CLASS_UID: _MOVE_OF.get(sop_class, sop_class),
            Tag.COMMAND_FIELD: CommandField.C_MOVE_RQ,
            Tag.MESSAGE_ID: message_id,
            Tag.MOVE_DESTINATION: destination,
        }
    )


def suboperation(request: CommandSet, message_id: int) -> CommandSet:
    """A C-STORE-RQ of a C-MOVE as one of a C-GET, which has no Move Originator."""
    of_a_move = (Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE, Tag.MOVE_ORIGINATOR_MESSAGE_ID)
    kept = {tag: value for tag, value in request.elements.items() if tag not in of_a_move}
    return CommandSet(kept).evolve({Tag.MESSAGE_ID: message_id})


@attrs.define(slots=True, eq=False)
class Stored:
    """What became of the objects that were sent to the requestor, as it says."""

    completed: int = 0
    warned: int = 0
    failed: int = 0
    named: list[str] = attrs.field(factory=list, repr=False)  # MAXIMUM_NAMED of the failed

    def count(self, request: CommandSet, status: int) -> None:
        """`request` was answered with this status."""
        if status == Status.SUCCESS:
            self.completed += 1
        elif is_warning(status):
            self.warned += 1
        else:
            self.failed += 1
            if len(self.named) < MAXIMUM_NAMED:
                self.named.append(request.sop_instance_uid or "")


def pending(response: CommandSet, asked: CommandSet) -> CommandSet:
    """A pending C-MOVE-RSP as the C-GET-RSP to `asked`: with its counters, and no data set."""
    return _answered(response, asked).evolve({Tag.COMMAND_DATA_SET_TYPE: NO_DATA_SET})


def _answered(response: CommandSet, asked: CommandSet) -> CommandSet:
    changes: dict[int, int | str | bytes] = {
        Tag.COMMAND_FIELD: CommandField.C_GET_RSP,
        Tag.MESSAGE_ID_BEING_RESPONDED_TO: asked.message_id,
    }
    sop_class = asked.affected_sop_class_uid
    if sop_class is not None:
        changes[Tag.AFFECTED_SOP_CLASS_UID] = sop_class
    return response.evolve(changes)


def final(
    response: CommandSet,
    asked: CommandSet,
    data_set: bytes,
    stored: Stored,
    encoding: Encoding | None,
) -> tuple[CommandSet, bytes]:
    """The final C-GET-RSP to `asked`, with its data set (PS3.4 §C.4.3.1.4).

    What has come is counted as its requestor answered it; all else that the device counts has
    failed, whatever it calls it.
    """
    answer = _answered(response, asked)
    if response.status == Status.MOVE_DESTINATION_UNKNOWN:  # no such thing in a C-GET
        comment = "no destination of the device: its own Router"
        status = Status.UNABLE_TO_PERFORM_SUBOPERATIONS
        return answer.evolve({Tag.STATUS: status, Tag.ERROR_COMMENT: comment}), data_set
    if response.status not in _COUNTED:
        return answer, data_set
    failed = _failed(response, stored)
    changes: dict[int, int | str | bytes] = {
        _COMPLETED: min(stored.completed, _MOST),
        _FAILED: min(failed, _MOST),
        _WARNING: min(stored.warned, _MOST),
    }
    if response.status != Status.CANCEL:
        changes[Tag.STATUS] = _status(response.status, stored, failed)
    if stored.named and not data_set and encoding is not None:
        data_set = _failed_list(stored.named, encoding)
        changes[Tag.COMMAND_DATA_SET_TYPE] = 1  # PS3.7 §E.1: any value but NO_DATA_SET
    return answer.evolve(changes), data_set


def _failed(response: CommandSet, stored: Stored) -> int:
    counted = [response.number(tag) or 0 for tag in (_COMPLETED, _FAILED, _WARNING)]
    not_come = sum(counted) - stored.completed - stored.warned
    return max(stored.failed, not_come, response.number(_FAILED) or 0)


def _status(said: int, stored: Stored, failed: int) -> int:
    """A failure if nothing has come of what was there, a warning if not all has."""
    if stored.completed or stored.warned:
        return COMPLETE_WITH_FAILURES if failed or stored.warned else Status.SUCCESS
    if failed:
        return Status.UNABLE_TO_PERFORM_SUBOPERATIONS
    return said


def _failed_list(named: list[str], encoding: Encoding) -> bytes:
    """The identifier, which has this element alone; as many names as one value can have."""
    value = "\\".join(filter(None, named)).encode("ascii", "replace")
    if len(value) > LONGEST_VALUE:
        value = value[: value.rindex(b"\\", 0, LONGEST_VALUE + 1)]
    value += b"\0" * (len(value) % 2)
    return elements.encode(FAILED_SOP_INSTANCE_UID_LIST, b"UI", value, encoding)
