"""One authenticated connection while it lasts, the same at both ends.

Three tasks: one writes what the outbox holds, one sends a ping now and then, and the caller's reads
and hands on. Whichever fails, all end; the caller closes the socket.
"""

from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from relay.errors import SignallingError
from relay.signalling.limits import Timeouts
from relay.signalling.messages import Message, Ping, Pong, decode, encode
from relay.signalling.outbox import Outbox
from relay.signalling.transport import Socket

# What is done with a message and the frame that it came in. Must not wait for the other end.
Dispatch = Callable[[Message, bytes], Awaitable[None]]


async def converse(
    socket: Socket, outbox: Outbox, dispatch: Dispatch, timeouts: Timeouts
) -> NoReturn:
    """Write, ping and read until the connection fails.

    Raises SignallingError (in an ExceptionGroup) when it is closed or lost, silent, does not take
    what is sent, or speaks out of turn; and what `dispatch` raises.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write, socket, outbox, timeouts)
        nursery.start_soon(_ping, outbox, timeouts)
        await _read(socket, outbox, dispatch, timeouts)
    raise AssertionError("reading only ends by an error")


async def _write(socket: Socket, outbox: Outbox, timeouts: Timeouts) -> NoReturn:
    try:
        while True:
            frame = await outbox.take()
            with trio.move_on_after(timeouts.write) as scope:
                await socket.send(frame)
            if scope.cancelled_caught:
                raise SignallingError(f"a message could not be written for {timeouts.write:g} s")
    finally:
        outbox.close()


async def _ping(outbox: Outbox, timeouts: Timeouts) -> NoReturn:
    sequence = 0
    while True:
        await trio.sleep(timeouts.heartbeat)
        outbox.put_control(encode(Ping(sequence)), key=Ping)
        sequence += 1


async def _read(socket: Socket, outbox: Outbox, dispatch: Dispatch, timeouts: Timeouts) -> NoReturn:
    while True:
        frame = await receive(socket, timeouts.silence)
        match decode(frame):
            case Ping(sequence):
                # A peer that pings and does not read gets the newest answer only.
                outbox.put_control(encode(Pong(sequence)), key=Pong)
            case Pong():
                pass  # it was heard from: that is all
            case message:
                await dispatch(message, frame)


async def receive(socket: Socket, within: float) -> bytes:
    """The next frame. Raises SignallingError if there is none or it takes too long (seconds)."""
    frame = b""
    with trio.move_on_after(within) as scope:
        frame = await socket.receive()
    if scope.cancelled_caught:
        raise SignallingError(f"the other end was silent for {within:g} s")
    if not frame:
        raise SignallingError("the other end closed the connection")
    return frame


def reason(group: BaseExceptionGroup[BaseException]) -> str:
    """What to log when a conversation ended: the first cause."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
