"""One authenticated connection while it lasts, the same at both ends.

Three tasks: one writes what the outbox holds, one watches the time and pings, and the caller's
reads and hands on. Whichever fails, all end; the caller closes the socket.
"""

import math
from collections.abc import Awaitable, Callable
from typing import NoReturn

import attrs
import trio

from relay.errors import ConnectionClosed, SignallingError
from relay.signalling.allowance import Allowance
from relay.signalling.limits import MESSAGES_AT_ONCE, MESSAGES_PER_SECOND, Timeouts
from relay.signalling.messages import Message, Ping, Pong, decode, encode
from relay.signalling.outbox import Outbox
from relay.signalling.transport import Socket

# What is done with a message and the frame that it came in. Must not wait for the other end.
Dispatch = Callable[[Message, bytes], Awaitable[None]]


@attrs.define(slots=True)
class _Line:
    """Since when each end is waited for, by trio's clock; never: not now."""

    reading: float = math.inf
    writing: float = math.inf
    said: float = attrs.Factory(trio.current_time)  # when something was last written
    pinged: float = -math.inf


async def converse(
    socket: Socket,
    outbox: Outbox,
    dispatch: Dispatch,
    timeouts: Timeouts,
    returned: Callable[[float], None] = lambda seconds: None,
) -> NoReturn:
    """Write, watch and read until the connection fails; `returned` is told each ping's round trip.

    Raises SignallingError (in an ExceptionGroup) when it is closed or lost, silent, does not take
    what is sent, or speaks out of turn; and what `dispatch` raises.
    """
    line = _Line()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write, socket, outbox, line)
        nursery.start_soon(_watch, outbox, line, timeouts)
        await _read(socket, outbox, dispatch, line, returned)
    raise AssertionError("reading only ends by an error")


async def _write(socket: Socket, outbox: Outbox, line: _Line) -> NoReturn:
    try:
        while True:
            frame = await outbox.take()
            line.writing = trio.current_time()
            await socket.send(frame)
            line.said, line.writing = trio.current_time(), math.inf
    finally:
        outbox.close()


async def _watch(outbox: Outbox, line: _Line, timeouts: Timeouts) -> NoReturn:
    """Keep the deadlines of reading and writing, and ping where nothing was said for a while.

    It looks at least once in a heartbeat, which is shorter than the deadlines, so that none is
    missed: that spares a cancel scope around each message.

    Whoever talks need not ping, nor who has just answered a ping: of thousands of Routers that do
    nothing, pings are all that a Bridge has to do, and this halves them. What is heard does not
    count: a long directory that comes in says nothing of us to the Bridge.
    """
    sequence = 0
    while True:
        now = trio.current_time()
        if now >= line.reading + timeouts.silence:
            raise _silent(timeouts.silence)
        if now >= line.writing + timeouts.write:
            raise SignallingError(f"a message could not be written for {timeouts.write:g} s")
        if now >= max(line.said, line.pinged) + timeouts.heartbeat:
            outbox.put_control(encode(Ping(sequence)), key=Ping)
            sequence, line.pinged = sequence + 1, now
        await trio.sleep_until(
            min(
                max(line.said, line.pinged) + timeouts.heartbeat,
                line.reading + timeouts.silence,
                line.writing + timeouts.write,
            )
        )


async def _read(
    socket: Socket,
    outbox: Outbox,
    dispatch: Dispatch,
    line: _Line,
    returned: Callable[[float], None],
) -> NoReturn:
    # What is dispatched is counted there.
    pings = Allowance(MESSAGES_PER_SECOND, MESSAGES_AT_ONCE, trio.current_time)
    while True:
        line.reading = trio.current_time()
        frame = await socket.receive()
        line.reading = math.inf
        if not frame:
            raise _closed()
        match decode(frame):
            case Ping(sequence):
                # A peer that pings and does not read gets the newest answer only.
                outbox.put_control(encode(Pong(sequence)), key=Pong)
                await _slow_down(pings)
            case Pong():
                if math.isfinite(line.pinged):  # else it answers what nobody has asked
                    returned(trio.current_time() - line.pinged)
                await _slow_down(pings)  # it was heard from: that is all
            case message:
                await dispatch(message, frame)


async def _slow_down(allowance: Allowance) -> None:
    """Read no more before one more may be read."""
    if (delay := allowance.delay()) > 0:
        await trio.sleep(delay)


def _silent(within: float) -> SignallingError:
    return SignallingError(f"the other end was silent for {within:g} s")


def _closed() -> ConnectionClosed:
    return ConnectionClosed("the other end closed the connection")


async def receive(socket: Socket, within: float) -> bytes:
    """The next frame. Raises ConnectionClosed if there is none, and SignallingError if it takes
    longer than that many seconds."""
    frame = b""
    with trio.move_on_after(within) as scope:
        frame = await socket.receive()
    if scope.cancelled_caught:
        raise _silent(within)
    if not frame:
        raise _closed()
    return frame


def reason(group: BaseExceptionGroup[BaseException]) -> str:
    """What to log when a conversation ended: the first cause."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
