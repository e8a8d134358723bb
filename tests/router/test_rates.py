"""How fast things move, over time."""

import trio

from relay.router.rates import INTERVAL, MAXIMUM_SAMPLES, Rates


async def test_rates_are_what_was_carried_in_each_interval(autojump_clock: object) -> None:
    carried = [(0, 0), (500, 50), (500, 1050)]
    at = iter([*carried, *[(500, 1050)] * MAXIMUM_SAMPLES])
    rates = Rates(lambda: next(at), clock=lambda: 1000.0)
    assert rates.to_json()["samples"] == []
    with trio.move_on_after(2.5 * INTERVAL):
        await rates.run()
    assert rates.to_json() == {
        "interval": INTERVAL,
        "maximum": MAXIMUM_SAMPLES,
        "samples": [
            {"time": 1000.0, "sent": 500 / INTERVAL, "received": 50 / INTERVAL},
            {"time": 1000.0, "sent": 0, "received": 1000 / INTERVAL},
        ],
    }


async def test_the_history_is_bounded(autojump_clock: object) -> None:
    rates = Rates(lambda: (0, 0))
    with trio.move_on_after((MAXIMUM_SAMPLES + 10.5) * INTERVAL):
        await rates.run()
    assert len(rates.to_json()["samples"]) == MAXIMUM_SAMPLES
