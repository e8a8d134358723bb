"""Starlette's WebSocket as the hub wants it."""

import re
from collections.abc import Awaitable, Callable

import trio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from wsproto.frame_protocol import CloseReason

from relay.errors import ConnectionClosed, SignallingError
from relay.signalling.transport import Socket

# What a Router says that it is (relay.signalling.dial).
_AGENT = re.compile(r"Relay/([0-9A-Za-z.+-]{1,32})")

# With what a WebSocket ends whose frames were wrong (RFC 6455 §7.4.1); any other end is a mere end.
_AT_FAULT = {
    CloseReason.PROTOCOL_ERROR.value: "its frames are not as RFC 6455 has them",
    CloseReason.UNSUPPORTED_DATA.value: "it sends what is not taken here",
    CloseReason.INVALID_FRAME_PAYLOAD_DATA.value: "its text is no text",
    CloseReason.MESSAGE_TOO_BIG.value: "its message is too large",
}


class StarletteSocket:
    """A `relay.signalling.transport.Socket` over an accepted WebSocket."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def receive(self) -> bytes:
        try:
            message = await self._websocket.receive()
        except (WebSocketDisconnect, RuntimeError):  # RuntimeError: asked again after the end
            return b""
        if message["type"] == "websocket.disconnect":
            if fault := _AT_FAULT.get(message.get("code", 0)):
                raise SignallingError(fault)
            return b""
        frame = message.get("bytes")
        if not frame:
            raise SignallingError("a frame that is not binary, or empty")
        return bytes(frame)

    async def send(self, frame: bytes) -> None:
        try:
            await self._websocket.send_bytes(frame)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionClosed("the connection is gone") from error

    async def aclose(self) -> None:
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        try:
            await self._websocket.close()
        except (WebSocketDisconnect, RuntimeError):
            return  # the other end was faster


class SignalEndpoint:
    """`/v1/signal`: hands each WebSocket to `serve` for as long as it lasts, with the version of
    Relay that its Router says it is of."""

    def __init__(self, serve: Callable[[Socket, str], Awaitable[None]]) -> None:
        self._serve = serve
        self._live: set[trio.CancelScope] = set()
        self._closed = False

    async def endpoint(self, websocket: WebSocket) -> None:
        if self._closed:
            await websocket.close()
            return
        with trio.CancelScope() as scope:
            self._live.add(scope)
            try:
                await websocket.accept()
                agent = _AGENT.fullmatch(websocket.headers.get("user-agent", ""))
                await self._serve(StarletteSocket(websocket), agent[1] if agent else "")
            finally:
                self._live.discard(scope)

    def close(self) -> None:
        """Close every WebSocket, and take no more: the Bridge stops."""
        self._closed = True
        for scope in list(self._live):
            scope.cancel()
