"""What the Bridge tells its audit."""

from relay.audit.codes import EventType, Outcome
from relay.audit.events import AuditEvent
from relay.audit.telling import words
from relay.bridge.auditing import Auditing


def test_who_joins_and_who_is_refused_is_told() -> None:
    told: list[AuditEvent] = []
    auditing = Auditing(name="relay.example.org", record=told.append)
    auditing.enrolled("abcd-efgh", "North Hospital")
    auditing.enrolment_refused("the invitation is used")
    auditing.inquiry_refused("the code does not match")
    auditing.connection_refused("it is revoked")
    assert [(words(event), event.why) for event in told] == [
        ("North Hospital has joined the network", ""),
        ("an enrolment is refused", "the invitation is used"),
        (
            "somebody asked about an invitation without knowing its code",
            "the code does not match",
        ),
        ("a connection of a Router is refused", "it is revoked"),
    ]
    assert [event.outcome for event in told] == [
        Outcome.SUCCESS,
        Outcome.MINOR_FAILURE,
        Outcome.MINOR_FAILURE,
        Outcome.MINOR_FAILURE,
    ]
    assert told[0].type is EventType.SECURITY_CONFIGURATION
    assert told[0].parties == {"relay.example.org", "abcd-efgh"}


def test_without_an_audit_nobody_is_told() -> None:
    Auditing().enrolled("abcd-efgh", "North Hospital")


def test_a_restored_bridge_says_so() -> None:
    told: list[AuditEvent] = []
    Auditing(name="relay.example.org", record=told.append).restored(1_800_000_000)
    [event] = told
    assert words(event) == "this Bridge was restored from the backup of 2027-01-15 08:00 UTC"
    assert (event.type, event.outcome) == (EventType.SECURITY_CONFIGURATION, Outcome.SUCCESS)
