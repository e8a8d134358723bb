"""A WebSocket (RFC 6455) that is open, at either end, over a connection that somebody else made.

wsproto parses and frames. Whoever receives pulls: there is no task that reads ahead, no queue, and
nothing kept of what has passed. Thousands of Routers stay connected for weeks, and say little.
"""

import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import trio
from wsproto.connection import Connection as Framing
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

# What a connection takes and gives.
Buffer = bytes | bytearray | memoryview

# Opcode of a binary frame, and the bit that says that it is the message's last (RFC 6455 §5.2).
_BINARY: Final = 0x82
# A message that is copied behind its head, to be one record of TLS.
_JOINED: Final = 4096
# Seconds for the answer to the peer's close: it does not wait for more than that.
GOODBYE: Final = 0.5


class Closed(OSError):
    """Nothing can be sent any more."""


# What the peer sends; nothing, or None, at the end, whatever made it.
Receive = Callable[[], Awaitable[bytes | bytearray | None]]
# Sends the parts; raises OSError where the peer is gone.
Push = Callable[[Sequence[Buffer]], Awaitable[None]]


class WebSocket:
    """One open WebSocket.

    One task receives and one task sends, at the same time. A message of more than `maximum` bytes
    closes it with code 1009.
    """

    def __init__(self, receive: Receive, push: Push, framing: Framing, maximum: int) -> None:
        self._receive = receive
        self._push = push
        self._framing = framing
        self._masked = framing.client  # a server's frames are not (§5.1)
        self._maximum = maximum
        self._gathered = bytearray()  # of the message that is coming in
        self._open = True  # for us to send
        self._over = False  # for us to receive
        self._sending = trio.Lock()
        self.code: int = CloseReason.ABNORMAL_CLOSURE  # why it is closed (§7.4.1)

    async def receive(self) -> bytes | str | None:
        """The next message, whole; None once the connection is closed or lost."""
        while not self._over:
            ping: Ping | None = None
            for event in self._framing.events():
                if isinstance(event, Ping):
                    ping = event  # of several only the newest needs an answer (§5.5.3)
                    continue
                message = await self._take(event)
                if message is not None:
                    await self._answer(ping)
                    return message
                if self._over:
                    return None
            await self._answer(ping)
            data = await self._receive()
            if not data:
                self._open, self._over = False, True
                break
            try:
                self._framing.receive_data(bytes(data))
            except (RemoteProtocolError, LocalProtocolError):  # behind a close
                self._over = True
        return None

    async def send(self, data: bytes) -> None:
        """Send a binary message. Raises Closed."""
        if self._masked:
            await self._send(BytesMessage(data=data))
            return
        # Framed here: the same large message may be on its way to thousands, and wsproto copies it.
        head = _head(len(data))
        await self._write([head + data] if len(data) <= _JOINED else [head, data])

    async def send_text(self, text: str) -> None:
        """Send a text message. Raises Closed."""
        await self._send(TextMessage(data=text))

    async def ping(self) -> None:
        """Have the peer say that it lives. Raises Closed."""
        await self._send(Ping())

    async def close(self, code: int = CloseReason.NORMAL_CLOSURE) -> None:
        """Say goodbye; harmless where it is closed already."""
        if self._open:
            with suppress(Closed):  # it was faster
                await self._send(CloseConnection(code=code))
            self._open = False

    # --- inside ---------------------------------------------------------------------------------

    async def _send(self, event: Event) -> None:
        if not self._open:
            raise Closed("the WebSocket is closed")
        try:
            framed = self._framing.send(event)
        except LocalProtocolError as error:
            raise Closed("the WebSocket is closed") from error
        await self._write([framed])

    async def _write(self, parts: Sequence[Buffer]) -> None:
        """Send a frame, and no other meanwhile: who receives may have to answer a ping."""
        try:
            self._sending.acquire_nowait()  # without a turn of the event loop
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            if not self._open:
                raise Closed("the WebSocket is closed")
            await self._push(parts)
        except OSError as error:
            self._open = False
            raise Closed(str(error)) from error
        finally:
            self._sending.release()

    async def _answer(self, ping: Ping | None) -> None:
        if ping is not None:
            with suppress(Closed):  # who receives learns of it there
                await self._send(ping.response())

    async def _take(self, event: Event) -> bytes | str | None:
        """The message that this ends, if it does."""
        match event:
            case BytesMessage() | TextMessage():
                return await self._gather(event)
            case CloseConnection():
                # The peer's own goodbye, or what is wrong with its frames.
                self.code = int(event.code)
                self._over = True
                with trio.move_on_after(GOODBYE), suppress(Closed):
                    await self._send(event.response())
                self._open = False
        return None

    async def _gather(self, event: BytesMessage | TextMessage) -> bytes | str | None:
        """The message that this part ends."""
        data = event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
        if len(self._gathered) + len(data) > self._maximum:
            self._over, self.code = True, CloseReason.MESSAGE_TOO_BIG
            await self.close(CloseReason.MESSAGE_TOO_BIG)
            return None
        if event.message_finished and not self._gathered:
            return event.data if isinstance(event, TextMessage) else data
        self._gathered += data  # no list of parts: there may be millions of them, also empty ones
        if not event.message_finished:
            return None
        whole, self._gathered = self._gathered, bytearray()
        return whole.decode() if isinstance(event, TextMessage) else bytes(whole)


def server_framing(early: bytes = b"") -> Framing:
    """The server's end; `early` is what the peer has sent behind its upgrade."""
    return Framing(ConnectionType.SERVER, trailing_data=early)


def _head(length: int) -> bytes:
    """What stands before a binary message of one frame, which a server does not mask (§5.2)."""
    if length < 126:
        return bytes((_BINARY, length))
    if length < 2**16:
        return struct.pack("!BBH", _BINARY, 126, length)
    return struct.pack("!BBQ", _BINARY, 127, length)
