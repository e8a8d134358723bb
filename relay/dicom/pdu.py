"""The PDUs of the DICOM upper layer: the atoms' bytes (PS3.8 §9.3).

Decoding takes one whole PDU and gives an atom or raises `RemoteProtocolError`, which names the
field. Encoding raises `LocalProtocolError` where a value does not fit its field.
"""

import struct
from collections.abc import Iterable

from relay.dicom import associate
from relay.dicom.associate import context_id_octet, octet
from relay.dicom.atoms import (
    PDV,
    UID_LENGTH,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
    Buffer,
    ContextResult,
    PDUType,
    PresentationContext,
    PresentationContextResult,
    UserItem,
    is_uid,
)
from relay.errors import AbortReason, RemoteProtocolError

# The atoms and their codec are one thing to other rooms.
__all__ = [
    "HEADER_LENGTH",
    "PDV",
    "PDV_HEADER_LENGTH",
    "SHORT_LENGTH",
    "UID_LENGTH",
    "AAbort",
    "AAssociateAC",
    "AAssociateRJ",
    "AAssociateRQ",
    "AReleaseRP",
    "AReleaseRQ",
    "Atom",
    "Buffer",
    "ContextResult",
    "PDUType",
    "PresentationContext",
    "PresentationContextResult",
    "UserItem",
    "control_header",
    "decode",
    "decode_body",
    "decode_pdata",
    "encode",
    "encode_pdata",
    "is_uid",
    "pdata_header",
]

HEADER_LENGTH = 6  # PDU type, reserved byte, 4 bytes of length that counts what follows
PDV_HEADER_LENGTH = 6  # 4 bytes of item length, context ID, message control header
SHORT_LENGTH = 4  # what follows in A-ASSOCIATE-RJ, A-RELEASE, A-ABORT (PS3.8 §9.3.4, §9.3.6 to 8)

# A PDV's item length counts what follows it: these two bytes and the fragment (PS3.8 §9.3.5.1).
_COUNTED_BESIDE_FRAGMENT = 2
_ITEM_LENGTH_FIELD = PDV_HEADER_LENGTH - _COUNTED_BESIDE_FRAGMENT

_HEADER = struct.Struct(">BxI")
_PDV = struct.Struct(">IBB")
_PDATA = struct.Struct(">BxIIBB")  # a P-DATA-TF's header and that of its only PDV


# --- encoding ---------------------------------------------------------------------------------


def encode(atom: Atom) -> bytes:
    """The whole PDU; a PDV becomes a P-DATA-TF of its own, whatever its length.

    Raises `LocalProtocolError` where a value does not fit its field.
    """
    match atom:
        case PDV():
            return encode_pdata((atom,))
        case AAssociateRQ():
            return _encode_associate(PDUType.A_ASSOCIATE_RQ, atom)
        case AAssociateAC():
            return _encode_associate(PDUType.A_ASSOCIATE_AC, atom)
        case AAssociateRJ(result=result, source=source, reason=reason):
            return _encode_short(PDUType.A_ASSOCIATE_RJ, result, source, reason)
        case AReleaseRQ():
            return _encode_short(PDUType.A_RELEASE_RQ, 0, 0, 0)
        case AReleaseRP():
            return _encode_short(PDUType.A_RELEASE_RP, 0, 0, 0)
        case AAbort(source=source, reason=reason):
            return _encode_short(PDUType.A_ABORT, 0, source, reason)


def encode_pdata(pdvs: Iterable[PDV]) -> bytes:
    """One P-DATA-TF that holds these PDVs (PS3.8 §9.3.5)."""
    parts: list[Buffer] = [b""]
    for pdv in pdvs:
        parts.append(
            _PDV.pack(
                len(pdv.fragment) + _COUNTED_BESIDE_FRAGMENT,
                context_id_octet(pdv.context_id),
                control_header(pdv),
            )
        )
        parts.append(pdv.fragment)
    parts[0] = _HEADER.pack(PDUType.P_DATA_TF, sum(map(len, parts)))
    return b"".join(parts)


def pdata_header(context_id: int, control: int, fragment_length: int) -> bytes:
    """What stands before the fragment in a P-DATA-TF that holds one PDV."""
    return _PDATA.pack(
        PDUType.P_DATA_TF,
        fragment_length + PDV_HEADER_LENGTH,
        fragment_length + _COUNTED_BESIDE_FRAGMENT,
        context_id_octet(context_id),
        control,
    )


def control_header(pdv: PDV) -> int:
    """The message control header (PS3.8 §E.2)."""
    return pdv.is_command | pdv.is_last << 1


def _encode_short(pdu_type: PDUType, *fields: int) -> bytes:
    return _HEADER.pack(pdu_type, SHORT_LENGTH) + b"\0" + bytes(octet(field) for field in fields)


def _encode_associate(pdu_type: PDUType, atom: AAssociateRQ | AAssociateAC) -> bytes:
    body = associate.encode_body(atom)
    return _HEADER.pack(pdu_type, len(body)) + body


# --- decoding ---------------------------------------------------------------------------------


def decode(pdu: Buffer) -> Atom:
    """The atom of one whole PDU, header included. A P-DATA-TF is for `decode_pdata`.

    Raises `RemoteProtocolError` that names the field.
    """
    view = memoryview(pdu)
    if len(view) < HEADER_LENGTH:
        raise RemoteProtocolError(f"PDU of {len(view)} bytes: shorter than its header")
    pdu_type, length = _HEADER.unpack_from(view)
    if length != len(view) - HEADER_LENGTH:
        raise RemoteProtocolError(
            f"PDU length {length}: {len(view) - HEADER_LENGTH} bytes are there"
        )
    if pdu_type == PDUType.P_DATA_TF:
        raise RemoteProtocolError("P-DATA-TF where a PDU of association control was expected")
    return decode_body(pdu_type, view[HEADER_LENGTH:])


def decode_body(pdu_type: int, body: memoryview) -> Atom:
    """The atom of a PDU other than P-DATA-TF, from what follows its 6 byte header."""
    match pdu_type:
        case PDUType.A_ASSOCIATE_RQ:
            return associate.decode_rq(body)
        case PDUType.A_ASSOCIATE_AC:
            return associate.decode_ac(body)
        case PDUType.A_ASSOCIATE_RJ:
            _, result, source, reason = _decode_short(body, "A-ASSOCIATE-RJ")
            return AAssociateRJ(result, source, reason)
        case PDUType.A_RELEASE_RQ:
            _decode_short(body, "A-RELEASE-RQ")
            return AReleaseRQ()
        case PDUType.A_RELEASE_RP:
            _decode_short(body, "A-RELEASE-RP")
            return AReleaseRP()
        case PDUType.A_ABORT:
            _, _, source, reason = _decode_short(body, "A-ABORT")
            return AAbort(source, reason)
        case _:
            raise RemoteProtocolError(
                f"PDU type {pdu_type:02X}H is not known", AbortReason.UNRECOGNIZED_PDU
            )


def decode_pdata(body: memoryview) -> list[PDV]:
    """The PDVs of a P-DATA-TF, from what follows its 6 byte header (PS3.8 §9.3.5).

    The fragments are views of `body`: nothing is copied. Of the message control header only the
    two lowest bits are tested (PS3.8 §E.2).
    """
    pdvs: list[PDV] = []
    at, end = 0, len(body)
    while at < end:
        if end - at < PDV_HEADER_LENGTH:
            raise RemoteProtocolError(f"PDV item: {end - at} bytes left, no room for its header")
        length, context_id, control = _PDV.unpack_from(body, at)
        if length < _COUNTED_BESIDE_FRAGMENT:
            raise RemoteProtocolError(f"PDV item length {length}: less than the 2 it must have")
        stop = at + _ITEM_LENGTH_FIELD + length
        if stop > end:
            raise RemoteProtocolError(f"PDV item length {length}: beyond the end of its PDU")
        if not context_id & 1:
            raise RemoteProtocolError(f"PDV presentation context ID {context_id}: not odd")
        fragment = body[at + PDV_HEADER_LENGTH : stop]
        pdvs.append(PDV(context_id, bool(control & 1), bool(control & 2), fragment))
        at = stop
    if not pdvs:
        raise RemoteProtocolError("P-DATA-TF without a PDV")
    return pdvs


def _decode_short(body: memoryview, name: str) -> memoryview:
    if len(body) != SHORT_LENGTH:
        raise RemoteProtocolError(f"{name} length {len(body)}: must be {SHORT_LENGTH}")
    return body
