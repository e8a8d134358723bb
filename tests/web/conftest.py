"""A small app on a real port, plain or TLS, and raw connections to it."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
import trustme
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from relay.web.connection import Timeouts
from relay.web.server import listen_tcp, serve_asgi

# Everything here is on the loopback: what takes longer hangs.
PATIENCE = 10


@attrs.define
class Seen:
    """What the app saw, and how a test holds it back."""

    largest_piece: int = 0
    messages: list[bytes] = attrs.Factory(list)
    entered: trio.Event = attrs.Factory(trio.Event)
    go_on: trio.Event = attrs.Factory(trio.Event)
    disconnected: trio.Event = attrs.Factory(trio.Event)
    socket_closed: trio.Event = attrs.Factory(trio.Event)


def make_app(seen: Seen) -> Starlette:
    async def hello(request: Request) -> Response:
        return PlainTextResponse("hello")

    async def slow(request: Request) -> Response:
        seen.entered.set()
        await seen.go_on.wait()
        return PlainTextResponse("done")

    async def fails(request: Request) -> Response:
        raise RuntimeError("this is the app's fault")

    async def count(request: Request) -> Response:
        total = 0
        try:
            async for piece in request.stream():
                total += len(piece)
                seen.largest_piece = max(seen.largest_piece, len(piece))
        except ClientDisconnect:
            seen.disconnected.set()
            return Response(status_code=400)
        return JSONResponse({"bytes": total})

    async def refuse(request: Request) -> Response:
        return PlainTextResponse("too large", status_code=413)

    async def big(request: Request) -> Response:
        return Response(bytes(64 * 1024 * 1024))

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                message = await websocket.receive_bytes()
                seen.messages.append(message)
                await websocket.send_bytes(message)
        except WebSocketDisconnect:
            seen.socket_closed.set()

    return Starlette(
        routes=[
            Route("/hello", hello),
            Route("/slow", slow),
            Route("/fails", fails),
            Route("/count", count, methods=["PUT"]),
            Route("/refuse", refuse, methods=["PUT"]),
            Route("/big", big),
            WebSocketRoute("/echo", echo),
        ]
    )


@attrs.define
class Server:
    """A running server: where it is, what its app saw, and how to stop it."""

    port: int
    seen: Seen
    stopping: trio.Event
    stopped: trio.Event
    client_tls: ssl.SSLContext | None
    opened: list[trio.SocketStream] = attrs.Factory(list)

    async def connect(self, *, tls: bool = True) -> trio.abc.Stream:
        """A raw connection, with its TLS handshake done where the server wants one."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.opened.append(stream)
        if not (tls and self.client_tls):
            return stream
        secure = trio.SSLStream(
            stream, self.client_tls, server_hostname="127.0.0.1", https_compatible=True
        )
        await secure.do_handshake()
        return secure

    async def says(self, data: bytes, *, tls: bool = True) -> bytes:
        """All that the server answers to `data` until it closes."""
        with trio.fail_after(PATIENCE):
            stream = await self.connect(tls=tls)
            async with stream:
                await stream.send_all(data)
                return await read_all(stream)

    async def is_well(self) -> bool:
        answer = await self.says(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"hello")


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    try:
        while piece := await stream.receive_some(65536):
            data += piece
    except trio.BrokenResourceError:
        pass  # closed the hard way is closed too
    return data


async def read_until(stream: trio.abc.ReceiveStream, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = await stream.receive_some(65536)
        assert piece, data
        data += piece
    return data


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


Serve = Callable[..., Awaitable[Server]]


@pytest.fixture
def running(authority: trustme.CA) -> Callable[..., AsyncIterator[Server]]:
    """`async with running(tls=..., **serve_asgi's limits) as server`."""

    @asynccontextmanager
    async def run(*, tls: bool = False, app=None, **limits) -> AsyncIterator[Server]:
        server_tls = client_tls = None
        if tls:
            server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            authority.issue_cert("127.0.0.1").configure_cert(server_tls)
            client_tls = ssl.create_default_context()
            authority.configure_trust(client_tls)
        seen = Seen()
        sockets = await listen_tcp([("127.0.0.1", 0)])
        server = Server(sockets[0].getsockname()[1], seen, trio.Event(), trio.Event(), client_tls)

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            await serve_asgi(
                app or make_app(seen),
                sockets,
                stopping=server.stopping,
                ssl_context=server_tls,
                task_status=task_status,
                **limits,
            )
            server.stopped.set()

        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve))
            try:
                yield server
            finally:
                for stream in server.opened:
                    stream.socket.close()
            nursery.cancel_scope.cancel()

    return run


SHORT = Timeouts(handshake=0.3, request=0.3, idle=0.3, read=0.3, write=0.3)

UPGRADE = (
    b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
# A masked binary frame of one byte, its mask zero.
FRAME = b"\x82\x81\x00\x00\x00\x00A"


def causes(lines: list[dict]) -> set[str]:
    return {line.get("why") for line in lines}


both = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
