"""One HTTP/1.1 connection: its TLS, its requests one behind the other, its deadlines and its end.

The app is called here (`relay.web.exchange`), also where a WebSocket is asked for
(`relay.web.websocket`). Every wait on the peer ends: it is noted until when, the server looks now
and then (`Connection.look`), and who waits too long is woken. A cancel scope for each wait instead
took a tenth of the Bridge's processor time. A cancelled write closes the socket.
"""

import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Any

import attrs
import structlog
import trio

from relay.byte_stream import WIRE_PIECE, Buffer, PlainStream, TLSStream
from relay.web.exchange import ASGIApp, Exchange, PeerGone, refusal
from relay.web.head import BadRequest, Head, take
from relay.web.websocket import WebSocketEnd, is_upgrade

log = structlog.get_logger()

# A request's head is read in small pieces: most connections wait for one most of the time.
HEAD_PIECE = 16 * 1024
# Bodies come as they arrive, up to this much at once.
BODY_PIECE = WIRE_PIECE
# After we said our last word the peer may still be sending a body that we refused. Closing at once
# would make its kernel throw our answer away (RST), so we listen for a moment.
LINGER = 2.0
# Seconds of a WebSocket's silence, after which its peer is asked to say something: sooner than the
# time for a read, so that who lives and has nothing to say is never taken for dead.
PING_AFTER = 20.0
# Seconds, and the part of the shortest time, between two looks for who takes too long: so much
# later than its time somebody is woken, at most.
LOOK = 1.0
LOOKS = 10


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
    # Between two pieces of a body or two WebSocket frames. Routers ping every 5 s.
    read: float = 60.0
    # One write (up to 256 KiB) to a peer that does not read.
    write: float = 60.0

    @property
    def look(self) -> float:
        """Seconds between two looks at each connection."""
        shortest: float = min(attrs.astuple(self))
        return min(LOOK, shortest / LOOKS)


class Connection:
    """One accepted socket, from handshake to close."""

    def __init__(
        self,
        transport: trio.SocketStream,
        *,
        app: ASGIApp,
        maximum_message: int,
        timeouts: Timeouts,
        ssl_context: ssl.SSLContext | None,
        on_busy: Callable[["Connection", bool], None],
    ) -> None:
        self.peer = _address(transport.socket.getpeername())
        self.own = _address(transport.socket.getsockname())
        # What has come and nobody has taken yet.
        self.ahead = bytearray()
        # The server stops: an answer is the last.
        self.ending = False
        self._transport = transport
        plain = PlainStream(transport)
        self._stream: PlainStream | TLSStream = plain
        if ssl_context is not None:
            self._stream = TLSStream(plain, ssl_context, server_side=True)
        self._app = app
        self._maximum_message = maximum_message
        self._timeouts = timeouts
        self._on_busy = on_busy
        self._life = trio.CancelScope()
        self._finished = False
        # Until when we wait for the peer.
        self._reads_until = inf
        self._writes_until = inf

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

    def look(self, now: float) -> None:
        """Wake who waits for the peer past its time."""
        # Both are woken: who reads has to wait for who writes, and that ends.
        if now >= self._writes_until or (now >= self._reads_until and self._writes_until == inf):
            self._wake()

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
        self._wake()

    def log_refused(self, cause: str) -> None:
        """Say why the connection is closed."""
        log.info("connection closed", why=cause, peer=self.peer[0] if self.peer else "unix")

    def _wake(self) -> None:
        """Have who waits for the socket see trio.ClosedResourceError, which it is not yet."""
        if self._transport.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._transport.socket)

    # --- from handshake to end ------------------------------------------------------------------

    async def _handshake(self) -> bool:
        if not isinstance(self._stream, TLSStream):
            return True
        deadline = self._reads_until = trio.current_time() + self._timeouts.handshake
        try:
            await self._stream.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if trio.current_time() >= deadline:
                self.log_refused("TLS handshake not finished in time")
            elif not self._finished:
                self.log_refused(_handshake_fault(error))
            return False
        finally:
            self._reads_until = inf
        return True

    async def _serve(self) -> None:
        deadline = trio.current_time() + self._timeouts.request
        first = True
        while not self._finished:
            # Not from the last byte: a header that drips in has the same time as one that flows.
            head = await self._request(deadline, first=first)
            if head is None:
                return
            self._on_busy(self, True)
            try:
                if is_upgrade(head):
                    if isinstance(self._stream, TLSStream):
                        self._stream.lean = True
                    scope = self._scope(head, "websocket")
                    await WebSocketEnd(self, head, self._maximum_message).run(self._app, scope)
                    return
                if not await self._answer(head):
                    return
            finally:
                self._on_busy(self, False)
            first = False
            deadline = trio.current_time() + self._timeouts.idle

    async def _request(self, deadline: float, *, first: bool) -> Head | None:
        """The next request's head; what has come behind it is `ahead`."""
        seen = 0  # so much of `ahead` has no end of a head in it
        waited = False
        try:
            while True:
                if self.ahead:
                    head = take(self.ahead, seen)
                    if head is not None:
                        if not waited:  # it came with another: hundreds may
                            await trio.lowlevel.cancel_shielded_checkpoint()
                        return head
                    seen = len(self.ahead)
                data = await self._read(HEAD_PIECE, deadline)
                waited = True
                if data is None:
                    # Being idle after an answer is everybody's right, and no news.
                    if (first or self.ahead) and self._is_late(deadline):
                        self.log_refused("silent for too long")
                    return None
                if not data:
                    return None
                if first and not seen and (fault := _foreign_protocol(data)):
                    self.log_refused(fault)
                self.ahead += data
        except BadRequest as error:
            await self._refuse(error.status, str(error))
            return None

    async def _answer(self, head: Head) -> bool:
        """Have the app answer; whether another request may follow."""
        exchange = Exchange(self, head)
        try:
            await exchange.run(self._app, self._scope(head, "http"))
        except Exception:
            # One request's fault, and it was answered for.
            log.exception("http server", message="Error in ASGI Framework")
        return not self._finished and exchange.over()

    def _scope(self, head: Head, kind: str) -> dict[str, Any]:
        secure = isinstance(self._stream, TLSStream)
        schemes = ("ws", "wss") if kind == "websocket" else ("http", "https")
        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": f"1.{head.minor}",
            "scheme": schemes[secure],
            "method": head.method,
            "root_path": "",
            "path": head.path,
            "raw_path": head.target.partition(b"?")[0],
            "query_string": head.query,
            "headers": head.headers,
            "client": self.peer,
            "server": self.own,
            "state": {},
            "extensions": {},
        }

    async def _refuse(self, status: int, why: str) -> None:
        """Answer what is no request."""
        log.info("http server", message=f"Rejecting request: {why} ({status})")
        with suppress(PeerGone):
            await self.push([refusal(status)])

    async def _linger(self) -> None:
        with trio.move_on_after(LINGER):
            try:
                while await self._transport.receive_some(BODY_PIECE):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # gone: what lingering waits for

    # --- for exchanges and WebSockets -----------------------------------------------------------

    async def pull(self, at_most: int | None = None) -> bytes | bytearray | None:
        """More of a body, none at the peer's end; None where it is gone, or takes too long.

        Where no body is due (None), the peer may take any time: it waits for us.
        """
        if at_most is None:
            return await self._read(HEAD_PIECE, inf)
        return await self._read(min(at_most, BODY_PIECE), trio.current_time() + self._timeouts.read)

    async def receive(self, ask: Callable[[], Awaitable[None]]) -> bytes | bytearray | None:
        """What a WebSocket's peer sends, none at its end; None where it is silent for too long.

        `ask` asks it to say something: in good time, so that who lives is not taken for dead.
        """
        deadline = trio.current_time() + self._timeouts.read
        patient = min(deadline, trio.current_time() + PING_AFTER)
        data = None if self._finished else await self._read(HEAD_PIECE, patient)
        if data is None and not self._finished and patient <= trio.current_time() < deadline:
            await ask()
            data = await self._read(HEAD_PIECE, deadline)
        if data is None and self._is_late(deadline):
            self.log_refused("silent for too long")
        return data

    async def push(self, parts: Sequence[Buffer]) -> None:
        """Send these, each BODY_PIECE within the time for a write. Raises PeerGone."""
        if sum(map(len, parts)) <= BODY_PIECE:
            await self._write(parts)
            return
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

    def _is_late(self, deadline: float) -> bool:
        return not self._finished and trio.current_time() >= deadline

    async def _write(self, parts: Sequence[Buffer]) -> None:
        written = False
        deadline = self._writes_until = trio.current_time() + self._timeouts.write
        try:
            await self._stream.send_parts(parts)
            written = True
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            late = trio.current_time() >= deadline
            raise PeerGone("the peer does not read" if late else "the peer is gone") from error
        finally:
            self._writes_until = inf
            # What went out is anybody's guess: nothing may follow it.
            if not written:
                self.finish()

    async def _read(self, size: int, deadline: float) -> bytes | bytearray | None:
        """What has come, none at the peer's end; None where it is gone, or past `deadline`."""
        self._reads_until = deadline
        try:
            return await self._stream.receive_some(size)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return None
        finally:
            self._reads_until = inf


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
