"""What the Router tells its audit: of associations, retrieves, searches and refusals."""

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from relay.audit.codes import IDType, Kind, Outcome, RoleID
from relay.audit.events import AuditEvent, Participant
from relay.audit.happenings import UNKNOWN, Transfer
from relay.audit.telling import detail, words
from relay.dicom.elements import Encoding
from relay.dicom.rejection import (
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    TEMPORARY_CONGESTION,
    rejected,
)
from relay.errors import AssociationRejected, HandshakeError, Refusal, RelayError
from relay.router.auditing import MAXIMUM_STUDIES, Auditing, Queries, keys_alone
from relay.router.live import LiveAssociation, LiveRegister, Side, Work
from relay.router.passthrough import Ending, How
from relay.router.witness import Asked

CT = "1.2.840.10008.5.1.4.1.1.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT = "1.2.840.10008.1.2.1"
PEER = "abcd-efgh"


class Told:
    """The events of an Auditing."""

    def __init__(self, queries: Queries = Queries.KEYS) -> None:
        self.events: list[AuditEvent] = []
        self.auditing = Auditing(
            ae_title="RELAY_A",
            record=self.events.append,
            queries=queries,
            host_of=lambda title: {"CT_1": "10.0.0.5", "PACS": "10.0.0.6"}.get(title, ""),
            hospital_of=lambda peer: "Klinikum Nord" if peer == PEER else "",
        )
        self.register = LiveRegister(8)
        self.register.on_begun = self.auditing.begun

    def entry(self, side: Side = Side.CALLER, work: Work = Work.RELAYED) -> LiveAssociation:
        own = side is Side.CALLER
        return LiveAssociation(
            number="a1b2c3",
            side=side,
            device="CT_1" if own else "PACS",
            calling="CT_1" if own else "CT_9",
            called="PACS_N" if own else "PACS",
            peer=PEER,
            still_permitted=lambda: True,
            work=work,
        )


@pytest.fixture
def told() -> Told:
    return Told()


def people(event: AuditEvent) -> list[tuple[str, str, str, RoleID | None]]:
    return [(p.id, p.name, p.address, p.role) for p in event.participants]


async def test_what_a_device_sends_goes_from_it_to_the_other_hospital(told: Told) -> None:
    entry = told.entry()
    with told.register.hold(entry):
        entry.witness.over("", CT, "1.2.3")
    began, over = told.events
    assert (began.kind, over.kind) == (Kind.BEGIN, Kind.TRANSFER)
    assert people(over) == [
        ("CT_1", "", "10.0.0.5", RoleID.SOURCE),
        ("PACS_N", "Klinikum Nord", "", RoleID.DESTINATION),
        (PEER, "Klinikum Nord", "", None),
    ]
    assert over.subjects[0].id == UNKNOWN
    assert over.subjects[0].instances[0].uids == ("1.2.3",)


async def test_what_comes_in_goes_to_the_device_here(told: Told) -> None:
    entry = told.entry(Side.CALLEE)
    with told.register.hold(entry):
        entry.witness.over("", CT, "1.2.3")
    assert people(told.events[-1])[:2] == [
        ("CT_9", "Klinikum Nord", "", RoleID.SOURCE),
        ("PACS", "", "10.0.0.6", RoleID.DESTINATION),
    ]


async def test_the_objects_of_a_c_get_go_to_who_asked(told: Told) -> None:
    entry = told.entry()
    with told.register.hold(entry):
        entry.witness.over("", CT, "1.2.3", inward=True)
    source, destination, _ = told.events[-1].participants
    assert (source.id, destination.id) == ("PACS_N", "CT_1")
    assert destination.requestor


async def test_what_is_queued_goes_to_this_router_first(told: Told) -> None:
    taken = told.entry(work=Work.QUEUED)
    with told.register.hold(taken):
        taken.witness.over("1.9", CT, "1.2.3")
    delivered = told.entry(work=Work.DELIVERY)
    with told.register.hold(delivered):
        delivered.witness.over("1.9", CT, "1.2.3")
    _, first, _, second = told.events
    assert words(first) == "CT_1 has sent 1 object to RELAY_A, for PACS_N"
    assert words(second) == "RELAY_A has sent 1 object to PACS_N"
    assert "CT_1" in second.parties
    assert [e.subjects[0].id for e in (first, second)] == ["1.9", "1.9"]


async def test_what_succeeded_and_what_failed_are_two_events_for_each_study(told: Told) -> None:
    entry = told.entry()
    with told.register.hold(entry):
        for study, why in (("1.1", ""), ("1.2", ""), ("1.1", "A700H"), ("1.1", "C000H")):
            entry.witness.over(study, CT, "1.2.3", why)
    over = [event for event in told.events if event.kind is Kind.TRANSFER]
    assert [(e.subjects[0].id, e.outcome, e.subjects[0].objects, e.why) for e in over] == [
        ("1.1", Outcome.SUCCESS, 1, ""),
        ("1.1", Outcome.MINOR_FAILURE, 2, "A700H"),
        ("1.2", Outcome.SUCCESS, 1, ""),
    ]


async def test_an_association_without_objects_or_refusals_is_none(told: Told) -> None:
    for work in Work:
        with told.register.hold(told.entry(work=work)):
            pass
    assert told.events == []


async def test_what_two_routers_ask_each_other_is_no_event(told: Told) -> None:
    entry = told.entry(work=Work.KNOWLEDGE)
    with told.register.hold(entry):
        entry.witness.over("", CT, "1.2.3")
    assert told.events == []


async def test_what_is_refused_in_it_is_one_alert(told: Told) -> None:
    entry = told.entry(Side.CALLEE)
    with told.register.hold(entry):
        entry.witness.denied = 40
    (event,) = told.events
    assert words(event) == "40 requests refused in association a1b2c3"
    assert {"CT_9", "PACS"} <= event.parties


@pytest.mark.parametrize(("numbers", "alerts"), [((1, 1, 3), 1), ((2, 3, 1), 0), ((), 0)])
async def test_one_that_is_not_let_in_for_good_is_an_alert(
    told: Told, numbers: tuple[int, ...], alerts: int
) -> None:
    entry = told.entry()
    with told.register.hold(entry):
        entry.ending = Ending(How.REJECTED, "acceptor", "nothing is granted", numbers)
    assert len(told.events) == alerts
    for event in told.events:
        assert words(event) == "CT_1 is not let in by PACS_N"
        assert event.why == "nothing is granted"


async def test_one_that_is_taken_away_is_an_alert(told: Told) -> None:
    entry = told.entry()
    entry.still_permitted = lambda: False
    with told.register.hold(entry):
        pass
    (event,) = told.events
    assert words(event) == "association a1b2c3 ended: it is no longer permitted"


async def test_a_retrieve_tells_how_many_and_of_which_studies(told: Told) -> None:
    entry = told.entry(work=Work.FEDERATION)
    told.auditing.retrieved(entry, "", ["1.1"], stored=7, failed=2, why="PACS_B is slow")
    stored, failed = told.events
    assert people(stored)[:2] == [
        ("PACS_N", "Klinikum Nord", "", RoleID.SOURCE),
        ("CT_1", "", "10.0.0.5", RoleID.DESTINATION),
    ]
    assert (stored.subjects[0].id, stored.subjects[0].objects) == ("1.1", 7)
    assert (failed.why, failed.subjects[0].objects) == ("PACS_B is slow", 2)
    told.events.clear()
    told.auditing.retrieved(entry, "WS", [], stored=7, failed=0, why="")
    (moved,) = told.events
    assert [p.id for p in moved.participants] == ["PACS_N", "WS", "CT_1"]
    told.events.clear()
    many = [f"1.{n}" for n in range(500)]
    told.auditing.retrieved(entry, "", many, stored=7, failed=0, why="")
    assert [e.subjects[0].id for e in told.events] == many[:MAXIMUM_STUDIES]


def test_refusals_are_alerts_unless_they_pass_by_themselves(told: Told) -> None:
    told.auditing.refused("CT_2", "PACS", "10.9.9.9", rejected(TEMPORARY_CONGESTION, "later"))
    told.auditing.refused_opening(PEER, HandshakeError("busy", Refusal.BUSY))
    assert told.events == []
    told.auditing.refused(
        "CT_2", "PACS", "10.9.9.9", rejected(CALLING_AE_TITLE_NOT_RECOGNIZED, "no device")
    )
    told.auditing.refused_opening(PEER, HandshakeError("seen before", Refusal.REPLAY))
    told.auditing.refused_opening("zzzz", HandshakeError("who?", Refusal.UNTRUSTED_PEER))
    told.auditing.refused_move("CT_1", "PACS", "WS", "not published")
    told.auditing.refused_token("10.9.9.9", "/aets/PACS/rs/studies", "no token")
    assert [(words(event), event.why) for event in told.events] == [
        ("CT_2 may not call PACS", "no device"),
        ("a call of Klinikum Nord is refused", "seen before"),
        ("a call of another Router is refused", "who?"),
        ("CT_1 may not have PACS send to WS", "not published"),
        ("a request of DICOMweb is refused", "no token"),
    ]
    assert told.events[0].participants[1].address == "10.9.9.9"


async def test_nothing_begins_while_the_audit_is_full(told: Told) -> None:
    await told.auditing.admit()

    async def full() -> None:
        raise RelayError("the audit cannot be written")

    told.auditing.room = full
    with pytest.raises(AssociationRejected, match="audit cannot be written") as caught:
        await told.auditing.admit()
    assert caught.value.result == TEMPORARY_CONGESTION.result


# --- queries --------------------------------------------------------------------------------------


def encoded(encoding: Encoding = Encoding()) -> bytes:  # noqa: B008 (frozen)
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 100"
    data_set.QueryRetrieveLevel = "STUDY"
    data_set.PatientName = "DOE^JANE"
    data_set.StudyInstanceUID = "1.2.3"
    item = Dataset()
    item.ScheduledPerformingPhysicianName = "DOE^JANE"
    data_set.ScheduledProcedureStepSequence = [item]
    data_set.is_undefined_length_sequence_item = True
    data_set["ScheduledProcedureStepSequence"].is_undefined_length = True
    buffer = DicomBytesIO()
    buffer.is_little_endian = encoding.little_endian
    buffer.is_implicit_VR = not encoding.explicit_vr
    write_dataset(buffer, data_set)
    return bytes(buffer.getvalue())


@pytest.mark.parametrize(
    "encoding", [Encoding(), Encoding(explicit_vr=False), Encoding(little_endian=False)]
)
def test_keys_stay_and_values_go(encoding: Encoding) -> None:
    whole = encoded(encoding)
    assert b"DOE^JANE" in whole
    kept = keys_alone(whole, encoding)
    assert b"DOE" not in kept
    assert b"1.2.3" not in kept
    for value in (b"ISO_IR 100", b"STUDY "):
        assert value in kept
    assert keys_alone(kept, encoding) == kept  # a data set still, of the same keys


@pytest.mark.parametrize("data", [b"x", b"\xff" * 40, encoded()[:-5]])
def test_of_what_cannot_be_read_nothing_is_kept(data: bytes) -> None:
    assert keys_alone(data, Encoding()) == b""


@pytest.mark.parametrize("queries", Queries)
async def test_as_much_of_a_query_is_kept_as_is_wanted(queries: Queries) -> None:
    told, whole = Told(queries), encoded()
    entry = told.entry()
    with told.register.hold(entry):
        entry.witness.asked(Asked(FIND, whole, EXPLICIT))
    (event,) = told.events
    (subject,) = event.subjects
    assert (subject.type, subject.id) == (IDType.SOP_CLASS, FIND)
    assert subject.query is not None
    assert subject.query.transfer_syntax == EXPLICIT
    kept = {Queries.NONE: b"", Queries.KEYS: keys_alone(whole, Encoding()), Queries.WHOLE: whole}
    assert subject.query.content == kept[queries]


@pytest.mark.parametrize("queries", Queries)
def test_a_search_by_dicomweb_tells_its_parameters(queries: Queries) -> None:
    told = Told(queries)
    transfer = Transfer(source=Participant("WS"), destination=Participant("FEDERATION"))
    told.auditing.searched(transfer, "/aets/FEDERATION/rs/studies", "PatientID=")
    (event,) = told.events
    assert detail(event, "Association") == ""
    (subject,) = event.subjects
    assert (subject.type, subject.id) == (IDType.URI, "/aets/FEDERATION/rs/studies")
    assert subject.query is not None
    assert subject.query.content == (b"" if queries is Queries.NONE else b"PatientID=")
