"""Reads from a peer: what has come is taken at once, and others get their turn nevertheless."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from relay import transport
from relay.reading import FAIR_PIECES, FAIR_SIZE, READ_SIZE, Reader


@contextmanager
def pair(*, tcp: bool = False) -> Iterator[tuple[trio.SocketStream, socket.socket]]:
    """Our end of a connection and the peer's, which never waits."""
    if tcp:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
    else:
        near, far = socket.socketpair()
    far.setblocking(False)
    with near, far:
        yield trio.SocketStream(trio.socket.from_stdlib_socket(near)), far


def reset(connection: socket.socket) -> None:
    """Close it so that the peer hears of no end, but of a connection that is lost."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


async def test_what_has_come_is_taken_at_once() -> None:
    with pair() as (near, far):
        reader = Reader(near)
        far.send(b"one")
        far.send(b"two")
        assert await reader.take() == b"onetwo"
        far.send(b"three")
        assert await reader.take() == b"three"


async def test_where_nothing_has_come_there_is_none() -> None:
    with pair() as (near, far):
        reader = Reader(near)
        assert await reader.take() is None
        far.send(b"now")
        assert await reader.take() == b"now"
        assert await reader.take() is None


async def test_what_came_before_the_end_comes_before_it() -> None:
    with pair() as (near, far):
        reader = Reader(near)
        far.send(b"last")
        far.close()
        assert await reader.take() == b"last"
        assert await reader.take() == b""
        assert await reader.wait() == b""


async def test_no_more_than_so_much_is_taken_at_a_time() -> None:
    content = bytes(range(256)) * (3 * READ_SIZE // 256)
    got, pieces = bytearray(), list[int]()
    with pair() as (near, far):
        reader, left = Reader(near), memoryview(content)
        while len(got) < len(content):
            if left:
                left = left[far.send(left) :]
            data = await reader.take()
            assert data
            got += data
            pieces.append(len(data))
    assert got == content
    assert max(pieces) <= READ_SIZE


async def test_a_wait_ends_when_something_comes(nursery: trio.Nursery) -> None:
    got: list[bytes] = []
    with pair() as (near, far):
        reader = Reader(near)

        async def wait() -> None:
            got.append(await reader.wait())

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert not got
        far.send(b"late")
        with trio.fail_after(5):
            while not got:
                await trio.sleep(0.001)
        assert got == [b"late"]


async def test_a_wait_for_what_is_there_is_short() -> None:
    with pair() as (near, far):
        far.send(b"there")
        with trio.fail_after(5):
            assert await Reader(near).wait() == b"there"


async def test_a_stream_that_is_closed_here() -> None:
    with pair() as (near, far):
        reader = Reader(near)
        far.send(b"never read")
        await near.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await reader.take()


async def test_a_wait_for_a_stream_that_is_closed_here() -> None:
    with pair() as (near, _):
        await near.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await Reader(near).wait()


async def test_a_stream_that_is_closed_here_while_it_is_waited_for() -> None:
    with pair() as (near, _):

        async def close() -> None:
            await wait_all_tasks_blocked()
            await near.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            with trio.fail_after(5), pytest.raises(trio.ClosedResourceError):
                await Reader(near).wait()


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_connection_that_is_lost(waiting: bool) -> None:
    with pair(tcp=True) as (near, far):
        reader = Reader(near)
        reset(far)
        await trio.lowlevel.wait_readable(near.socket)
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError, match="connection lost"):
            await (reader.wait() if waiting else reader.take())


async def test_what_is_no_socket_is_waited_for() -> None:
    near, far = trio.testing.memory_stream_pair()
    reader = Reader(near)
    await far.send_all(b"there")
    assert await reader.take() is None
    assert await reader.wait() == b"there"
    assert await reader.take() is None
    await far.aclose()
    assert await reader.take() is None
    assert await reader.wait() == b""


@pytest.mark.parametrize("piece", [1, READ_SIZE])
async def test_a_peer_that_is_always_faster_leaves_others_their_turn(piece: int) -> None:
    turns = 0
    taken: dict[int, list[int]] = {}  # the pieces, by the turn that they were taken in

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    with pair() as (near, far):
        reader = Reader(near)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for _ in range(10 * FAIR_PIECES):
                far.send(bytes(piece))
                data = await reader.take()
                assert data
                taken.setdefault(turns, []).append(len(data))
            nursery.cancel_scope.cancel()
    together = list(taken.values())
    assert len(together) > 2
    # Between two turns of the other there are two of its own at the most: trio mixes their order.
    assert max(map(len, together)) <= 2 * FAIR_PIECES
    assert max(map(sum, together)) < 2 * (FAIR_SIZE + READ_SIZE)
    # And not a turn for each piece.
    assert len(together) < 10 * FAIR_PIECES


@pytest.mark.parametrize("pieces", [0, FAIR_PIECES])
async def test_cancelled_it_has_taken_nothing(pieces: int) -> None:
    """Where it takes a turn of the event loop, and where not."""
    with pair() as (near, far):
        reader = Reader(near)
        for _ in range(pieces):
            far.send(b".")
            assert await reader.take() == b"."
        far.send(b"kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            await reader.take()
        assert scope.cancelled_caught
        assert await reader.take() == b"kept"


async def test_a_wait_that_is_cancelled_has_taken_nothing() -> None:
    with pair() as (near, far):
        reader = Reader(near)
        far.send(b"kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            await reader.wait()
        assert scope.cancelled_caught
        assert await reader.take() == b"kept"


async def test_the_peer_is_told_that_all_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[trio.abc.Stream] = []
    monkeypatch.setattr(transport, "acknowledger", lambda stream: lambda: told.append(stream))
    with pair() as (near, far):
        reader = Reader(near)
        assert await reader.take() is None
        assert told == []
        far.send(b"there")
        assert await reader.take() == b"there"
        assert told == [near]
        far.send(b"more")
        assert await reader.wait() == b"more"
        assert told == [near, near]
        far.close()
        assert await reader.take() == b""
        assert told == [near, near]
