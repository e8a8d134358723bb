"""What sessions share: in-line bytes, all or nothing; threads, which end with the Router."""

import threading

import trio

from relay.tunnel.allowance import (
    IN_LINE_WINDOW,
    SHORT_IN_LINE_WINDOW,
    Allowance,
    InLineAllowance,
    open_allowance,
)


def test_all_or_nothing() -> None:
    allowance = InLineAllowance(100)
    assert allowance.take(60) == 60
    assert allowance.take(60) == 0
    assert allowance.take(40) == 40
    allowance.give_back(60)
    assert allowance.take(60) == 60


def test_a_hundred_sessions_find_room() -> None:
    allowance = InLineAllowance()
    taken = []
    while (window := allowance.take(IN_LINE_WINDOW)) > 0:
        taken.append(window)
    assert set(taken) == {IN_LINE_WINDOW, SHORT_IN_LINE_WINDOW}
    assert taken == sorted(taken, reverse=True)
    assert len(taken) >= 100
    allowance.give_back(sum(taken))
    assert allowance.take(IN_LINE_WINDOW) == IN_LINE_WINDOW


def test_each_router_has_its_own() -> None:
    one, other = Allowance(), Allowance()
    one.writing.take(one.writing.left)
    assert one.writing.left == 0
    assert one.reading.left == other.reading.left > 0
    assert other.writing.left > 0


async def test_the_threads_end_with_the_router() -> None:
    async with open_allowance() as allowance:
        thread = await allowance.workers.run(threading.current_thread)
        assert thread.is_alive()
    with trio.fail_after(5):
        await trio.to_thread.run_sync(thread.join)
