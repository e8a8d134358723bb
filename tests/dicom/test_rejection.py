"""A-ASSOCIATE-RJ by name: the numbers are those of PS3.8 Table 9-21."""

import pytest

from relay.dicom import rejection
from relay.dicom.pdu import AAssociateRJ


@pytest.mark.parametrize(
    ("named", "numbers"),
    [
        (rejection.CALLING_AE_TITLE_NOT_RECOGNIZED, (1, 1, 3)),
        (rejection.CALLED_AE_TITLE_NOT_RECOGNIZED, (1, 1, 7)),
        (rejection.NO_REASON_GIVEN, (1, 2, 1)),
        (rejection.PROTOCOL_VERSION_NOT_SUPPORTED, (1, 2, 2)),
        (rejection.TEMPORARY_CONGESTION, (2, 3, 1)),
        (rejection.LOCAL_LIMIT_EXCEEDED, (2, 3, 2)),
    ],
)
def test_the_numbers_of_the_table(named: AAssociateRJ, numbers: tuple[int, int, int]) -> None:
    assert named == AAssociateRJ(*numbers)
    error = rejection.rejected(named, "words")
    assert (error.result, error.source, error.reason) == numbers
    assert str(error) == "words"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((1, 1, 7), "rejected permanently: called AE title not recognized"),
        ((2, 1, 3), "rejected for now: calling AE title not recognized"),
        ((1, 1, 2), "rejected permanently: application context name not supported"),
        ((2, 3, 2), "rejected for now: local limit exceeded"),
        ((2, 3, 9), "rejected for now: for a reason that PS3.8 does not know"),
    ],
)
def test_words_for_people(numbers: tuple[int, int, int], words: str) -> None:
    assert rejection.in_words(AAssociateRJ(*numbers)) == words
