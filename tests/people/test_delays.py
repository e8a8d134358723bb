"""Delays: they grow, end, are bounded, and do not keep an owner out."""

import pytest

from relay.people.delays import FORGET_AFTER, LONGEST, MAXIMUM_ENTRIES, Delayed, Delays
from tests.people.conftest import Clock


@pytest.fixture
def delays(clock: Clock) -> Delays:
    return Delays(clock)


def wait(delays: Delays, name: str, address: str) -> int:
    """Seconds that this attempt would have to wait; 0 if none."""
    try:
        delays.check(name, address)
    except Delayed as delayed:
        return delayed.seconds
    return 0


def test_they_grow_with_each_failure(delays: Delays, clock: Clock) -> None:
    waits = []
    for _ in range(10):
        delays.failed("ada", "a")
        waits.append(max(wait(delays, "ada", "a") - 1, 0))
        clock.now += waits[-1]
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert LONGEST == 60


def test_what_is_said(delays: Delays) -> None:
    for _ in range(4):
        delays.failed("ada", "a")
    with pytest.raises(Delayed, match="try again in 3 seconds") as delayed:
        delays.check("ada", "a")
    assert (delayed.value.status, delayed.value.seconds) == (429, 3)


def test_they_end(delays: Delays, clock: Clock) -> None:
    for _ in range(3):
        delays.failed("ada", "a")
    assert wait(delays, "ada", "a") > 0
    clock.now += 1
    assert wait(delays, "ada", "a") == 0
    clock.now += FORGET_AFTER + 1
    delays.failed("ada", "a")
    assert wait(delays, "ada", "a") == 0


def test_of_a_name_and_of_an_address(delays: Delays) -> None:
    for number in range(4):
        delays.failed("ada", f"a{number}")
    assert wait(delays, "ada", "elsewhere") > 0
    assert wait(delays, "bob", "elsewhere") == 0
    for number in range(4):
        delays.failed(f"n{number}", "a")
    assert wait(delays, "carol", "a") > 0


def test_a_network_of_ipv6_is_one_address(delays: Delays) -> None:
    for number in range(4):
        delays.failed(f"n{number}", f"2001:db8::{number}")
    assert wait(delays, "ada", "2001:db8::ffff%eth0") > 0
    assert wait(delays, "ada", "2001:db8:0:1::1") == 0


def test_an_owner_is_not_kept_out_by_others(delays: Delays) -> None:
    delays.held("ada", "home")
    for _ in range(9):
        delays.failed("ada", "elsewhere")
    assert wait(delays, "ada", "elsewhere") > 0
    assert wait(delays, "ada", "home") == 0
    for _ in range(4):
        delays.failed("ada", "home")
    assert wait(delays, "ada", "home") > 0


def test_what_holds_is_forgiven(delays: Delays) -> None:
    for _ in range(9):
        delays.failed("ada", "a")
    delays.held("ada", "a")
    assert wait(delays, "ada", "a") == 0
    assert wait(delays, "ada", "b") == 0


def test_the_tables_are_bounded(delays: Delays) -> None:
    for _ in range(5):
        delays.failed("ada", "")
    for number in range(MAXIMUM_ENTRIES + 10):
        delays.failed(f"n{number}", "")
        delays.held(f"m{number}", f"a{number}")
    assert len(delays._failures) == MAXIMUM_ENTRIES
    assert len(delays._known) == MAXIMUM_ENTRIES
    # Who floods by names does it from somewhere, and that is remembered as it is used.
    for number in range(MAXIMUM_ENTRIES + 10):
        delays.failed(f"n{number}", "flood")
    assert wait(delays, "other", "flood") > 0


def test_a_year_of_failures_is_no_overflow(delays: Delays) -> None:
    for _ in range(5000):
        delays.failed("ada", "a")
    assert wait(delays, "ada", "a") == LONGEST + 1
