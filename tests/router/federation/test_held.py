import pytest

from relay.router.federation.held import Held


def test_all_or_nothing_is_held() -> None:
    held = Held(10)
    assert held.take(6)
    assert not held.take(5)
    assert held.take(4)
    held.free(6)
    assert held.size == 4
    assert held.take(6)
    with pytest.raises(AssertionError):
        held.free(11)
