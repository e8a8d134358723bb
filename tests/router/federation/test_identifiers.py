from typing import Any

import attrs
import pydicom
import pytest
from pydicom.dataset import Dataset

from relay.router.federation import attributes
from relay.router.federation.identifiers import (
    Answered,
    Level,
    Model,
    NotTheIssuer,
    Query,
    QueryRefused,
    Unrepresentable,
    parse,
    take_answer,
)
from relay.router.federation.sources import Description
from tests.router.federation.datasets import EXPLICIT, IMPLICIT, dataset, decoded, encoded

NOBODY = Description()


def study(**values: Any) -> Query:
    """A query at STUDY level of the Study Root, as it comes from a caller."""
    made = dataset(QueryRetrieveLevel="STUDY", **values)
    return parse(Model.STUDY_ROOT, encoded(made), EXPLICIT)


def asked(query: Query, description: Description = NOBODY, syntax: str = EXPLICIT) -> Dataset:
    """What a device reads."""
    return decoded(query.for_source(description, syntax), syntax)


def answered(
    query: Query, description: Description = NOBODY, syntax: str = EXPLICIT, **values: Any
) -> Answered | None:
    data = encoded(dataset(**values), syntax)
    return take_answer(query, data, syntax, "PACS_B", description, "FEDERATION")


def test_models_and_levels() -> None:
    assert Model.of("1.2.840.10008.5.1.4.1.2.2.1") is Model.STUDY_ROOT
    assert Model.of(Model.PATIENT_ROOT.get) is Model.PATIENT_ROOT
    assert Model.of(Model.PATIENT_ROOT.move) is Model.PATIENT_ROOT
    assert Model.of("1.2.840.10008.1.1") is None
    assert Model.STUDY_ROOT.down_to(Level.SERIES) == (Level.STUDY, Level.SERIES)
    assert Model.PATIENT_ROOT.down_to(Level.PATIENT) == (Level.PATIENT,)


# --- parse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_reads_a_query(syntax: str) -> None:
    made = dataset(
        SpecificCharacterSet="ISO_IR 100",
        QueryRetrieveLevel="STUDY ",
        RetrieveAETitle="",
        PatientName="Müller*",
        StudyDate="20260101-",
        StudyInstanceUID="",
        ReferencedStudySequence=[dataset(ReferencedSOPInstanceUID="1.2")],
        NumberOfStudyRelatedInstances="",
    )
    query = parse(Model.STUDY_ROOT, encoded(made, syntax), syntax)
    assert query.level is Level.STUDY
    assert query.keys.PatientName == "Müller*"
    assert query.value(0x0008_0020) == "20260101-"
    assert query.keys.ReferencedStudySequence[0].ReferencedSOPInstanceUID == "1.2"
    assert query.wanted == {0x00100010, 0x00080020, 0x0020000D, 0x00081110, 0x00201208}
    assert "Müller" not in repr(query)


REFUSED = {
    "no level": ({"PatientID": "7"}, Model.STUDY_ROOT, 0xA900),
    "empty level": ({"QueryRetrieveLevel": ""}, Model.STUDY_ROOT, 0xA900),
    "not of the model": ({"QueryRetrieveLevel": "PATIENT"}, Model.STUDY_ROOT, 0xA900),
    "no level of DICOM": ({"QueryRetrieveLevel": "Study"}, Model.STUDY_ROOT, 0xA900),
    "no study": ({"QueryRetrieveLevel": "SERIES"}, Model.STUDY_ROOT, 0xA900),
    "empty study": (
        {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": ""},
        Model.STUDY_ROOT,
        0xA900,
    ),
    "two studies": (
        {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": ["1.2", "1.3"]},
        Model.STUDY_ROOT,
        0xA900,
    ),
    "some patients": (
        {"QueryRetrieveLevel": "STUDY", "PatientID": "7*"},
        Model.PATIENT_ROOT,
        0xA900,
    ),
    "no series": (
        {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": "1.2"},
        Model.STUDY_ROOT,
        0xA900,
    ),
    "too many": (
        {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": [f"1.{n}" for n in range(1001)]},
        Model.STUDY_ROOT,
        0xA900,
    ),
    "characters": (
        {"QueryRetrieveLevel": "STUDY", "SpecificCharacterSet": "KLINGON", "PatientName": "é"},
        Model.STUDY_ROOT,
        0xC000,
    ),
}


@pytest.mark.filterwarnings("ignore:Unknown encoding")
@pytest.mark.parametrize(("values", "model", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(values: dict[str, Any], model: Model, status: int) -> None:
    with pytest.raises(QueryRefused) as caught:
        parse(model, encoded(dataset(**values)), EXPLICIT)
    assert caught.value.status == status
    assert caught.value.comment.isascii()
    assert 0 < len(caught.value.comment) <= 64


def test_refuses_what_cannot_be_read() -> None:
    data = encoded(dataset(QueryRetrieveLevel="STUDY", PatientID="7"))
    for broken in (data[:-1], b"\0" * 20, data[:-2] + b"\x1b\xff"):
        with pytest.raises(QueryRefused) as caught:
            parse(
                Model.STUDY_ROOT,
                encoded(dataset(SpecificCharacterSet="ISO_IR 192")) + broken,
                EXPLICIT,
            )
        assert caught.value.status == 0xC000


def test_refuses_a_number_of_half_its_bytes() -> None:
    study = (b"CS", b"STUDY ")
    data = attributes.write({0x0008_0052: study, 0x0020_9057: (b"UL", b"\1\0")}, EXPLICIT)
    with pytest.raises(QueryRefused) as caught:
        parse(Model.STUDY_ROOT, data, EXPLICIT)
    assert caught.value.status == 0xC000


def test_takes_a_list_of_a_thousand_studies() -> None:
    query = study(StudyInstanceUID=[f"1.{n}" for n in range(1000)])
    assert len(asked(query).StudyInstanceUID) == 1000


def test_takes_a_query_of_the_patient_root() -> None:
    made = dataset(QueryRetrieveLevel="SERIES", PatientID="7", StudyInstanceUID="1.2")
    query = parse(Model.PATIENT_ROOT, encoded(made), EXPLICIT)
    sent = asked(query)
    assert (sent.PatientID, sent.StudyInstanceUID, sent.SeriesInstanceUID) == ("7", "1.2", "")


NARROW = [
    ({"PatientID": "7"}, True),
    ({"PatientName": "DOE*"}, True),
    ({"PatientName": "*"}, False),
    ({"PatientName": "**", "PatientID": "?*", "StudyInstanceUID": ""}, False),
    ({"PatientName": "*^*"}, False),
    ({"StudyDate": "20260101-"}, True),
    ({"StudyDate": "-"}, False),
    ({"ModalitiesInStudy": "CT"}, True),
    ({"Modality": "CT"}, False),  # of a level below
    ({"SOPInstanceUID": "1.2"}, False),
    ({"InstanceAvailability": "ONLINE"}, False),
    ({"SpecificCharacterSet": "ISO_IR 100", "RetrieveAETitle": "PACS"}, False),
    ({"ReferencedStudySequence": [dataset(ReferencedSOPInstanceUID="1.2")]}, True),
    ({"ReferencedStudySequence": [dataset(ReferencedSOPInstanceUID="")]}, False),
    ({"StudyInstanceUID": ["1.2", "1.3"]}, True),
    ({}, False),
]


@pytest.mark.parametrize(("values", "narrow"), NARROW)
def test_what_narrows(values: dict[str, Any], narrow: bool) -> None:
    assert study(**values).narrows is narrow


def test_a_series_query_names_its_study_and_so_is_narrow() -> None:
    made = dataset(QueryRetrieveLevel="SERIES", StudyInstanceUID="1.2", Modality="")
    assert parse(Model.STUDY_ROOT, encoded(made), EXPLICIT).narrows


def test_queries_of_a_kind_narrow_by_the_same_keys_at_the_same_level() -> None:
    week = study(StudyDate="20261120-20261127", PatientID="", ModalitiesInStudy="")
    assert week.kind == study(StudyDate="20261129", StudyDescription="*").kind
    assert week.kind != study(StudyDate="20261129", PatientID="7").kind
    assert week.kind != study(PatientID="7").kind
    one = dataset(QueryRetrieveLevel="SERIES", StudyInstanceUID="1.2")
    assert (
        study(StudyInstanceUID="1.2").kind != parse(Model.STUDY_ROOT, encoded(one), EXPLICIT).kind
    )


# --- for a device ---------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_asks_for_what_must_be_known(syntax: str) -> None:
    sent = asked(
        study(PatientID="7", NumberOfStudyRelatedSeries="", RetrieveAETitle="X"), NOBODY, syntax
    )
    assert sent.QueryRetrieveLevel == "STUDY"
    assert sent.PatientID == "7"
    assert sent.StudyInstanceUID == ""
    assert "SpecificCharacterSet" in sent
    assert "NumberOfStudyRelatedSeries" in sent
    for left_out in ("RetrieveAETitle", "ModalitiesInStudy", "IssuerOfPatientID"):
        assert left_out not in sent


# A caller's, a device's, a name that both have.
CONVERSIONS = [
    ("ISO_IR 100", "ISO_IR 192", "Müller*"),
    ("ISO_IR 192", "ISO_IR 100", "Müller*"),
    ("ISO_IR 192", "\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎"),
    ("\\ISO 2022 IR 87", "ISO_IR 192", "Yamada^Tarou=山田^太郎"),
    ("ISO_IR 192", "GB18030", "Wang^XiaoDong=王^小东"),
    ("GB18030", "ISO_IR 192", "Wang^XiaoDong=王^小东"),
    ("", "ISO_IR 192", "DOE*"),
]


@pytest.mark.parametrize(("own", "theirs", "name"), CONVERSIONS)
def test_converts_keys_to_a_device_s_character_set(own: str, theirs: str, name: str) -> None:
    query = study(
        SpecificCharacterSet=own.split("\\"),
        PatientName=name,
        RequestAttributesSequence=[dataset(RequestedProcedureDescription=name)],
    )
    sent = asked(query, Description(character_set=theirs))
    assert sent.PatientName == name
    assert sent.RequestAttributesSequence[0].RequestedProcedureDescription == name
    said = sent.SpecificCharacterSet
    assert (said if isinstance(said, str) else "\\".join(said)) == theirs


@pytest.mark.parametrize("theirs", ["ISO_IR 100", "ISO_IR 144", "\\ISO 2022 IR 100"])
def test_a_device_without_the_characters_cannot_be_asked(theirs: str) -> None:
    query = study(SpecificCharacterSet="ISO_IR 192", PatientName="やまだ*")
    with pytest.raises(Unrepresentable) as caught:
        query.for_source(Description(character_set=theirs), EXPLICIT)
    assert "やまだ" not in str(caught.value)


def test_a_device_that_declares_nothing_gets_the_caller_s_own_bytes() -> None:
    japanese = dataset(
        SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎"
    )
    japanese.QueryRetrieveLevel = "STUDY"
    japanese.StudyInstanceUID = ""
    data = encoded(japanese)
    assert parse(Model.STUDY_ROOT, data, EXPLICIT).for_source(NOBODY, EXPLICIT) == data


def test_text_without_a_character_set_goes_on_as_it_came() -> None:
    """Devices that leave (0008,0005) out mean Latin-1, as a rule."""
    plain = encoded(dataset(QueryRetrieveLevel="STUDY", PatientName="Mxller*"))
    query = parse(Model.STUDY_ROOT, plain.replace(b"Mx", b"M\xfc"), EXPLICIT)
    assert b"M\xfcller*" in query.for_source(NOBODY, EXPLICIT)
    assert asked(query, Description(character_set="ISO_IR 192")).PatientName == "Müller*"


def test_values_of_every_kind_arrive() -> None:
    made = dataset(
        QueryRetrieveLevel="STUDY",
        StudyInstanceUID=["1.2", "1.3"],
        StudyDate="20260101-20260131",
        StudyTime="",
        ModalitiesInStudy=["CT", "MR"],
        PatientSize="1.50",
        Rows=512,
        FrameIncrementPointer=0x00181063,
        StudyComments="a\\b",
        PatientComments="",
        ReferencedStudySequence=[],
    )
    made.add_new(0x0009_0010, "LO", "ACME")
    made.add_new(0x0009_1001, "UN", b"\1\2")
    sent = asked(parse(Model.STUDY_ROOT, encoded(made), EXPLICIT))
    for element in made:
        if element.keyword != "PatientComments":
            assert sent[element.tag].value == element.value, element.tag


def test_pydicom_does_not_argue_about_what_is_legal_in_a_query(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = pydicom.config.settings.reading_validation_mode
    data = encoded(dataset(QueryRetrieveLevel="STUDY", StudyDate="-20260101"))
    query = parse(Model.STUDY_ROOT, data + b"\x20\0\x11\0IS\2\0* ", EXPLICIT)
    assert query.value(0x0020_0011) == "*"
    assert b"IS\2\0* " in query.for_source(NOBODY, EXPLICIT)
    assert not caplog.records
    assert pydicom.config.settings.reading_validation_mode == before


# --- issuers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("issuer", ["", "B"])
def test_a_device_is_not_asked_for_another_issuer_s_patients(issuer: str) -> None:
    with pytest.raises(NotTheIssuer):
        study(PatientID="7", IssuerOfPatientID="A").for_source(Description(issuer), EXPLICIT)


@pytest.mark.parametrize("key", ["A", "A\\B", "*", "?", ""])
def test_a_device_of_the_issuer_is_asked_for_it(key: str) -> None:
    query = study(PatientID="7", IssuerOfPatientID=key.split("\\"))
    assert asked(query, Description("A")).IssuerOfPatientID in ("", "*", None)


def test_the_issuer_is_filled_in_where_it_is_asked_for() -> None:
    query = study(PatientID="7", IssuerOfPatientID="")
    for said in ({}, {"IssuerOfPatientID": ""}):
        found = answered(query, Description("A"), StudyInstanceUID="1.2", **said)
        assert found is not None
        assert decoded(found.encoded).IssuerOfPatientID == "A"
    found = answered(query, Description("A"), StudyInstanceUID="1.2", IssuerOfPatientID="C")
    assert found is not None
    assert decoded(found.encoded).IssuerOfPatientID == "C"
    found = answered(study(), Description("A"), StudyInstanceUID="1.2", IssuerOfPatientID="C")
    assert found is not None
    assert "IssuerOfPatientID" not in decoded(found.encoded)


def test_a_patient_of_another_issuer_is_no_answer() -> None:
    query = study(PatientID="7", IssuerOfPatientID="A")
    assert answered(query, Description("A"), StudyInstanceUID="1", IssuerOfPatientID="C") is None
    assert answered(query, Description("A"), StudyInstanceUID="1") is not None


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_an_answer_has_what_was_asked_for_and_who_retrieves(syntax: str) -> None:
    query = study(PatientName="", PatientID="", StudyInstanceUID="")
    passed_on = {
        "SpecificCharacterSet": "ISO_IR 100",
        "QueryRetrieveLevel": "STUDY",
        "PatientName": "Müller",
        "PatientID": "7",
        "StudyInstanceUID": "1.2",
    }
    others = {"RetrieveAETitle": "PACS_B", "PatientSex": "F", "NumberOfStudyRelatedInstances": "3"}
    for asked_in in (EXPLICIT, IMPLICIT):
        found = answered(
            attrs.evolve(query, syntax=asked_in), NOBODY, syntax, **passed_on, **others
        )
        assert found is not None
        assert found.key == ("1.2",)
        expected = dataset(RetrieveAETitle="FEDERATION", **passed_on)
        assert decoded(found.encoded, asked_in) == expected
        assert "Müller" not in repr(found)
        assert "1.2" not in repr(found)


def test_the_unique_key_tells_them_apart_even_where_it_was_not_asked_for() -> None:
    found = answered(study(PatientID=""), PatientID="7", StudyInstanceUID="1.2")
    assert found is not None
    assert found.key == ("1.2",)
    assert "StudyInstanceUID" not in decoded(found.encoded)


LACKING: list[dict[str, Any]] = [{"PatientID": "7"}, {"StudyInstanceUID": ""}]


@pytest.mark.parametrize("values", LACKING)
def test_an_answer_without_its_unique_key_is_none(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="lacks the unique key"):
        answered(study(PatientID=""), **values)


def patient(issuer: str, source: str, **values: Any) -> tuple[str, ...]:
    """The key of a patient."""
    asked_for = dataset(QueryRetrieveLevel="PATIENT", PatientID="", PatientName="A*")
    query = parse(Model.PATIENT_ROOT, encoded(asked_for), EXPLICIT)
    data = encoded(dataset(**values))
    found = take_answer(query, data, EXPLICIT, source, Description(issuer), "FEDERATION")
    assert found is not None
    return found.key


@pytest.mark.parametrize("longest", ["PatientID", "IssuerOfPatientID"])
def test_what_is_no_id_is_kept_nowhere(longest: str) -> None:
    """Keys are remembered for an hour, whether or not the caller asks for them."""
    values = {"PatientID": "7", "IssuerOfPatientID": "H"} | {longest: "7" * 1000}
    with pytest.raises(ValueError, match="too long"):
        patient("", "ONE", **values)


def test_patients_are_the_same_only_under_the_same_issuer() -> None:
    assert patient("A", "ONE", PatientID="7") == patient("A", "TWO", PatientID="7 ")
    assert patient("A", "ONE", PatientID="7") != patient("B", "TWO", PatientID="7")
    assert patient("", "ONE", PatientID="7") != patient("", "TWO", PatientID="7")
    assert patient("", "ONE", PatientID="7") != patient("ONE", "TWO", PatientID="7")
    assert patient("A", "ONE", PatientID="7") != patient("A", "ONE", PatientID="8")


def test_what_a_device_says_itself_of_the_issuer_counts() -> None:
    said = {"PatientID": "7", "IssuerOfPatientID": "B"}
    assert patient("A", "ONE", **said) == patient("B", "TWO", PatientID="7")


def test_an_identity_is_text_whatever_it_is_written_in() -> None:
    latin = patient("A", "ONE", SpecificCharacterSet="ISO_IR 100", PatientID="ä7")
    unicode = patient("A", "TWO", SpecificCharacterSet="ISO_IR 192", PatientID="ä7")
    assert latin == unicode
