"""What a C-MOVE-RSP says once it is known what became of the objects that a queue has taken."""

import io

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from relay.dicom.dimse import NO_DATA_SET, CommandSet, Status, Tag
from relay.dicom.elements import LONGEST_VALUE, Encoding
from relay.router.moves import MAXIMUM_NAMED, Kept
from relay.router.suboperations import final, pending
from tests.router import borders

IMPLICIT, EXPLICIT, BIG = Encoding(explicit_vr=False), Encoding(), Encoding(little_endian=False)
encodings = pytest.mark.parametrize(
    "encoding", [IMPLICIT, EXPLICIT, BIG], ids=["implicit", "explicit", "big"]
)

REMAINING = Tag.NUMBER_OF_REMAINING_SUBOPERATIONS
COMPLETED = Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS
FAILED = Tag.NUMBER_OF_FAILED_SUBOPERATIONS
WARNING = Tag.NUMBER_OF_WARNING_SUBOPERATIONS


def answer(status: int = 0, **counts: int) -> CommandSet:
    """The holder's final response, which it gives as though all were done."""
    tags = {"remaining": REMAINING, "completed": COMPLETED, "failed": FAILED, "warning": WARNING}
    return borders.final(7, status).evolve({tags[name]: count for name, count in counts.items()})


def counts(command: CommandSet) -> tuple[int | None, ...]:
    return tuple(command.number(tag) for tag in (REMAINING, COMPLETED, FAILED, WARNING))


def kept(waiting: int = 0, delivered: int = 0, warned: int = 0, failed: int = 0) -> Kept:
    made = Kept({n: f"1.2.{n}" for n in range(waiting)}, delivered=delivered, warned=warned)
    for number in range(failed):
        made.fail(f"1.3.{number}")
    return made


def failed_list(data: bytes, encoding: Encoding) -> list[str]:
    read = read_dataset(io.BytesIO(data), not encoding.explicit_vr, encoding.little_endian)
    assert len(read) == 1
    found = read.FailedSOPInstanceUIDList
    return [found] if isinstance(found, str) else list(found)


def encode(names: list[str], encoding: Encoding) -> bytes:
    made = Dataset()
    made.FailedSOPInstanceUIDList = names
    stream = DicomBytesIO()
    stream.is_little_endian = encoding.little_endian
    stream.is_implicit_VR = not encoding.explicit_vr
    write_dataset(stream, made)
    return stream.getvalue()


def test_where_all_is_delivered_the_answer_is_the_holders() -> None:
    said = answer(completed=3)
    assert final(said, b"", kept(delivered=3), IMPLICIT) == (said, b"")


@encodings
def test_what_is_not_delivered_counts_as_failed_and_is_named(encoding: Encoding) -> None:
    command, data = final(
        answer(completed=5, failed=0), b"", kept(waiting=1, delivered=3, failed=1), encoding
    )
    assert command.status == 0xB000
    assert counts(command) == (None, 3, 2, 0)
    assert command.has_data_set
    assert failed_list(data, encoding) == ["1.3.0", "1.2.0"]
    assert command.message_id_responded_to == 7


def test_where_nothing_is_delivered_it_has_failed() -> None:
    """PS3.4 §C.4.2.3.1: a failure if all sub-operations were unsuccessful."""
    command, _ = final(answer(completed=2), b"", kept(waiting=1, failed=1), IMPLICIT)
    assert command.status == Status.UNABLE_TO_PERFORM_SUBOPERATIONS
    assert counts(command) == (None, 0, 2, 0)


def test_a_warning_of_the_destination_is_counted() -> None:
    command, data = final(answer(completed=3), b"", kept(delivered=2, warned=1), IMPLICIT)
    assert command.status == 0xB000
    assert counts(command) == (None, 2, 0, 1)
    assert not command.has_data_set
    assert data == b""


@encodings
def test_what_the_holder_names_stays_named(encoding: Encoding) -> None:
    said = answer(0xB000, completed=1, failed=2).evolve({Tag.COMMAND_DATA_SET_TYPE: 1})
    before = encode(["1.9.1", "1.9.22"], encoding)
    command, data = final(said, before, kept(failed=1), encoding)
    assert command.status == Status.UNABLE_TO_PERFORM_SUBOPERATIONS
    assert counts(command) == (None, 0, 3, 0)
    assert failed_list(data, encoding) == ["1.9.1", "1.9.22", "1.3.0"]
    assert encode(failed_list(data, encoding), encoding) == data


@pytest.mark.parametrize("status", [Status.CANCEL, 0xA702, 0xC001])
def test_a_failure_of_the_holders_stays(status: int) -> None:
    command, _ = final(answer(status, completed=3), b"", kept(delivered=1, failed=1), IMPLICIT)
    assert command.status == status
    assert counts(command)[1:] == (2, 1, 0)


@pytest.mark.parametrize("by_holder", [True, False])
def test_what_is_left_of_a_cancelled_move_remains(by_holder: bool) -> None:
    """It is delivered all the same, but nobody waits for it (PS3.4 §C.4.2.1.6)."""
    waits = kept(waiting=2, delivered=1)
    waits.cancelled = not by_holder
    said = answer(Status.CANCEL if by_holder else 0, remaining=4, completed=3)
    command, data = final(said, b"", waits, IMPLICIT)
    assert command.status == Status.CANCEL
    assert counts(command) == (6, 1, 0, 0)
    assert data == b""


def test_a_cancel_that_came_too_late_changes_nothing() -> None:
    late = kept(delivered=2)
    late.cancelled = True
    said = answer(completed=2)
    assert final(said, b"", late, IMPLICIT) == (said, b"")


def test_a_holder_without_counters_is_known_by_what_was_taken() -> None:
    command, _ = final(answer(), b"", kept(delivered=2, failed=1), IMPLICIT)
    assert counts(command) == (None, 2, 1, 0)
    # More than it says it has sent: what it says is not made less than nothing.
    command, _ = final(answer(completed=1), b"", kept(failed=3), IMPLICIT)
    assert counts(command) == (None, 0, 3, 0)


def test_counters_and_names_have_an_end() -> None:
    waits = kept(waiting=70_000)
    command, data = final(answer(completed=0xFFFF), b"", waits, EXPLICIT)
    assert counts(command) == (None, 0, 0xFFFF, 0)
    assert len(data) <= LONGEST_VALUE + 8
    named = failed_list(data, EXPLICIT)
    assert named == [f"1.2.{n}" for n in range(len(named))]
    assert len(named) > MAXIMUM_NAMED


def test_in_an_unknown_encoding_the_counters_tell() -> None:
    command, data = final(answer(completed=2), b"", kept(delivered=1, failed=1), None)
    assert (command.status, counts(command)) == (0xB000, (None, 1, 1, 0))
    assert (command.has_data_set, data) == (False, b"")


def test_a_pending_response_says_how_far_it_is() -> None:
    said = answer(0xB000, completed=9, failed=1).evolve(
        {Tag.COMMAND_DATA_SET_TYPE: 1, Tag.ERROR_COMMENT: "some were not sent"}
    )
    command = pending(said, kept(waiting=4, delivered=2, warned=1, failed=2))
    assert command.status == Status.PENDING
    assert counts(command) == (4, 2, 3, 1)
    assert command.number(Tag.COMMAND_DATA_SET_TYPE) == NO_DATA_SET
    assert command.text(Tag.ERROR_COMMENT) is None
    assert command.message_id_responded_to == 7
    assert CommandSet.decode(command.encode()) == command
