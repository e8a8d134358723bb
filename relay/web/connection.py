"""One HTTP/1.1 or WebSocket connection: trio's stream under anycorn's protocol engine.

anycorn parses and frames; the socket is ours, because anycorn's own TCP half waits for a peer that
does not read without any deadline and behind a shield, has no limit on connections, and takes
HTTP/2 from whoever asks. Here every wait on the peer ends, and a cancelled write closes the socket.
"""

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any

import attrs
import h11
import structlog
import trio
from anycorn.config import Config
from anycorn.events import Closed, Event, RawData, SendFile, Updated
from anycorn.protocol.h11 import H11Protocol, H11WSConnection
from anycorn.task_group import TaskGroup
from anycorn.typing import ConnectionState
from anycorn.worker_context import WorkerContext

log = structlog.get_logger()

ASGIApp = Callable[..., Awaitable[None]]

RECEIVE_SIZE = 64 * 1024
FILE_PIECE = 256 * 1024
# After we said our last word the peer may still be sending a body that we refused. Closing at once
# would make its kernel throw our answer away (RST), so we listen for a moment.
LINGER = 2.0
# Accepting a WebSocket is one small write into an empty socket. If it takes longer, the peer sent
# more frames behind its upgrade than anycorn's queue holds, and the app, which has not begun to
# read, waits for itself. Nobody who speaks signalling sends before the Bridge's Hello.
ACCEPT_TIMEOUT = 2.0


@attrs.frozen(slots=True)
class Timeouts:
    """Seconds that a peer may take. Each ends the connection."""

    # A TLS handshake is two round trips; hospitals' proxies add seconds, not more.
    handshake: float = 10.0
    # From the start until a whole request header is there.
    request: float = 20.0
    # From an answer until the next whole header. Longer than clients keep an idle connection
    # (Relay's own 30 s), so that they close it first and no request meets a closing one.
    idle: float = 60.0
    # Between two pieces of a body or two WebSocket frames. Routers ping every 15 s.
    read: float = 60.0
    # One write (up to 256 KiB) to a peer that does not read.
    write: float = 60.0


class _HTTP1Protocol(H11Protocol):
    """anycorn's HTTP/1.1 without the way to HTTP/2, which no Router needs."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Leave `Upgrade: h2c` and the HTTP/2 preface to be answered as any request is."""


class Connection:
    """One accepted socket, from handshake to close."""

    def __init__(
        self,
        transport: trio.SocketStream,
        *,
        app: ASGIApp,
        config: Config,
        context: WorkerContext,
        timeouts: Timeouts,
        ssl_context: ssl.SSLContext | None,
        on_busy: Callable[["Connection", bool], None],
    ) -> None:
        self.peer = _address(transport.socket.getpeername())
        self._transport = transport
        self._stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = transport
        if ssl_context is not None:
            self._stream = trio.SSLStream(
                transport, ssl_context, server_side=True, https_compatible=True
            )
        self._app = app
        self._config = config
        self._context = context
        self._timeouts = timeouts
        self._on_busy = on_busy
        self._protocol: _HTTP1Protocol
        self._send_lock = trio.Lock()
        self._app_over = trio.Event()
        self._app_over.set()
        self._life = trio.CancelScope()
        self._finished = False
        self._idle = True
        self._idle_since = trio.current_time()
        self._answered = False
        self._reading: trio.CancelScope | None = None

    async def run(self) -> None:
        """Serve requests until either side is done. Raises nothing for the peer's faults."""
        with self._life:
            try:
                if await self._handshake():
                    await self._serve()
            finally:
                # Closes even where this task is cancelled.
                await self._transport.aclose()

    def abandon(self) -> None:
        """Close at once, whatever is going on."""
        self._life.cancel()

    def finish(self) -> None:
        """Say no more and wake the reader: the connection ends after a short linger."""
        if self._finished:
            return
        self._finished = True
        with suppress(OSError, trio.ClosedResourceError):  # the peer was faster
            self._transport.socket.shutdown(socket.SHUT_WR)
        if self._reading is not None:
            self._reading.cancel()

    # --- towards the app ------------------------------------------------------------------------

    async def _handshake(self) -> bool:
        if not isinstance(self._stream, trio.SSLStream):
            return True
        with trio.move_on_after(self._timeouts.handshake) as self._reading:
            try:
                await self._stream.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._log_refused(_handshake_fault(error))
                return False
        if self._reading.cancelled_caught:
            self._log_refused("TLS handshake not finished in time")
            return False
        return True

    async def _serve(self) -> None:
        with trio.CancelScope() as helpers:
            async with TaskGroup() as tasks:
                await self._converse(tasks)
                # What is left are anycorn's helpers: a task that pings a WebSocket that is gone.
                helpers.cancel()

    async def _converse(self, tasks: TaskGroup) -> None:
        self._protocol = _HTTP1Protocol(
            self._run_app,
            self._config,
            self._context,
            tasks,
            ConnectionState({}),
            self.peer,
            _address(self._transport.socket.getsockname()),
            self._send,
            None,
        )
        self._idle_since = trio.current_time()
        await self._read_until_done()
        await self._protocol.handle(Closed())
        self.finish()
        await self._linger()
        await self._transport.aclose()
        await self._app_over.wait()

    async def _run_app(
        self, scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any
    ) -> None:
        self._on_busy(self, True)
        self._app_over = over = trio.Event()
        try:
            await self._app(scope, receive, partial(self._send_for_app, send))
        finally:
            over.set()
            self._on_busy(self, False)

    async def _send_for_app(self, send: Any, message: Any) -> None:
        if message["type"] != "websocket.accept":
            await send(message)
            return
        with trio.move_on_after(ACCEPT_TIMEOUT) as accepting:
            await send(message)
        if accepting.cancelled_caught:
            self._log_refused("WebSocket frames before the upgrade was answered")
            self.abandon()
            await trio.lowlevel.checkpoint()

    # --- from the peer --------------------------------------------------------------------------

    async def _read_until_done(self) -> None:
        first = True
        while not self._finished:
            data = b""
            with trio.CancelScope(deadline=self._read_deadline()) as self._reading:
                try:
                    data = bytes(await self._stream.receive_some(RECEIVE_SIZE))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
            if self._reading.cancelled_caught:
                # Being idle after an answer is everybody's right, and no news.
                if not self._finished and (first or not self._idle):
                    self._log_refused("silent for too long")
                return
            if first and (fault := _foreign_protocol(data)):
                self._log_refused(fault)
            first = False
            # An empty piece is the end of the peer's side: h11 learns it too.
            await self._protocol.handle(RawData(data))
            if not data:
                return

    def _read_deadline(self) -> float:
        if self._idle:
            # Not from the last byte: a header that drips in has the same time as one that flows.
            allowed = self._timeouts.idle if self._answered else self._timeouts.request
            return self._idle_since + allowed
        connection = self._protocol.connection
        if isinstance(connection, H11WSConnection) or connection.their_state is h11.SEND_BODY:
            return trio.current_time() + self._timeouts.read
        return inf  # the request is here in full; now it is for us to speak

    async def _linger(self) -> None:
        with trio.move_on_after(LINGER):
            try:
                while await self._transport.receive_some(RECEIVE_SIZE):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # gone: what lingering waits for

    # --- to the peer ----------------------------------------------------------------------------

    async def _send(self, event: Event) -> None:
        """What the protocol engine wants done with the socket."""
        match event:
            case RawData():
                if event.data:
                    await self._write(event.data)
            case SendFile():
                await self._write_file(event)
            case Closed():
                self.finish()
                await self._protocol.handle(Closed())
            case Updated():
                self._idle = event.idle
                self._answered = self._answered or event.idle
                self._idle_since = trio.current_time()
                if self._reading is not None:
                    self._reading.deadline = self._read_deadline()

    async def _write(self, data: bytes) -> None:
        written = False
        async with self._send_lock:
            with trio.move_on_after(self._timeouts.write):
                try:
                    await self._stream.send_all(data)
                    written = True
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # told to the engine below
                except trio.Cancelled:
                    # What went out is anybody's guess: nothing may follow it.
                    self.finish()
                    raise
        if not written:
            self.finish()
            await self._protocol.handle(Closed())

    async def _write_file(self, file: SendFile) -> None:
        offset, end = file.offset, file.offset + file.count
        while offset < end and not self._finished:
            data = await trio.to_thread.run_sync(
                os.pread, file.file, min(FILE_PIECE, end - offset), offset
            )
            if not data:  # the file is shorter than what the header promised
                self.finish()
                break
            await self._write(data)
            offset += len(data)

    def _log_refused(self, cause: str) -> None:
        log.info("connection closed", why=cause, peer=self.peer[0] if self.peer else "unix")


def _address(name: Any) -> tuple[str, int] | None:
    """(host, port) as ASGI wants it; None for a Unix socket."""
    return (name[0], name[1]) if isinstance(name, tuple) else None


def _foreign_protocol(data: bytes) -> str:
    """Name what is certainly not HTTP by its first bytes."""
    if data[:2] == b"\x16\x03":
        return "TLS on a plain port"
    if data[:2] == b"\x01\x00":
        return "DICOM on the HTTP port"
    return ""


def _handshake_fault(error: BaseException) -> str:
    reason = getattr(error.__cause__, "reason", None)
    if reason == "HTTP_REQUEST":
        return "plain HTTP on the TLS port"
    if reason == "WRONG_VERSION_NUMBER":
        return "not TLS on the TLS port"
    return f"TLS handshake failed: {reason or 'connection lost'}"
