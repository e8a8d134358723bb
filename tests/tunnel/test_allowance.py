"""What sessions share: in-line bytes, all or nothing."""

from relay.tunnel.allowance import Allowance, InLineAllowance


def test_all_or_nothing() -> None:
    allowance = InLineAllowance(100)
    assert allowance.take(60) == 60
    assert allowance.take(60) == 0
    assert allowance.take(40) == 40
    allowance.give_back(60)
    assert allowance.take(60) == 60


def test_each_router_has_its_own() -> None:
    one, other = Allowance(), Allowance()
    one.writing.take(one.writing.left)
    assert one.writing.left == 0
    assert one.reading.left == other.writing.left > 0
