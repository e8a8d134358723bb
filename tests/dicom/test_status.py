"""What a status says."""

import pytest

from relay.dicom.status import Status, is_pending, is_warning, means_stored


@pytest.mark.parametrize(
    ("status", "pending"), [(0xFF00, True), (0xFF01, True), (0xFE00, False), (0, False)]
)
def test_pending(status: int, pending: bool) -> None:
    """FIELD 4: C-FIND answers are FF00 and FF01; FE00 is the end of a cancelled one."""
    assert is_pending(status) is pending


@pytest.mark.parametrize("status", [0xB000, 0xBFFF, 0x0001, 0x0107, 0x0116])
def test_warnings(status: int) -> None:
    assert is_warning(status)


@pytest.mark.parametrize("status", [0x0000, 0xA700, 0xC000, 0xFE00, 0x0111])
def test_no_warnings(status: int) -> None:
    assert not is_warning(status)


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007])
def test_success_and_warnings_mean_stored(status: int) -> None:
    """FIELD 4: Bxxx is stored."""
    assert means_stored(status)


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC001, 0x0122, 0x0124, 0xFE00, 0xFF00])
def test_failures_do_not(status: int) -> None:
    assert not means_stored(status)


def test_a_duplicate_means_stored_only_when_sent_again() -> None:
    """FIELD 4: 0111H on a resend is a warning."""
    assert not means_stored(Status.DUPLICATE_SOP_INSTANCE)
    assert means_stored(Status.DUPLICATE_SOP_INSTANCE, sent_before=True)
