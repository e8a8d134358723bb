"""Sign-ins, as the pages tell of them."""

import pytest

from relay.audit.codes import EventType, Outcome
from relay.audit.events import AuditEvent
from relay.audit.signing import hearing
from relay.audit.telling import words
from relay.people.people import Act, Authentication
from tests.audit.samples import RELAY


@pytest.mark.parametrize(
    ("act", "refused", "type_", "outcome"),
    [
        (Act.SIGN_IN, "", EventType.LOGIN, Outcome.SUCCESS),
        (Act.SIGN_IN, "it came too early", EventType.LOGIN, Outcome.MINOR_FAILURE),
        (Act.SIGN_OUT, "", EventType.LOGOUT, Outcome.SUCCESS),
    ],
)
def test_each_is_an_event(act: Act, refused: str, type_: EventType, outcome: Outcome) -> None:
    told: list[AuditEvent] = []
    hearing(told.append, lambda: RELAY)(Authentication(act, "anna", "10.0.0.7", refused))
    (event,) = told
    assert (event.type, event.outcome) == (type_, outcome)
    assert event.requestor is not None
    assert (event.requestor.id, event.requestor.address) == ("anna", "10.0.0.7")
    assert event.why == refused


def test_a_password_that_was_chosen_is_a_change_of_its_person() -> None:
    told: list[AuditEvent] = []
    hearing(told.append, lambda: RELAY)(Authentication(Act.PASSWORD, "anna", "10.0.0.7"))
    (event,) = told
    assert (event.type, event.outcome) == (EventType.USER_SECURITY, Outcome.SUCCESS)
    assert [(p.id, p.address) for p in event.participants[1:]] == [("anna", "10.0.0.7")]
    assert words(event) == "anna has chosen a password"
