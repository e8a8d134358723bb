"""Real sockets: TLS, a proxy that makes tunnels, and a trio-websocket server before the hub."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio_websocket
import trustme

from relay.errors import ConnectionClosed, SignallingError
from relay.identity import Identity
from relay.signalling.client import SignallingClient, Timeouts
from relay.signalling.dial import BridgeAddress, Dial, websocket_dial
from relay.signalling.messages import (
    MAXIMUM_MESSAGE,
    MAXIMUM_OPENING,
    MAXIMUM_REQUEST,
    Answer,
    Open,
    PublishKey,
)
from tests.signalling.bridge import (
    NETWORK,
    Bridge,
    Router,
    in_line,
    joined,
    nothing,
    running_bridge,
    session_id,
)
from tests.signalling.test_transport import check_sockets

Handler = Callable[[trio_websocket.WebSocketRequest], Awaitable[None]]


@pytest.mark.parametrize(
    ("url", "address", "header"),
    [
        ("https://b.example", BridgeAddress("b.example", 443, True, "/v1/signal"), "b.example"),
        ("https://b.example/", BridgeAddress("b.example", 443, True, "/v1/signal"), "b.example"),
        (
            "https://b.example:8443/relay/",
            BridgeAddress("b.example", 8443, True, "/relay/v1/signal"),
            "b.example:8443",
        ),
        (
            "https://münchen.example",
            BridgeAddress("xn--mnchen-3ya.example", 443, True, "/v1/signal"),
            "xn--mnchen-3ya.example",
        ),
        ("http://[::1]:80", BridgeAddress("::1", 80, False, "/v1/signal"), "[::1]"),
        (
            "wss://b.example/v1/signal",
            BridgeAddress("b.example", 443, True, "/v1/signal"),
            "b.example",
        ),
    ],
)
def test_where_the_websocket_is(url: str, address: BridgeAddress, header: str) -> None:
    assert BridgeAddress.parse(url) == address
    assert address.host_header == header


@pytest.mark.parametrize(
    "url", ["", "b.example", "ftp://b.example", "https://", "https://b:x", "https://b..example"]
)
def test_what_is_no_bridge_url(url: str) -> None:
    with pytest.raises(SignallingError, match="expected https://"):
        websocket_dial(url)


@asynccontextmanager
async def serving(
    handler: Handler, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A trio-websocket server on a port of its own."""
    async with trio.open_nursery() as nursery:
        serve = partial(
            trio_websocket.serve_websocket,
            max_message_size=MAXIMUM_MESSAGE,
            handler_nursery=nursery,
        )
        server = await nursery.start(serve, handler, "127.0.0.1", 0, ssl_context)
        yield server.port
        nursery.cancel_scope.cancel()


class Served:
    """A trio-websocket server's end as a Socket."""

    def __init__(self, connection: "trio_websocket.WebSocketConnection") -> None:
        self._connection = connection

    async def receive(self) -> bytes:
        try:
            return bytes(await self._connection.get_message())
        except trio_websocket.ConnectionClosed:
            return b""

    async def send(self, frame: bytes) -> None:
        try:
            await self._connection.send_message(frame)
        except trio_websocket.ConnectionClosed as error:
            raise ConnectionClosed("the connection is closed") from error

    async def aclose(self) -> None:
        await self._connection.aclose()


def to_hub(bridge: Bridge) -> Handler:
    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        assert request.path == "/v1/signal"
        await bridge.hub.serve(Served(await request.accept()))

    return handle


async def failure(dial: Dial) -> str:
    """Why that dialling fails."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            try:
                await dial(nursery)
            except SignallingError as error:
                return str(error)
            nursery.cancel_scope.cancel()
    raise AssertionError("it did connect")


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def client(
    bridge: Bridge, letter: str, url: str, **how: object
) -> tuple[Identity, SignallingClient]:
    identity = Identity.from_seed(letter.encode() * 32)
    bridge.registry.enrol(identity)
    public = bridge.identity.public
    return identity, SignallingClient(url, identity, NETWORK, public, **how)  # type: ignore[arg-type]


async def run(nursery: trio.Nursery, identity: Identity, client: SignallingClient) -> Router:
    send, receive = trio.open_memory_channel[Open](10)
    nursery.start_soon(
        partial(
            client.run,
            on_connected=nothing,
            on_open=send.send,
            on_directory=nothing,
            on_ask=nothing,
        )
    )
    await client.wait_connected()
    return Router(identity, client, receive, [], [])


async def test_two_routers_over_real_websockets_with_tls(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with trio.fail_after(20):
        async with running_bridge() as bridge, serving(to_hub(bridge), server_tls) as port:
            url = f"https://localhost:{port}"
            a = await run(bridge.nursery, *client(bridge, "a", url, ssl_context=client_tls))
            b = await run(bridge.nursery, *client(bridge, "c", url, ssl_context=client_tls))
            while len(bridge.hub.connected()) < 2:
                await trio.sleep(0.01)
            near, far = await joined(1, a, b)
            for chunk in range(50):
                assert await near.send(in_line(near.session, chunk, 10_000))
                assert await far.receive() == in_line(near.session, chunk, 10_000)
            # The largest message there is.
            big = Open(
                session_id(2), b.public, "PACS", bytes(MAXIMUM_OPENING), bytes(MAXIMUM_REQUEST)
            )
            large = a.client.attach(big.session)
            assert await large.send(big)
            assert (await b.opens.receive()).request == big.request


async def test_a_connection_is_made_anew_after_the_server_drops_it() -> None:
    drop = trio.Event()
    connections = 0

    with trio.fail_after(20):
        async with running_bridge() as bridge:

            async def handle(request: trio_websocket.WebSocketRequest) -> None:
                nonlocal connections
                connections += 1
                connection = await request.accept()
                async with trio.open_nursery() as nursery:
                    if connections == 1:
                        nursery.start_soon(drop_when, drop, connection)
                    await bridge.hub.serve(Served(connection))
                    nursery.cancel_scope.cancel()

            async with serving(handle) as port:
                timeouts = Timeouts(first_pause=0.01)
                who = client(bridge, "a", f"http://127.0.0.1:{port}", timeouts=timeouts)
                router = await run(bridge.nursery, *who)
                drop.set()
                while connections < 2:
                    await trio.sleep(0.01)
                await router.client.wait_connected()
                await router.client.request(lambda n: PublishKey(n, b"key"))


async def drop_when(event: trio.Event, connection: "trio_websocket.WebSocketConnection") -> None:
    await event.wait()
    await trio.aclose_forcefully(connection._stream)


async def test_websockets_keep_the_promises_of_a_socket() -> None:
    server_side: list[Served] = []
    accepted, done = trio.Event(), trio.Event()

    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        server_side.append(Served(await request.accept()))
        accepted.set()
        await done.wait()

    with trio.fail_after(10):
        async with serving(handle) as port, trio.open_nursery() as nursery:
            dial = websocket_dial(f"http://127.0.0.1:{port}")
            socket = await dial(nursery)
            await accepted.wait()
            await check_sockets(socket, server_side[0])
            done.set()


async def test_a_text_frame_is_refused() -> None:
    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        await connection.send_message("text")
        await connection.aclose()

    with trio.fail_after(10):
        async with serving(handle) as port, trio.open_nursery() as nursery:
            socket = await websocket_dial(f"http://127.0.0.1:{port}")(nursery)
            with pytest.raises(SignallingError, match="a text frame"):
                await socket.receive()
            await socket.aclose()


async def test_an_oversize_message_closes_the_connection() -> None:
    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        await connection.send_message(bytes(MAXIMUM_MESSAGE + 1))
        with pytest.raises(trio_websocket.ConnectionClosed):
            await connection.get_message()

    with trio.fail_after(10):
        async with serving(handle) as port, trio.open_nursery() as nursery:
            socket = await websocket_dial(f"http://127.0.0.1:{port}")(nursery)
            assert await socket.receive() == b""
            await socket.aclose()


async def test_an_untrusted_certificate_is_named(server_tls: ssl.SSLContext) -> None:
    async with serving(nothing, server_tls) as port:
        why = await failure(websocket_dial(f"https://localhost:{port}"))
    assert why.startswith(f"TLS with localhost:{port}: ")
    assert "its certificate does not hold" in why
    assert "ca_file" in why


async def test_a_certificate_for_another_name_is_named(
    authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    async with serving(nothing, context) as port:
        dial = websocket_dial(f"https://localhost:{port}", ssl_context=client_tls)
        why = await failure(dial)
    assert "not valid for 'localhost'" in why
    assert "is the address right" in why
    assert "ca_file" not in why, "that would not help"


async def test_a_closed_port_is_named(unused_port: int) -> None:
    why = await failure(websocket_dial(f"http://127.0.0.1:{unused_port}"))
    assert why.startswith(f"127.0.0.1:{unused_port}: ")
    assert "nobody listens there" in why


async def test_a_name_that_is_none_is_named() -> None:
    why = await failure(websocket_dial("http://bridge.invalid:1"))
    assert why.startswith("bridge.invalid:1: no such host: bridge.invalid; ")
    assert "\n" not in why


@pytest.fixture
async def unused_port() -> int:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


async def test_a_server_that_refuses_the_upgrade_is_named() -> None:
    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        await request.reject(503)

    async with serving(handle) as port:
        why = await failure(websocket_dial(f"http://127.0.0.1:{port}"))
    assert why.startswith(f"127.0.0.1:{port}: it answers status 503 to the WebSocket upgrade: ")
    assert "proxy" in why


@asynccontextmanager
async def answering(handler: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """A TCP server on a port of its own."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await handler(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, handle, [listener]))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "closed during the WebSocket upgrade"),
        (b"HTTP/1.1 101 Switching", "closed during the WebSocket upgrade"),
        (b"SSH-2.0-OpenSSH\r\n", "WebSocket"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "status 200"),
    ],
)
async def test_a_server_that_is_no_websocket_is_named(said: bytes, words: str) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(said)

    async with answering(handle) as port:
        assert words in await failure(websocket_dial(f"http://127.0.0.1:{port}"))


async def test_plain_http_on_the_tls_port_is_named(client_tls: ssl.SSLContext) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with answering(handle) as port:
        dial = websocket_dial(f"https://localhost:{port}", ssl_context=client_tls)
        assert (await failure(dial)).startswith(f"TLS with localhost:{port}: ")


async def tunnelling(asked: list[bytes], stream: trio.SocketStream) -> None:
    """A proxy that lets in whoever says the password."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive_some(1)
    asked.append(head)
    if b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" not in head:
        await stream.send_all(b"HTTP/1.1 407 Who are you?\r\n\r\n")
        return
    host, _, port = head.split()[1].decode().rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as target:
        await stream.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, stream, target, nursery)
            nursery.start_soon(pump, target, stream, nursery)


async def pump(source: trio.SocketStream, sink: trio.SocketStream, nursery: trio.Nursery) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
    except trio.BrokenResourceError:
        pass
    nursery.cancel_scope.cancel()


async def test_through_a_proxy_with_a_password_and_tls_inside(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    asked: list[bytes] = []
    with trio.fail_after(20):
        async with (
            running_bridge() as bridge,
            serving(to_hub(bridge), server_tls) as port,
            answering(partial(tunnelling, asked)) as proxy_port,
        ):
            who = client(
                bridge,
                "a",
                f"https://localhost:{port}",
                ssl_context=client_tls,
                proxy=f"http://me:secret@127.0.0.1:{proxy_port}",
            )
            router = await run(bridge.nursery, *who)
            await router.client.request(lambda n: PublishKey(n, b"key"))
            assert asked[0].startswith(f"CONNECT localhost:{port} HTTP/1.1\r\n".encode())
            assert len(asked) == 1
            bridge.nursery.cancel_scope.cancel()


async def test_a_name_is_looked_up_by_the_proxy_and_by_nobody_here() -> None:
    """A hospital's name server often knows nothing of the outside."""
    asked: list[bytes] = []

    async def refuse(stream: trio.SocketStream) -> None:
        asked.append(await stream.receive_some())
        await stream.send_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

    class NoNames(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: bytes | None, *_: Any, **__: Any) -> Any:
            raise AssertionError(f"{host!r} was looked up")

        async def getnameinfo(self, *_: Any) -> Any:
            raise AssertionError("getnameinfo")

    trio.socket.set_custom_hostname_resolver(NoNames())  # of this test's run only
    async with answering(refuse) as port:
        dial = websocket_dial("https://bridge.invalid", proxy=f"http://127.0.0.1:{port}")
        why = await failure(dial)
    assert asked[0].startswith(b"CONNECT bridge.invalid:443 ")
    assert "does the proxy know its name?" in why


async def test_a_proxy_that_is_not_there_is_named_and_not_the_bridge(unused_port: int) -> None:
    proxy = f"http://me:secret@127.0.0.1:{unused_port}"
    why = await failure(websocket_dial("https://bridge.example", proxy=proxy))
    assert why.startswith(f"proxy 127.0.0.1:{unused_port}: nobody listens there")
    assert "secret" not in why


async def test_a_proxy_that_wants_another_password_is_named() -> None:
    async with answering(partial(tunnelling, [])) as port:
        dial = websocket_dial("http://bridge.example", proxy=f"http://me:x@127.0.0.1:{port}")
        assert "wants another user name or password" in await failure(dial)


async def test_a_server_that_never_answers_is_given_up() -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with running_bridge() as bridge, answering(handle) as port:
        timeouts = Timeouts(connect=0.05, first_pause=0.01)
        _, silent = client(bridge, "a", f"http://127.0.0.1:{port}", timeouts=timeouts)
        with trio.move_on_after(0.3):
            await silent.run(
                on_connected=nothing, on_open=nothing, on_directory=nothing, on_ask=nothing
            )
        last_failure = silent.statistics().last_failure
        assert last_failure.startswith("no connection within 0.05 s: does a firewall drop it")


async def test_a_cancelled_client_closes_at_once() -> None:
    with trio.fail_after(10):
        async with running_bridge() as bridge, serving(to_hub(bridge)) as port:
            async with trio.open_nursery() as nursery:
                await run(nursery, *client(bridge, "a", f"http://127.0.0.1:{port}"))
                began = trio.current_time()
                nursery.cancel_scope.cancel()
            assert trio.current_time() - began < 1
            while bridge.hub.connected():
                await trio.sleep(0.01)


async def test_half_a_frame_is_never_followed_by_another() -> None:
    """A cancelled write ends the connection; a cancelled caller does not cancel the write."""
    with trio.fail_after(20):
        async with running_bridge() as bridge, serving(to_hub(bridge)) as port:
            url = f"http://127.0.0.1:{port}"
            a = await run(bridge.nursery, *client(bridge, "a", url))
            b = await run(bridge.nursery, *client(bridge, "c", url))
            while len(bridge.hub.connected()) < 2:
                await trio.sleep(0.01)
            for number in range(20):
                port_ = a.client.attach(session_id(number))
                message = Open(
                    port_.session, b.public, "PACS", bytes(MAXIMUM_OPENING), bytes(MAXIMUM_REQUEST)
                )
                with trio.move_on_after(0.0005):
                    await port_.send(message)
            for _ in range(20):
                opened = await b.opens.receive()
                assert opened.request == bytes(MAXIMUM_REQUEST)
                await b.client.attach(opened.session).send(Answer(opened.session, b""))
            assert a.client.statistics().connections == 1
