"""The window's law: it follows rate and time of a path, within its Router's budget."""

import pytest
import trio
from trio.testing import MockClock

from relay.tunnel.window import (
    BASE,
    BUDGET,
    EPOCH,
    FIRST,
    LATE,
    MAXIMUM_WINDOW,
    OWN,
    PROBE_AFTER,
    SELDOM,
    SHORTEST_TIME,
    STEP,
    WRITING_BUDGET,
    Budget,
    Departure,
    Path,
    Window,
)

CHUNK = 256 * 1024
PLENTY = 2**30


async def drive(window: Window, rate: float, time: float, seconds: float) -> None:
    """A sender that always has something, over a path of this rate that takes this time."""
    free = trio.current_time()  # when the path has carried all that was sent
    in_flight: list[tuple[float, Departure]] = []
    until = free + seconds
    while trio.current_time() < until:
        while len(in_flight) * CHUNK < window.size:
            free = max(free, trio.current_time()) + CHUNK / rate
            in_flight.append((free + time, window.depart()))
        at, departure = in_flight.pop(0)
        await trio.sleep_until(at)
        window.arrive(departure, CHUNK)


@pytest.mark.parametrize(("rate", "time"), [(12.5e6, 0.4), (60e6, 0.2), (125e6, 0.1), (30e6, 0.05)])
async def test_it_fills_a_path_and_not_much_more(
    autojump_clock: MockClock, rate: float, time: float
) -> None:
    window = Window(Budget())
    began = window.depart()
    await drive(window, rate, time, 10)
    assert window.rate == pytest.approx(rate, rel=0.1)
    # What the path carries in the time that a chunk takes, twice over.
    wanted = 2 * rate * (time + CHUNK / rate)
    assert wanted - STEP <= window.size <= 1.3 * max(BASE, wanted) + STEP
    assert began.arrived == 0


async def test_on_a_near_path_it_has_room_for_what_is_worth_a_request(
    autojump_clock: MockClock,
) -> None:
    window = Window(Budget())
    await drive(window, 100e6, 0.001, 5)
    wanted = 2 * 100e6 * SHORTEST_TIME
    assert wanted - STEP <= window.size <= 1.3 * wanted + STEP


async def test_a_path_that_has_become_shorter_or_slower_is_found_out(
    autojump_clock: MockClock,
) -> None:
    window = Window(Budget())
    await drive(window, 100e6, 0.1, 5)
    assert window.size > 15e6
    await drive(window, 5e6, 0.1, 2 * (PROBE_AFTER + EPOCH))
    assert window.size < 6e6
    await drive(window, 100e6, 0.1, 5)
    assert window.size > 15e6


async def test_it_never_falls_below_its_own_and_never_rises_above_its_most(
    autojump_clock: MockClock,
) -> None:
    window = Window(Budget(2**40))
    await drive(window, 1e4, 0.01, 3600)
    assert BASE <= window.size <= 2 * BASE + STEP  # itself a queue of minutes
    await drive(window, 1e9, 2.0, 40)
    assert window.size <= MAXIMUM_WINDOW + STEP


async def test_all_windows_share_a_budget(autojump_clock: MockClock) -> None:
    budget = Budget()
    windows = [Window(budget) for _ in range(6)]
    async with trio.open_nursery() as nursery:
        for window in windows:
            nursery.start_soon(drive, window, 100e6, 0.2, 10)
    extra = sum(window.size - BASE for window in windows)
    assert extra + budget.left == BUDGET
    for window in windows:
        window.close()
        window.close()
        assert window.size == BASE
    assert budget.left == BUDGET


async def test_the_line_carries_what_all_that_share_it_bring(autojump_clock: MockClock) -> None:
    budget = Budget()
    windows = [Window(budget) for _ in range(3)]
    assert windows[0].line_rate == 0
    async with trio.open_nursery() as nursery:
        for window in windows[1:]:
            nursery.start_soon(drive, window, 20e6, 0.1, 5)
    assert windows[0].rate == 0
    assert windows[0].line_rate == pytest.approx(40e6, rel=0.1)
    windows[2].close()
    assert windows[0].line_rate == windows[1].line_rate == pytest.approx(20e6, rel=0.1)


async def test_what_brought_something_long_ago_has_no_part_of_the_line(
    autojump_clock: MockClock,
) -> None:
    budget = Budget()
    windows = [Window(budget) for _ in range(3)]
    for window in windows:
        await drive(window, 10e6, 0.1, 5)
    await trio.sleep(3 * EPOCH)
    assert windows[0].line_rate == windows[0].rate == pytest.approx(10e6, rel=0.1)
    assert Window(budget).line_rate == 0
    await drive(windows[1], 10e6, 0.1, 5)
    assert windows[2].line_rate == pytest.approx(10e6, rel=0.1)


async def test_a_senders_own_pauses_say_nothing_of_the_path(autojump_clock: MockClock) -> None:
    window = Window(Budget())
    await drive(window, 50e6, 0.2, 2)
    size = window.size
    for _ in range(3):
        departure = window.depart()
        await trio.sleep(0.21)
        window.arrive(departure, 1000)
    assert window.size == size


async def test_a_queue_of_its_own_does_not_feed_it(autojump_clock: MockClock) -> None:
    window = Window(Budget())
    await drive(window, 20e6, 0.1, 20 * PROBE_AFTER)
    assert window.size <= 2.5 * 20e6 * (0.1 + CHUNK / 20e6) + STEP
    assert window.time == pytest.approx(0.1 + CHUNK / 20e6, rel=0.2)


async def test_who_has_more_than_its_own_gives_it_back_where_others_come(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(WRITING_BUDGET)
    window = Window(budget, bulk=True)
    await drive(window, 100e6, 0.2, 5)
    assert window.size == MAXIMUM_WINDOW
    others = [Window(budget, bulk=True) for _ in range(9)]
    assert [other.size for other in others] == [BASE] * 9
    assert budget.left < 0
    await drive(window, 100e6, 0.2, 1)
    assert 0 <= budget.left < STEP
    for one in (window, *others):
        one.close()
        one.close()
    assert budget.left == WRITING_BUDGET


async def test_where_many_objects_follow_it_begins_larger_and_keeps_that_until_it_knows_the_path(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(PLENTY)
    window = Window(budget, bulk=True)
    assert window.size == FIRST
    first, rest = window.depart(), window.depart()
    await trio.sleep(0.4)
    window.arrive(first, 64 * 1024)  # one small chunk says nothing of what the path carries
    assert window.size == FIRST
    behind = window.depart()
    window.arrive(rest, CHUNK)
    assert window.size == FIRST
    assert window.first
    await trio.sleep(10)
    window.arrive(behind, CHUNK)
    assert window.size == BASE
    assert not window.first
    assert budget.left == PLENTY - OWN


async def test_a_fast_path_need_not_wait_for_more_than_the_first(
    autojump_clock: MockClock,
) -> None:
    window = Window(Budget(), bulk=True)
    first = window.size
    departures = [window.depart() for _ in range(first // STEP)]
    await trio.sleep(0.2)
    for departure in departures:
        window.arrive(departure, STEP)
    assert window.size == 2 * first


async def test_many_that_begin_leave_each_other_a_share(autojump_clock: MockClock) -> None:
    budget = Budget(WRITING_BUDGET)
    windows = [Window(budget, bulk=True) for _ in range(4)]
    sizes = [window.size for window in windows]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] > sizes[-1] > BASE
    assert budget.left == WRITING_BUDGET - 4 * OWN - sum(size - BASE for size in sizes) > 0


async def test_where_the_path_is_known_it_begins_with_what_was_in_flight_there(
    autojump_clock: MockClock,
) -> None:
    before = Window(Budget(), bulk=True)
    assert before.path is None
    await drive(before, 75e6, 0.25, 5)
    known = before.path
    assert known is not None
    assert before.arrived > 4 * 75e6
    before.close()
    budget = Budget(WRITING_BUDGET)
    window = Window(budget, bulk=True, known=known)
    assert FIRST < known.in_flight - STEP <= window.size <= known.in_flight
    # Another path by now, and slower: found out by what departs behind the first arrival.
    await drive(window, 2e6, 0.25, 30)
    assert window.size < FIRST
    window.close()
    assert budget.left == WRITING_BUDGET


async def test_what_is_known_of_a_slow_path_takes_nothing_from_the_first_window(
    autojump_clock: MockClock,
) -> None:
    assert Window(Budget(PLENTY), bulk=True, known=Path(1e6, 0.2)).size == FIRST
    assert Window(Budget(), known=Path(60e6, 0.25)).size == BASE


async def test_what_is_known_of_a_fast_one_leaves_others_a_share(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(WRITING_BUDGET)
    sizes = [Window(budget, bulk=True, known=Path(1e9, 1.0)).size for _ in range(3)]
    assert sizes[0] <= BASE + (WRITING_BUDGET - OWN) / 2
    assert sizes[0] > sizes[1] > sizes[2] > BASE
    assert budget.left > 0


async def test_what_was_late_and_comes_together_says_no_more_of_the_line(
    autojump_clock: MockClock,
) -> None:
    window = Window(Budget(), bulk=True)
    for _ in range(5):
        departures = []
        for _ in range(25):
            departures.append(window.depart())
            await trio.sleep(0.02)
        for departure in departures:  # all waited for the first of them
            window.arrive(departure, CHUNK)
        assert window.line_rate == pytest.approx(CHUNK / 0.02, rel=0.1)
    assert window.rate > 10 * window.line_rate


async def test_where_many_objects_follow_it_has_what_the_line_carries_while_one_is_late(
    autojump_clock: MockClock,
) -> None:
    lone, bulk = Window(Budget()), Window(Budget(), bulk=True)
    for window in (lone, bulk):
        await drive(window, 12.5e6, 0.05, 30)
    assert lone.size <= 2 * BASE
    assert LATE * 12.5e6 - STEP <= bulk.size <= 1.1 * LATE * 12.5e6
    quick = Window(Budget(PLENTY), bulk=True)
    await drive(quick, 40e6, 0.01, 30)
    assert quick.size <= FIRST


async def test_the_shortest_time_is_seldom_looked_for_where_the_window_does_not_follow_from_it(
    autojump_clock: MockClock,
) -> None:
    window = Window(Budget(PLENTY), bulk=True)
    began = trio.current_time()
    dips = []

    async def watch() -> None:
        await trio.sleep(5)  # the beginning
        while True:
            await trio.sleep(0.05)
            if window.size < LATE * 12.5e6 / 2:
                dips.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await drive(window, 12.5e6, 0.05, SELDOM + 10)
        nursery.cancel_scope.cancel()
    assert SELDOM < min(dips) < max(dips) < SELDOM + 7


async def test_a_path_that_has_become_longer_is_found_out_there_too(
    autojump_clock: MockClock,
) -> None:
    window = Window(Budget(PLENTY), bulk=True)
    await drive(window, 12.5e6, 0.01, 5)
    assert window.time < 0.05
    await drive(window, 12.5e6, 0.3, SELDOM + 15)
    assert window.time == pytest.approx(0.3, rel=0.3)


async def test_who_pauses_leaves_what_it_had_for_late_bundles_to_others(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(WRITING_BUDGET)
    window = Window(budget, bulk=True)
    await drive(window, 12.5e6, 0.05, 5)
    assert budget.left < WRITING_BUDGET - OWN - 5e6
    departure = window.depart()
    await trio.sleep(0.1)
    window.arrive(departure, CHUNK)
    assert budget.left > WRITING_BUDGET - OWN - 2 * STEP
    await drive(window, 12.5e6, 0.05, 1)
    assert window.size > LATE * 12.5e6 - STEP


async def test_a_pause_is_no_part_of_the_lines_rate(autojump_clock: MockClock) -> None:
    window = Window(Budget())
    for _ in range(5):
        await trio.sleep(60)
        departures = [window.depart() for _ in range(4)]
        await trio.sleep(0.1)
        for departure in departures:
            window.arrive(departure, CHUNK)
        assert window.line_rate == pytest.approx(4 * CHUNK / 0.1)
