from typing import Any

import pytest

from relay.dicom import uids
from relay.dicom.dimse import Status
from relay.dicom.elements import Encoding
from relay.router.federation.identifiers import Level, Model, QueryRefused
from relay.router.federation.targets import (
    MAXIMUM_ASKED,
    MAXIMUM_UIDS,
    PATIENT_ID,
    SERIES_INSTANCE_UID,
    Target,
    identifier,
    read_text,
)
from tests.router.federation.datasets import EXPLICIT, IMPLICIT, dataset, decoded, encoded

STUDY, PATIENT = Model.STUDY_ROOT, Model.PATIENT_ROOT


def parsed(model: Model = STUDY, syntax: str = EXPLICIT, **keys: object) -> Target:
    return Target.parse(model, encoded(dataset(**keys), syntax), syntax)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_each_level(syntax: str) -> None:
    level = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ["1.2", "1.3"]}
    assert parsed(STUDY, syntax, **level) == Target(level=Level.STUDY, studies=("1.2", "1.3"))
    keys = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": ["1.2.1", "1.2.2"]}
    assert parsed(STUDY, syntax, QueryRetrieveLevel="SERIES", **keys) == Target(
        level=Level.SERIES, studies=("1.2",), series=("1.2.1", "1.2.2")
    )
    keys = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1", "SOPInstanceUID": ["1", "2"]}
    assert parsed(STUDY, syntax, QueryRetrieveLevel="IMAGE", **keys) == Target(
        level=Level.IMAGE, studies=("1.2",), series=("1.2.1",), instances=("1", "2")
    )


def test_a_patient_is_as_it_was_encoded() -> None:
    target = parsed(
        PATIENT,
        QueryRetrieveLevel="PATIENT",
        SpecificCharacterSet="ISO_IR 100",
        PatientID="Jörg 7",
        IssuerOfPatientID="A",
    )
    assert target.level is Level.PATIENT
    assert target.patient == "Jörg 7".encode("latin-1")
    assert (target.issuer, target.character_set) == (b"A", b"ISO_IR 100")
    assert "rg 7" not in repr(target)


def test_other_keys_go_and_lower_ones_have_no_meaning() -> None:
    target = parsed(
        QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2", SeriesInstanceUID="9", Modality="CT"
    )
    assert target == Target(level=Level.STUDY, studies=("1.2",))


def test_a_uid_that_is_named_twice_is_one() -> None:
    assert parsed(QueryRetrieveLevel="STUDY", StudyInstanceUID=["1.2", "1.2"]).studies == ("1.2",)


@pytest.mark.parametrize(
    ("model", "keys", "words"),
    [
        (STUDY, {"StudyInstanceUID": "1.2"}, "Level"),
        (STUDY, {"QueryRetrieveLevel": "PATIENT", "PatientID": "1"}, "Level"),
        (STUDY, {"QueryRetrieveLevel": "FRAME", "StudyInstanceUID": "1.2"}, "Level"),
        (STUDY, {"QueryRetrieveLevel": "STUDY"}, "Study Instance UID"),
        (STUDY, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.*"}, "Study Instance UID"),
        (STUDY, {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1"}, "Study Instance UID"),
        (
            STUDY,
            {
                "QueryRetrieveLevel": "SERIES",
                "StudyInstanceUID": ["1", "2"],
                "SeriesInstanceUID": "1",
            },
            "one only",
        ),
        (
            STUDY,
            {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": "1", "SOPInstanceUID": "1"},
            "Series Instance UID",
        ),
        (
            STUDY,
            {
                "QueryRetrieveLevel": "STUDY",
                "StudyInstanceUID": [str(n + 1) for n in range(MAXIMUM_UIDS + 1)],
            },
            "at most 1000",
        ),
        (PATIENT, {"QueryRetrieveLevel": "PATIENT"}, "Patient ID"),
        (PATIENT, {"QueryRetrieveLevel": "PATIENT", "PatientID": "12*"}, "Patient ID"),
        (PATIENT, {"QueryRetrieveLevel": "PATIENT", "PatientID": ["1", "2"]}, "Patient ID"),
    ],
)
def test_what_does_not_match_the_sop_class(model: Model, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(QueryRefused, match=words) as caught:
        parsed(model, **keys)
    assert caught.value.status == Status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS
    assert len(caught.value.comment) <= 64


def test_what_cannot_be_read() -> None:
    with pytest.raises(QueryRefused) as caught:
        Target.parse(STUDY, b"", uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert caught.value.status == Status.UNABLE_TO_PROCESS
    with pytest.raises(QueryRefused):
        Target.parse(STUDY, b"\x08\x00\x05", EXPLICIT)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_an_owner_is_asked_for_unique_keys_only(syntax: str) -> None:
    target = Target(
        level=Level.IMAGE,
        studies=("1.2",),
        series=("1.2.1",),
        instances=("1.2.1.1", "1.2.1.23"),
        patient=b"P1",
        character_set=b"ISO_IR 100",
    )
    encoding = Encoding(explicit_vr=syntax == EXPLICIT)
    asked = decoded(target.encode(encoding, uids.STUDY_ROOT_GET), syntax)
    assert [element.keyword for element in asked] == [
        "SOPInstanceUID",
        "QueryRetrieveLevel",
        "StudyInstanceUID",
        "SeriesInstanceUID",
    ]
    assert asked.SOPInstanceUID == ["1.2.1.1", "1.2.1.23"]
    assert asked.QueryRetrieveLevel == "IMAGE"
    asked = decoded(target.encode(encoding, uids.PATIENT_ROOT_MOVE), syntax)
    assert asked.PatientID == "P1"
    assert asked.SpecificCharacterSet == "ISO_IR 100"


@pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES, Level.IMAGE])
def test_parts_hold_all_and_are_small(level: Level) -> None:
    many = tuple(str(n) for n in range(1, 2 * MAXIMUM_ASKED + 2))
    name = {Level.STUDY: "studies", Level.SERIES: "series", Level.IMAGE: "instances"}[level]
    above = {} if level is Level.STUDY else {"studies": ("1.2",)}
    target = Target(level=level, **above, **{name: many})  # type: ignore[arg-type]
    parts = list(target.parts())
    assert [len(part.uids) for part in parts] == [MAXIMUM_ASKED, MAXIMUM_ASKED, 1]
    assert tuple(uid for part in parts for uid in part.uids) == many
    small = Target(level=Level.STUDY, studies=("1",))
    assert list(small.parts()) == [small]


def test_reading_what_is_there_and_what_is_not() -> None:
    encoding = Encoding()
    made = identifier(Level.SERIES, {SERIES_INSTANCE_UID: "1.2.3", PATIENT_ID: b"P"}, encoding)
    assert read_text(made, SERIES_INSTANCE_UID, encoding) == "1.2.3"
    assert read_text(made, 0x0020_0010, encoding) == ""
