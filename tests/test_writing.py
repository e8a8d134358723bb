"""Writes to a peer: all bytes in their order, however it takes them, and no longer than it may."""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from relay.writing import FAIR_SIZE, MAXIMUM_PARTS, WRITE_SIZE, write

MORE_THAN_THE_KERNEL_TAKES = 32 * 1024 * 1024


@asynccontextmanager
async def sockets(buffer: int = 64 * 1024) -> AsyncIterator[tuple[trio.SocketStream, ...]]:
    """Two ends of a connection, of which the kernel keeps some `buffer` bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    near = socket.create_connection(listener.getsockname())
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    far, _ = listener.accept()
    listener.close()
    streams = [trio.SocketStream(trio.socket.from_stdlib_socket(one)) for one in (near, far)]
    with trio.fail_after(5000):
        yield tuple(streams)
    for stream in streams:
        await trio.aclose_forcefully(stream)


def counted(sizes: Sequence[int]) -> list[bytes]:
    """Parts of these sizes, none like its neighbours."""
    return [bytes([number % 251]) * size for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [0],
        [1],
        [12, 0, 16384] * 30,
        [7] * (MAXIMUM_PARTS + 1),
        [3, 1_000_000, 5, 2_000_001],
        [12, 16_372] * MAXIMUM_PARTS,
    ],
)
@pytest.mark.parametrize("kind", ["socket", "stream"])
async def test_every_byte_arrives_in_its_order(sizes: list[int], kind: str) -> None:
    parts, told, got = counted(sizes), list[int](), bytearray()
    async with sockets() as pair:
        near, far = pair if kind == "socket" else trio.testing.memory_stream_pair()

        async def send() -> None:
            await write(near, parts, 5, told.append)
            await near.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            async for data in far:
                got += data
    assert got == b"".join(parts)
    assert sum(told) == len(got)


async def test_what_fits_is_one_write() -> None:
    told: list[int] = []
    async with sockets(1024 * 1024) as (near, _):
        await write(near, [b"header", memoryview(bytes(16384)), b"header", b"rest"], 5, told.append)
    assert told == [16384 + 16]


@pytest.mark.parametrize("kind", ["socket", "stream"])
async def test_a_peer_that_takes_nothing(kind: str, autojump_clock: MockClock) -> None:
    async with sockets() as pair:
        near, _ = pair if kind == "socket" else trio.testing.lockstep_stream_pair()
        with pytest.raises(trio.TooSlowError):
            await write(near, [bytes(MORE_THAN_THE_KERNEL_TAKES)], 11, lambda count: None)
        assert trio.current_time() == pytest.approx(11, abs=0.1)


async def test_a_slow_peer_has_the_time_for_each_piece(autojump_clock: MockClock) -> None:
    async with sockets() as (near, far):

        async def device() -> None:
            while True:
                await trio.sleep(8)
                left = WRITE_SIZE
                while left and (data := await far.receive_some(left)):
                    left -= len(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(device)
            # What the kernel keeps comes on top, and lets the peer fall a little behind.
            await write(near, [bytes(10 * WRITE_SIZE)], 17, lambda count: None)
            assert trio.current_time() > 3 * 17
            nursery.cancel_scope.cancel()


async def test_a_peer_that_drips_is_given_up(autojump_clock: MockClock) -> None:
    async with sockets() as (near, far):

        async def device() -> None:
            while True:
                await trio.sleep(1)
                await far.receive_some(WRITE_SIZE // 80)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(device)
            with pytest.raises(trio.TooSlowError):
                await write(near, [bytes(MORE_THAN_THE_KERNEL_TAKES)], 60, lambda count: None)
            assert trio.current_time() < 4 * 60
            nursery.cancel_scope.cancel()


async def test_a_peer_that_is_gone() -> None:
    async with sockets() as (near, far):

        async def pour() -> None:
            while True:
                await write(near, [bytes(FAIR_SIZE)], 5, lambda count: None)

        await trio.aclose_forcefully(far)
        with pytest.raises(trio.BrokenResourceError):
            await pour()


async def test_a_stream_that_is_closed_here() -> None:
    async with sockets() as (near, _):

        async def close() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await near.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            with pytest.raises(trio.ClosedResourceError):
                await write(near, [bytes(MORE_THAN_THE_KERNEL_TAKES)], 5, lambda count: None)
        with pytest.raises(trio.BrokenResourceError):
            await write(near, [b"more"], 5, lambda count: None)


async def test_cancelled_where_it_waits() -> None:
    async with sockets() as (near, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await write(near, [bytes(MORE_THAN_THE_KERNEL_TAKES)], 5, lambda count: None)
        assert scope.cancelled_caught


async def test_a_peer_that_takes_all_at_once_leaves_others_their_turn() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with sockets(8 * 1024 * 1024) as (near, _), trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in range(4):
            await write(near, [bytes(FAIR_SIZE)], 5, lambda count: None)
        assert turns >= 3
        nursery.cancel_scope.cancel()
