"""What the hub asks of the Bridge; the tests' registry keeps to it, and refusals say why."""

from relay.signalling.backend import Backend, SessionRefused
from relay.signalling.messages import EndReason
from tests.signalling.bridge import Registry


def test_the_tests_registry_is_a_backend() -> None:
    backend: Backend = Registry()
    asked = {name for name in vars(Backend) if not name.startswith("_")}
    assert all(callable(getattr(backend, name)) for name in asked)


def test_a_refused_session_says_why() -> None:
    assert str(SessionRefused(EndReason.NOT_PUBLISHED)) == "not published"
    assert SessionRefused(EndReason.LIMIT_REACHED, "256 are open").reason is EndReason.LIMIT_REACHED
