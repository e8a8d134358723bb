"""What follows from each answer that a device may give (DESIGN §6, "Statuses")."""

import pytest

from relay.dicom.rejection import (
    CALLED_AE_TITLE_NOT_RECOGNIZED,
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
)
from relay.dicom.status import means_stored
from relay.router.queue.statuses import (
    MAXIMUM_ALONE_ABORTS,
    MAXIMUM_ALONE_ATTEMPTS,
    Verdict,
    judge,
    judge_abort,
    judge_rejection,
)

DELIVERED, RETRY, ALONE = Verdict.DELIVERED, Verdict.RETRY, Verdict.RETRY_ALONE
FAILED, PAUSE = Verdict.FAILED, Verdict.PAUSE


@pytest.mark.parametrize(
    ("status", "verdict", "name"),
    [
        (0x0000, DELIVERED, "success"),
        (0x0001, DELIVERED, "optional attributes"),
        (0x0107, DELIVERED, "attribute list error"),
        (0x0116, DELIVERED, "out of range"),
        (0xB000, DELIVERED, "coercion of data elements"),
        (0xB006, DELIVERED, "elements discarded"),
        (0xB007, DELIVERED, "does not match SOP class"),
        (0xB123, DELIVERED, "warning"),
        (0xA700, RETRY, "out of resources"),
        (0xA7FF, RETRY, "out of resources"),
        (0x0213, RETRY, "resource limitation"),
        (0x0110, ALONE, "processing failure"),
        (0xC000, ALONE, "cannot understand"),
        (0xC211, ALONE, "cannot understand"),
        (0xCFFF, ALONE, "cannot understand"),
        (0x0211, ALONE, "unrecognized operation"),
        (0xFE00, ALONE, "cancel"),
        (0xFF00, ALONE, "pending"),
        (0xA801, ALONE, "not a status that DICOM knows"),
        (0xA600, ALONE, "not a status that DICOM knows"),
        (0xD000, ALONE, "not a status that DICOM knows"),
        (0xFFFF, ALONE, "not a status that DICOM knows"),
        (0xA900, FAILED, "does not match SOP class"),
        (0xA9FF, FAILED, "does not match SOP class"),
        (0x0117, FAILED, "invalid object instance"),
        (0x0122, FAILED, "SOP class not supported"),
        (0x0124, PAUSE, "not authorized"),
    ],
)
@pytest.mark.parametrize("attempted_before", [False, True])
def test_the_design_by_status(
    status: int, verdict: Verdict, name: str, attempted_before: bool
) -> None:
    judgement = judge(status, attempted_before=attempted_before)
    assert judgement.verdict is verdict
    assert name in judgement.reason
    assert judgement.reason.startswith(f"{status:04X}, ")


@pytest.mark.parametrize("attempted_before", [False, True])
def test_each_status_has_a_judgement_and_delivered_is_what_means_stored(
    attempted_before: bool,
) -> None:
    for status in range(0x10000):
        judgement = judge(status, attempted_before=attempted_before)
        stored = means_stored(status, sent_before=attempted_before)
        assert (judgement.verdict is DELIVERED) is stored, f"{status:04X}"
        assert f"{status:04X}" in judgement.reason
        assert "\n" not in judgement.reason
        # What is tried a few times has a limit, and nothing else.
        assert (judgement.attempts > 0) is (judgement.verdict is ALONE), f"{status:04X}"


def test_only_what_the_design_names_is_given_up_at_once_or_pauses() -> None:
    by_verdict: dict[Verdict, set[int]] = {verdict: set() for verdict in Verdict}
    for status in range(0x10000):
        by_verdict[judge(status, attempted_before=True).verdict].add(status)
    assert by_verdict[FAILED] == {*range(0xA900, 0xAA00), 0x0117, 0x0122}
    assert by_verdict[PAUSE] == {0x0124}
    assert by_verdict[RETRY] == {*range(0xA700, 0xA800), 0x0213}


def test_a_duplicate_is_delivered_only_when_it_may_be_our_own() -> None:
    first = judge(0x0111, attempted_before=False)
    assert first.verdict is FAILED
    assert "the device already has" in first.reason
    again = judge(0x0111, attempted_before=True)
    assert again.verdict is DELIVERED
    assert "earlier attempt" in again.reason


def test_alone_is_a_few_times_then_failed() -> None:
    judgement = judge(0x0110, attempted_before=False)
    assert judgement.after(MAXIMUM_ALONE_ATTEMPTS - 1) is judgement
    given_up = judgement.after(MAXIMUM_ALONE_ATTEMPTS)
    assert given_up.verdict is FAILED
    assert str(MAXIMUM_ALONE_ATTEMPTS) in given_up.reason
    assert "0110" in given_up.reason
    assert given_up.after(1000) is given_up


@pytest.mark.parametrize("status", [0x0000, 0xA700, 0x0124])
def test_what_is_not_tried_alone_is_never_given_up(status: int) -> None:
    judgement = judge(status, attempted_before=True)
    assert judgement.after(1000) is judgement


@pytest.mark.parametrize(
    ("rejection", "verdict", "words"),
    [
        (CALLED_AE_TITLE_NOT_RECOGNIZED, PAUSE, "its entry of the device has to be mended"),
        (
            CALLING_AE_TITLE_NOT_RECOGNIZED,
            PAUSE,
            "permanently: calling AE title not recognized; the",
        ),
        (TEMPORARY_CONGESTION, RETRY, "for now: temporary congestion"),
        (LOCAL_LIMIT_EXCEEDED, RETRY, "for now: local limit exceeded"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_rejection_pauses_the_device_if_it_is_permanent(
    rejection: object, verdict: Verdict, words: str
) -> None:
    judgement = judge_rejection(rejection.result, rejection.source, rejection.reason)  # type: ignore[attr-defined]
    assert judgement.verdict is verdict
    assert words in judgement.reason


@pytest.mark.parametrize("source", range(4))
@pytest.mark.parametrize("reason", [0, 1, 9, 255])
def test_reasons_that_the_standard_does_not_know_are_judged_by_the_result(
    source: int, reason: int
) -> None:
    assert judge_rejection(1, source, reason).verdict is PAUSE
    assert judge_rejection(2, source, reason).verdict is RETRY
    assert judge_rejection(77, source, reason).verdict is RETRY


def test_an_object_under_way_when_the_device_aborts_is_tried_alone() -> None:
    judgement = judge_abort()
    assert judgement.verdict is ALONE
    assert judgement.after(MAXIMUM_ALONE_ABORTS - 1).verdict is ALONE
    assert judgement.after(MAXIMUM_ALONE_ABORTS).verdict is FAILED
