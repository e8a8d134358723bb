"""The parameters of a search, as the identifier that they become."""

from typing import Any

import pytest

from relay.errors import Refused
from relay.router.dicomweb.keys import MAXIMUM_RESULTS, STUDY_UID, parse, value_of, without
from relay.router.federation.identifiers import Level
from tests.router.federation.datasets import EXPLICIT, decoded


def asked(query: str, level: Level = Level.STUDY, fixed: dict[int, str] | None = None) -> Any:
    return decoded(parse(level, fixed or {}, query).identifier, EXPLICIT)


def test_attributes_are_named_by_keyword_or_tag() -> None:
    found = asked("PatientName=M%C3%BCller*&00100020=7&StudyDate=20200101-20201231")
    assert str(found.PatientName) == "Müller*"
    assert found.PatientID == "7"
    assert found.StudyDate == "20200101-20201231"
    assert found.QueryRetrieveLevel == "STUDY"
    assert found.SpecificCharacterSet == "ISO_IR 192"


def test_what_is_needed_is_asked_for_unasked() -> None:
    found = asked("")
    for keyword in ("StudyInstanceUID", "PatientName", "ModalitiesInStudy", "StudyDescription"):
        assert found[keyword].is_empty
    [item] = asked("", Level.SERIES).RequestAttributesSequence
    assert item["RequestedProcedureID"].is_empty
    assert "Rows" in asked("", Level.IMAGE)


def test_what_the_path_names_counts() -> None:
    found = asked("StudyInstanceUID=1.9", Level.SERIES, {STUDY_UID: "1.2"})
    assert found.StudyInstanceUID == "1.2"


def test_fields_are_included() -> None:
    found = asked("includefield=00081060,OtherPatientIDs&includefield=PatientAge")
    for keyword in ("NameOfPhysiciansReadingStudy", "OtherPatientIDs", "PatientAge"):
        assert found[keyword].is_empty
    assert "PatientSize" not in found
    everything = asked("PatientAge=042Y&includefield=all&includefield=PatientAge")
    assert "PatientSize" in everything
    assert everything.PatientAge == "042Y"  # a value is not taken back


def test_lists_of_uids_have_commas() -> None:
    assert asked("StudyInstanceUID=1.2,1.3").StudyInstanceUID == ["1.2", "1.3"]
    assert asked("StudyInstanceUID=1.2%5C1.3").StudyInstanceUID == ["1.2", "1.3"]


def test_attributes_of_sequences() -> None:
    found = asked("00400275.ScheduledProcedureStepID=S1", Level.SERIES)
    [item] = found.RequestAttributesSequence
    assert item.ScheduledProcedureStepID == "S1"
    assert item["RequestedProcedureID"].is_empty


def test_numbers() -> None:
    assert asked("Rows=512", Level.IMAGE).Rows == 512
    assert asked("InstanceNumber=5", Level.IMAGE).InstanceNumber == 5


def test_pages() -> None:
    search = parse(Level.STUDY, {}, "limit=10&offset=20")
    assert (search.limit, search.offset) == (10, 20)
    assert parse(Level.STUDY, {}, "limit=99999999").limit == MAXIMUM_RESULTS
    assert parse(Level.STUDY, {}, "").limit == MAXIMUM_RESULTS


def test_matching_that_there_is_not_is_named() -> None:
    search = parse(Level.STUDY, {}, "fuzzymatching=true&emptyvaluematching=false")
    assert search.unheeded == ("fuzzymatching",)
    assert parse(Level.STUDY, {}, "fuzzymatching=false").unheeded == ()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("PatientNames=x", "PatientNames: no attribute"),
        ("p%20x=1", "a parameter: no attribute"),
        ("limit=-1", "limit is a whole number"),
        ("offset=a", "offset is a whole number"),
        ("Rows=many", "00280010 is a whole number"),
        ("Rows=70000", "00280010 is a whole number"),
        ("PatientName=%ff", "not in UTF-8"),
        ("=x", "a parameter: no attribute"),
        ("...", "a parameter: no attribute"),
        ("includefield=-0100020", "a parameter: no attribute"),
        ("includefield=0x100020", "0x100020: no attribute"),
        ("includefield=FFFEE00D", "FFFEE00D is nothing"),
        ("includefield=00020010", "00020010 is nothing"),
        ("includefield=00100000", "00100000 is nothing"),
        ("00100020.00100010=x", "00100020 is no sequence"),
        ("00400275." * 1500 + "00400009=1", "more than 8 deep"),
        ("StudyInstanceUID=1.2.*", "0020000D is a UID"),
        ("StudyInstanceUID=M%C3%BCller", "0020000D is a UID"),
        ("StudyInstanceUID=1.2,,1.3", "0020000D is a UID"),
        ("RequestAttributesSequence=1", "is a sequence"),
        ("PixelData=1", "nothing that can be searched by"),
        ("&".join(["PatientID=1"] * 300), "more than 256"),
    ],
)
def test_what_cannot_be_searched_by_is_refused(query: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        parse(Level.STUDY, {}, query)
    assert refused.value.status == 400
    assert "Müller" not in str(refused.value)


def test_a_value_is_found_by_either_name() -> None:
    assert value_of("limit=1&0020000D=1.2", STUDY_UID) == "1.2"
    assert value_of("StudyInstanceUID=1.2", STUDY_UID) == "1.2"
    assert value_of("PatientID=1", STUDY_UID) == ""


def test_parameters_are_left_out_by_either_name() -> None:
    query = "0020000D=1.2&limit=5&StudyInstanceUID=1.3&PatientID=7"
    assert without(query, STUDY_UID) == [("limit", "5"), ("PatientID", "7")]
