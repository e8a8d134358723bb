"""The law of the pauses, as properties."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.router.queue.pauses import ALONE, Pauses
from relay.router.queue.statuses import MAXIMUM_ALONE_ATTEMPTS

FIRSTS = st.floats(0.001, 100)
FACTORS = st.floats(1, 10)
CAPS = st.floats(0.001, 10_000)
DRAWS = st.floats(0, 1, exclude_max=True)
FAILURES = st.integers(1, 10**9)


@given(FIRSTS, FACTORS, CAPS, DRAWS, FAILURES)
def test_a_pause_is_within_the_upper_half_of_its_ceiling_and_never_over_the_cap(
    first: float, factor: float, cap: float, draw: float, failures: int
) -> None:
    pauses = Pauses(first, factor, cap, lambda: draw)
    ceiling = pauses.ceiling(failures)
    assert 0 < ceiling <= cap
    assert ceiling / 2 <= pauses.next(failures) <= ceiling


@given(FIRSTS, FACTORS, CAPS, DRAWS, st.integers(1, 10**6))
def test_another_failure_never_makes_the_pause_shorter(
    first: float, factor: float, cap: float, draw: float, failures: int
) -> None:
    """With the same draw: chance alone may."""
    pauses = Pauses(first, factor, cap, lambda: draw)
    assert pauses.next(failures) <= pauses.next(failures + 1)


@given(st.integers(0, 2**32))
def test_what_failed_together_does_not_come_back_together(seed: int) -> None:
    pauses = Pauses(random=random.Random(seed).random)
    drawn = sorted(pauses.next(9) for _ in range(100))
    assert len(set(drawn)) == 100
    # Spread evenly over [128, 256]: no quarter of it is left out, or has more than its half.
    quarters = [sum(low <= pause < low + 32 for pause in drawn) for low in (128, 160, 192, 224)]
    assert sum(quarters) == 100
    assert all(0 < count < 50 for count in quarters)


def test_the_usual_ones_double_from_a_second_to_five_minutes() -> None:
    pauses = Pauses()
    assert [pauses.ceiling(n) for n in range(1, 12)] == [
        *(1, 2, 4, 8, 16, 32, 64, 128, 256),
        *(300, 300),
    ]
    shortest, longest = Pauses(random=lambda: 0.0), Pauses(random=lambda: 1 - 2**-53)
    assert shortest.next(3) == 2.0
    assert longest.next(3) == pytest.approx(4.0)
    assert Pauses(first=600).ceiling(1) == 300


def test_the_few_attempts_alone_outlast_a_devices_bad_half_hour() -> None:
    shortest = Pauses(ALONE.first, ALONE.factor, ALONE.cap, lambda: 0.0)
    assert sum(shortest.next(n) for n in range(1, MAXIMUM_ALONE_ATTEMPTS)) > 1800


def test_a_number_of_failures_without_bound_is_no_overflow() -> None:
    assert Pauses().ceiling(10**18) == 300


@pytest.mark.parametrize("failures", [0, -1])
def test_no_failure_has_no_pause(failures: int) -> None:
    with pytest.raises(ValueError, match="first failure"):
        Pauses().next(failures)


@pytest.mark.parametrize(
    ("first", "factor", "cap"),
    [
        (0, 2, 300),
        (-1, 2, 300),
        (1, 0.5, 300),
        (1, 2, 0),
        (float("nan"), 2, 300),
        (1, float("inf"), 300),
        (1, 2, float("inf")),
    ],
)
def test_what_would_call_without_a_pause_or_never_again_is_refused(
    first: float, factor: float, cap: float
) -> None:
    with pytest.raises(ValueError, match="must be"):
        Pauses(first, factor, cap)
