"""Each kind of event has what the standard's table for it asks for (PS3.15 §A.5.3)."""

from relay.audit.codes import Action, EventType, IDType, Kind, Outcome, RoleID
from relay.audit.events import AuditEvent, Instances, Query
from relay.audit.happenings import UNKNOWN
from tests.audit.samples import CT, IMPLICIT, STUDY, STUDY_ROOT_FIND, TRANSFER, alert, kinds


def of(kind: Kind) -> list[AuditEvent]:
    found = [event for event in kinds() if event.kind is kind]
    assert found
    return found


def test_application_activity_names_the_application() -> None:
    start, stop = of(Kind.APPLICATION)
    assert (start.type, stop.type) == (EventType.START, EventType.STOP)
    assert [p.role for p in start.participants] == [RoleID.APPLICATION]


def test_transfers_name_source_destination_studies_and_a_patient() -> None:
    for event in of(Kind.BEGIN) + of(Kind.TRANSFER):
        assert [p.role for p in event.participants] == [RoleID.SOURCE, RoleID.DESTINATION]
        assert [s.type for s in event.subjects] == [IDType.STUDY, IDType.PATIENT]
    assert {event.action for event in of(Kind.BEGIN)} == {Action.EXECUTE}
    assert {event.action for event in of(Kind.TRANSFER)} == {Action.READ}


def test_what_is_not_known_is_said_to_be_so() -> None:
    known, unknown = TRANSFER.ended(STUDY, []), TRANSFER.ended("", [])
    assert [s.id for s in known.subjects] == [STUDY, UNKNOWN]
    assert [s.id for s in unknown.subjects] == [UNKNOWN, UNKNOWN]


def test_a_transfer_that_failed_is_an_event_of_its_own() -> None:
    assert TRANSFER.ended(STUDY, [Instances(CT, 1)]).outcome is Outcome.SUCCESS
    failed = TRANSFER.ended(STUDY, [Instances(CT, 1)], why="A700H")
    assert (failed.outcome, failed.why) == (Outcome.MINOR_FAILURE, "A700H")


def test_a_query_names_its_sop_class_and_holds_its_data_set() -> None:
    event = TRANSFER.asked(STUDY_ROOT_FIND, Query(b"\1", IMPLICIT))
    (subject,) = event.subjects
    assert (subject.type, subject.id) == (IDType.SOP_CLASS, STUDY_ROOT_FIND)
    assert subject.query == Query(b"\1", IMPLICIT)
    assert event.action is Action.EXECUTE


def test_an_alert_has_a_type_a_description_and_performers_that_did_not_ask() -> None:
    event = alert("CT_2 is no device of this Router")
    assert event.type is EventType.NODE_AUTHENTICATION
    assert event.subjects[0].details == (("Alert Description", "CT_2 is no device of this Router"),)
    reporter, performer = event.participants
    assert (reporter.id, performer.id, performer.requestor) == ("RELAY_ST_ANNA", "CT_1", False)


def test_a_sign_in_has_an_address_and_no_objects() -> None:
    for event in of(Kind.SIGN_IN):
        assert event.requestor is not None
        assert event.requestor.address
        assert event.requestor.person
        assert not event.subjects
    assert {event.outcome for event in of(Kind.SIGN_IN)} == {
        Outcome.SUCCESS,
        Outcome.MINOR_FAILURE,
        Outcome.SERIOUS_FAILURE,
    }
