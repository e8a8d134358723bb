"""When an end speaks, and when it gives up on the other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay.errors import SessionEnded
from relay.tunnel.pulse import (
    IDLE_INTERVAL,
    IDLE_LIMIT,
    PROGRESS_DELAY,
    RESUME_INTERVAL,
    UNHURRIED_DELAY,
    Pulse,
    Stall,
)


@attrs.define
class Bench:
    said: list[float] = attrs.field(factory=list)
    outstanding: bool = False
    writable: bool = True
    pulse: Pulse = attrs.field(init=False)

    async def say(self) -> bool:
        await trio.lowlevel.checkpoint()
        if self.writable:
            self.said.append(trio.current_time())
        return self.writable


@asynccontextmanager
async def bench(**arguments: object) -> AsyncIterator[Bench]:
    b = Bench()
    b.pulse = Pulse(
        b.say, lambda: b.outstanding, **{"window": 20.0, "connected": True, **arguments}
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(b.pulse.run)
        yield b
        nursery.cancel_scope.cancel()


async def until_given_up(b: Bench, *, hear_for: float = 0) -> float:
    """How long `run` goes on after the peer was last heard; it is heard for `hear_for` seconds."""
    start = trio.current_time()

    async def hear() -> None:
        while trio.current_time() < start + hear_for:
            b.pulse.heard()
            await trio.sleep(1)

    with pytest.RaisesGroup(SessionEnded, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            await b.pulse.run()
    return trio.current_time() - start - hear_for


def alone(**arguments: object) -> Bench:
    b = Bench()
    b.pulse = Pulse(
        b.say, lambda: b.outstanding, **{"window": 20.0, "connected": True, **arguments}
    )
    return b


async def test_it_speaks_at_once_and_when_wanted(autojump_clock: MockClock) -> None:
    async with bench() as b:
        await trio.sleep(0.1)
        assert len(b.said) == 1
        for _ in range(100):
            b.pulse.want()
        await trio.sleep(0.1)
        assert len(b.said) == 2


async def test_what_nothing_waits_for_is_said_later(autojump_clock: MockClock) -> None:
    async with bench() as b:
        await trio.sleep(0.1)
        wanted = trio.current_time()
        b.pulse.want(True)
        await trio.sleep(0.1)
        assert b.said[1:] == pytest.approx([wanted + UNHURRIED_DELAY])


async def test_what_something_waits_for_takes_that_along(autojump_clock: MockClock) -> None:
    async with bench() as b:
        await trio.sleep(0.1)
        b.pulse.want(True)
        await trio.sleep(0.001)
        wanted = trio.current_time()
        b.pulse.want()
        b.pulse.want(True)
        await trio.sleep(0.1)
        assert b.said[1:] == pytest.approx([wanted + PROGRESS_DELAY])


async def test_it_speaks_now_and_then_when_idle_and_often_when_not(
    autojump_clock: MockClock,
) -> None:
    async with bench() as b:
        await trio.sleep(100)
        assert len(b.said) == pytest.approx(100 / IDLE_INTERVAL, rel=0.25)
        b.said.clear()
        b.outstanding = True
        await trio.sleep(100)
        assert len(b.said) == pytest.approx(100 / RESUME_INTERVAL, rel=0.1)


async def test_it_does_not_repeat_what_is_on_its_way(autojump_clock: MockClock) -> None:
    async with bench() as b:
        await trio.sleep(0.1)
        b.pulse.want_again()
        await trio.sleep(0.1)
        assert len(b.said) == 1
        await trio.sleep(0.5)
        b.pulse.want_again()
        await trio.sleep(0.1)
        assert len(b.said) == 2


async def test_a_silent_peer_is_given_up_after_the_window(autojump_clock: MockClock) -> None:
    b = alone()
    b.pulse.begin()
    b.outstanding = True
    assert 20 - 1 < await until_given_up(b, hear_for=60) < 20 + 2 * RESUME_INTERVAL


async def test_an_idle_peer_is_given_up_too(autojump_clock: MockClock) -> None:
    b = alone(window=5.0)
    b.pulse.begin()
    assert IDLE_LIMIT - 1 < await until_given_up(b, hear_for=60) < IDLE_LIMIT + 3


async def test_the_window_begins_when_something_is_outstanding(autojump_clock: MockClock) -> None:
    b = alone(window=10.0)
    b.pulse.begin()

    async def later() -> None:
        await trio.sleep(5)
        b.outstanding = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        assert 15 <= await until_given_up(b) < 15 + 3 * RESUME_INTERVAL


async def test_before_the_session_stands_nobody_is_missed(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.outstanding = True
        await trio.sleep(1000)
        assert len(b.said) > 400


async def test_a_lost_connection_is_given_up_after_the_window(autojump_clock: MockClock) -> None:
    assert 20 <= await until_given_up(alone(connected=False)) < 23


async def test_a_connection_that_comes_back_is_only_a_pause(autojump_clock: MockClock) -> None:
    async with bench() as b:
        for _ in range(5):
            b.pulse.disconnected()
            await trio.sleep(15)
            said = len(b.said)
            b.pulse.connected()
            await trio.sleep(0.1)
            assert len(b.said) == said + 1


async def test_announcements_that_do_not_arrive_are_a_stall(autojump_clock: MockClock) -> None:
    stall = Stall(20)
    for announced, received in ((0, 0), (1, 0), (1, 0), (3, 1), (3, 1), (3, 3), (4, 3)):
        await trio.sleep(39)
        stall.see(announced, received)
    await trio.sleep(2)
    with pytest.raises(SessionEnded, match="do not arrive for 40 s"):
        await see_twice(stall)


async def see_twice(stall: Stall) -> None:
    stall.see(4, 3)
    await trio.sleep(40)
    stall.see(5, 3)
