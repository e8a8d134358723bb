"""Records: what an association says, as a flow carries it (PROTOCOL.md §10).

A record is type u8, length u32, payload. The association's own PDUs travel whole, as PS3.8 §9.3
encodes them; P-DATA does not: its PDVs are carried one by one, since each hop has its own maximum
length and splits them anew.
"""

import struct
from enum import IntEnum

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
_COMMAND = 0x01  # bits of the message control header (PS3.8 §E.2)
_LAST = 0x02


class RecordType(IntEnum):
    ASSOCIATE_AC = 1
    ASSOCIATE_RJ = 2
    RELEASE_RQ = 3
    RELEASE_RP = 4
    ABORT = 5
    PDV = 6


# What ends a session (PROTOCOL.md §15): the last record of the final chunk, and of no other.
FINAL_ATOMS = (AAssociateRJ, AReleaseRP, AAbort)

_TYPE_OF: dict[type, RecordType] = {
    AAssociateAC: RecordType.ASSOCIATE_AC,
    AAssociateRJ: RecordType.ASSOCIATE_RJ,
    AReleaseRQ: RecordType.RELEASE_RQ,
    AReleaseRP: RecordType.RELEASE_RP,
    AAbort: RecordType.ABORT,
}


def encode(atom: Atom) -> bytes:
    """The record of `atom`. An A-ASSOCIATE-RQ has none: it travels in the opening."""
    if isinstance(atom, PDV):
        fragment = atom.fragment
        header = pdv_header(atom.context_id, atom.is_command, atom.is_last, len(fragment))
        return b"".join((header, fragment))
    record_type = _TYPE_OF.get(type(atom))
    if record_type is None:
        raise LocalProtocolError(f"{type(atom).__name__} is not carried in a flow")
    payload = pdu.encode(atom)
    return _HEADER.pack(record_type, len(payload)) + payload


def pdv_header(context_id: int, is_command: bool, is_last: bool, length: int) -> bytes:
    """What precedes a fragment of `length` bytes: record header, context, control header."""
    if not 0 < context_id < 256 or not context_id & 1:
        raise LocalProtocolError(f"presentation context ID {context_id}: odd, 1 to 255")
    control = (_COMMAND if is_command else 0) | (_LAST if is_last else 0)
    return _PDV.pack(RecordType.PDV, length + 2, context_id, control)


def decode(data: Buffer) -> list[Atom]:
    """The atoms of whole records; fragments are views of `data`. Raises ChunkError."""
    view = memoryview(data)
    atoms: list[Atom] = []
    at = 0
    while at < len(view):
        if len(atoms) == MAXIMUM_RECORDS:
            raise ChunkError(f"more than {MAXIMUM_RECORDS} records")
        if len(view) - at < _HEADER.size:
            raise ChunkError("record header is cut short")
        record_type, length = _HEADER.unpack_from(view, at)
        at += _HEADER.size
        if length > len(view) - at:
            raise ChunkError(f"record of {length} bytes where {len(view) - at} are left")
        atoms.append(_decode_payload(record_type, view[at : at + length]))
        at += length
    return atoms


def _decode_payload(record_type: int, payload: memoryview) -> Atom:
    if record_type == RecordType.PDV:
        if len(payload) < 2:
            raise ChunkError("PDV record without context and control header")
        context_id, control = payload[0], payload[1]
        if not context_id & 1:
            raise ChunkError(f"PDV record for presentation context {context_id}: not odd")
        if control & ~(_COMMAND | _LAST):
            raise ChunkError(f"PDV record with control header {control:#04x}")
        return PDV(context_id, bool(control & _COMMAND), bool(control & _LAST), payload[2:])
    try:
        atom = pdu.decode(bytes(payload))
    except RemoteProtocolError as error:
        raise ChunkError(f"record of type {record_type}: {error}") from None
    if _TYPE_OF.get(type(atom)) != record_type:
        raise ChunkError(f"record of type {record_type} holds a PDU of another type")
    return atom
