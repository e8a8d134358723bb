"""A connection that becomes a WebSocket (RFC 6455), as an ASGI app sees it.

The app runs in the connection's own task and pulls from `relay.websocket`: there is no queue
between them, and no task that pings: who receives does, where nothing comes for a while.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from typing import Any, Protocol

import structlog
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token

from relay.web.exchange import ASGIApp, PeerGone, refusal
from relay.web.head import Head, tokens
from relay.websocket import Closed, WebSocket, server_framing

log = structlog.get_logger()

VERSION = b"13"  # RFC 6455 §4.1
KEY_SIZE = 16  # §4.1


class Socket(Protocol):
    """What a WebSocket needs of its connection."""

    ahead: bytearray

    async def receive(self, ask: Callable[[], Awaitable[None]]) -> bytes | bytearray | None:
        """What the peer sends, nothing at its end; None where it is silent for too long.

        `ask` asks it to say something: in good time, so that who lives is not taken for dead.
        """

    async def push(self, parts: Sequence[Any]) -> None:
        """Send these. Raises PeerGone."""


class _State(Enum):
    ASKED = auto()
    TOLD = auto()  # the app knows
    OPEN = auto()
    OVER = auto()


def is_upgrade(head: Head) -> bool:
    """Whether a WebSocket is asked for (RFC 6455 §4.2.1)."""
    return (
        head.method == "GET"
        and head.get(b"upgrade").lower() == b"websocket"
        and any(
            b"upgrade" in tokens(value) for name, value in head.headers if name == b"connection"
        )
    )


class WebSocketEnd:
    """What is left of a connection after an upgrade was asked for.

    A message of more than `maximum` bytes closes it with code 1009.
    """

    def __init__(self, socket: Socket, head: Head, maximum: int) -> None:
        self._socket = socket
        self._key = head.get(b"sec-websocket-key")
        self._right = head.get(b"sec-websocket-version") == VERSION and _is_key(self._key)
        self._maximum = maximum
        self._state = _State.ASKED
        self._websocket: WebSocket

    async def run(self, app: ASGIApp, scope: MutableMapping[str, Any]) -> None:
        """Serve until either side is done."""
        try:
            if not self._right:
                await self._refuse(400)
                return
            scope["subprotocols"] = []
            await app(scope, self.receive, self.send)
            await self._end(CloseReason.NORMAL_CLOSURE)
        except PeerGone:
            pass  # which is an end, too
        except Exception:
            log.exception("http server", message="Error in ASGI Framework")
            with suppress(PeerGone):
                await self._end(CloseReason.INTERNAL_ERROR)
        finally:
            self._state = _State.OVER
            self._part()

    # --- for the app ----------------------------------------------------------------------------

    async def receive(self) -> MutableMapping[str, Any]:
        """ASGI's receive: each message whole, and at the end a disconnection."""
        if self._state is _State.ASKED:
            self._state = _State.TOLD
            return {"type": "websocket.connect"}
        if self._state is not _State.OPEN:
            return {"type": "websocket.disconnect", "code": CloseReason.ABNORMAL_CLOSURE.value}
        message = await self._websocket.receive()
        if message is None:
            self._state = _State.OVER
            return {"type": "websocket.disconnect", "code": int(self._websocket.code)}
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message, "bytes": None}
        return {"type": "websocket.receive", "bytes": message, "text": None}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """ASGI's send."""
        match message["type"]:
            case "websocket.send":
                await self._say(message)
            case "websocket.accept":
                await self._accept()
            case "websocket.close":
                await self._end(message.get("code", CloseReason.NORMAL_CLOSURE), refusing=403)

    # --- inside ---------------------------------------------------------------------------------

    async def _accept(self) -> None:
        token = generate_accept_token(self._key)
        await self._socket.push(
            [
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
                b"sec-websocket-accept: " + token + b"\r\n\r\n"
            ]
        )
        early, self._socket.ahead = bytes(self._socket.ahead), bytearray()
        receive = partial(self._socket.receive, self._ask)
        self._websocket = WebSocket(
            receive, self._socket.push, server_framing(early), self._maximum
        )
        self._state = _State.OPEN

    async def _say(self, message: MutableMapping[str, Any]) -> None:
        if self._state is not _State.OPEN:
            raise PeerGone("the WebSocket is closed")
        try:
            if (data := message.get("bytes")) is not None:
                await self._websocket.send(data)
            else:
                await self._websocket.send_text(message["text"])
        except Closed as error:
            raise PeerGone(str(error)) from error

    async def _ask(self) -> None:
        with suppress(Closed):  # who receives learns of it there
            await self._websocket.ping()

    async def _end(self, code: int, *, refusing: int = 500) -> None:
        """Say goodbye; to who is not let in, that."""
        state, self._state = self._state, _State.OVER
        if state is _State.OPEN:
            await self._websocket.close(code)
        elif state is not _State.OVER:
            await self._refuse(refusing)

    def _part(self) -> None:
        """Let go of the WebSocket, which knows us as who asks its peer whether it lives.

        In a circle all that belongs to a connection, some 70 KiB, would stay until Python looks
        through everything for such circles; with thousands of Routers it seldom does.
        """
        self.__dict__.pop("_websocket", None)

    async def _refuse(self, status: int) -> None:
        self._state = _State.OVER
        await self._socket.push([refusal(status)])


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == KEY_SIZE
    except binascii.Error:
        return False
