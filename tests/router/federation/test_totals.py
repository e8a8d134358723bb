import pytest

from relay.dicom.dimse import Status, Tag
from relay.dicom.elements import Encoding
from relay.router.federation.targets import read_text
from relay.router.federation.totals import MAXIMUM_NAMED, Counts, Refusal, Tally, Totals
from relay.router.suboperations import FAILED_SOP_INSTANCE_UID_LIST

UIDS = [f"1.2.{n}" for n in range(4)]


def test_what_is_planned_remains_until_it_is_settled() -> None:
    tally = Tally(UIDS)
    assert tally.counts() == Counts(4)
    tally.complete("1.2.0")
    tally.complete("1.2.1", warning=True)
    tally.fail("1.2.2")
    assert tally.counts() == Counts(1, 1, 1, 1)
    assert tally.is_left("1.2.3")
    assert not tally.is_left("1.2.0")
    assert tally.failed_uids == ["1.2.2"]


def test_what_an_owner_says_meanwhile_is_on_top() -> None:
    tally = Tally()
    tally.complete(count=2)
    tally.now = Counts(5, 1, 1, 0)
    assert tally.counts() == Counts(5, 3, 1, 0)


def test_nothing_runs_backwards_when_the_next_begins_again() -> None:
    tally = Tally(UIDS)
    tally.now = Counts(-3, 2, 0, 1)
    assert tally.counts() == Counts(1, 2, 0, 1)
    tally.now = Counts()  # it is gone, and nobody knows what it has stored
    assert tally.counts() == Counts(4, 2, 0, 1)
    tally.complete("1.2.0")
    assert tally.counts() == Counts(3, 2, 0, 1)
    for uid in UIDS[1:]:
        tally.fail(uid)
    totals = tally.totals()
    assert (totals.completed, totals.failed, totals.warning) == (2, 1, 1)
    assert totals.status == 0xB000


@pytest.mark.parametrize(
    ("done", "refusal", "status"),
    [
        ((3, 0, 0), None, Status.SUCCESS),
        ((0, 0, 0), None, Status.SUCCESS),
        ((2, 1, 0), None, 0xB000),
        ((0, 1, 2), None, 0xB000),
        ((3, 0, 1), None, 0xB000),
        ((0, 3, 0), None, 0xA702),
        ((0, 3, 0), Refusal.DESTINATION_UNKNOWN, 0xA801),
        ((0, 0, 0), Refusal.UNABLE_TO_COUNT, 0xA701),
        ((3, 0, 0), Refusal.UNABLE_TO_PERFORM, 0xB000),
    ],
)
def test_final_statuses(done: tuple[int, int, int], refusal: Refusal | None, status: int) -> None:
    """PS3.4 Tables C.4-2 and C.4-3; done: completed, failed, warning."""
    tally = Tally()
    completed, failed, warning = done
    tally.complete(count=completed)
    tally.fail(count=failed)
    tally.complete(count=warning, warning=True)
    totals = tally.totals(refusal=refusal)
    assert totals.status == status
    assert (totals.completed, totals.failed, totals.warning) == done


def test_what_may_be_lacking_is_said_or_not() -> None:
    tally = Tally()
    tally.complete(count=3)
    refusal = Refusal.UNABLE_TO_PERFORM
    assert tally.totals(refusal=refusal, may_lack=True).status == Status.SUCCESS
    tally.fail(count=1)
    assert tally.totals(refusal=refusal, may_lack=True).status == 0xB000
    assert Tally().totals(refusal=refusal, may_lack=True).status == refusal


def test_a_cancelled_one_says_what_remains() -> None:
    tally = Tally(UIDS)
    tally.complete("1.2.0")
    totals = tally.totals(cancelled=True)
    assert totals.status == Status.CANCEL
    elements = totals.elements()
    assert elements[Tag.NUMBER_OF_REMAINING_SUBOPERATIONS] == 3
    assert elements[Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS] == 1


def test_the_elements_of_a_final_response() -> None:
    words = "PACS of Häuser: " + "x" * 100
    totals = Totals(status=0xB000, counts=Counts(0, 70000, 2, 1), words=words)
    elements = totals.elements()
    assert Tag.NUMBER_OF_REMAINING_SUBOPERATIONS not in elements
    assert elements[Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS] == 0xFFFF
    comment = elements[Tag.ERROR_COMMENT]
    assert isinstance(comment, str)
    assert len(comment) == 64
    assert comment.isascii()
    assert Tag.ERROR_COMMENT not in Totals(status=0).elements()


def test_the_failed_are_named_and_not_without_end() -> None:
    tally = Tally()
    long = [f"1.2.{'9' * 55}.{n:04}" for n in range(MAXIMUM_NAMED + 10)]
    for uid in long:
        tally.fail(uid)
        tally.name(uid)
    totals = tally.totals()
    assert totals.failed == len(long)
    assert len(totals.failed_uids) == MAXIMUM_NAMED
    encoding = Encoding()
    data_set = totals.data_set(encoding)
    found = read_text(data_set, FAILED_SOP_INSTANCE_UID_LIST, encoding)
    assert found.split("\\") == long[:MAXIMUM_NAMED]
    assert "1.2" not in repr(totals)
    assert Totals(status=0).data_set(encoding) == b""


def test_one_that_is_not_named() -> None:
    tally = Tally(UIDS)
    tally.fail("1.2.0", named=False)
    assert tally.failed_uids == []
    assert not tally.is_left("1.2.0")
