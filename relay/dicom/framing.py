"""Cuts the bytes of a connection into PDUs, and refuses a length before a byte of it is kept.

A PDU that arrives within one read is handed on as a view of it; one that spans reads is gathered
once. Nothing is reserved on the peer's word: memory grows with the bytes that have come.
"""

import struct
from collections.abc import Iterator

from relay.dicom.pdu import HEADER_LENGTH, SHORT_LENGTH, Buffer, PDUType
from relay.errors import AbortReason, RemoteProtocolError

# What an opening carries through the tunnel (DESIGN §3), header included. 128 contexts, each with
# thirty transfer syntaxes, are about 100 KiB.
MAXIMUM_ASSOCIATE_PDU = 128 * 1024
MAXIMUM_ASSOCIATE_LENGTH = MAXIMUM_ASSOCIATE_PDU - HEADER_LENGTH

# Up to this length (DCMTK's own limit) a request is taken for a real one that is too long for us,
# and rejected; beyond, for bytes that are no DICOM.
PLAUSIBLE_ASSOCIATE_LENGTH = 1024 * 1024

# What is wrong where the first byte is one of a TLS record.
TLS_ON_A_PLAIN_PORT = "TLS on a plain port"

_TLS_RECORDS = (0x15, 0x16)  # alert and handshake, RFC 8446 §5.1
_HTTP_FIRST_LETTERS = b"GHPODCT"  # GET, HEAD and HTTP/1.1, POST, PUT, PATCH, OPTIONS, DELETE, ...
_HEADER = struct.Struct(">BxI")
_P_DATA_TF = int(PDUType.P_DATA_TF)  # to compare with a member of an enumeration takes longer


def pdu_name(pdu_type: int) -> str:
    """The standard's name of a PDU type that it knows."""
    return PDUType(pdu_type).name.replace("_", "-")


class RequestTooLong(RemoteProtocolError):
    """An A-ASSOCIATE-RQ that may well be real, but is longer than Relay carries."""


class PDUReader:
    """One direction of one connection. Dead after a `RemoteProtocolError`: no PDU can be found."""

    def __init__(self, maximum_length: int) -> None:
        """`maximum_length` is what we let the peer put into a P-DATA-TF, its header not counted."""
        self._maximum_length = maximum_length
        self._partial = bytearray()
        self._size = 0  # of the PDU in _partial, once its header is whole
        self._first = True

    def read(self, data: Buffer) -> Iterator[tuple[int, memoryview]]:
        """The PDUs that are whole with these bytes: their type, and what follows the header.

        `data` must not change afterwards. Raises `RemoteProtocolError`.
        """
        view = memoryview(data)
        while view:
            if not self._partial and len(view) >= HEADER_LENGTH:
                size = self._measure(view)
                if len(view) >= size:
                    yield view[0], view[HEADER_LENGTH:size]
                    view = view[size:]
                    continue
            view = view[self._gather(view) :]
            if self._size and len(self._partial) == self._size:
                pdu = memoryview(self._partial).toreadonly()
                self._partial = bytearray()
                self._size = 0
                yield pdu[0], pdu[HEADER_LENGTH:]

    def _gather(self, view: memoryview) -> int:
        """Keep what of `view` belongs to the PDU that is being gathered; how many bytes it was."""
        taken = 0
        if not self._size:
            taken = min(HEADER_LENGTH - len(self._partial), len(view))
            self._partial += view[:taken]
            self._check_type(self._partial[0])
            if len(self._partial) < HEADER_LENGTH:
                return taken
            self._size = self._measure(self._partial)
        rest = view[taken : taken + self._size - len(self._partial)]
        self._partial += rest
        return taken + len(rest)

    def _measure(self, header: Buffer) -> int:
        """The size of the PDU that this header begins, header included, if it is allowed."""
        pdu_type: int
        length: int
        pdu_type, length = _HEADER.unpack_from(header)
        if pdu_type == _P_DATA_TF:
            if length > self._maximum_length:
                raise RemoteProtocolError(
                    f"P-DATA-TF length {length}: our maximum length is {self._maximum_length}"
                )
        else:
            self._check_type(pdu_type)
            _check_length(pdu_type, length)
        self._first = False
        return HEADER_LENGTH + length

    def _check_type(self, pdu_type: int) -> None:
        if PDUType.A_ASSOCIATE_RQ <= pdu_type <= PDUType.A_ABORT:
            return
        if self._first and pdu_type in _TLS_RECORDS:
            cause = TLS_ON_A_PLAIN_PORT
        elif self._first and pdu_type in _HTTP_FIRST_LETTERS:
            cause = "HTTP on the DICOM port"
        else:
            cause = f"PDU type {pdu_type:02X}H is not known"
        raise RemoteProtocolError(cause, AbortReason.UNRECOGNIZED_PDU)


def _check_length(pdu_type: int, length: int) -> None:
    """Whether a PDU of association control may be so long. Raises `RemoteProtocolError`."""
    name = pdu_name(pdu_type)
    if pdu_type in (PDUType.A_ASSOCIATE_RQ, PDUType.A_ASSOCIATE_AC):
        if length > MAXIMUM_ASSOCIATE_LENGTH:
            request = pdu_type == PDUType.A_ASSOCIATE_RQ
            real = request and length <= PLAUSIBLE_ASSOCIATE_LENGTH
            error = RequestTooLong if real else RemoteProtocolError
            raise error(f"{name} length {length}: at most {MAXIMUM_ASSOCIATE_LENGTH}")
    elif length != SHORT_LENGTH:
        raise RemoteProtocolError(f"{name} length {length}: must be {SHORT_LENGTH}")
