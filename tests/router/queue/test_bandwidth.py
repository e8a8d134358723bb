"""The bucket that all deliveries share, by trio's own clock."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.bandwidth import UNLIMITED, BandwidthLimit, parse
from relay.router.queue.bandwidth import BURST, LONGEST_LOOK_AWAY, Throttle

MIB = 2**20
# A Monday.
MORNING = datetime(2026, 6, 1, 6, 0)


def local_time(start: datetime = MORNING) -> Callable[[], datetime]:
    """A clock on the wall that goes as trio's does, from `start` on."""
    begun = trio.current_time()
    return lambda: start + timedelta(seconds=trio.current_time() - begun)


def rate_of(size: int) -> BandwidthLimit:
    """So many bytes a second, at all times."""
    return parse([f"{size * 8 / 1000:.3f} kbit/s"])


async def timed(throttle: Throttle, *sizes: int) -> list[float]:
    """When each of these was let through, one after the other."""
    start, done = trio.current_time(), []
    for size in sizes:
        await throttle.take(size)
        done.append(round(trio.current_time() - start, 3))
    return done


async def test_without_a_limit_nothing_waits(autojump_clock: MockClock) -> None:
    throttle = Throttle(UNLIMITED, local_time())
    assert await timed(throttle, *[100 * MIB] * 50) == [0.0] * 50


async def test_a_burst_of_one_chunk_and_then_the_rate(autojump_clock: MockClock) -> None:
    throttle = Throttle(rate_of(MIB), local_time())
    assert await timed(throttle, *[MIB] * 8) == [0, 0, 0, 0, 1, 2, 3, 4]
    await trio.sleep(3600)  # a quiet hour gives no more than one burst
    assert await timed(throttle, *[MIB] * 6) == [0, 0, 0, 0, 1, 2]


async def test_a_chunk_over_the_burst_passes_and_is_made_up_for(autojump_clock: MockClock) -> None:
    """A sealed chunk is a little larger than the largest chunk."""
    throttle = Throttle(rate_of(MIB), local_time())
    assert await timed(throttle, BURST + MIB, MIB, 2 * BURST, MIB) == [0, 2, 6, 11]


async def test_first_come_first_served_whatever_the_size(autojump_clock: MockClock) -> None:
    throttle = Throttle(rate_of(MIB), local_time())
    await throttle.take(BURST)
    served: list[tuple[str, float]] = []
    start = trio.current_time()

    async def sender(name: str, size: int) -> None:
        await throttle.take(size)
        served.append((name, round(trio.current_time() - start, 3)))

    async with trio.open_nursery() as nursery:
        for name, size in (("large", 4 * MIB), ("small", 1024), ("second", MIB - 1024)):
            nursery.start_soon(sender, name, size)
            await wait_all_tasks_blocked()
    assert served == [("large", 4.0), ("small", 4.001), ("second", 5.0)]


async def test_many_senders_together_keep_to_the_rate(autojump_clock: MockClock) -> None:
    throttle = Throttle(rate_of(MIB), local_time())
    start = trio.current_time()
    sent = dict.fromkeys(range(10), 0)

    async def sender(number: int) -> None:
        while trio.current_time() < start + 100:
            await throttle.take(MIB // 4)
            sent[number] += MIB // 4

    async with trio.open_nursery() as nursery:
        for number in sent:
            nursery.start_soon(sender, number)
    taken = trio.current_time() - start
    assert sum(sent.values()) <= BURST + taken * MIB + 1
    assert sum(sent.values()) >= BURST + (taken - 1) * MIB
    # Each its share: none is further ahead than by one turn and the burst.
    assert max(sent.values()) - min(sent.values()) <= BURST


@pytest.mark.parametrize(
    ("rules", "earliest", "latest"),
    [
        # At seven the limit ends: whoever waits goes on, after a look at the clock at the latest.
        (["06:00-07:00 64 kbit/s"], 60, 60 + LONGEST_LOOK_AWAY),
        # ... or becomes faster: some of it came at the slow rate.
        (["06:00-07:00 64 kbit/s", "80 Mbit/s"], 60.3, 60.4 + LONGEST_LOOK_AWAY),
        # ... or slower: what came since the last look counts as slow.
        (
            ["06:00-07:00 320 kbit/s", "64 kbit/s"],
            60 + (BURST - 60 * 40_000) / 8_000,
            60 + (BURST - (60 - LONGEST_LOOK_AWAY) * 40_000) / 8_000,
        ),
    ],
)
async def test_a_change_of_rule_takes_effect_while_someone_waits(
    rules: list[str], earliest: float, latest: float, autojump_clock: MockClock
) -> None:
    throttle = Throttle(parse(rules), local_time(MORNING.replace(minute=59)))
    await throttle.take(BURST)
    [taken] = await timed(throttle, BURST)
    assert earliest <= taken <= latest


async def test_a_clock_that_is_set_takes_effect_while_someone_waits(
    autojump_clock: MockClock,
) -> None:
    """Summer time begins: the hour that the limit was for is over."""
    wall = [MORNING]
    throttle = Throttle(parse(["06:00-07:00 64 kbit/s"]), lambda: wall[0])
    await throttle.take(BURST)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(throttle.take, BURST)
        await trio.sleep(100)
        wall[0] += timedelta(hours=1)
    assert trio.current_time() - start <= 100 + LONGEST_LOOK_AWAY


async def test_who_gives_up_takes_nothing_and_holds_nobody_up(autojump_clock: MockClock) -> None:
    throttle = Throttle(rate_of(MIB), local_time())
    await throttle.take(BURST)
    with trio.move_on_after(2) as gave_up:
        await throttle.take(4 * MIB)
    assert gave_up.cancelled_caught
    with trio.move_on_after(0) as at_once:
        await throttle.take(MIB)
    assert at_once.cancelled_caught
    # The two seconds have filled the bucket by 2 MiB, which are there for the next.
    assert await timed(throttle, MIB, MIB, MIB) == [0, 0, 1]


async def test_a_limit_that_begins_finds_the_bucket_full(autojump_clock: MockClock) -> None:
    throttle = Throttle(parse(["07:00-08:00 8 Mbit/s"]), local_time(MORNING.replace(minute=59)))
    await throttle.take(100 * MIB)
    await trio.sleep(60)
    assert await timed(throttle, BURST, 1_000_000) == [0, 1]


@given(
    st.lists(st.tuples(st.integers(1, 2 * BURST), st.floats(0, 30)), max_size=12),
    st.integers(64, 100_000),
)
def test_never_more_than_a_burst_beyond_the_rate(
    moves: list[tuple[int, float]], kilobits: int
) -> None:
    """Over any stretch: what was let through before its last chunk is within burst and rate."""

    async def run() -> None:
        limit = parse([f"{kilobits} kbit/s"])
        rate = limit.rate(MORNING)
        assert rate is not None
        throttle = Throttle(limit, local_time())
        let: list[tuple[float, int]] = []
        for size, pause in moves:
            await trio.sleep(pause)
            await throttle.take(size)
            let.append((trio.current_time(), size))
        for first in range(len(let)):
            for last in range(first, len(let)):
                before = sum(size for _, size in let[first:last])
                needed = min(let[last][1], BURST)
                elapsed = let[last][0] - let[first][0]
                assert before + needed <= BURST + elapsed * rate + len(moves) + 1

    trio.run(run, clock=MockClock(autojump_threshold=0))
