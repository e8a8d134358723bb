import pytest
from pydicom.dataset import Dataset

from relay.cli import identifier
from relay.errors import RelayError


def test_keys_with_values_bring_the_levels_usual_ones() -> None:
    query = identifier.build(["PatientID=123*", "StudyDate=20260101-"], "STUDY")
    assert query.QueryRetrieveLevel == "STUDY"
    assert (query.PatientID, query.StudyDate) == ("123*", "20260101-")
    assert query.StudyInstanceUID == ""
    assert "SpecificCharacterSet" not in query


def test_a_key_alone_is_asked_for_and_nothing_else() -> None:
    query = identifier.build(["StudyInstanceUID=1.2.3", "ModalitiesInStudy"], "STUDY")
    assert identifier.keywords(query) == ["ModalitiesInStudy", "StudyInstanceUID"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("PatientID", True),
        ("PatientID=1", True),
        ("NOTHING=1", True),
        ("ScheduledProcedureStepSequence.Modality", True),
        ("SOUTH_PACS", False),
        ("A.B", False),
    ],
)
def test_a_key_is_told_from_an_ae_title(word: str, expected: bool) -> None:
    assert identifier.is_key(word) is expected


def test_a_value_may_hold_an_equals_sign_and_wildcards_anywhere() -> None:
    query = identifier.build(["PatientName==DOE^*", "InstanceNumber=", "StudyID=?"], "IMAGE")
    assert query.PatientName == "=DOE^*"


def test_what_is_not_ascii_says_its_character_set() -> None:
    query = identifier.build(["PatientName=MÜLLER*"], "STUDY")
    assert query.SpecificCharacterSet == "ISO_IR 192"
    data = identifier.encode(query, implicit=True)
    assert "MÜLLER*".encode() in data


def test_a_worklist_is_asked_inside_its_sequence() -> None:
    query = identifier.build(["ScheduledProcedureStepSequence.Modality=CT"], None)
    assert "QueryRetrieveLevel" not in query
    (item,) = query.ScheduledProcedureStepSequence
    assert item.Modality == "CT"
    assert item.ScheduledProcedureStepStartDate == ""
    assert "ScheduledProcedureStepSequence.Modality" in identifier.keywords(query)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("PatientIdentity=1", "PatientIdentity is no DICOM keyword"),
        ("=1", "no DICOM keyword"),
        ("PatientID.Modality=1", "PatientID is not a sequence"),
        ("ScheduledProcedureStepSequence=1", "name an element in it"),
        ("ScheduledProcedureStepSequence.Nothing=1", "Nothing is no DICOM keyword"),
    ],
)
def test_a_wrong_key_is_said_in_words(key: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        identifier.build([key], None)


@pytest.mark.parametrize("implicit", [True, False])
def test_what_is_encoded_is_decoded(implicit: bool) -> None:
    query = identifier.build(["PatientName=DOE^*", "NumberOfStudyRelatedInstances"], "STUDY")
    data = identifier.encode(query, implicit=implicit)
    answer = identifier.decode(data, implicit=implicit)
    assert answer.PatientName == "DOE^*"
    assert identifier.encode(answer, implicit=implicit) == data


def test_an_answer_that_cannot_be_read_is_an_error_without_its_content() -> None:
    with pytest.raises(RelayError, match="an answer cannot be read") as caught:
        identifier.decode(b"\x08\x00\x52\x00XX\x08\x00DOE^JANE", implicit=False)
    assert "DOE" not in str(caught.value)


def test_values_are_shown_for_people() -> None:
    answer = Dataset()
    answer.PatientName = "DOE^JANE"
    answer.ModalitiesInStudy = ["CT", "MR"]
    inner = Dataset()
    inner.Modality = "CT"
    answer.ScheduledProcedureStepSequence = [inner, Dataset()]
    assert identifier.value(answer, "PatientName") == "DOE^JANE"
    assert identifier.value(answer, "ModalitiesInStudy") == "CT, MR"
    assert identifier.value(answer, "ScheduledProcedureStepSequence.Modality") == "CT"
    assert identifier.value(answer, "StudyDate") == ""
