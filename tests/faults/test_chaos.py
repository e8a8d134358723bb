"""Kills and links: a seed makes the same plan each time, and what is cut is cut."""

import itertools
import time
from contextlib import AsyncExitStack

import attrs
import pytest
import trio

from tests.faults.chaos import Chaos, kills, strikes
from tests.faults.links import Link, LinkState, link
from tests.interop.peers import LOOPBACK, Address

WEIGHTS = {"near killed": 3, "far killed": 3, "bridge killed": 2}


def test_a_seed_makes_the_same_plan_each_time() -> None:
    plan = kills(1, 200, WEIGHTS)
    assert plan == kills(1, 200, WEIGHTS)
    assert plan != kills(2, 200, WEIGHTS)
    assert strikes(plan) == 200
    assert {kill.victim for kill in plan} == WEIGHTS.keys()


@attrs.define
class Counted:
    """A victim that takes its time to start."""

    running: bool = True
    killed: int = 0

    async def kill(self) -> None:
        self.running = False
        self.killed += 1

    async def start(self) -> None:
        assert not self.running
        await trio.sleep(1)
        self.running = True


async def test_all_is_carried_out_and_all_are_up_in_the_end(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", trio.current_time)
    victims = {name: Counted() for name in WEIGHTS}
    chaos, struck = Chaos(victims), list[float]()
    await chaos.run(
        kills(1, 60, WEIGHTS),
        lambda: struck.append(trio.current_time()),
        itertools.count().__next__,
    )
    assert len(struck) == len(chaos.blows) == sum(v.killed for v in victims.values()) == 60
    assert all(victim.running for victim in victims.values())
    assert all(blow.fell <= blow.over for blow in chaos.blows)
    together = [
        (one, other)
        for one in chaos.blows
        for other in chaos.blows
        if one is not other and one.fell < other.fell < one.over
    ]
    assert together, "several are away at the same time"
    assert "killed at start" in chaos.words()


async def echoing(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@pytest.fixture
async def echo(nursery: trio.Nursery) -> Address:
    listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
    nursery.start_soon(trio.serve_listeners, echoing, listeners)
    return Address(listeners[0].socket.getsockname()[1], "")


async def asked(stream: trio.SocketStream, words: bytes) -> bytes:
    await stream.send_all(words)
    return bytes(await stream.receive_some(100))


async def opened(stack: AsyncExitStack, made: Link) -> trio.SocketStream:
    return await stack.enter_async_context(await trio.open_tcp_stream(LOOPBACK, made.port))


async def test_a_link_goes_down_and_up(echo: Address) -> None:
    async with link(echo, record=True) as made, AsyncExitStack() as stack:
        with trio.fail_after(10):
            stream = await opened(stack, made)
            assert await asked(stream, b"one") == b"one"
            made.state = LinkState.SILENT
            await stream.send_all(b"two")
            with trio.move_on_after(0.1) as nothing:
                await stream.receive_some(100)
            assert nothing.cancelled_caught
            made.state = LinkState.UP
            assert await stream.receive_some(100) == b"two"
            made.state = LinkState.DOWN
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some(100)
            again = await opened(stack, made)
            with pytest.raises(trio.BrokenResourceError):
                await asked(again, b"three")
            made.state = LinkState.UP
            last = await opened(stack, made)
            assert await asked(last, b"four") == b"four"
        assert [bytes(carried.answered) for carried in made.carried] == [b"onetwo", b"", b"four"]


async def test_a_link_is_an_http_proxy(echo: Address) -> None:
    async with link() as made, AsyncExitStack() as stack:
        with trio.fail_after(10):
            stream = await opened(stack, made)
            await stream.send_all(f"CONNECT {LOOPBACK}:{echo.port} HTTP/1.1\r\n\r\n".encode())
            assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 200 ")
            assert await asked(stream, b"one") == b"one"
            assert made.drop() == 1
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some(100)
