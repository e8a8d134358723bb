"""What the atoms promise beside their bytes."""

import pytest

from relay.dicom.atoms import (
    PDV,
    PresentationContextResult,
    UserItem,
    encode_uid,
    is_ae_octets,
    is_ae_title,
    is_uid,
    unpadded_uid,
)
from relay.errors import LocalProtocolError
from tests.dicom.samples import RQ


@pytest.mark.parametrize("uid", ["1", "1.2.840.10008.1.1", "2.25." + "9" * 59, "01.02", "1..2"])
def test_uids(uid: str) -> None:
    assert is_uid(uid)


@pytest.mark.parametrize("uid", ["", "1" * 65, "1.2a", "1.2 ", "../x", "1.2\0", "１", "²"])
def test_no_uids(uid: str) -> None:
    assert not is_uid(uid)


def test_a_uid_goes_out_without_padding() -> None:
    assert encode_uid("1.2.3") == b"1.2.3"
    for wrong in ("", "1.2a", "1" * 65):
        with pytest.raises(LocalProtocolError, match="UID"):
            encode_uid(wrong)


@pytest.mark.parametrize(
    ("octets", "uid"),
    [(b"1.2", "1.2"), (b"1.2\0", "1.2"), (b"1.2 ", "1.2"), (b"\0\0", ""), (b"1\x002", "1\x002")],
)
def test_padding_is_taken_off_and_nothing_else(octets: bytes, uid: str) -> None:
    assert unpadded_uid(octets) == uid
    assert unpadded_uid(memoryview(octets)) == uid


@pytest.mark.parametrize("title", ["", "PACS", "A" * 16, "%s", "../x", "a'; DROP", "<b>", "A B"])
def test_ae_titles(title: str) -> None:
    """FIELD 5a: `%s`, `../` and the like are legal in an AE title: they are data."""
    assert is_ae_title(title)
    assert is_ae_octets(title.encode())


@pytest.mark.parametrize("title", ["A" * 17, "A\\B", "A\0", "A\n", "Ä", "A\x7f"])
def test_no_ae_titles(title: str) -> None:
    assert not is_ae_title(title)


def test_what_may_hold_user_or_patient_data_is_not_shown() -> None:
    assert "secret" not in repr(UserItem(0x58, b"\x02\x00\x00\x06secret\x00\x00"))
    assert "DOE" not in repr(PDV(1, False, True, memoryview(b"DOE^JOHN")))
    assert "8 bytes" in repr(PDV(1, False, True, b"DOE^JOHN"))


def test_atoms_are_values() -> None:
    with pytest.raises(AttributeError):
        RQ.called = "OTHER"  # type: ignore[misc]
    assert PDV(1, True, True, b"a") == PDV(1, True, True, memoryview(b"a"))


def test_accepted_is_result_zero() -> None:
    assert PresentationContextResult(1, 0, "1.2").accepted
    assert not PresentationContextResult(1, 1, "1.2").accepted
