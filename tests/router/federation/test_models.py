from typing import Any

import pytest

from relay.router.federation.identifiers import Level, Model, Query, parse
from relay.router.federation.models import NotOfTheModel, by_model, models_of
from relay.router.federation.sources import Description
from tests.router.federation.datasets import EXPLICIT, dataset, decoded, encoded

PATIENT_FIND, STUDY_FIND = Model.PATIENT_ROOT.find, Model.STUDY_ROOT.find


def query(model: Model, level: str, **keys: Any) -> Query:
    return parse(model, encoded(dataset(QueryRetrieveLevel=level, **keys)), EXPLICIT)


def asked(found: Query) -> dict[str, str]:
    """What a device reads."""
    read = decoded(found.for_source(Description(), EXPLICIT))
    return {element.keyword: str(element.value or "") for element in read}


def test_the_caller_s_own_model_comes_first() -> None:
    found = query(Model.STUDY_ROOT, "STUDY", PatientID="7")
    assert models_of(found) == (Model.STUDY_ROOT, Model.PATIENT_ROOT)
    assert by_model(found, STUDY_FIND) is found


def test_a_patient_is_asked_for_among_the_studies() -> None:
    found = query(
        Model.PATIENT_ROOT,
        "PATIENT",
        PatientName="DOE*",
        NumberOfPatientRelatedStudies="",
        StudyDate="20200101",
        Modality="CT",
    )
    mapped = by_model(found, STUDY_FIND)
    assert (mapped.model, mapped.level) == (Model.STUDY_ROOT, Level.STUDY)
    assert asked(mapped) == {
        "SpecificCharacterSet": "",
        "QueryRetrieveLevel": "STUDY",
        "PatientName": "DOE*",
        "PatientID": "",
        "StudyInstanceUID": "",
    }
    assert not found.wanted <= mapped.wanted  # so that its answers say what they lack


@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
def test_below_it_the_levels_are_the_same(level: str) -> None:
    keys = {"PatientID": "7", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
    found = query(Model.PATIENT_ROOT, level, **keys)
    mapped = by_model(found, STUDY_FIND)
    assert (mapped.model, mapped.level) == (Model.STUDY_ROOT, found.level)
    assert asked(mapped) == asked(found)
    assert found.wanted <= mapped.wanted
    back = by_model(mapped, PATIENT_FIND)
    assert (back.model, back.level) == (Model.PATIENT_ROOT, found.level)
    assert asked(back) == asked(found)


def test_of_a_patient_the_patient_root_has_the_id_alone() -> None:
    keys = {"PatientID": "7", "PatientName": "*", "PatientBirthDate": "", "StudyDate": "2020-"}
    found = query(Model.STUDY_ROOT, "STUDY", IssuerOfPatientID="X", **keys)
    mapped = by_model(found, PATIENT_FIND)
    assert asked(mapped) == {
        "SpecificCharacterSet": "",
        "QueryRetrieveLevel": "STUDY",
        "PatientID": "7",
        "StudyInstanceUID": "",
        "StudyDate": "2020-",
    }
    assert not found.wanted <= mapped.wanted


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"StudyDate": "2020-"}, "one Patient ID"),
        ({"PatientID": "7*"}, "one Patient ID"),
        ({"PatientID": ["7", "8"]}, "one Patient ID"),
        ({"PatientID": "7", "PatientName": "DOE*"}, "no other key"),
        ({"PatientID": "7", "PatientSex": "F"}, "no other key"),
    ],
)
def test_what_would_match_more_is_not_asked(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(NotOfTheModel, match=why):
        by_model(query(Model.STUDY_ROOT, "STUDY", **keys), PATIENT_FIND)
