"""Object names: fixed by the session's key, and telling nothing else."""

from relay.bridge.objects import EndedSession, object_name
from relay.providers.names import is_object_name
from relay.signalling.messages import Direction


def test_object_name_is_fixed() -> None:
    """A Bridge that is upgraded must find the objects of the one before.

    Source: HMAC-SHA256 of 01 and 0000000000000002 under 32 bytes 6B, by OpenSSL's command line.
    """
    name = object_name(b"k" * 32, Direction.CALLEE_TO_CALLER, 2)
    assert name == "b7/9c1af31af558130ec03de2c7128998214a35345c11651ffe9b07cd14d6830b"
    assert is_object_name(name)


def test_an_ended_session_names_all_its_slots() -> None:
    ended = EndedSession(b"s" * 16, "disk", b"k" * 32, (3, 2), 0, 0)
    names = list(ended.object_names())
    assert len(set(names)) == 5
    assert names[4] == object_name(b"k" * 32, Direction.CALLEE_TO_CALLER, 1)
    assert "kkkk" not in repr(ended)
