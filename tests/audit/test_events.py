"""Events: what is kept is what was, short and printable."""

import json

import pytest

from relay.audit.codes import IDType, RoleID
from relay.audit.events import (
    MAXIMUM_INSTANCES,
    MAXIMUM_TEXT,
    AuditEvent,
    Instances,
    Participant,
    Query,
    Subject,
    text,
)
from relay.audit.happenings import Transfer
from tests.audit.samples import HOSTILE, TRANSFER, kinds


@pytest.mark.parametrize("event", kinds(), ids=lambda event: event.kind.word)
def test_what_is_encoded_is_decoded(event: AuditEvent) -> None:
    assert AuditEvent.decode(event.encode()) == event


@pytest.mark.parametrize("event", kinds(), ids=lambda event: event.kind.word)
def test_what_is_empty_is_not_kept(event: AuditEvent) -> None:
    def values(plain: object) -> list[object]:
        if isinstance(plain, dict):
            return [v for value in plain.values() for v in values(value)]
        return [v for value in plain for v in values(value)] if isinstance(plain, list) else [plain]

    assert not {"", None, False} & {v for v in values(json.loads(event.encode())) if v != 0}


def test_what_says_nothing_is_decoded_too() -> None:
    nobody = Transfer(source=Participant(""), destination=Participant(""))
    for event in (nobody.ended("", [Instances("", 0, [""])]), nobody.asked("", Query(b""))):
        assert AuditEvent.decode(event.encode()) == event


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"kind":"x"}', b'{"kind":"query"}', b"\xff"])
def test_what_is_no_event_is_not_decoded(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no audit event|Expecting|codec|is none of"):
        AuditEvent.decode(data)


def test_text_is_printable_and_short() -> None:
    shown = text(HOSTILE)
    assert shown.isprintable()
    assert "\\n" in shown
    assert "\\u202e" in shown
    assert "漢" in shown
    shown.encode()  # no lone surrogate
    assert len(text("x" * 10_000)) == len(text("\n" * 10_000)) == MAXIMUM_TEXT


def test_an_entry_names_a_bounded_number_of_instances_and_counts_them_all() -> None:
    of = Instances("1.2", 5000, [f"1.2.{n}" for n in range(5000)])
    assert len(of.uids) == MAXIMUM_INSTANCES
    assert Subject(IDType.STUDY, "1.2.3", [of]).objects == 5000


def test_the_longest_transfer_is_a_message_that_every_collector_takes() -> None:
    from relay.audit.document import AuditSource, to_xml

    of = [Instances("1." * 31 + "1", 10**6, ["1." * 31 + "2"] * 1000) for _ in range(100)]
    event = TRANSFER.ended("1.2", of[:3], why="x" * 10_000)
    assert len(to_xml(event, AuditSource("x" * 10_000))) < 32768  # PS3.15 §A.6


def test_the_parties_are_all_who_took_part() -> None:
    participants = [Participant("CT_1", RoleID.SOURCE), Participant("PACS", RoleID.DESTINATION)]
    event = AuditEvent(kind=kinds()[0].kind, participants=participants)
    assert event.parties == {"CT_1", "PACS"}
    assert event.of_role(RoleID.DESTINATION) == participants[1]
    assert event.of_role(RoleID.LAUNCHER) is None
    assert event.requestor is None
