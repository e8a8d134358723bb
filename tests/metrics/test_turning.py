"""How late the event loop is."""

import trio
import trio.testing
from trio.testing import MockClock

from relay.metrics.turning import INTERVAL, REMEMBERED, Turning


async def test_it_is_seen_to_turn_and_not_to_be_late(autojump_clock: MockClock) -> None:
    turns: list[float] = []
    turning = Turning(lambda: turns.append(trio.current_time()))
    assert turning.delay == 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turning.run)
        await trio.sleep(10 * INTERVAL + INTERVAL / 2)
        nursery.cancel_scope.cancel()
    assert len(turns) == 10
    assert turning.delay == 0.0


async def test_what_holds_it_up_is_seen_and_forgotten_after_a_minute(
    autojump_clock: MockClock,
) -> None:
    turning = Turning()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turning.run)
        await trio.testing.wait_all_tasks_blocked()
        autojump_clock.jump(INTERVAL + 3.0)  # as a step of three seconds would have it
        await trio.sleep(INTERVAL / 2)
        assert turning.delay == 3.0
        await trio.sleep((REMEMBERED + 1) * INTERVAL)
        assert turning.delay == 0.0
        nursery.cancel_scope.cancel()
