"""The token bucket, by a clock that the test moves."""

from relay.signalling.allowance import Allowance


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_saved_up_may_be_taken_at_once_and_no_more() -> None:
    allowance = Allowance(2, 3, Clock())
    assert [allowance.take() for _ in range(5)] == [True, True, True, False, False]


def test_it_comes_back_at_its_rate_up_to_what_may_be_saved() -> None:
    clock = Clock()
    allowance = Allowance(2, 3, clock)
    while allowance.take():
        pass
    clock.now += 1
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    clock.now += 1000
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


def test_delay_spreads_what_is_too_fast_over_time() -> None:
    clock = Clock()
    allowance = Allowance(10, 2, clock)
    assert [allowance.delay() for _ in range(2)] == [0, 0]
    for _ in range(5):
        wait = allowance.delay()
        assert round(wait, 6) == 0.1
        clock.now += wait
