"""References to SOP instances in the data sets of a storage commitment (PS3.3 §C.14, PS3.4 §J.3).

A request names what its sender wants kept, by a transaction of its own:

    (0008,1195) Transaction UID
    (0008,1199) Referenced SOP Sequence
        (0008,1150) Referenced SOP Class UID, (0008,1155) Referenced SOP Instance UID

A report that it failed names the same in the Failed SOP Sequence (0008,1198), each with its Failure
Reason (0008,1197). These data sets are small and read whole; what else they have is passed over.
"""

import struct
from collections.abc import Iterable, Iterator

import attrs

from relay.dicom.atoms import Buffer
from relay.dicom.elements import (
    ITEM,
    ITEM_END,
    LONG_VRS,
    MAXIMUM_DEPTH,
    SEQUENCE_END,
    TRANSACTION_UID,
    UNDEFINED_LENGTH,
    Encoding,
    encode,
)
from relay.dicom.pdu import is_uid
from relay.errors import RemoteProtocolError

REFERENCED_SOP_SEQUENCE = 0x0008_1199
FAILED_SOP_SEQUENCE = 0x0008_1198
REFERENCED_SOP_CLASS_UID = 0x0008_1150
REFERENCED_SOP_INSTANCE_UID = 0x0008_1155
FAILURE_REASON = 0x0008_1197

# One request: a study of the largest kind has 20,000 instances, and each takes some 150 bytes.
MAXIMUM_REFERENCES = 32768


@attrs.frozen(slots=True)
class Reference:
    """One SOP instance."""

    sop_class: str
    sop_instance: str = attrs.field(repr=False)


@attrs.frozen(slots=True)
class CommitmentRequest:
    """What an N-ACTION asks for. PS3.4 §J.3.2.1."""

    transaction: str
    references: tuple[Reference, ...] = attrs.field(repr=False)


def read_request(data_set: Buffer, encoding: Encoding) -> CommitmentRequest:
    """The request in the data set of an N-ACTION-RQ.

    Raises RemoteProtocolError, naming the element, where it is none.
    """
    reader = _Reader(memoryview(data_set), encoding)
    transaction, references = "", None
    seen = set()
    for tag, value, end in reader.elements(0, len(data_set), MAXIMUM_DEPTH):
        if tag in seen:  # who checks a request and who obeys it might each read another one
            raise RemoteProtocolError(f"{_name(tag)}: twice")
        seen.add(tag)
        if tag == TRANSACTION_UID:
            transaction = reader.text(value, end)
        elif tag == REFERENCED_SOP_SEQUENCE:
            references = tuple(_reference(reader, *item) for item in reader.items(value, end))
    if not is_uid(transaction):
        raise RemoteProtocolError("no Transaction UID (0008,1195)")
    if not references:
        raise RemoteProtocolError("no Referenced SOP Sequence (0008,1199)")
    return CommitmentRequest(transaction, references)


def _reference(reader: "_Reader", at: int, end: int) -> Reference:
    uids = {
        tag: reader.text(value, value_end)
        for tag, value, value_end in reader.elements(at, end, MAXIMUM_DEPTH - 1)
        if tag in (REFERENCED_SOP_CLASS_UID, REFERENCED_SOP_INSTANCE_UID)
    }
    sop_class = uids.get(REFERENCED_SOP_CLASS_UID, "")
    instance = uids.get(REFERENCED_SOP_INSTANCE_UID, "")
    if not (is_uid(sop_class) and is_uid(instance)):
        raise RemoteProtocolError("Referenced SOP Sequence (0008,1199): an item names no instance")
    return Reference(sop_class, instance)


def failure_report(
    transaction: str, failed: Iterable[Reference], reason: int, encoding: Encoding
) -> bytes:
    """The data set of an N-EVENT-REPORT-RQ of Event Type 2 (PS3.4 §J.3.3.1): `failed` are all
    references of the request, and none of them was committed to, for `reason` (PS3.3 §C.14.1.1)."""
    order = "<" if encoding.little_endian else ">"
    items = b"".join(
        encode(
            ITEM,
            b"",
            _uid(REFERENCED_SOP_CLASS_UID, reference.sop_class, encoding)
            + _uid(REFERENCED_SOP_INSTANCE_UID, reference.sop_instance, encoding)
            + encode(FAILURE_REASON, b"US", struct.pack(f"{order}H", reason), encoding),
            encoding,
        )
        for reference in failed
    )
    sequence = encode(FAILED_SOP_SEQUENCE, b"SQ", items, encoding)
    return _uid(TRANSACTION_UID, transaction, encoding) + sequence


def _uid(tag: int, uid: str, encoding: Encoding) -> bytes:
    value = uid.encode("ascii")
    return encode(tag, b"UI", value + b"\0" * (len(value) % 2), encoding)


class _Reader:
    """Walks over a data set that is there whole. Raises RemoteProtocolError where it cannot be."""

    def __init__(self, view: memoryview, encoding: Encoding) -> None:
        self._view = view
        self._encoding = encoding
        self._order = "<" if encoding.little_endian else ">"

    def text(self, at: int, end: int) -> str:
        """A value without its padding, each byte one character."""
        return bytes(self._view[at:end]).decode("latin-1").strip(" \0")

    def elements(self, at: int, end: int, depth: int) -> Iterator[tuple[int, int, int]]:
        """Tag, and where the value lies, of each element from `at`."""
        while at < end:
            tag, vr, value, length = self._header(at, end)
            if tag == ITEM_END:
                return
            if length == UNDEFINED_LENGTH:
                last, at = self._skip(value, end, vr, depth)
            else:
                last = at = value + length
                if last > end:
                    raise RemoteProtocolError(f"{_name(tag)}: longer than what it is in")
            yield tag, value, last

    def items(self, at: int, end: int) -> Iterator[tuple[int, int]]:
        """Where the content of each item of a sequence lies."""
        count = 0
        while at < end:
            tag, _, value, length = self._header(at, end)
            if tag != ITEM:
                raise RemoteProtocolError(f"{_name(tag)}: among the items of a sequence")
            count += 1
            if count > MAXIMUM_REFERENCES:
                raise RemoteProtocolError(f"more than {MAXIMUM_REFERENCES} items")
            if length == UNDEFINED_LENGTH:
                last, at = self._skip_item(value, end, MAXIMUM_DEPTH)
            else:
                last = at = value + length
                if last > end:
                    raise RemoteProtocolError("an item longer than its sequence")
            yield value, last

    def _header(self, at: int, end: int) -> tuple[int, bytes, int, int]:
        """Tag, VR, where the value begins, its length."""
        view, order = self._view, self._order
        if end - at < 8:
            raise RemoteProtocolError("data set: ends within an element")
        group, number = struct.unpack_from(f"{order}HH", view, at)
        tag = group << 16 | number
        if not self._encoding.explicit_vr or group == 0xFFFE:
            return tag, b"", at + 8, struct.unpack_from(f"{order}I", view, at + 4)[0]
        vr = bytes(view[at + 4 : at + 6])
        if not (vr.isalpha() and vr.isupper()):
            raise RemoteProtocolError(f"{_name(tag)}: no VR")
        if vr not in LONG_VRS:
            return tag, vr, at + 8, struct.unpack_from(f"{order}H", view, at + 6)[0]
        if end - at < 12:
            raise RemoteProtocolError(f"{_name(tag)}: ends within its length")
        return tag, vr, at + 12, struct.unpack_from(f"{order}I", view, at + 8)[0]

    def _skip(self, at: int, end: int, vr: bytes, depth: int) -> tuple[int, int]:
        """Where a sequence of undefined length ends, and where what follows begins."""
        if vr == b"UN":  # PS3.5 §6.2.2, note 4
            return _Reader(self._view, Encoding(explicit_vr=False))._skip(at, end, b"", depth)
        if not depth:
            raise RemoteProtocolError(f"more than {MAXIMUM_DEPTH} sequences in each other")
        while True:
            tag, _, value, length = self._header(at, end)
            if tag == SEQUENCE_END:
                return at, value
            if tag != ITEM:
                raise RemoteProtocolError(f"{_name(tag)}: among the items of a sequence")
            at = value + length
            if length == UNDEFINED_LENGTH:
                _, at = self._skip_item(value, end, depth)

    def _skip_item(self, at: int, end: int, depth: int) -> tuple[int, int]:
        """The same of an item."""
        while True:
            tag, vr, value, length = self._header(at, end)
            if tag == ITEM_END:
                return at, value
            at = value + length
            if length == UNDEFINED_LENGTH:
                _, at = self._skip(value, end, vr, depth - 1)


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
