"""What passed lately: differences of counters, so many and no more."""

import trio
from trio.testing import MockClock

from relay.bridge.rates import INTERVAL, INTERVALS, Rates

from .conftest import NOW, Clock


def test_each_look_notes_what_was_counted_since() -> None:
    counted, clock = [5, 100], Clock()
    rates = Rates(lambda: (counted[0], counted[1]), clock=clock)
    assert rates.describe() == {"interval": INTERVAL, "until": NOW, "messages": [], "bytes": []}
    counted[:] = [7, 100]
    rates.look()
    counted[:] = [7, 4196]
    clock.now += INTERVAL
    rates.look()
    assert rates.describe() == {
        "interval": INTERVAL,
        "until": NOW + INTERVAL,
        "messages": [2, 0],
        "bytes": [0, 4096],
    }


def test_only_the_last_minutes_are_kept() -> None:
    looked = 0
    rates = Rates(lambda: (looked, 0), clock=Clock())
    for step in range(INTERVALS + 10):
        looked += step
        rates.look()
    assert rates.describe()["messages"] == list(range(10, INTERVALS + 10))


async def test_it_looks_by_itself(autojump_clock: MockClock) -> None:
    counted = 0
    rates = Rates(lambda: (counted, 0), clock=Clock())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rates.run)
        await trio.sleep(INTERVAL / 2)
        for step in (1, 2, 3):
            counted += step
            await trio.sleep(INTERVAL)
        nursery.cancel_scope.cancel()
    assert rates.describe()["messages"] == [1, 2, 3]
