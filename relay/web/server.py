"""The HTTP server that both modes share: listening sockets, limits, and a graceful end.

    stop listening -> finish what was asked, close what is idle -> after the grace, cancel

Over TCP it speaks plain HTTP/1.1, or TLS alone when it has a certificate; on a Unix socket (mode
0600) it serves only its own user and root.
"""

import os
import socket
import ssl
import stat
import struct
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import structlog
import trio

from relay.errors import RelayError
from relay.web.connection import Connection, Timeouts
from relay.web.exchange import ASGIApp

log = structlog.get_logger()

# Enough for a burst of Routers that all reconnect at once.
BACKLOG = 512
# Below the 1,024 descriptors that a process usually has, leaving some for files and the database.
MAXIMUM_CONNECTIONS = 768
# Connections that have not sent a request, or are idle. When one more comes, the one that has
# waited longest goes: a flood of half-open connections keeps nobody out.
MAXIMUM_WAITING = 256
# Seconds that each may wait before it is the one to go: enough for a handshake and a request, also
# where hundreds shake hands at once. Who comes meanwhile is left in the backlog; otherwise all that
# come back to a Bridge that was started anew push each other out, and come back. Much more, and a
# flood that fills the backlog would keep others out.
SETTLING = 2.0
# Seconds between two looks whether there is room.
ROOM_LOOK = 0.05
# WebSocket messages: what the signalling of Relay needs at most.
MAXIMUM_MESSAGE = 256 * 1024
# Seconds that requests in progress get when the process is told to stop.
GRACE = 5.0
# sockaddr_un.sun_path holds 108 bytes with its end.
MAXIMUM_UNIX_PATH = 107

_UCRED = struct.Struct("3i")


async def listen_tcp(addresses: Sequence[tuple[str, int]]) -> list[socket.socket]:
    """Listening sockets for these (host, port) pairs; port 0 takes a free one.

    Raises RelayError, naming the address, if one cannot be had.
    """
    sockets: list[socket.socket] = []
    try:
        for host, port in addresses:
            for family, kind, protocol, _, address in await _resolve(host, port):
                opened = socket.socket(family, kind, protocol)
                sockets.append(opened)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    opened.bind(address)
                    opened.listen(BACKLOG)
                except OSError as error:
                    raise RelayError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    except BaseException:
        for opened in sockets:
            opened.close()
        raise
    return sockets


async def _resolve(host: str, port: int) -> list[Any]:
    try:
        return await trio.socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise RelayError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def listen_unix(path: Path) -> socket.socket:
    """A listening Unix socket at `path`, mode 0600; one left behind by a dead process is replaced.

    Raises RelayError if the path is too long, is no socket, or has a living listener.
    """
    name = str(path)
    if len(os.fsencode(name)) > MAXIMUM_UNIX_PATH:
        raise RelayError(f"{name}: a Unix socket's path has at most {MAXIMUM_UNIX_PATH} bytes")
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale_socket(path)
        opened.bind(name)
        # Before listen(): until then nobody can connect, whatever the mode.
        path.chmod(0o600)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise RelayError(f"cannot listen on {name}: {error.strerror}") from error
    except RelayError:
        opened.close()
        raise
    return opened


def _remove_stale_socket(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise RelayError(f"{path}: is there and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise RelayError(f"{path}: another process is listening there; is Relay running already?")


async def serve_asgi(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    *,
    stopping: trio.Event,
    ssl_context: ssl.SSLContext | None = None,
    maximum_message: int = MAXIMUM_MESSAGE,
    maximum_connections: int = MAXIMUM_CONNECTIONS,
    maximum_waiting: int = MAXIMUM_WAITING,
    timeouts: Timeouts | None = None,
    grace: float = GRACE,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on these listening sockets, which become ours, until `stopping` is set.

    `ssl_context` is for all of them. The app gets no lifespan events. WebSocket messages over
    `maximum_message` bytes close their connection with code 1009.
    """
    server = _Server(
        app,
        ssl_context=ssl_context,
        maximum_message=maximum_message,
        timeouts=timeouts or Timeouts(),
        maximum_connections=maximum_connections,
        maximum_waiting=maximum_waiting,
    )
    unix_paths = [Path(s.getsockname()) for s in sockets if s.family == socket.AF_UNIX]
    listeners = []
    for opened in sockets:
        opened.setblocking(False)
        accepting_socket = trio.SocketListener(trio.socket.from_stdlib_socket(opened))
        listeners.append(_Listener(accepting_socket, server.room))
    try:
        async with trio.open_nursery() as looking:
            looking.start_soon(server.look)
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(
                        partial(
                            trio.serve_listeners,
                            server.serve_connection,
                            listeners,
                            handler_nursery=connections,
                        )
                    )
                    task_status.started()
                    await stopping.wait()
                    accepting.cancel_scope.cancel()
                connections.cancel_scope.deadline = trio.current_time() + grace
                server.stop()
            looking.cancel_scope.cancel()
    finally:
        for listener in listeners:
            listener.close()
        for path in unix_paths:
            path.unlink(missing_ok=True)


class _Listener(trio.abc.Listener[trio.SocketStream]):
    """A listener that hands on who came once there is `room`."""

    def __init__(self, listener: trio.SocketListener, room: Callable[[], Awaitable[None]]) -> None:
        self._listener = listener
        self._room = room

    async def accept(self) -> trio.SocketStream:
        stream = await self._listener.accept()
        try:
            await self._room()
        except BaseException:
            stream.socket.close()
            raise
        return stream

    def close(self) -> None:
        self._listener.socket.close()

    async def aclose(self) -> None:
        await self._listener.aclose()


class _Server:
    """What the connections of one `serve_asgi` share."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        ssl_context: ssl.SSLContext | None,
        maximum_message: int,
        timeouts: Timeouts,
        maximum_connections: int,
        maximum_waiting: int,
    ) -> None:
        self._app = app
        self._ssl_context = ssl_context
        self._maximum_message = maximum_message
        self._timeouts = timeouts
        self._ending = False
        self._maximum_connections = maximum_connections
        self._maximum_waiting = maximum_waiting
        self._connections: set[Connection] = set()
        self._waiting: dict[Connection, float] = {}  # since when; oldest first

    async def serve_connection(self, stream: trio.SocketStream) -> None:
        if not _is_own_user(stream.socket):
            log.warning("connection closed", why="another user on the Unix socket")
            await stream.aclose()
            return
        try:
            connection = Connection(
                stream,
                app=self._app,
                maximum_message=self._maximum_message,
                timeouts=self._timeouts,
                ssl_context=self._ssl_context,
                on_busy=self._on_busy,
            )
        except OSError:  # gone before we could ask who it was
            await stream.aclose()
            return
        if not self._make_room():
            log.warning("connection closed", why="too many connections", peer=connection.peer)
            await stream.aclose()
            return
        connection.ending = self._ending
        self._connections.add(connection)
        self._waiting[connection] = trio.current_time()
        try:
            await connection.run()
        except Exception:
            # One connection's fault must never take the listener down.
            log.exception("connection failed", peer=connection.peer)
        finally:
            self._connections.discard(connection)
            self._waiting.pop(connection, None)

    async def look(self) -> NoReturn:
        """See to it that nobody waits for a peer past its time."""
        interval = self._timeouts.look
        while True:
            await trio.sleep(interval)
            now = trio.current_time()
            for connection in self._connections:
                connection.look(now)

    def stop(self) -> None:
        """Close what is idle; what is busy closes after its answer."""
        self._ending = True
        for connection in self._connections:
            connection.ending = True
        for connection in list(self._waiting):
            connection.finish()

    async def room(self) -> None:
        """Return when one more may come, if need be in the place of who has waited long enough."""
        await trio.lowlevel.checkpoint()  # who came before is counted by then
        while self._is_full():
            oldest = next(iter(self._waiting.values()), None)
            # Where all are busy, the next is turned away, and told so by that.
            if oldest is None or trio.current_time() >= oldest + SETTLING:
                return
            await trio.sleep(ROOM_LOOK)

    def _is_full(self) -> bool:
        return (
            len(self._connections) >= self._maximum_connections
            or len(self._waiting) >= self._maximum_waiting
        )

    def _make_room(self) -> bool:
        if self._is_full():
            oldest = next(iter(self._waiting), None)
            if oldest is None:
                return False
            del self._waiting[oldest]
            log.info("connection closed", why="too many waiting", peer=oldest.peer)
            oldest.abandon()
        return True

    def _on_busy(self, connection: Connection, busy: bool) -> None:
        if busy:
            self._waiting.pop(connection, None)
        elif connection in self._connections:
            self._waiting[connection] = trio.current_time()


def _is_own_user(accepted: trio.socket.SocketType) -> bool:
    """Whether the peer may speak here: anyone over TCP, our own user or root over a Unix socket."""
    if accepted.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return True  # without SO_PEERCRED (macOS) the socket file's mode alone keeps others out
    credentials = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, user, _ = _UCRED.unpack(credentials)
    return user in (0, os.geteuid())
