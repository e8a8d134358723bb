"""References to SOP instances: read in every encoding as pydicom writes them, written for it."""

import io
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from relay.dicom import references
from relay.dicom.elements import MAXIMUM_DEPTH, Encoding
from relay.dicom.references import (
    CommitmentRequest,
    Reference,
    failure_report,
    read_request,
)
from relay.errors import RemoteProtocolError

IMPLICIT, EXPLICIT, BIG = Encoding(explicit_vr=False), Encoding(), Encoding(little_endian=False)
encodings = pytest.mark.parametrize(
    "encoding", [IMPLICIT, EXPLICIT, BIG], ids=["implicit", "explicit", "big"]
)

CT = "1.2.840.10008.5.1.4.1.1.2"
TRANSACTION = "1.2.3.4.5"
UNDEFINED = 0xFFFF_FFFF


def instances(count: int) -> tuple[Reference, ...]:
    return tuple(Reference(CT, f"1.2.3.{n}") for n in range(count))


def dataset(*wanted: Reference, undefined: bool = False) -> Dataset:
    """A request as pydicom makes it."""
    made = Dataset()
    made.TransactionUID = TRANSACTION
    items = []
    for reference in wanted:
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class
        item.ReferencedSOPInstanceUID = reference.sop_instance
        item.is_undefined_length_sequence_item = undefined
        items.append(item)
    made.ReferencedSOPSequence = items
    made["ReferencedSOPSequence"].is_undefined_length = undefined
    return made


def encode(made: Dataset, encoding: Encoding) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian = encoding.little_endian
    stream.is_implicit_VR = not encoding.explicit_vr
    write_dataset(stream, made)
    return stream.getvalue()


def element(tag: int, value: bytes = b"", length: int | None = None) -> bytes:
    """An element in Implicit VR Little Endian; `length` may lie."""
    size = len(value) if length is None else length
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, size) + value


@encodings
@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_a_request_of_pydicom_is_read(encoding: Encoding, undefined: bool, count: int) -> None:
    wanted = instances(count)
    data = encode(dataset(*wanted, undefined=undefined), encoding)
    assert read_request(data, encoding) == CommitmentRequest(TRANSACTION, wanted)


@encodings
@pytest.mark.parametrize("undefined", [True, False])
def test_what_else_a_request_has_is_passed_over(encoding: Encoding, undefined: bool) -> None:
    made = dataset(*instances(2), undefined=undefined)
    step, inner = Dataset(), Dataset()
    inner.ReferencedSOPInstanceUID = "9.9.9"
    inner.is_undefined_length_sequence_item = undefined
    step.ReferencedSOPSequence = [inner]
    step["ReferencedSOPSequence"].is_undefined_length = undefined
    step.is_undefined_length_sequence_item = undefined
    made.ReferencedPerformedProcedureStepSequence = [step]
    made["ReferencedPerformedProcedureStepSequence"].is_undefined_length = undefined
    made.RetrieveAETitle = "PACS"
    made.StorageMediaFileSetID = "DISC"
    made.ReferencedSOPSequence[0].RetrieveAETitle = "PACS"
    assert read_request(encode(made, encoding), encoding).references == instances(2)


@encodings
def test_a_private_element_of_unknown_kind_is_passed_over(encoding: Encoding) -> None:
    """UN of undefined length is a sequence in Implicit VR Little Endian (PS3.5 §6.2.2)."""
    if not encoding.explicit_vr:
        return
    order = "<" if encoding.little_endian else ">"
    inside = element(0xFFFE_E000, element(0x0008_1155, b"9.9.9\0")) + element(0xFFFE_E0DD)
    private = struct.pack(f"{order}HH2sHI", 0x0007, 0x1001, b"UN", 0, UNDEFINED) + inside
    data = private + encode(dataset(*instances(1)), encoding)
    assert read_request(data, encoding).references == instances(1)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Transaction UID"),
        (element(0x0008_1195, b"1.2.3\0"), "Referenced SOP Sequence"),
        (element(0x0008_1195, b"1.2.3\0") + element(0x0008_1199), "Referenced SOP Sequence"),
        (element(0x0008_1195, b"1.2.3\0") * 2, "twice"),
        (element(0x0008_1195, b"what?\0") + element(0x0008_1199), "Transaction UID"),
        (element(0x0008_1195, b"1.2.3\0", length=100), "longer than"),
        (element(0x0008_1199, element(0xFFFE_E000)), "names no instance"),
        (element(0x0008_1199, element(0xFFFE_E000, length=9)), "an item longer"),
        (element(0x0008_1199, element(0x0008_1155, b"1.2.3\0")), "among the items"),
        (element(0x0008_1199, b"\0\0\0\0", length=UNDEFINED), "ends within"),
        (element(0x0008_1199, element(0x0008_1155), length=UNDEFINED), "among the items"),
        (b"\x08\0\x95", "ends within"),
    ],
)
def test_what_is_no_request_is_named(data: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        read_request(data, IMPLICIT)


@pytest.mark.parametrize("data", [b"\x08\0\x95\x11\0\0\x04\0", b"\x08\0\x95\x11UN\0\0"])
def test_no_vr_or_half_a_length_is_named(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"no VR|within its length"):
        read_request(data, EXPLICIT)


def test_sequences_in_each_other_have_an_end() -> None:
    opened = element(0x0008_0006, length=UNDEFINED) + element(0xFFFE_E000, length=UNDEFINED)
    with pytest.raises(RemoteProtocolError, match="in each other"):
        read_request(opened * (MAXIMUM_DEPTH + 2), IMPLICIT)


def test_references_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "MAXIMUM_REFERENCES", 2)
    data = encode(dataset(*instances(3)), IMPLICIT)
    with pytest.raises(RemoteProtocolError, match="more than 2 items"):
        read_request(data, IMPLICIT)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for encoding in (IMPLICIT, EXPLICIT, BIG):
        with suppress(RemoteProtocolError):
            read_request(data, encoding)


@encodings
@given(cut=st.integers(0, 200), at=st.integers(0, 199), byte=st.integers(0, 255))
def test_a_damaged_request_is_read_or_refused(
    encoding: Encoding, cut: int, at: int, byte: int
) -> None:
    data = bytearray(encode(dataset(*instances(2), undefined=True), encoding))
    data[at % len(data)] = byte
    with suppress(RemoteProtocolError):
        read_request(data[:cut], encoding)


@encodings
def test_pydicom_reads_a_report(encoding: Encoding) -> None:
    data = failure_report(TRANSACTION, instances(2), 0x0110, encoding)
    report = read_dataset(io.BytesIO(data), not encoding.explicit_vr, encoding.little_endian)
    assert report.TransactionUID == TRANSACTION
    assert "ReferencedSOPSequence" not in report
    assert [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, item.FailureReason)
        for item in report.FailedSOPSequence
    ] == [(CT, "1.2.3.0", 0x0110), (CT, "1.2.3.1", 0x0110)]
    assert encode(report, encoding) == data
