"""The sub-items of the user information, written out from PS3.7 §D.3.3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dicom.pdu import UserItem
from relay.dicom.useritems import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    SOPClassCommonExtended,
    SOPClassExtended,
    TypedItem,
    UserIdentityAC,
    UserIdentityRQ,
    UserIdentityType,
    find,
    replace,
    without,
)
from relay.errors import LocalProtocolError, RemoteProtocolError
from tests.dicom import samples
from tests.dicom.samples import CT, text

CLASSES: tuple[type[TypedItem], ...] = (
    MaximumLength,
    ImplementationClassUID,
    AsynchronousOperationsWindow,
    RoleSelection,
    ImplementationVersionName,
    SOPClassExtended,
    SOPClassCommonExtended,
    UserIdentityRQ,
    UserIdentityAC,
)

CASES: list[tuple[TypedItem, int, str]] = [
    (MaximumLength(16384), 0x51, "00004000"),
    (MaximumLength(0), 0x51, "00000000"),
    (ImplementationClassUID("1.2.3"), 0x52, text("1.2.3")),
    (AsynchronousOperationsWindow(0, 1), 0x53, "0000 0001"),
    (RoleSelection("1.2", True, False), 0x54, "0003" + text("1.2") + "01 00"),
    (RoleSelection("1.2", False, True), 0x54, "0003" + text("1.2") + "00 01"),
    (ImplementationVersionName("OFFIS_DCMTK_370"), 0x55, text("OFFIS_DCMTK_370")),
    (SOPClassExtended("1.2", b"\1\1\0"), 0x56, "0003" + text("1.2") + "010100"),
    (
        SOPClassCommonExtended("1.2", "1.3", ("1.4", "1.5.6")),
        0x57,
        f"0003{text('1.2')} 0003{text('1.3')} 000C 0003{text('1.4')} 0005{text('1.5.6')}",
    ),
    (
        UserIdentityRQ(UserIdentityType.USERNAME_AND_PASSCODE, True, b"me", b"pw!"),
        0x58,
        f"02 01 0002{text('me')} 0003{text('pw!')}",
    ),
    (
        UserIdentityRQ(UserIdentityType.SAML, False, b"<saml>"),
        0x58,
        f"04 00 0006{text('<saml>')} 0000",
    ),
    (UserIdentityAC(b"ok"), 0x59, f"0002{text('ok')}"),
]


@pytest.mark.parametrize(("item", "item_type", "value"), CASES, ids=lambda value: str(value)[:24])
class TestCases:
    """FIELD 4: roles, extended negotiation, asynchronous window, user identity 58H and 59H."""

    def test_encode(self, item: TypedItem, item_type: int, value: str) -> None:
        assert item.encode() == UserItem(item_type, bytes.fromhex(value))

    def test_decode(self, item: TypedItem, item_type: int, value: str) -> None:
        assert type(item).decode(UserItem(item_type, bytes.fromhex(value))) == item

    def test_truncated_or_too_long(self, item: TypedItem, item_type: int, value: str) -> None:
        octets = bytes.fromhex(value)
        for wrong in [octets[:n] for n in range(len(octets))] + [octets + b"\1"]:
            try:
                other = type(item).decode(UserItem(item_type, wrong))
            except RemoteProtocolError:
                continue
            assert other != item  # a name or a UID cut short is another one


@given(st.sampled_from(CLASSES), st.binary(max_size=60), samples.octets)
def test_fuzz(cls: type[TypedItem], value: bytes, reserved: int) -> None:
    try:
        item = cls.decode(UserItem(cls.TYPE, value, reserved))
    except RemoteProtocolError:
        return
    try:
        octets = item.encode()
    except LocalProtocolError:
        assert isinstance(item, ImplementationVersionName)  # taken as it is, not sent so
        return
    assert cls.decode(octets) == item


@given(
    st.builds(RoleSelection, samples.uids, st.booleans(), st.booleans())
    | st.builds(SOPClassExtended, samples.uids, st.binary(max_size=20))
    | st.builds(
        SOPClassCommonExtended,
        samples.uids,
        samples.uids,
        st.lists(samples.uids, max_size=3).map(tuple),
        samples.octets,
    )
    | st.builds(
        UserIdentityRQ, st.sampled_from(UserIdentityType), st.booleans(), st.binary(), st.binary()
    )
    | st.builds(UserIdentityAC, st.binary())
    | st.builds(MaximumLength, st.integers(0, 0xFFFFFFFF))
    | st.builds(AsynchronousOperationsWindow, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
)
def test_round_trip(item: TypedItem) -> None:
    assert type(item).decode(item.encode()) == item


class TestUserIdentity:
    @pytest.mark.parametrize("identity_type", [0, 6, 255])
    def test_reserved_types(self, identity_type: int) -> None:
        """FIELD 5a: a user identity of a reserved type."""
        with pytest.raises(RemoteProtocolError, match=f"type {identity_type}: reserved"):
            UserIdentityRQ.decode(UserItem(0x58, bytes((identity_type, 0, 0, 0, 0, 0))))

    @pytest.mark.parametrize("value", ["02 00 FFFF 6D65 0000", "02 00 0002 6D65 0001", "02 00 00"])
    def test_wrong_lengths(self, value: str) -> None:
        """FIELD 5a: a user identity whose lengths are wrong."""
        with pytest.raises(RemoteProtocolError, match="User Identity"):
            UserIdentityRQ.decode(UserItem(0x58, bytes.fromhex(value)))

    def test_oversize(self) -> None:
        """FIELD 5a: the largest that 16 bits say is read; more does not fit what is sent."""
        large = UserIdentityRQ(UserIdentityType.JWT, False, bytes(0xFFFF))
        assert UserIdentityRQ.decode(large.encode()) == large
        with pytest.raises(LocalProtocolError):
            UserIdentityRQ(UserIdentityType.JWT, False, bytes(0x10000)).encode()

    def test_is_never_shown(self) -> None:
        identity = UserIdentityRQ(UserIdentityType.USERNAME_AND_PASSCODE, True, b"me", b"secret")
        assert "secret" not in repr(identity) + repr(UserIdentityAC(b"secret"))
        assert "me'" not in repr(identity)


class TestTolerance:
    def test_uids_padded_with_nul(self) -> None:
        """FIELD 4: UIDs padded with NUL."""
        assert ImplementationClassUID.decode(UserItem(0x52, b"1.2.3\0")).uid == "1.2.3"

    def test_role_bytes_other_than_one_are_no_role(self) -> None:
        value = bytes.fromhex("0003" + text("1.2") + "02 FF")
        assert RoleSelection.decode(UserItem(0x54, value)) == RoleSelection("1.2", False, False)

    def test_a_version_name_may_be_anything(self) -> None:
        assert (
            ImplementationVersionName.decode(UserItem(0x55, b"V\xe9rsion")).name == "V\ufffdrsion"
        )

    def test_common_extended_of_a_later_version(self) -> None:
        value = bytes.fromhex(f"0003{text('1.2')} 0003{text('1.3')} 0000 DEADBEEF")
        item = SOPClassCommonExtended.decode(UserItem(0x57, value, reserved=1))
        assert item == SOPClassCommonExtended("1.2", "1.3", (), version=1)


@pytest.mark.parametrize(
    "item",
    [
        MaximumLength(-1),
        MaximumLength(2**32),
        AsynchronousOperationsWindow(0x10000, 1),
        ImplementationClassUID(""),
        ImplementationVersionName(""),
        ImplementationVersionName("X" * 17),
        RoleSelection("1" * 65, True, True),
    ],
)
def test_what_fits_no_field_is_our_own_fault(item: TypedItem) -> None:
    with pytest.raises(LocalProtocolError):
        item.encode()


ROLES = (RoleSelection(CT, True, True), RoleSelection("1.2.3", False, True))
ITEMS = (
    UserItem(0x99, b"new"),
    ROLES[0].encode(),
    UserItem(0x51, bytes(4)),
    ROLES[1].encode(),
    UserItem(0x51, b"\0\0\0\1"),
)


def test_find_gives_all_in_order() -> None:
    assert find(ITEMS, RoleSelection) == ROLES
    assert find(ITEMS, UserIdentityRQ) == ()


def test_without() -> None:
    assert without(ITEMS, RoleSelection, MaximumLength) == ITEMS[:1]
    assert without(ITEMS) == ITEMS


def test_replace_in_the_place_of_the_first() -> None:
    assert replace(ITEMS, MaximumLength(9)) == (*ITEMS[:2], MaximumLength(9).encode(), ITEMS[3])


def test_replace_what_was_not_there_goes_in_front() -> None:
    assert replace(ITEMS[:2], MaximumLength(9)) == (MaximumLength(9).encode(), *ITEMS[:2])
