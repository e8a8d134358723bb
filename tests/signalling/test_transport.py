"""What any Socket must do, shown for the one that the tests use; and how one is closed."""

import pytest
import trio
from trio.testing import MockClock

from relay.errors import ConnectionClosed
from relay.signalling.transport import Socket, close
from tests.signalling.bridge import socket_pair


async def check_sockets(one: Socket, other: Socket) -> None:
    """The promises of `Socket`, for a pair that is joined."""
    async with trio.open_nursery() as nursery:
        for frame in (b"x", bytes(100_000), b"\0"):
            nursery.start_soon(one.send, frame)
            assert await other.receive() == frame
            nursery.start_soon(other.send, frame)
            assert await one.receive() == frame
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.aclose)
        assert await other.receive() == b""
        assert await other.receive() == b""
    assert await one.receive() == b""
    for closed in (one, other):
        with pytest.raises(ConnectionClosed):
            await closed.send(b"late")
        await closed.aclose()


async def test_memory_sockets_keep_the_promises() -> None:
    await check_sockets(*socket_pair())


class Polite:
    """Waits for a goodbye that does not come."""

    def __init__(self) -> None:
        self.waited = 0.0

    async def receive(self) -> bytes:
        return b""

    async def send(self, frame: bytes) -> None:
        return

    async def aclose(self) -> None:
        began = trio.current_time()
        try:
            await trio.sleep_forever()
        finally:
            self.waited = trio.current_time() - began


async def test_a_goodbye_has_its_time(autojump_clock: MockClock) -> None:
    socket = Polite()
    await close(socket, 2)
    assert socket.waited == pytest.approx(2)


async def test_cancelled_there_is_no_goodbye(autojump_clock: MockClock) -> None:
    socket = Polite()
    with trio.CancelScope() as scope:
        scope.cancel()
        await close(socket, 2)
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert socket.waited == 0
