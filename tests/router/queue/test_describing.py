"""What a data set's beginning says of its study, in whatever character set and encoding."""

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from relay.dicom import uids
from relay.router.queue.describing import MAXIMUM_VALUE, study_in
from relay.spool.index import Study

EXPLICIT, IMPLICIT = uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.IMPLICIT_VR_LITTLE_ENDIAN
BIG, DEFLATED = uids.EXPLICIT_VR_BIG_ENDIAN, "1.2.840.10008.1.2.1.99"


def encoded(syntax: str, **elements: str) -> bytes:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.StudyInstanceUID = "1.2.3"
    buffer = DicomBytesIO()
    buffer.is_little_endian = syntax != BIG
    buffer.is_implicit_VR = syntax == IMPLICIT
    write_dataset(buffer, dataset)
    return bytes(buffer.getvalue())


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_all_that_there_is_of_it(syntax: str) -> None:
    data = encoded(
        syntax,
        StudyDate="20261128",
        AccessionNumber="A1",
        Modality="CT",
        StudyDescription="Thorax",
        PatientName="Doe^Jane^^Dr",
        PatientID="4711",
    )
    assert study_in("1.2.3", data, syntax) == Study(
        uid="1.2.3",
        patient_id="4711",
        patient_name="Doe Jane  Dr",
        accession="A1",
        date="20261128",
        modality="CT",
        description="Thorax",
    )


@pytest.mark.parametrize(
    ("character_set", "name", "shown"),
    [
        ("ISO_IR 100", "Müller^Jörg", "Müller Jörg"),
        ("ISO_IR 192", "Wałęsa^Lech", "Wałęsa Lech"),
        ("ISO_IR 144", "Люкceмбypг", "Люкceмбypг"),
        ("ISO_IR 126", "Διονυσιος", "Διονυσιος"),
        ("GB18030", "Wang^XiaoDong=王^小东", "Wang XiaoDong"),
    ],
)
def test_names_in_their_character_set(character_set: str, name: str, shown: str) -> None:
    data = encoded(EXPLICIT, SpecificCharacterSet=character_set, PatientName=name)
    assert study_in("1.2.3", data, EXPLICIT).patient_name == shown


@pytest.mark.parametrize("data", [b"", b"\x08\0", b"\xff" * 300, bytes(500)])
def test_what_cannot_be_read_is_left_out(data: bytes) -> None:
    assert study_in("1.2.3", data, EXPLICIT) == Study(uid="1.2.3")


def test_what_is_deflated_or_cut_off_is_left_out() -> None:
    data = encoded(EXPLICIT, Modality="CT", PatientID="4711")
    assert study_in("1.2.3", data, DEFLATED) == Study(uid="1.2.3")
    cut = study_in("1.2.3", data[: data.index(b"4711")], EXPLICIT)
    assert (cut.modality, cut.patient_id) == ("CT", "")


def test_a_value_without_end_is_cut() -> None:
    # As no toolkit writes it, and a peer may.
    data = b"\x08\0\x30\x10LO" + (1000).to_bytes(2, "little") + b"x" * 1000
    assert len(study_in("1.2.3", data, EXPLICIT).description) == MAXIMUM_VALUE
