"""Who asks for a WebSocket; tests/web/test_connection.py has what is wrong with those that do."""

import gc
import weakref

import pytest
import trio

from relay.web.exchange import PeerGone
from relay.web.head import Head, parse
from relay.web.websocket import WebSocketEnd, is_upgrade

from .conftest import FRAME, PATIENCE, UPGRADE, both, read_until


def request(*headers: tuple[str, str], method: str = "GET") -> Head:
    lines = [
        f"{method} /echo HTTP/1.1",
        "Host: x",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return parse("\r\n".join(lines).encode())


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request(("Connection", "Upgrade"), ("Upgrade", "websocket")), True),
        (request(("Connection", "keep-alive, upgrade"), ("Upgrade", "WebSocket")), True),
        (request(("Connection", "keep-alive"), ("Upgrade", "websocket")), False),
        (request(("Connection", "Upgrade"), ("Upgrade", "h2c")), False),
        (request(("Connection", "Upgrade"), ("Upgrade", "websocket"), method="PUT"), False),
        (request(), False),
    ],
)
def test_who_asks_for_a_websocket(asked: Head, *, expected: bool) -> None:
    assert is_upgrade(asked) is expected


class GonePeer:
    """A connection whose peer has gone, as who writes finds out."""

    def __init__(self) -> None:
        self.ahead = bytearray()

    async def receive(self, ask: object) -> None:
        return None

    async def push(self, parts: object) -> None:
        raise PeerGone("the peer is gone")


async def test_a_peer_that_is_gone_when_the_app_fails_is_no_fault_of_ours(logs) -> None:
    async def fails(scope: object, receive: object, send: object) -> None:
        raise RuntimeError("this is the app's fault")

    headers = [line.split(": ") for line in UPGRADE.decode().split("\r\n")[2:-2]]
    head = request(*((name, value) for name, value in headers))
    await WebSocketEnd(GonePeer(), head, 9).run(fails, {})
    assert [line["message"] for line in logs] == ["Error in ASGI Framework"]


class LeavingPeer(GonePeer):
    """A connection that is upgraded, and whose peer then leaves."""

    async def push(self, parts: object) -> None:
        pass


async def test_a_connection_that_is_over_is_in_no_circle() -> None:
    """What it held is free at once, and not when Python next looks through everything."""

    async def accepts(scope: object, receive, send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"

    headers = [line.split(": ") for line in UPGRADE.decode().split("\r\n")[2:-2]]
    peer = LeavingPeer()
    end = WebSocketEnd(peer, request(*((name, value) for name, value in headers)), 9)
    gc.disable()
    try:
        await end.run(accepts, {})
        end_of_it, end_of_peer = weakref.ref(end), weakref.ref(peer)
        del end, peer
        assert end_of_it() is end_of_peer() is None
    finally:
        gc.enable()


@both
async def test_a_websocket_behind_other_requests(running, tls: bool) -> None:
    async with running(tls=tls) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            await read_until(stream, b"hello")
            await stream.send_all(UPGRADE)
            assert b"HTTP/1.1 101" in await read_until(stream, b"\r\n\r\n")
            for _ in range(3):
                await stream.send_all(FRAME)
                await read_until(stream, b"\x82\x01A")
            await stream.aclose()
            await server.seen.socket_closed.wait()


async def test_a_large_message_passes_in_both_directions(running) -> None:
    size = 200_000
    async with running() as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(UPGRADE)
            await read_until(stream, b"\r\n\r\n")
            head = b"\x7f" + size.to_bytes(8, "big")
            await stream.send_all(b"\x82" + b"\xff" + head[1:] + bytes(4) + b"B" * size)
            answer = await read_until(stream, b"\x82" + head)
            while len(answer) < size + 10:
                answer += await stream.receive_some(65536)
            assert answer.endswith(b"B" * size)
            await stream.aclose()
