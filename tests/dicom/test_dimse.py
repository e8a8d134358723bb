"""DIMSE messages: the table, what is made from it, and where one message ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dicom import dimse
from relay.dicom.dimse import (
    MAXIMUM_COMMAND_SET,
    MESSAGES,
    CommandField,
    CommandReader,
    CommandSet,
    DataSet,
    Priority,
    Status,
    Tag,
    is_response,
)
from relay.dicom.pdu import PDV
from relay.errors import LocalProtocolError, RemoteProtocolError
from tests.dicom.samples import CT, VERIFICATION

REQUESTS = [field for field in CommandField if not is_response(field)]
ANSWERED = [field for field in REQUESTS if field is not CommandField.C_CANCEL_RQ]


def a_request(field: CommandField, message_id: int = 7) -> CommandSet:
    row = MESSAGES[field]
    return dimse.request(
        field,
        message_id,
        CT if row.sop_class else None,
        "1.2.3.4" if row.sop_instance else None,
        has_data_set=True if row.data_set is DataSet.MAYBE else None,
    )


class TestTable:
    def test_all_23_messages(self) -> None:
        assert len(MESSAGES) == len(CommandField) == 23
        assert set(MESSAGES) == set(CommandField)

    def test_every_request_but_cancel_has_a_response(self) -> None:
        responses = {field for field in CommandField if is_response(field)}
        assert {field | dimse.RESPONSE_BIT for field in ANSWERED} == responses
        for field in ANSWERED:
            assert CommandField(field | 0x8000).name == field.name.replace("_RQ", "_RSP")

    def test_responses_have_a_status_and_affected_names(self) -> None:
        for field, row in MESSAGES.items():
            assert row.has_status is is_response(field)
            if is_response(field):
                assert row.message_id is Tag.MESSAGE_ID_BEING_RESPONDED_TO
                assert row.sop_class is Tag.AFFECTED_SOP_CLASS_UID
                assert row.sop_instance in (None, Tag.AFFECTED_SOP_INSTANCE_UID)

    def test_n_requests_that_act_on_what_is_there_request_it(self) -> None:
        """PS3.7 §10.3: Requested for N-GET, N-SET, N-ACTION and N-DELETE, Affected for the rest."""
        requested = {
            field for field in REQUESTS if MESSAGES[field].sop_class is Tag.REQUESTED_SOP_CLASS_UID
        }
        assert requested == {
            CommandField.N_GET_RQ,
            CommandField.N_SET_RQ,
            CommandField.N_ACTION_RQ,
            CommandField.N_DELETE_RQ,
        }
        for field in REQUESTS:
            instance = MESSAGES[field].sop_instance
            assert (instance is Tag.REQUESTED_SOP_INSTANCE_UID) is (field in requested)


class TestRequest:
    @pytest.mark.parametrize("field", REQUESTS)
    def test_each(self, field: CommandField) -> None:
        command = a_request(field)
        row = MESSAGES[field]
        assert CommandSet.decode(command.encode()) == command
        assert command.command_field == field
        assert command.number(row.message_id) == 7
        assert command.has_data_set is (row.data_set is not DataSet.NEVER)
        assert command.sop_class_uid == (CT if row.sop_class else None)
        assert command.sop_instance_uid == ("1.2.3.4" if row.sop_instance else None)
        assert (command.number(Tag.PRIORITY) is not None) is row.has_priority
        assert list(command.elements) == sorted(command.elements)

    def test_bytes_of_a_c_echo(self) -> None:
        octets = dimse.request(CommandField.C_ECHO_RQ, 7, VERIFICATION).encode()
        assert octets == bytes.fromhex(
            "0000 0000 04000000 38000000"
            "0000 0200 12000000" + (VERIFICATION.encode() + b"\0").hex() +
            "0000 0001 02000000 3000"
            "0000 1001 02000000 0700"
            "0000 0008 02000000 0101"
        )  # fmt: skip

    def test_extra_elements(self) -> None:
        """FIELD 4: Move Originator and Message ID of the original request."""
        command = dimse.request(
            CommandField.C_STORE_RQ,
            1,
            CT,
            "1.2.3",
            priority=Priority.HIGH,
            extra={
                Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: "CT1",
                Tag.MOVE_ORIGINATOR_MESSAGE_ID: 99,
            },
        )
        assert command.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE) == "CT1"
        assert command.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID) == 99
        assert command.number(Tag.PRIORITY) == Priority.HIGH

    def test_n_create_may_leave_the_instance_to_the_other_side(self) -> None:
        command = dimse.request(CommandField.N_CREATE_RQ, 1, CT, has_data_set=False)
        assert command.sop_instance_uid is None

    @pytest.mark.parametrize(
        ("field", "sop_class", "sop_instance", "has_data_set"),
        [
            (CommandField.C_ECHO_RSP, CT, None, None),
            (CommandField.C_ECHO_RQ, None, None, None),
            (CommandField.C_ECHO_RQ, CT, "1.2", None),
            (CommandField.C_ECHO_RQ, CT, None, True),
            (CommandField.C_STORE_RQ, CT, None, None),
            (CommandField.C_CANCEL_RQ, CT, None, None),
            (CommandField.N_ACTION_RQ, CT, "1.2", None),
        ],
    )
    def test_what_the_row_does_not_allow(
        self,
        field: CommandField,
        sop_class: str | None,
        sop_instance: str | None,
        has_data_set: bool | None,
    ) -> None:
        with pytest.raises(LocalProtocolError):
            dimse.request(field, 1, sop_class, sop_instance, has_data_set=has_data_set)


class TestResponse:
    @pytest.mark.parametrize("field", ANSWERED)
    def test_each(self, field: CommandField) -> None:
        """FIELD 4: the response repeats class and instance (C-STORE-RSP carries its instance)."""
        response = dimse.response_to(a_request(field, 0xFFFF), Status.NOT_AUTHORIZED)
        assert CommandSet.decode(response.encode()) == response
        assert response.command_field == field | 0x8000
        assert response.message_id_responded_to == 0xFFFF
        assert response.status == 0x0124
        assert not response.has_data_set
        assert response.affected_sop_class_uid == CT
        has_instance = MESSAGES[field].sop_instance is not None
        assert response.text(Tag.AFFECTED_SOP_INSTANCE_UID) == ("1.2.3.4" if has_instance else None)
        assert response.get(Tag.REQUESTED_SOP_CLASS_UID) is None

    def test_with_a_data_set_and_counters(self) -> None:
        response = dimse.response_to(
            a_request(CommandField.C_FIND_RQ),
            Status.PENDING,
            has_data_set=True,
            extra={Tag.NUMBER_OF_REMAINING_SUBOPERATIONS: 3},
        )
        assert response.has_data_set
        assert response.number(Tag.NUMBER_OF_REMAINING_SUBOPERATIONS) == 3

    def test_no_data_set_where_there_is_none(self) -> None:
        with pytest.raises(LocalProtocolError):
            dimse.response_to(a_request(CommandField.C_ECHO_RQ), 0, has_data_set=True)

    def test_to_a_command_that_nobody_knows(self) -> None:
        unknown = a_request(CommandField.C_STORE_RQ).evolve({Tag.COMMAND_FIELD: 0x0666})
        response = dimse.response_to(unknown, Status.UNRECOGNIZED_OPERATION)
        assert response.command_field == 0x8666
        assert response.sop_instance_uid == "1.2.3.4"

    def test_a_uid_that_is_none_is_repeated_as_it_came(self) -> None:
        odd = a_request(CommandField.C_STORE_RQ).evolve({Tag.AFFECTED_SOP_INSTANCE_UID: b"\xff\n"})
        response = dimse.response_to(odd, Status.SUCCESS)
        assert response.get(Tag.AFFECTED_SOP_INSTANCE_UID) == b"\xff\n"

    @pytest.mark.parametrize("field", [CommandField.C_ECHO_RSP, CommandField.C_CANCEL_RQ])
    def test_to_what_is_no_request(self, field: CommandField) -> None:
        command = a_request(CommandField.C_ECHO_RQ).evolve({Tag.COMMAND_FIELD: field})
        with pytest.raises(LocalProtocolError):
            dimse.response_to(command, 0)

    def test_to_a_request_without_message_id(self) -> None:
        elements = dict(a_request(CommandField.C_ECHO_RQ).elements)
        del elements[Tag.MESSAGE_ID]
        with pytest.raises(RemoteProtocolError):
            dimse.response_to(CommandSet(elements), 0)


STORE = a_request(CommandField.C_STORE_RQ)
ECHO = a_request(CommandField.C_ECHO_RQ)


def command_pdvs(command: CommandSet, size: int = 0, context_id: int = 1) -> list[PDV]:
    octets = command.encode()
    size = size or len(octets)
    starts = range(0, len(octets), size)
    return [
        PDV(context_id, True, at == starts[-1], memoryview(octets)[at : at + size]) for at in starts
    ]


class TestReader:
    @pytest.mark.parametrize("size", [0, 1, 2, 50])
    def test_one_message_after_the_other(self, size: int) -> None:
        reader = CommandReader()
        for context_id in (1, 3, 1):
            *before, last = command_pdvs(STORE, size, context_id)
            for pdv in before:
                assert reader.feed(pdv) is None
                assert reader.message_open
            assert reader.feed(last) == STORE
            assert (reader.command, reader.context_id) == (STORE, context_id)
            assert reader.message_open
            assert reader.feed(PDV(context_id, False, False, b"abcd")) is None
            assert reader.feed(PDV(context_id, False, True, b"ef")) is None
            assert not reader.message_open
            assert reader.data_set_length == 6
            assert reader.feed(command_pdvs(ECHO)[0]) == ECHO
            assert not reader.message_open

    def test_commands_that_are_alike_and_one_that_is_not(self) -> None:
        """The pending responses to a query are decoded once."""
        reader = CommandReader()
        find = a_request(CommandField.C_FIND_RQ)
        pending, last = (dimse.response_to(find, status) for status in (0xFF00, 0))
        found = [reader.feed(command_pdvs(command)[0]) for command in (pending, pending, last)]
        assert found == [pending, pending, last]
        assert found[0] is found[1]
        assert reader.feed(command_pdvs(pending)[0]) == pending

    def test_interleaved_contexts(self) -> None:
        """FIELD 4: no interleaving of messages' fragments, in the command or in the data set."""
        reader = CommandReader()
        reader.feed(command_pdvs(STORE, 50, 1)[0])
        with pytest.raises(RemoteProtocolError, match="context 3 in a message on 1"):
            reader.feed(command_pdvs(STORE, 50, 3)[0])
        reader = CommandReader()
        reader.feed(command_pdvs(STORE)[0])
        with pytest.raises(RemoteProtocolError, match="context 3 in a message on 1"):
            reader.feed(PDV(3, False, True, b""))

    def test_a_command_before_the_end_of_a_data_set(self) -> None:
        reader = CommandReader()
        reader.feed(command_pdvs(STORE)[0])
        reader.feed(PDV(1, False, False, b"ab"))
        with pytest.raises(RemoteProtocolError, match="before the last of the data set"):
            reader.feed(command_pdvs(ECHO)[0])

    def test_a_data_set_that_nobody_announced(self) -> None:
        reader = CommandReader()
        with pytest.raises(RemoteProtocolError, match="without a command"):
            reader.feed(PDV(1, False, True, b"ab"))
        reader = CommandReader()
        reader.feed(command_pdvs(ECHO)[0])
        with pytest.raises(RemoteProtocolError, match="without a command"):
            reader.feed(PDV(1, False, True, b"ab"))
        reader = CommandReader()
        reader.feed(command_pdvs(STORE, 50)[0])
        with pytest.raises(RemoteProtocolError, match="without a command"):
            reader.feed(PDV(1, False, True, b"ab"))

    def test_contexts_that_were_not_accepted(self) -> None:
        reader = CommandReader({1, 5})
        assert reader.feed(command_pdvs(ECHO, context_id=5)[0]) == ECHO
        with pytest.raises(RemoteProtocolError, match="context 3: not accepted"):
            reader.feed(command_pdvs(ECHO, context_id=3)[0])

    def test_a_command_set_without_end(self) -> None:
        reader = CommandReader()
        for _ in range(MAXIMUM_COMMAND_SET // 1024):
            reader.feed(PDV(1, True, False, bytes(1024)))
        with pytest.raises(RemoteProtocolError, match="longer than"):
            reader.feed(PDV(1, True, False, b"\0"))

    def test_a_command_that_cannot_be_read(self) -> None:
        with pytest.raises(RemoteProtocolError, match="after its last element"):
            CommandReader().feed(PDV(1, True, True, b"\0\0"))

    def test_a_data_set_beyond_4_gib(self) -> None:
        """FIELD 4: counters are not 32 bits wide."""
        reader = CommandReader()
        reader.feed(command_pdvs(STORE)[0])
        fragment = memoryview(bytes(2**26))
        for _ in range(65):
            reader.feed(PDV(1, False, False, fragment))
        assert reader.data_set_length == 65 * 2**26 > 2**32

    @given(st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=5))
    def test_any_messages_in_any_pieces(self, messages: list[tuple[bool, int]]) -> None:
        reader = CommandReader()
        got = []
        for stores, size in messages:
            for pdv in command_pdvs(STORE if stores else ECHO, size):
                got.append(reader.feed(pdv))
            if stores:
                reader.feed(PDV(1, False, True, bytes(size)))
            assert not reader.message_open
        assert [command for command in got if command] == [
            STORE if stores else ECHO for stores, _ in messages
        ]
