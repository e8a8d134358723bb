"""DICOM Audit Messages: by the schema of PS3.15 §A.5.1, whatever anybody is named."""

import base64
from xml.etree import ElementTree

import attrs
import pytest

from relay.audit.document import AuditSource, moment, to_xml
from relay.audit.events import AuditEvent, Instances, Participant, Query
from relay.audit.happenings import Transfer
from tests.audit.rnc import faults
from tests.audit.samples import CT, HOSTILE, IMPLICIT, SOURCE, STUDY, TRANSFER, alert, kinds


@pytest.mark.parametrize("event", kinds(), ids=lambda event: event.kind.word)
def test_each_kind_is_by_the_schema(event: AuditEvent) -> None:
    assert faults(to_xml(event, SOURCE)) == []


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"<AuditMessage/>", "AuditMessage cannot hold ''"),
        (b"<Other/>", "the root is Other"),
        (b"<AuditMessage x='1'/>", "has an attribute x"),
    ],
)
def test_the_check_finds_what_is_not(document: bytes, words: str) -> None:
    assert any(words in fault for fault in faults(document))


def test_the_check_finds_a_value_that_cannot_be() -> None:
    document = to_xml(kinds()[4], SOURCE)
    assert faults(document.replace(b'EventOutcomeIndicator="0"', b'EventOutcomeIndicator="3"'))
    assert faults(document.replace(b'EventDateTime="', b'EventDateTime="9'))
    assert faults(document.replace(b"<ParticipantObjectName />", b""))


def test_hostile_names_are_text() -> None:
    transfer = Transfer(
        source=Participant(HOSTILE, name=HOSTILE, address=HOSTILE, ae_title=True),
        destination=Participant(HOSTILE, person=True),
        association=HOSTILE,
    )
    events = [
        transfer.ended(HOSTILE, [Instances(HOSTILE, 1, [HOSTILE])], why=HOSTILE),
        transfer.asked(HOSTILE, Query(HOSTILE.encode("utf-8", "surrogatepass"), HOSTILE)),
        alert(HOSTILE),
    ]
    for event in events:
        document = to_xml(event, AuditSource(HOSTILE, HOSTILE))
        root = ElementTree.fromstring(document)
        tags = {element.tag for element in root.iter()}
        assert not tags & {"x", "a"}
        assert "\\u202e" in root.find("ActiveParticipant").get("UserID", "") + document.decode()


def test_an_ae_title_is_told_as_one_and_a_person_with_the_domain() -> None:
    root = ElementTree.fromstring(to_xml(TRANSFER.ended(STUDY, []), SOURCE))
    source, destination = root.findall("ActiveParticipant")
    assert source.get("AlternativeUserID") == "AETITLES=CT_1"
    assert (source.get("NetworkAccessPointID"), source.get("NetworkAccessPointTypeCode")) == (
        "10.0.0.5",
        "2",
    )
    assert destination.get("UserName") == "Klinikum Nord"
    root = ElementTree.fromstring(to_xml(kinds()[10], SOURCE))
    assert root.find("ActiveParticipant").get("UserID") == "anna@RELAY_ST_ANNA"


@pytest.mark.parametrize(
    ("address", "code"),
    [("10.0.0.7", "2"), ("fe80::1%eth0", "2"), ("localhost", "1"), ("ct.hospital.example", "1")],
)
def test_an_address_says_what_it_is(address: str, code: str) -> None:
    transfer = attrs.evolve(TRANSFER, source=Participant("CT_1", address=address))
    root = ElementTree.fromstring(to_xml(transfer.ended(STUDY, []), SOURCE))
    assert root.find("ActiveParticipant").get("NetworkAccessPointTypeCode") == code


def test_a_study_has_its_sop_classes_with_counts() -> None:
    document = to_xml(TRANSFER.ended(STUDY, [Instances(CT, 3, ["1.2.3"])]), SOURCE)
    sop_class = ElementTree.fromstring(document).find(".//SOPClass")
    assert sop_class.attrib == {"UID": CT, "NumberOfInstances": "3"}
    assert [i.get("UID") for i in sop_class] == ["1.2.3"]


def test_a_query_is_its_data_set_and_transfer_syntax_in_base64() -> None:
    document = to_xml(TRANSFER.asked("1.2", Query(b"\x08\0R\0", IMPLICIT)), SOURCE)
    root = ElementTree.fromstring(document)
    assert base64.b64decode(root.findtext(".//ParticipantObjectQuery")) == b"\x08\0R\0"
    detail = root.find(".//ParticipantObjectDetail")
    assert detail.get("type") == "TransferSyntax"
    assert base64.b64decode(detail.get("value")) == IMPLICIT.encode()


def test_a_query_that_does_not_open_is_empty() -> None:
    document = to_xml(TRANSFER.asked("1.2", Query(b"sealed", IMPLICIT, sealed=True)), SOURCE)
    assert ElementTree.fromstring(document).findtext(".//ParticipantObjectQuery") == ""
    assert faults(document) == []


def test_times_are_utc() -> None:
    assert moment(1_764_357_000.25) == "2025-11-28T19:10:00.250000Z"
