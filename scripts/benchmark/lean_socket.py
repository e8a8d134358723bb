"""A WebSocket's client end with as little work as it can do: what is measured is the other end."""

import ssl
import struct

import trio

from relay.errors import SignallingError

# The first byte of an unfragmented frame, and the bit of its second (RFC 6455 §5.2).
BINARY, CLOSE, PING, PONG = 0x82, 0x88, 0x89, 0x8A
MASKED = 0x80

# One read of the socket.
RECEIVE = 64 * 1024


class LeanSocket:
    """A WebSocket's binary frames over TLS (RFC 6455), with as little work as a client can do."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream
        self._received = bytearray()
        self._sending = trio.Lock()

    @classmethod
    async def dial(cls, host: str, port: int, trust: ssl.SSLContext) -> "LeanSocket":
        """One that is upgraded, to a Bridge's signalling. Raises SignallingError."""
        try:
            transport = await trio.open_tcp_stream(host, port)
        except OSError as error:
            raise SignallingError(str(error)) from error
        socket = cls(trio.SSLStream(transport, trust, server_hostname=host, https_compatible=True))
        try:
            await socket._upgrade(f"{host}:{port}")
        except BaseException:
            await socket.aclose()
            raise
        return socket

    async def _upgrade(self, host: str) -> None:
        head = (
            f"GET /v1/signal HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await self._write(head.encode())
        while b"\r\n\r\n" not in self._received:
            if not await self._read():
                raise SignallingError("closed before it was upgraded")
        answer, _, rest = bytes(self._received).partition(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise SignallingError(answer.partition(b"\r\n")[0].decode("latin-1"))
        self._received = bytearray(rest)

    async def receive(self) -> bytes:
        """The next binary frame; b"" at the end."""
        while True:
            frame = self._next()
            if frame is None:
                if not await self._read():
                    return b""
                continue
            opcode, payload = frame
            if opcode == BINARY:
                return payload
            if opcode == CLOSE:
                return b""
            if opcode == PING:
                await self._send(PONG, payload)

    async def send(self, frame: bytes) -> None:
        await self._send(BINARY, frame)

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    def _next(self) -> tuple[int, bytes] | None:
        data = self._received
        if len(data) < 2:
            return None
        length, begin = data[1], 2
        if length == 126:
            length, begin = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, begin = int.from_bytes(data[2:10], "big"), 10
        end = begin + length
        if len(data) < end:
            return None
        opcode, payload = data[0], bytes(data[begin:end])
        del data[:end]
        return opcode, payload

    async def _read(self) -> bool:
        try:
            data = await self._stream.receive_some(RECEIVE)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self._received += data
        return bool(data)

    async def _send(self, opcode: int, payload: bytes) -> None:
        length = len(payload)
        if length < 126:
            head = bytes((opcode, MASKED | length))
        elif length < 2**16:
            head = struct.pack("!BBH", opcode, MASKED | 126, length)
        else:
            head = struct.pack("!BBQ", opcode, MASKED | 127, length)
        # A mask of zeros leaves the payload as it is; the Bridge unmasks it all the same.
        await self._write(head + bytes(4) + payload)

    async def _write(self, data: bytes) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise SignallingError("the connection is gone") from error
