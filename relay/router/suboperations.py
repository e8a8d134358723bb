"""What a C-MOVE-RSP says of sub-operations that a queue has answered for.

The holder was told 0000 for each object that its Router's queue took, and counts it as completed.
Its requestor is to hear what became of them: the counters (0000,1020) to (0000,1023), the status,
and the Failed SOP Instance UID List (0008,0058) are put right here (PS3.4 §C.4.2.1).
"""

from relay.dicom import elements
from relay.dicom.dimse import NO_DATA_SET, CommandSet, Status, Tag
from relay.dicom.elements import LONGEST_VALUE, Element, Encoding
from relay.router.moves import Kept

FAILED_SOP_INSTANCE_UID_LIST = 0x0008_0058

# PS3.4 Table C.4-2: sub-operations complete, one or more failures or warnings.
COMPLETE_WITH_FAILURES = 0xB000

_REMAINING = Tag.NUMBER_OF_REMAINING_SUBOPERATIONS
_COMPLETED = Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS
_FAILED = Tag.NUMBER_OF_FAILED_SUBOPERATIONS
_WARNING = Tag.NUMBER_OF_WARNING_SUBOPERATIONS

# What a pending response has beside its counters (PS3.7 §9.3.4.2).
_OF_PENDING = (
    Tag.AFFECTED_SOP_CLASS_UID,
    Tag.COMMAND_FIELD,
    Tag.MESSAGE_ID_BEING_RESPONDED_TO,
    Tag.COMMAND_DATA_SET_TYPE,
    Tag.STATUS,
)


def pending(answer: CommandSet, kept: Kept) -> CommandSet:
    """A response that says how far it is, before the final `answer` can go."""
    waiting = len(kept.waiting)
    counts = _counts(answer, kept, undone=waiting + kept.failed)
    counts[_FAILED] -= waiting
    counts[_REMAINING] = (answer.number(_REMAINING) or 0) + waiting
    common: dict[int, bytes] = {
        tag: answer.elements[tag] for tag in _OF_PENDING if tag in answer.elements
    }
    said: dict[int, int] = {Tag.STATUS: Status.PENDING, Tag.COMMAND_DATA_SET_TYPE: NO_DATA_SET}
    return CommandSet(common).evolve(said | _capped(counts))


def final(
    answer: CommandSet, data_set: bytes, kept: Kept, encoding: Encoding | None
) -> tuple[CommandSet, bytes]:
    """The final response, and its data set: what is not delivered by now counts as failed.

    Where the move was cancelled, that is left: it is delivered all the same.
    """
    waiting = len(kept.waiting)
    cancelled = answer.status == Status.CANCEL or (kept.cancelled and waiting > 0)
    undone = kept.failed + waiting
    if not (undone or kept.warned):
        return answer, data_set
    counts = _counts(answer, kept, undone=undone)
    if cancelled:
        counts[_FAILED] -= waiting
        counts[_REMAINING] = (answer.number(_REMAINING) or 0) + waiting
    changes: dict[int, int] = _capped(counts)
    changes[Tag.STATUS] = Status.CANCEL if cancelled else _status(answer.status, counts)
    names = [*kept.named, *([] if cancelled else kept.waiting.values())]
    if names and encoding is not None:
        data_set = _failed_list(data_set, names, encoding)
        changes[Tag.COMMAND_DATA_SET_TYPE] = 1  # PS3.7 §E.1: any value but NO_DATA_SET
    return answer.evolve(changes), data_set


def _counts(answer: CommandSet, kept: Kept, *, undone: int) -> dict[int, int]:
    """The holder's counters, less what it counts as completed and is not, or not quite."""
    completed = answer.number(_COMPLETED)
    if completed is None:  # it says nothing, as some do: what the queue has taken is known
        completed = kept.taken
    return {
        _COMPLETED: max(0, completed - undone - kept.warned),
        _FAILED: (answer.number(_FAILED) or 0) + undone,
        _WARNING: (answer.number(_WARNING) or 0) + kept.warned,
    }


def _capped(counts: dict[int, int]) -> dict[int, int]:
    return {tag: min(count, 0xFFFF) for tag, count in counts.items()}  # US: two bytes


def _status(status: int, counts: dict[int, int]) -> int:
    """PS3.4 §C.4.2.3.1: a failure if all sub-operations were unsuccessful, else a warning."""
    if status not in (Status.SUCCESS, COMPLETE_WITH_FAILURES):
        return status
    if counts[_COMPLETED] or counts[_WARNING]:
        return COMPLETE_WITH_FAILURES
    return Status.UNABLE_TO_PERFORM_SUBOPERATIONS


def _failed_list(data_set: bytes, names: list[str], encoding: Encoding) -> bytes:
    """The response's identifier, which has this element alone (PS3.4 §C.4.2.1.4.2).

    What the holder names goes first; as many follow as one value can have.
    """
    found = elements.find(data_set, FAILED_SOP_INSTANCE_UID_LIST, encoding, whole=True)
    before = found.text(data_set) if isinstance(found, Element) else ""
    value = "\\".join(filter(None, [before, *names])).encode("ascii", "replace")
    if len(value) > LONGEST_VALUE:
        value = value[: value.rindex(b"\\", 0, LONGEST_VALUE + 1)]
    value += b"\0" * (len(value) % 2)
    return elements.encode(FAILED_SOP_INSTANCE_UID_LIST, b"UI", value, encoding)
