"""Command sets: what is read, what is tolerated, what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dicom.commandset import CommandSet, Tag, Value
from relay.errors import LocalProtocolError, RemoteProtocolError
from tests.dicom import samples
from tests.dicom.samples import text

# A C-ECHO-RQ as DCMTK sends it, element by element (Implicit VR Little Endian).
FIELDS = (
    ("0000 0200 12000000" + text("1.2.840.10008.1.1") + "00")  # Affected SOP Class UID, NUL-padded
    + "0000 0001 02000000 3000"  # Command Field
    + "0000 1001 02000000 0700"  # Message ID
    + "0000 0008 02000000 0101"  # Command Data Set Type
)
GROUP_LENGTH = "0000 0000 04000000 38000000"
C_ECHO_RQ = bytes.fromhex(GROUP_LENGTH + FIELDS)
MINIMUM = "0000 0001 02000000 3000" + "0000 0008 02000000 0101"


def command(octets: str) -> CommandSet:
    return CommandSet.decode(bytes.fromhex(octets))


def test_decode() -> None:
    echo = CommandSet.decode(memoryview(C_ECHO_RQ))
    assert echo.command_field == 0x0030
    assert echo.message_id == 7
    assert echo.affected_sop_class_uid == echo.sop_class_uid == "1.2.840.10008.1.1"
    assert not echo.has_data_set
    assert not echo.is_response
    assert echo.sop_instance_uid is None
    assert echo.move_destination is None
    assert echo.get(Tag.MESSAGE_ID) == b"\x07\0"


def test_encode_is_what_came() -> None:
    assert CommandSet.decode(C_ECHO_RQ).encode() == C_ECHO_RQ


def test_order_and_private_elements_are_kept() -> None:
    octets = MINIMUM + "0000 FF7F 03000000 010203" + "0000 1001 02000000 0700"
    assert command(octets).encode()[12:] == bytes.fromhex(octets)


class TestTolerance:
    """FIELD 4: missing group length, bad VM and empty values are tolerated."""

    def test_missing_group_length(self) -> None:
        assert command(FIELDS) == CommandSet.decode(C_ECHO_RQ)
        assert command(FIELDS).encode() == C_ECHO_RQ

    def test_wrong_group_length(self) -> None:
        assert command("0000 0000 04000000 FFFFFFFF" + FIELDS).encode() == C_ECHO_RQ

    def test_wrong_multiplicity(self) -> None:
        two = command(MINIMUM + "0000 1001 04000000 0700 0800")
        assert two.message_id == 7
        assert two.encode().endswith(bytes.fromhex("0700 0800"))

    @pytest.mark.parametrize("value", ["00000000", "01000000 07"])
    def test_empty_values(self, value: str) -> None:
        empty = command(MINIMUM + "0000 0009" + value + "0000 0006 00000000")
        assert empty.number(Tag.STATUS) is None
        assert empty.move_destination is None
        with pytest.raises(RemoteProtocolError, match="0900"):
            _ = empty.status

    def test_what_is_missing_is_missed_when_it_is_needed(self) -> None:
        for name in ("message_id", "message_id_responded_to", "status"):
            with pytest.raises(RemoteProtocolError, match="missing or empty"):
                getattr(command(MINIMUM), name)

    @pytest.mark.parametrize("title", ["PACS", "PACS ", " PACS   ", "PACS\0"])
    def test_padding_of_ae_titles(self, title: str) -> None:
        """FIELD 4: AE titles are trimmed, and unpadded in DIMSE."""
        changed = command(MINIMUM).evolve({Tag.MOVE_DESTINATION: title})
        assert changed.move_destination == "PACS"

    def test_text_never_makes_two_values_look_the_same(self) -> None:
        values = [b"PACS\xff", b"PACS\xfe", b"PACS"]
        seen = {command(MINIMUM).evolve({Tag.MOVE_DESTINATION: v}).move_destination for v in values}
        assert len(seen) == 3


@pytest.mark.parametrize(
    ("value", "has_data_set"),
    [("0101", False), ("0000", True), ("0100", True), ("0201", True), ("FEFF", True)],
)
def test_any_value_but_0101h_announces_a_data_set(value: str, has_data_set: bool) -> None:
    """FIELD 4: (0000,0800) other than 0101H is a data set; dcm4che sends 0."""
    octets = "0000 0001 02000000 3000" + "0000 0008 02000000" + value
    assert command(octets).has_data_set is has_data_set


class TestRefused:
    @pytest.mark.parametrize(
        ("octets", "words"),
        [
            ("", r"\(0000,0100\): must be 2 bytes"),
            ("0000 0001 02000000 3000", r"\(0000,0800\): must be 2 bytes"),
            ("0000 0008 02000000 0101", r"\(0000,0100\): must be 2 bytes"),
            ("0000 0001 00000000" + "0000 0008 02000000 0101", r"\(0000,0100\): must be"),
            ("0000 0001 04000000 3000 0100" + "0000 0008 02000000 0101", r"\(0000,0100\): must"),
            ("0000 0001 02000000 3000" + "0000 0008 00000000", r"\(0000,0800\): must be"),
            (MINIMUM + "0000 0001 02000000 0100", r"\(0000,0100\): twice"),
            (MINIMUM + "0000 0009 FFFFFFFF", r"\(0000,0900\): length 4294967295, 0 bytes left"),
            (MINIMUM + "0000 0009 03000000 0000", r"\(0000,0900\): length 3, 2 bytes left"),
            (MINIMUM + "0000 0009", "4 bytes after its last element"),
            (MINIMUM + "0800 1800 02000000 3100", r"element \(0008,0018\) in it"),
        ],
    )
    def test_in_words(self, octets: str, words: str) -> None:
        with pytest.raises(RemoteProtocolError, match=words):
            command(octets)

    @pytest.mark.parametrize("value", [-1, 0x10000, "Ä"])
    def test_our_own_values(self, value: Value) -> None:
        with pytest.raises(LocalProtocolError):
            command(MINIMUM).evolve({Tag.ERROR_COMMENT: value})


class TestEvolve:
    def test_a_value_in_its_place(self) -> None:
        moved = command(MINIMUM + "0000 0006 04000000" + text("AAAA") + "0000 1001 02000000 0700")
        changed = moved.evolve({Tag.MOVE_DESTINATION: "FAR_NAME1"})
        assert changed.encode()[12:] == bytes.fromhex(
            MINIMUM + "0000 0006 0A000000" + text("FAR_NAME1 ") + "0000 1001 02000000 0700"
        )
        assert moved.move_destination == "AAAA"  # the old one is a value, and has not changed

    def test_a_new_value_in_the_order_of_tags(self) -> None:
        changed = command(FIELDS).evolve({Tag.PRIORITY: 2})
        assert list(changed.elements) == [0x0002, 0x0100, 0x0110, 0x0700, 0x0800]

    def test_uids_are_padded_with_nul(self) -> None:
        changed = command(MINIMUM).evolve({Tag.AFFECTED_SOP_INSTANCE_UID: "1.2"})
        assert changed.get(Tag.AFFECTED_SOP_INSTANCE_UID) == b"1.2\0"
        assert changed.sop_instance_uid == "1.2"


def test_the_requested_ones_where_there_are_no_affected_ones() -> None:
    requested = command(MINIMUM).evolve(
        {Tag.REQUESTED_SOP_CLASS_UID: "1.2", Tag.REQUESTED_SOP_INSTANCE_UID: "1.3"}
    )
    assert (requested.sop_class_uid, requested.sop_instance_uid) == ("1.2", "1.3")
    assert requested.affected_sop_class_uid is None


def test_values_are_not_shown() -> None:
    assert "1.2.840" not in repr(CommandSet.decode(C_ECHO_RQ))


def test_what_is_worked_out_once_is_each_commands_own() -> None:
    request = CommandSet.decode(C_ECHO_RQ)
    encoded = request.encode()
    assert request.encode() is encoded
    changed = request.evolve({Tag.COMMAND_FIELD: 0x8030, Tag.STATUS: 0xFF00})
    assert changed.command_field == 0x8030
    assert changed.status == 0xFF00
    assert CommandSet.decode(changed.encode()) == changed
    assert changed.evolve({Tag.STATUS: 0}).status == 0
    assert changed.evolve({Tag.COMMAND_DATA_SET_TYPE: 1}).has_data_set
    assert request.command_field == 0x0030
    assert request == CommandSet.decode(encoded)


def test_it_is_a_value() -> None:
    elements: dict[int, bytes] = {0x0100: b"\x30\0", 0x0800: b"\1\1"}
    built = CommandSet(elements)
    elements.clear()
    assert built.command_field == 0x0030
    with pytest.raises(TypeError):
        built.elements[1] = b""  # type: ignore[index]


elements = st.dictionaries(st.integers(1, 0xFFFF), st.binary(max_size=20), max_size=8).map(
    lambda others: {**others, 0x0100: b"\x30\0", 0x0800: b"\1\1"}
)


@given(elements)
def test_round_trip(values: dict[int, bytes]) -> None:
    built = CommandSet(values)
    assert CommandSet.decode(built.encode()) == built
    assert list(CommandSet.decode(built.encode()).elements) == list(values)


@given(st.binary(max_size=80) | samples.damaged(st.just(C_ECHO_RQ)))
def test_fuzz(octets: bytes) -> None:
    try:
        decoded = CommandSet.decode(octets)
    except RemoteProtocolError:
        return
    assert CommandSet.decode(decoded.encode()) == decoded
