"""Records: what an association says, as a flow carries it (PROTOCOL.md §10).

A record is type u8, length u32, payload. The association's own PDUs travel whole, as PS3.8 §9.3
encodes them; P-DATA does not: its PDVs are carried one by one, since each hop has its own maximum
length and splits them anew. Between them, in sessions that two Routers hold with one another, stand
notes: what the Routers say, and no device. What is in one, relay.tunnel.notes knows.
"""

import struct
from enum import IntEnum
from typing import TypeAlias

import attrs

from relay.dicom import pdu
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
    Buffer,
)
from relay.errors import ChunkError, LocalProtocolError, RemoteProtocolError

_HEADER = struct.Struct(">BI")
_PDV = struct.Struct(">BIBB")
PDV_OVERHEAD = _PDV.size
# Records in the head or the body of one chunk. A record costs a reader some 200 bytes beside its
# payload, so that 4 MiB of the smallest ones would fill its memory; a chunk of C-FIND answers, the
# smallest real messages, has some thousand.
MAXIMUM_RECORDS = 8192
# Bytes of a note: the longest, a device's Knowledge, has the pairs of 512 SOP classes and 64
# transfer syntaxes with room; a reader copies each note whole before anybody has looked into it.
MAXIMUM_NOTE = 128 * 1024
_COMMAND = 0x01  # bits of the message control header (PS3.8 §E.2)
_LAST = 0x02


class RecordType(IntEnum):
    ASSOCIATE_AC = 1
    ASSOCIATE_RJ = 2
    RELEASE_RQ = 3
    RELEASE_RP = 4
    ABORT = 5
    PDV = 6
    NOTE = 16


@attrs.frozen(slots=True)
class Note:
    """What one Router says to the other, as it travels: 1 to MAXIMUM_NOTE bytes."""

    payload: bytes = attrs.field(repr=lambda payload: f"<{len(payload)} bytes>")


Record: TypeAlias = Atom | Note

# What ends a session (PROTOCOL.md §15): the last record of the final chunk, and of no other.
FINAL_ATOMS = (AAssociateRJ, AReleaseRP, AAbort)

_TYPE_OF: dict[type, RecordType] = {
    AAssociateAC: RecordType.ASSOCIATE_AC,
    AAssociateRJ: RecordType.ASSOCIATE_RJ,
    AReleaseRQ: RecordType.RELEASE_RQ,
    AReleaseRP: RecordType.RELEASE_RP,
    AAbort: RecordType.ABORT,
}


def encode(record: Record) -> bytes:
    """The bytes of `record`.

    Raises LocalProtocolError for an A-ASSOCIATE-RQ, which travels in the opening, and for a note
    that is too long.
    """
    if isinstance(record, PDV):
        fragment = record.fragment
        header = pdv_header(record.context_id, record.is_command, record.is_last, len(fragment))
        return b"".join((header, fragment))
    if isinstance(record, Note):
        if not 0 < len(record.payload) <= MAXIMUM_NOTE:
            raise LocalProtocolError(
                f"note of {len(record.payload)} bytes: must be 1 to {MAXIMUM_NOTE}"
            )
        return _HEADER.pack(RecordType.NOTE, len(record.payload)) + record.payload
    record_type = _TYPE_OF.get(type(record))
    if record_type is None:
        raise LocalProtocolError(f"{type(record).__name__} is not carried in a flow")
    payload = pdu.encode(record)
    return _HEADER.pack(record_type, len(payload)) + payload


def pdv_header(context_id: int, is_command: bool, is_last: bool, length: int) -> bytes:
    """What precedes a fragment of `length` bytes: record header, context, control header."""
    if not 0 < context_id < 256 or not context_id & 1:
        raise LocalProtocolError(f"presentation context ID {context_id}: odd, 1 to 255")
    control = (_COMMAND if is_command else 0) | (_LAST if is_last else 0)
    return _PDV.pack(RecordType.PDV, length + 2, context_id, control)


def decode(data: Buffer) -> list[Record]:
    """The records in `data`, which are whole; fragments are views of it. Raises ChunkError."""
    view = memoryview(data)
    records: list[Record] = []
    at = 0
    while at < len(view):
        if len(records) == MAXIMUM_RECORDS:
            raise ChunkError(f"more than {MAXIMUM_RECORDS} records")
        if len(view) - at < _HEADER.size:
            raise ChunkError("record header is cut short")
        record_type, length = _HEADER.unpack_from(view, at)
        at += _HEADER.size
        if length > len(view) - at:
            raise ChunkError(f"record of {length} bytes where {len(view) - at} are left")
        records.append(_decode_payload(record_type, view[at : at + length]))
        at += length
    return records


def _decode_payload(record_type: int, payload: memoryview) -> Record:
    if record_type == RecordType.PDV:
        if len(payload) < 2:
            raise ChunkError("PDV record without context and control header")
        context_id, control = payload[0], payload[1]
        if not context_id & 1:
            raise ChunkError(f"PDV record for presentation context {context_id}: not odd")
        if control & ~(_COMMAND | _LAST):
            raise ChunkError(f"PDV record with control header {control:#04x}")
        return PDV(context_id, bool(control & _COMMAND), bool(control & _LAST), payload[2:])
    if record_type == RecordType.NOTE:
        if not 0 < len(payload) <= MAXIMUM_NOTE:
            raise ChunkError(f"note of {len(payload)} bytes: must be 1 to {MAXIMUM_NOTE}")
        return Note(bytes(payload))
    try:
        atom = pdu.decode(bytes(payload))
    except RemoteProtocolError as error:
        raise ChunkError(f"record of type {record_type}: {error}") from None
    if _TYPE_OF.get(type(atom)) != record_type:
        raise ChunkError(f"record of type {record_type} holds a PDU of another type")
    return atom
