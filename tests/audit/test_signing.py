"""Sign-ins, as the pages tell of them."""

import pytest

from relay.audit.codes import EventType, Outcome
from relay.audit.events import AuditEvent
from relay.audit.signing import hearing
from relay.people.people import Act, Authentication
from tests.audit.samples import RELAY


@pytest.mark.parametrize(
    ("act", "held", "type_", "outcome"),
    [
        (Act.SIGN_IN, True, EventType.LOGIN, Outcome.SUCCESS),
        (Act.SIGN_IN, False, EventType.LOGIN, Outcome.MINOR_FAILURE),
        (Act.SIGN_OUT, True, EventType.LOGOUT, Outcome.SUCCESS),
    ],
)
def test_each_is_an_event(act: Act, held: bool, type_: EventType, outcome: Outcome) -> None:
    told: list[AuditEvent] = []
    hearing(told.append, lambda: RELAY)(Authentication(act, "anna", "10.0.0.7", held))
    (event,) = told
    assert (event.type, event.outcome) == (type_, outcome)
    assert event.requestor is not None
    assert (event.requestor.id, event.requestor.address) == ("anna", "10.0.0.7")
    assert bool(event.why) is not held
