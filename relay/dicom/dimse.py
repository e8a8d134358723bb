"""DIMSE messages: one row for each C- and N- message, what makes them, and what tells them apart.

A message is a command set and, where (0000,0800) says so, a data set; both arrive as the PDVs of
one presentation context, fragment by fragment. `CommandReader` follows one direction of an
association and gives each command set when it is whole. Data sets are not looked at.
"""

from collections.abc import Container, Mapping
from enum import Enum, IntEnum
from types import MappingProxyType

import attrs

from relay.dicom.atoms import PDV
from relay.dicom.commandset import (
    DATA_SET,
    NO_DATA_SET,
    RESPONSE_BIT,
    CommandSet,
    Tag,
    Value,
    is_response,
)
from relay.dicom.status import Status, is_pending
from relay.errors import LocalProtocolError, RemoteProtocolError

# The face of DIMSE to other rooms.
__all__ = [
    "MAXIMUM_COMMAND_SET",
    "MESSAGES",
    "NO_DATA_SET",
    "RESPONSE_BIT",
    "CommandField",
    "CommandReader",
    "CommandSet",
    "DataSet",
    "Message",
    "Priority",
    "Status",
    "Tag",
    "in_names",
    "is_pending",
    "is_response",
    "request",
    "response_to",
]

# A command set is a few hundred bytes; the longest values are UIDs and lists of tags (N-GET's
# Attribute Identifier List). Nothing real comes near this.
MAXIMUM_COMMAND_SET = 64 * 1024


class Priority(IntEnum):
    """(0000,0700), PS3.7 §9.3.1.1."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


class CommandField(IntEnum):
    """(0000,0100), PS3.7 §E.1."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_GET_RQ = 0x0010
    C_GET_RSP = 0x8010
    C_FIND_RQ = 0x0020
    C_FIND_RSP = 0x8020
    C_MOVE_RQ = 0x0021
    C_MOVE_RSP = 0x8021
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    N_EVENT_REPORT_RQ = 0x0100
    N_EVENT_REPORT_RSP = 0x8100
    N_GET_RQ = 0x0110
    N_GET_RSP = 0x8110
    N_SET_RQ = 0x0120
    N_SET_RSP = 0x8120
    N_ACTION_RQ = 0x0130
    N_ACTION_RSP = 0x8130
    N_CREATE_RQ = 0x0140
    N_CREATE_RSP = 0x8140
    N_DELETE_RQ = 0x0150
    N_DELETE_RSP = 0x8150
    C_CANCEL_RQ = 0x0FFF


_NAMES = {field.value: field.name.replace("_", "-") for field in CommandField}


def in_names(counts: Mapping[int, int]) -> dict[str, int]:
    """Counts by Command Field as counts by PS3.7's names ("C-STORE-RQ"), "other" for no such."""
    named: dict[str, int] = {}
    for field, count in counts.items():
        name = _NAMES.get(field, "other")
        named[name] = named.get(name, 0) + count
    return named


class DataSet(Enum):
    """Whether a message carries a data set."""

    ALWAYS = "always"
    NEVER = "never"
    MAYBE = "maybe"


@attrs.frozen(slots=True)
class Message:
    """One row: which elements of the message hold what all messages have (PS3.7 §9.3, §10.3)."""

    sop_class: Tag | None
    sop_instance: Tag | None
    message_id: Tag
    data_set: DataSet
    has_priority: bool = False
    has_status: bool = False


_F = CommandField
_ALWAYS, _NEVER, _MAYBE = DataSet.ALWAYS, DataSet.NEVER, DataSet.MAYBE
_AFFECTED = (Tag.AFFECTED_SOP_CLASS_UID, Tag.AFFECTED_SOP_INSTANCE_UID, Tag.MESSAGE_ID)
_REQUESTED = (Tag.REQUESTED_SOP_CLASS_UID, Tag.REQUESTED_SOP_INSTANCE_UID, Tag.MESSAGE_ID)
_CLASS = (Tag.AFFECTED_SOP_CLASS_UID, None, Tag.MESSAGE_ID)
_TO = Tag.MESSAGE_ID_BEING_RESPONDED_TO
_TO_INSTANCE = (Tag.AFFECTED_SOP_CLASS_UID, Tag.AFFECTED_SOP_INSTANCE_UID, _TO)
_TO_CLASS = (Tag.AFFECTED_SOP_CLASS_UID, None, _TO)

MESSAGES: Mapping[int, Message] = MappingProxyType(
    {
        _F.C_STORE_RQ: Message(*_AFFECTED, _ALWAYS, has_priority=True),
        _F.C_STORE_RSP: Message(*_TO_INSTANCE, _NEVER, has_status=True),
        _F.C_GET_RQ: Message(*_CLASS, _ALWAYS, has_priority=True),
        _F.C_GET_RSP: Message(*_TO_CLASS, _MAYBE, has_status=True),
        _F.C_FIND_RQ: Message(*_CLASS, _ALWAYS, has_priority=True),
        _F.C_FIND_RSP: Message(*_TO_CLASS, _MAYBE, has_status=True),
        _F.C_MOVE_RQ: Message(*_CLASS, _ALWAYS, has_priority=True),
        _F.C_MOVE_RSP: Message(*_TO_CLASS, _MAYBE, has_status=True),
        _F.C_ECHO_RQ: Message(*_CLASS, _NEVER),
        _F.C_ECHO_RSP: Message(*_TO_CLASS, _NEVER, has_status=True),
        _F.C_CANCEL_RQ: Message(None, None, _TO, _NEVER),
        _F.N_EVENT_REPORT_RQ: Message(*_AFFECTED, _MAYBE),
        _F.N_EVENT_REPORT_RSP: Message(*_TO_INSTANCE, _MAYBE, has_status=True),
        _F.N_GET_RQ: Message(*_REQUESTED, _NEVER),
        _F.N_GET_RSP: Message(*_TO_INSTANCE, _MAYBE, has_status=True),
        _F.N_SET_RQ: Message(*_REQUESTED, _ALWAYS),
        _F.N_SET_RSP: Message(*_TO_INSTANCE, _MAYBE, has_status=True),
        _F.N_ACTION_RQ: Message(*_REQUESTED, _MAYBE),
        _F.N_ACTION_RSP: Message(*_TO_INSTANCE, _MAYBE, has_status=True),
        _F.N_CREATE_RQ: Message(*_AFFECTED, _MAYBE),
        _F.N_CREATE_RSP: Message(*_TO_INSTANCE, _MAYBE, has_status=True),
        _F.N_DELETE_RQ: Message(*_REQUESTED, _NEVER),
        _F.N_DELETE_RSP: Message(*_TO_INSTANCE, _NEVER, has_status=True),
    }
)


def request(
    field: CommandField,
    message_id: int,
    sop_class: str | None = None,
    sop_instance: str | None = None,
    *,
    has_data_set: bool | None = None,
    priority: Priority = Priority.MEDIUM,
    extra: Mapping[int, Value] | None = None,
) -> CommandSet:
    """The command set of a request; a C-CANCEL-RQ's `message_id` is that of what it cancels.

    `has_data_set` is needed only where the message may have one or not. Raises
    `LocalProtocolError` for what the message's row does not allow.
    """
    row = MESSAGES[field]
    if row.has_status:
        raise LocalProtocolError(f"{field.name} is no request")
    if has_data_set is None:
        if row.data_set is DataSet.MAYBE:
            raise LocalProtocolError(f"{field.name}: with or without a data set?")
        has_data_set = row.data_set is DataSet.ALWAYS
    values = _common(field, row, message_id, has_data_set)
    for tag, value in ((row.sop_class, sop_class), (row.sop_instance, sop_instance)):
        if tag is not None and value is not None:
            values[tag] = value
        elif value is not None:
            raise LocalProtocolError(f"{field.name}: names no such SOP class or instance")
        elif tag is not None and not _may_lack(field, tag):
            raise LocalProtocolError(f"{field.name}: needs (0000,{tag:04X})")
    if row.has_priority:
        values[Tag.PRIORITY] = priority
    return CommandSet.build(values | dict(extra or {}))


def _may_lack(field: CommandField, tag: Tag) -> bool:
    """Only N-CREATE may leave the instance to the other side (PS3.7 §10.1.5.1.4)."""
    return field is CommandField.N_CREATE_RQ and tag is Tag.AFFECTED_SOP_INSTANCE_UID


def response_to(
    command: CommandSet,
    status: int,
    *,
    has_data_set: bool = False,
    extra: Mapping[int, Value] | None = None,
) -> CommandSet:
    """The command set of the response: Message ID, SOP class and instance are the request's.

    Also to a command that PS3.7 does not know. Raises `LocalProtocolError` where `command` is a
    response or a C-CANCEL-RQ, `RemoteProtocolError` where it has no Message ID.
    """
    if command.is_response or command.command_field == CommandField.C_CANCEL_RQ:
        raise LocalProtocolError(f"no response to command field {command.command_field:04X}H")
    field = command.command_field | RESPONSE_BIT
    row = MESSAGES.get(field, _UNKNOWN_RESPONSE)
    values = _common(field, row, command.message_id, has_data_set)
    values[Tag.STATUS] = status
    for answered, affected, requested in (
        (row.sop_class, Tag.AFFECTED_SOP_CLASS_UID, Tag.REQUESTED_SOP_CLASS_UID),
        (row.sop_instance, Tag.AFFECTED_SOP_INSTANCE_UID, Tag.REQUESTED_SOP_INSTANCE_UID),
    ):
        uid = command.get(affected) or command.get(requested)
        if answered is not None and uid:
            values[answered] = uid
    return CommandSet.build(values | dict(extra or {}))


_UNKNOWN_RESPONSE = Message(*_TO_INSTANCE, _NEVER, has_status=True)


def _common(field: int, row: Message, message_id: int, has_data_set: bool) -> dict[int, Value]:
    if has_data_set and row.data_set is DataSet.NEVER:
        raise LocalProtocolError(f"command field {field:04X}H: has no data set")
    return {
        Tag.COMMAND_FIELD: field,
        row.message_id: message_id,
        Tag.COMMAND_DATA_SET_TYPE: DATA_SET if has_data_set else NO_DATA_SET,
    }


class CommandReader:
    """Follows the messages of one direction of an association.

    PS3.8 Annex E: the fragments of one message come one after the other, on one context, the
    command first. Nothing of a data set is kept.
    """

    def __init__(self, contexts: Container[int] | None = None) -> None:
        """`contexts` are the IDs that were accepted; None leaves that to the caller."""
        self.command: CommandSet | None = None
        """The command of the message whose data set is open, or of the last one."""
        self.context_id = 0
        self.message_open = False
        """Whether a message has begun whose last fragment has not come."""
        self.data_set_length = 0
        """Bytes of the data set so far."""
        self._contexts = contexts
        self._gathered = bytearray()
        self._decoded: bytes | bytearray = b""  # what `command` was decoded from
        self._in_data_set = False

    def feed(self, pdv: PDV) -> CommandSet | None:
        """The command set, if this PDV is its last. Raises `RemoteProtocolError`."""
        if self._contexts is not None and pdv.context_id not in self._contexts:
            raise RemoteProtocolError(f"PDV on presentation context {pdv.context_id}: not accepted")
        if self.message_open and pdv.context_id != self.context_id:
            raise RemoteProtocolError(
                f"PDV on presentation context {pdv.context_id} in a message on {self.context_id}"
            )
        if pdv.is_command and self._in_data_set:
            raise RemoteProtocolError("command PDV before the last of the data set")
        if not pdv.is_command and not self._in_data_set:
            raise RemoteProtocolError("data set PDV without a command that announces it")
        self.context_id = pdv.context_id
        if pdv.is_command:
            return self._feed_command(pdv)
        self.data_set_length += len(pdv.fragment)
        if pdv.is_last:
            self._in_data_set = self.message_open = False
        return None

    def _feed_command(self, pdv: PDV) -> CommandSet | None:
        self.message_open = True
        if len(self._gathered) + len(pdv.fragment) > MAXIMUM_COMMAND_SET:
            raise RemoteProtocolError(f"command set longer than {MAXIMUM_COMMAND_SET} bytes")
        # Copied: a view of a few bytes would keep alive all that was read with them.
        self._gathered += pdv.fragment
        if not pdv.is_last:
            return None
        # The pending responses to a query are alike: to see that takes a fortieth of the time that
        # to decode one does, and each comes by five readers on its way.
        if self.command is None or self._gathered != self._decoded:
            self.command = CommandSet.decode(self._gathered)
            self._decoded = self._gathered
        self._gathered = bytearray()
        self._in_data_set = self.message_open = self.command.has_data_set
        self.data_set_length = 0
        return self.command
