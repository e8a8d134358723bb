"""A connection that becomes a WebSocket: from its upgrade on, it is anycorn's to parse and frame.

The socket stays ours, because anycorn's own TCP half waits for a peer that does not read without
any deadline and behind a shield, and takes HTTP/2 from whoever asks. Here every wait on the peer
ends, and a cancelled write closes the socket.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

import h11
import trio
from anycorn.config import Config
from anycorn.events import Closed, Event, RawData, Updated
from anycorn.protocol.h11 import H11Protocol
from anycorn.task_group import TaskGroup
from anycorn.typing import ConnectionState
from anycorn.worker_context import WorkerContext

from relay.web.exchange import ASGIApp, PeerGone

# Accepting a WebSocket is one small write into an empty socket. If it takes longer, the peer sent
# more frames behind its upgrade than anycorn's queue holds, and the app, which has not begun to
# read, waits for itself. Nobody who speaks signalling sends before the Bridge's Hello.
ACCEPT_TIMEOUT = 2.0


class Socket(Protocol):
    """What a WebSocket needs of its connection."""

    peer: tuple[str, int] | None
    own: tuple[str, int] | None

    async def receive(self) -> bytes | bytearray | None:
        """What the peer sends, nothing at its end; None where it is silent for too long."""

    async def push(self, parts: Any) -> None:
        """Send these. Raises PeerGone."""

    def finish(self) -> None:
        """Say no more, and hear no more."""

    def abandon(self) -> None:
        """Close at once."""

    def log_refused(self, cause: str) -> None:
        """Say why the connection is closed."""


def is_upgrade(request: h11.Request) -> bool:
    """Whether a WebSocket is asked for (RFC 6455 §4.2.1)."""
    if request.method != b"GET":
        return False
    headers = dict(request.headers)
    tokens = headers.get(b"connection", b"").lower().split(b",")
    return headers.get(b"upgrade", b"").lower() == b"websocket" and b"upgrade" in map(
        bytes.strip, tokens
    )


class _HTTP1Protocol(H11Protocol):
    """anycorn's HTTP/1.1 without the way to HTTP/2, which no Router needs."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Leave `Upgrade: h2c` and the HTTP/2 preface to be answered as any request is."""


class WebSocketEnd:
    """What is left of a connection after an upgrade was asked for."""

    def __init__(
        self, socket: Socket, app: ASGIApp, config: Config, context: WorkerContext
    ) -> None:
        self._socket = socket
        self._app = app
        self._config = config
        self._context = context
        self._protocol: _HTTP1Protocol
        self._send_lock = trio.Lock()
        self._app_over = trio.Event()
        self._app_over.set()

    async def run(self, received: bytes) -> None:
        """Serve until either side is done; `received` is what has come since the head began."""
        with trio.CancelScope() as helpers:
            async with TaskGroup() as tasks:
                self._protocol = _HTTP1Protocol(
                    self._run_app,
                    self._config,
                    self._context,
                    tasks,
                    ConnectionState({}),
                    self._socket.peer,
                    self._socket.own,
                    self._send,
                    None,
                )
                data: bytes | bytearray | None = received
                while data is not None:
                    # An empty piece is the end of the peer's side: anycorn learns it too.
                    await self._protocol.handle(RawData(bytes(data)))
                    data = await self._socket.receive() if data else None
                await self._protocol.handle(Closed())
                self._socket.finish()
                await self._app_over.wait()
                # What is left are anycorn's helpers: a task that pings a WebSocket that is gone.
                helpers.cancel()

    async def _run_app(
        self, scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any
    ) -> None:
        self._app_over = over = trio.Event()
        try:
            await self._app(scope, receive, partial(self._send_for_app, send))
        finally:
            over.set()

    async def _send_for_app(self, send: Callable[[Any], Awaitable[None]], message: Any) -> None:
        if message["type"] != "websocket.accept":
            await send(message)
            return
        with trio.move_on_after(ACCEPT_TIMEOUT) as accepting:
            await send(message)
        if accepting.cancelled_caught:
            self._socket.log_refused("WebSocket frames before the upgrade was answered")
            self._socket.abandon()
            await trio.lowlevel.checkpoint()

    async def _send(self, event: Event) -> None:
        """What the protocol engine wants done with the socket."""
        match event:
            case RawData():
                if event.data:
                    await self._write(event.data)
            case Closed():
                self._socket.finish()
                await self._protocol.handle(Closed())
            case Updated():
                pass  # busy from the upgrade to the end

    async def _write(self, data: bytes) -> None:
        try:
            async with self._send_lock:
                await self._socket.push([data])
        except PeerGone:
            await self._protocol.handle(Closed())
