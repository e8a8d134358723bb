"""What stands between the Routers and the Bridge in tests: a reverse proxy that does the TLS.

It sees every byte that the Routers send out, before TLS: so it can record them, count them, and cut
connections when a test says so.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

LOOPBACK = "127.0.0.1"

# One read; large enough that the proxy is not what a test waits for.
PIECE = 256 * 1024

# Of a connection's first bytes; enough for the request line that tells what it is for.
HEAD = 64


@attrs.define(slots=True, eq=False)
class Connection:
    """One connection of a Router: what it is for, and what passed."""

    head: bytes = b""
    outward: bytearray = attrs.field(factory=bytearray)
    inward: bytearray = attrs.field(factory=bytearray)
    outward_count: int = 0
    inward_count: int = 0
    broken: bool = False
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def is_signalling(self) -> bool:
        """Whether this is a Router's WebSocket."""
        return self.head.startswith(b"GET /v1/signal")

    def cut(self) -> None:
        """End it now, both ways, as a fallen line would."""
        self._scope.cancel()


@attrs.define(slots=True)
class Wire:
    """The proxy: its port, and all connections that it has carried."""

    port: int
    record: bool
    connections: list[Connection] = attrs.field(factory=list)
    live: set[Connection] = attrs.field(factory=set)

    def signalling(self) -> list[Connection]:
        """The Routers' WebSockets that are open now, oldest first."""
        return [c for c in self.connections if c in self.live and c.is_signalling]

    def recorded(self) -> bytes:
        """Every byte of every connection, one after the other."""
        return b"\n".join(bytes(c.outward) + b"\n" + bytes(c.inward) for c in self.connections)


@asynccontextmanager
async def reverse_proxy(
    server_context: ssl.SSLContext, target_port: int, *, record: bool = False
) -> AsyncIterator[Wire]:
    """Listen with TLS on a free loopback port and pass everything on to `target_port`, plain."""
    listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
    wire = Wire(listeners[0].socket.getsockname()[1], record)

    async def serve(stream: trio.SocketStream) -> None:
        connection = Connection()
        wire.connections.append(connection)
        wire.live.add(connection)
        near = trio.SSLStream(stream, server_context, server_side=True, https_compatible=True)
        try:
            with connection._scope:
                await _carry(wire, connection, near, target_port)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            connection.broken = True  # either side may end a connection in any way
        finally:
            wire.live.discard(connection)
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield wire
        nursery.cancel_scope.cancel()


async def _carry(
    wire: Wire, connection: Connection, near: trio.SSLStream[trio.SocketStream], port: int
) -> None:
    far = await trio.open_tcp_stream(LOOPBACK, port)

    async def outward() -> None:
        while data := await near.receive_some(PIECE):
            if len(connection.head) < HEAD:
                connection.head += bytes(data[:HEAD])
            connection.outward_count += len(data)
            if wire.record:
                connection.outward += data
            await far.send_all(data)
        await far.send_eof()

    async def inward() -> None:
        while data := await far.receive_some(PIECE):
            connection.inward_count += len(data)
            if wire.record:
                connection.inward += data
            await near.send_all(data)
        nursery.cancel_scope.cancel()

    async with far, trio.open_nursery() as nursery:
        nursery.start_soon(outward)
        nursery.start_soon(inward)
