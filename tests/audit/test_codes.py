"""The codes: those of PS3.16, and words that people may ask by."""

import pytest

from relay.audit.codes import EventType, IDType, Kind, RoleID


def test_the_event_ids_are_those_of_cid_400() -> None:
    assert {kind.word: (kind.code.value, kind.code.meaning) for kind in Kind} == {
        "application": ("110100", "Application Activity"),
        "begin": ("110102", "Begin Transferring DICOM Instances"),
        "transfer": ("110104", "DICOM Instances Transferred"),
        "query": ("110112", "Query"),
        "alert": ("110113", "Security Alert"),
        "sign-in": ("110114", "User Authentication"),
    }


def test_all_codes_but_two_are_of_dcm_and_none_is_there_twice() -> None:
    codes = [kind.code for kind in Kind]
    codes += [member.value for enum in (EventType, RoleID, IDType) for member in enum]
    assert [c.value for c in codes if c.scheme != "DCM"] == ["2", "12"]
    assert len({(c.scheme, c.value) for c in codes}) == len(codes)


def test_a_kind_is_found_by_its_word() -> None:
    assert Kind.of("sign-in") is Kind.SIGN_IN
    with pytest.raises(ValueError, match="'login' is none of application, begin"):
        Kind.of("login")
