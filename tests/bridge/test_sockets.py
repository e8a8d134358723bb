"""Starlette's WebSocket as the hub sees it."""

import pytest
import trio
from starlette.websockets import WebSocket

from relay.bridge.sockets import SignalEndpoint, StarletteSocket
from relay.errors import ConnectionClosed, SignallingError
from relay.signalling.transport import Socket


class Wire:
    """The ASGI side of one WebSocket."""

    def __init__(self, *messages: dict) -> None:
        self.messages = [{"type": "websocket.connect"}, *messages]
        self.sent: list[dict] = []

    async def receive(self) -> dict:
        if not self.messages:
            await trio.sleep_forever()
        return self.messages.pop(0)

    async def send(self, message: dict) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    def websocket(self, agent: str = "") -> WebSocket:
        headers = [(b"user-agent", agent.encode())] if agent else []
        return WebSocket({"type": "websocket", "headers": headers}, self.receive, self.send)


async def accepted(*messages: dict) -> tuple[Wire, StarletteSocket]:
    wire = Wire(*messages)
    websocket = wire.websocket()
    await websocket.accept()
    return wire, StarletteSocket(websocket)


async def test_frames_both_ways() -> None:
    wire, socket = await accepted({"type": "websocket.receive", "bytes": b"hello"})
    assert await socket.receive() == b"hello"
    await socket.send(b"world")
    assert wire.sent[-1] == {"type": "websocket.send", "bytes": b"world"}


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006])
async def test_the_end_is_empty_and_stays_so(code: int) -> None:
    _, socket = await accepted({"type": "websocket.disconnect", "code": code})
    assert await socket.receive() == b""
    assert await socket.receive() == b""
    await socket.aclose()


@pytest.mark.parametrize("frame", [{"text": "hello"}, {"bytes": b""}, {"bytes": None}])
async def test_what_is_no_binary_frame(frame: dict) -> None:
    _, socket = await accepted({"type": "websocket.receive", **frame})
    with pytest.raises(SignallingError, match="binary"):
        await socket.receive()


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1009])
async def test_an_end_for_wrong_frames_is_no_mere_end(code: int) -> None:
    _, socket = await accepted({"type": "websocket.disconnect", "code": code})
    with pytest.raises(SignallingError) as raised:
        await socket.receive()
    assert not isinstance(raised.value, ConnectionClosed)
    assert await socket.receive() == b""


async def test_closing_twice() -> None:
    wire, socket = await accepted()
    await socket.aclose()
    await socket.aclose()
    assert [message["type"] for message in wire.sent].count("websocket.close") == 1
    with pytest.raises(ConnectionClosed, match="gone"):
        await socket.send(b"late")


async def test_stopping_closes_all_and_takes_no_more() -> None:
    entered = trio.Event()
    left: list[str] = []

    async def serve(socket: Socket, version: str) -> None:
        entered.set()
        try:
            await trio.sleep_forever()
        finally:
            left.append("left")

    endpoint = SignalEndpoint(serve)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.endpoint, Wire().websocket())
            await entered.wait()
            endpoint.close()
        assert left == ["left"]
        late = Wire()
        await endpoint.endpoint(late.websocket())
    assert late.sent[0]["type"] == "websocket.close"


@pytest.mark.parametrize(
    ("agent", "version"),
    [
        ("Relay/0.1.0", "0.1.0"),
        ("Relay/1.2.0.dev3+local", "1.2.0.dev3+local"),
        ("", ""),
        ("curl/8", ""),
        ("Relay/<b>", ""),
        (f"Relay/{'1' * 33}", ""),
    ],
)
async def test_the_version_that_a_router_says(agent: str, version: str) -> None:
    heard: list[str] = []

    async def serve(socket: Socket, version: str) -> None:
        heard.append(version)

    await SignalEndpoint(serve).endpoint(Wire().websocket(agent))
    assert heard == [version]
