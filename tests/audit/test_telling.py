"""Entries for people: a sentence each, JSON by its schema, and CSV that is nobody's formula."""

import csv
import io
import re

import pytest

from relay.audit.codes import EventType, IDType
from relay.audit.entries import Entry
from relay.audit.events import AuditEvent, Instances, Participant
from relay.audit.happenings import Transfer, alert, sign_in
from relay.audit.telling import COLUMNS, to_csv, to_json, words
from tests.audit.samples import CT, HOSTILE, STUDY, TRANSFER, kinds

HASH = bytes(32)


def entry(event: AuditEvent, number: int = 1) -> Entry:
    return Entry(number, event.encode(), HASH)


def test_each_kind_has_its_sentence() -> None:
    assert [words(event) for event in kinds()] == [
        "Relay starts",
        "Relay stops",
        "CT_1 begins to send to PACS_NORD",
        "CT_1 begins to send to PACS_NORD",
        "CT_1 has sent 120 objects to PACS_NORD",
        "2 objects from CT_1 not taken by PACS_NORD",
        "CT_1 asks PACS_NORD",
        "CT_1 asks PACS_NORD, and is refused",
        "CT_1 asks PACS_NORD",
        "CT_2 is no device of this Router",
        "anna signs in",
        "anna does not get in",
        "anna does not get in",
        "anna signs out",
    ]


def test_what_goes_further_says_where() -> None:
    transfer = Transfer(source=TRANSFER.source, destination=Participant("RELAY"), final="PACS_NORD")
    event = transfer.ended(STUDY, [Instances(CT, 1)])
    assert words(event) == "CT_1 has sent 1 object to RELAY, for PACS_NORD"


@pytest.mark.parametrize("event", kinds(), ids=lambda event: event.kind.word)
def test_a_viewer_is_shown_no_study(event: AuditEvent) -> None:
    shown = to_json(entry(event), event, studies=False)
    assert STUDY not in str(shown)
    assert "1.2.3.4" not in str(shown)
    assert shown["studies"] == []


def test_an_operator_is_shown_studies_and_instances() -> None:
    event = TRANSFER.ended(STUDY, [Instances(CT, 3, ["1.2.3"])])
    shown = to_json(entry(event), event, studies=True)
    assert shown["studies"] == [
        {"study": STUDY, "instances": [{"sop_class": CT, "count": 3, "uids": ["1.2.3"]}]}
    ]
    assert (shown["objects"], shown["association"], shown["source"]) == (3, "a1b2c3", "CT_1")


def test_csv_has_a_line_for_each_entry() -> None:
    rows = [(entry(event, n), event) for n, event in enumerate(kinds(), start=1)]
    text = to_csv(rows, header=True)
    read = list(csv.DictReader(io.StringIO(text)))
    assert tuple(read[0]) == COLUMNS
    assert [int(row["number"]) for row in read] == [*range(1, len(kinds()) + 1)]
    assert read[4]["studies"] == STUDY
    assert read[4]["time"].endswith("Z")
    assert to_csv(rows, header=False) == text.partition("\r\n")[2]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", HOSTILE, '"', ",", "'"])
def test_csv_is_nobodys_formula(name: str) -> None:
    transfer = Transfer(source=Participant(name), destination=Participant(name))
    event = transfer.ended(name, [Instances(CT, 1)], why=name)
    text = to_csv([(entry(event), event)], header=False)
    (line,) = csv.reader(io.StringIO(text))
    assert len(line) == len(COLUMNS)
    assert not [cell for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["a;=cmd|' /C calc'!A0;", "; @x", ";;-1", "\uff1d1+1", "a; \uff0b1"]
)
def test_a_cell_that_a_semicolon_begins_is_no_formula_either(name: str) -> None:
    text = to_csv(
        [(entry(event), event) for event in [sign_in(name, "a", refused=name)]], header=False
    )
    cells = [cell.strip(' "') for cell in re.split(r"[;,]", text)]
    assert name[-2:] in text
    assert not [cell for cell in cells if cell[:1] in {*"=+-@", "\uff1d", "\uff0b"}]


def test_a_call_that_is_refused_says_who_called_whom_from_where() -> None:
    caller = Participant("CT_2", address="10.0.0.9", ae_title=True)
    event = alert(
        EventType.NODE_AUTHENTICATION,
        Participant("RELAY", ae_title=True),
        "CT_2 may not call PACS",
        subject="PACS",
        performers=[caller],
    )
    shown = to_json(entry(event), event, studies=False)
    assert (shown["requestor"], shown["source"], shown["destination"]) == ("CT_2", "CT_2", "PACS")
    assert shown["participants"][1]["address"] == "10.0.0.9"


def test_a_viewer_is_shown_no_study_of_a_request_by_dicomweb_that_is_refused() -> None:
    event = alert(
        EventType.NODE_AUTHENTICATION,
        Participant("RELAY", ae_title=True),
        "a request of DICOMweb is refused",
        subject=f"/studies/{STUDY}/metadata",
        subject_type=IDType.URI,
        performers=[Participant("10.0.0.9", address="10.0.0.9")],
    )
    shown = to_json(entry(event), event, studies=False)
    assert STUDY not in str(shown)
    assert (shown["source"], shown["destination"]) == ("10.0.0.9", None)


def test_who_joined_has_caused_it_and_called_nobody() -> None:
    router = Participant("abcd-efgh", name="North Hospital")
    bridge = Participant("relay.example.org")
    type_ = EventType.SECURITY_CONFIGURATION
    event = alert(type_, bridge, "it has joined", subject=router.id, performers=[router])
    shown = to_json(entry(event), event, studies=False)
    assert (shown["requestor"], shown["source"], shown["destination"]) == (router.id, None, None)


def test_what_nobody_has_called_is_from_nowhere() -> None:
    reporter = Participant("relay.example.org")
    for type in (EventType.NODE_AUTHENTICATION, EventType.SECURITY_CONFIGURATION):
        event = alert(type, reporter, "something", subject="relay.example.org")
        shown = to_json(entry(event), event, studies=False)
        assert (shown["requestor"], shown["source"], shown["destination"]) == (None, None, None)
