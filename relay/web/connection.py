"""One HTTP/1.1 connection: its TLS, its requests one behind the other, its deadlines and its end.

h11 parses and frames, and the app is called here (`relay.web.exchange`); where a WebSocket is asked
for, anycorn does from there on (`relay.web.websocket`). Every wait on the peer ends, and a
cancelled write closes the socket.
"""

import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Any

import attrs
import h11
import structlog
import trio
from anycorn.config import Config
from anycorn.worker_context import WorkerContext

from relay.byte_stream import WIRE_PIECE, Buffer, PlainStream, TLSStream
from relay.web.exchange import ASGIApp, Exchange, PeerGone
from relay.web.websocket import WebSocketEnd, is_upgrade

log = structlog.get_logger()

# A request's head is read in small pieces: most connections wait for one most of the time.
HEAD_PIECE = 16 * 1024
# Bodies come as they arrive, up to this much at once.
BODY_PIECE = WIRE_PIECE
# After we said our last word the peer may still be sending a body that we refused. Closing at once
# would make its kernel throw our answer away (RST), so we listen for a moment.
LINGER = 2.0


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
        self.own = _address(transport.socket.getsockname())
        self.engine = _engine(config)
        self._transport = transport
        plain = PlainStream(transport)
        self._stream: PlainStream | TLSStream = plain
        if ssl_context is not None:
            self._stream = TLSStream(plain, ssl_context, server_side=True)
        self._app = app
        self._config = config
        self._context = context
        self._timeouts = timeouts
        self._on_busy = on_busy
        self._life = trio.CancelScope()
        self._finished = False
        self._reading: trio.CancelScope | None = None

    async def run(self) -> None:
        """Serve requests until either side is done. Raises nothing for the peer's faults."""
        with self._life:
            try:
                if await self._handshake():
                    await self._serve()
                    self.finish()
                    await self._linger()
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

    def log_refused(self, cause: str) -> None:
        """Say why the connection is closed."""
        log.info("connection closed", why=cause, peer=self.peer[0] if self.peer else "unix")

    # --- from handshake to end ------------------------------------------------------------------

    async def _handshake(self) -> bool:
        if not isinstance(self._stream, TLSStream):
            return True
        with trio.move_on_after(self._timeouts.handshake) as self._reading:
            try:
                await self._stream.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.log_refused(_handshake_fault(error))
                return False
        if self._reading.cancelled_caught:
            if not self._finished:
                self.log_refused("TLS handshake not finished in time")
            return False
        return True

    async def _serve(self) -> None:
        deadline = trio.current_time() + self._timeouts.request
        first = True
        while not self._finished:
            # Not from the last byte: a header that drips in has the same time as one that flows.
            request, head = await self._request(deadline, first=first)
            if request is None:
                return
            self._on_busy(self, True)
            try:
                if is_upgrade(request):
                    await WebSocketEnd(self, self._app, self._config, self._context).run(head)
                    return
                if not await self._answer(request):
                    return
            finally:
                self._on_busy(self, False)
            first = False
            deadline = trio.current_time() + self._timeouts.idle

    async def _request(self, deadline: float, *, first: bool) -> tuple[h11.Request | None, bytes]:
        """The next request, and the bytes of its head and what came behind it."""
        head = bytearray(self.engine.trailing_data[0])
        while True:
            try:
                event = self.engine.next_event()
            except h11.RemoteProtocolError as error:
                await self._refuse(error.error_status_hint, str(error))
                return None, b""
            if isinstance(event, h11.Request):
                if fault := _ambiguous_length(event):
                    await self._refuse(400, fault)
                    return None, b""
                return event, bytes(head)
            if event is not h11.NEED_DATA:
                return None, b""
            data = await self._read(HEAD_PIECE, deadline)
            if data is None:
                # Being idle after an answer is everybody's right, and no news.
                if not self._finished and (first or head):
                    self.log_refused("silent for too long")
                return None, b""
            if first and not head and (fault := _foreign_protocol(data)):
                self.log_refused(fault)
            head += data
            self.engine.receive_data(data)  # type: ignore[arg-type]

    async def _answer(self, request: h11.Request) -> bool:
        """Have the app answer; whether another request may follow."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode("ascii"),
            "scheme": "http" if isinstance(self._stream, PlainStream) else "https",
            "root_path": "",
            "client": self.peer,
            "server": self.own,
            "state": {},
            "extensions": {},
        }
        exchange = Exchange(self, request, scope)
        try:
            await exchange.run(self._app)
        except Exception:
            # One request's fault, and it was answered for.
            log.exception("http server", message="Error in ASGI Framework")
        if self._finished or not exchange.over():
            return False
        self.engine.start_next_cycle()
        return True

    async def _refuse(self, status: int, why: str) -> None:
        """Answer what is no request, if it still can be."""
        log.info("http server", message=f"Rejecting request: {why} ({status})")
        if self.engine.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [(b"content-length", b"0"), (b"connection", b"close"), *self.response_headers()]
        answer = self.engine.send(h11.Response(status_code=status, headers=headers))
        with suppress(PeerGone):
            await self.push([answer, self.engine.send(h11.EndOfMessage())])

    async def _linger(self) -> None:
        with trio.move_on_after(LINGER):
            try:
                while await self._transport.receive_some(BODY_PIECE):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # gone: what lingering waits for

    # --- for exchanges and WebSockets -----------------------------------------------------------

    def response_headers(self) -> list[tuple[bytes, bytes]]:
        """What stands in every answer."""
        headers = self._config.response_headers("h11")
        if self._context.terminated.is_set():
            headers.append((b"connection", b"close"))
        return headers

    async def pull(self, *, waits: bool) -> bytes | bytearray | None:
        """More of a body, none at the peer's end; None where it is gone, or takes too long.

        Where no body is due (`waits`), the peer may take any time: it waits for us.
        """
        deadline = inf if waits else trio.current_time() + self._timeouts.read
        return await self._read(BODY_PIECE, deadline)

    async def receive(self) -> bytes | bytearray | None:
        """What a WebSocket's peer sends, none at its end; None where it is silent for too long."""
        if self._finished:
            return None
        data = await self._read(HEAD_PIECE, trio.current_time() + self._timeouts.read)
        if data is None and not self._finished:
            self.log_refused("silent for too long")
        return data

    async def push(self, parts: Sequence[Buffer]) -> None:
        """Send these, each BODY_PIECE within the time for a write. Raises PeerGone."""
        batch: list[Buffer] = []
        size = 0
        for part in parts:
            view = memoryview(part)
            for at in range(0, len(view), BODY_PIECE):
                piece = view[at : at + BODY_PIECE]
                batch.append(piece)
                size += len(piece)
                if size >= BODY_PIECE:
                    await self._write(batch)
                    batch, size = [], 0
        if batch:
            await self._write(batch)

    async def _write(self, parts: Sequence[Buffer]) -> None:
        written = False
        try:
            with trio.move_on_after(self._timeouts.write):
                await self._stream.send_parts(parts)
                written = True
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerGone("the peer is gone") from error
        finally:
            # What went out is anybody's guess: nothing may follow it.
            if not written:
                self.finish()
        if not written:
            raise PeerGone("the peer does not read")

    async def _read(self, size: int, deadline: float) -> bytes | bytearray | None:
        """What has come, none at the peer's end; None where it is gone, or past `deadline`."""
        with trio.CancelScope(deadline=deadline) as self._reading:
            try:
                return await self._stream.receive_some(size)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
        return None


def _ambiguous_length(request: h11.Request) -> str:
    """Why somebody in between may read another end of the request than we (RFC 9112 §6.1)."""
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            return "both Content-Length and Transfer-Encoding"
        if request.http_version < b"1.1":
            return "Transfer-Encoding in HTTP/1.0"
    return ""


def _engine(config: Config) -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=config.h11_max_incomplete_size)


def _address(name: Any) -> tuple[str, int] | None:
    """(host, port) as ASGI wants it; None for a Unix socket."""
    return (name[0], name[1]) if isinstance(name, tuple) else None


def _foreign_protocol(data: bytes | bytearray) -> str:
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
