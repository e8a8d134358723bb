"""The set that forgets."""

from relay.signalling.recent import Recent


def test_it_knows_what_it_saw_lately_and_forgets_the_oldest() -> None:
    recent = Recent(2)
    assert recent.add(b"a")
    assert not recent.add(b"a")
    assert recent.add(b"b")
    assert recent.add(b"c")
    assert not recent.add(b"b")
    assert recent.add(b"a")
