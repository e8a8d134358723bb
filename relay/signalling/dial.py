"""How a Router reaches the Bridge: TCP or the hospital's proxy, TLS, the WebSocket upgrade."""

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import urlsplit

import attrs
import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError

from relay.errors import SignallingError, connection_fault
from relay.signalling.messages import MAXIMUM_MESSAGE
from relay.signalling.proxy import Proxy, authority, connect_through
from relay.signalling.transport import Socket

SIGNAL_PATH = "/v1/signal"
# One read of the socket: half of what a home line carries in a round trip, and most messages whole.
RECEIVE_BUFFER = 64 * 1024

# What to do about a certificate whose authority is not known.
UNKNOWN_AUTHORITY = (
    "if it comes from a private authority, or a proxy opens TLS, give that authority as ca_file"
)
# What is between when HTTPS works and this does not.
NO_UPGRADE = "does a proxy or login page in between not let WebSockets through?"

# Makes a connected socket. What must run while it is open runs in the nursery, and ends with it.
Dial = Callable[[trio.Nursery], Awaitable[Socket]]


@attrs.frozen(slots=True)
class BridgeAddress:
    """Where the WebSocket is."""

    host: str
    port: int
    secure: bool
    path: str

    @classmethod
    def parse(cls, url: str) -> "BridgeAddress":
        """From the Bridge's https URL (http only behind its own reverse proxy, and in tests)."""
        expected = f"Bridge URL {url!r}: expected https://host[:port]"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise SignallingError(expected) from None
        if parts.scheme not in ("https", "http", "wss", "ws") or not parts.hostname:
            raise SignallingError(expected)
        try:
            # HTTP and TLS know a name in ASCII only (RFC 5890 §2.3.2.1).
            host = parts.hostname.encode("idna").decode("ascii")
        except UnicodeError:
            raise SignallingError(expected) from None
        secure = parts.scheme in ("https", "wss")
        path = parts.path.rstrip("/")
        if not path.endswith(SIGNAL_PATH):
            path += SIGNAL_PATH
        return cls(host, port or (443 if secure else 80), secure, path)

    @property
    def host_header(self) -> str:
        usual = 443 if self.secure else 80
        whole = authority(self.host, self.port)
        return whole.removesuffix(f":{self.port}") if self.port == usual else whole


def websocket_dial(
    url: str, *, ssl_context: ssl.SSLContext | None = None, proxy: str | None = None
) -> Dial:
    """Dials the Bridge at `url`; without an `ssl_context` it trusts the system's authorities.

    Raises SignallingError at once for a URL that is none, and when dialling for what goes wrong.
    """
    address = BridgeAddress.parse(url)
    way_out = Proxy.parse(proxy) if proxy is not None else None
    if address.secure and ssl_context is None:
        ssl_context = ssl.create_default_context()

    async def dial(nursery: trio.Nursery) -> Socket:
        stream = await _connect(address, way_out, ssl_context)
        socket: Socket = await nursery.start(_websocket, stream, address)
        return socket

    return dial


async def _connect(
    address: BridgeAddress, proxy: Proxy | None, ssl_context: ssl.SSLContext | None
) -> trio.abc.Stream:
    stream: trio.abc.Stream = await _open_tcp(address, proxy)
    try:
        if proxy is not None:
            await connect_through(proxy, stream, address.host, address.port)
        if address.secure:
            assert ssl_context is not None
            tls = trio.SSLStream(
                cast(trio.SocketStream, stream),
                ssl_context,
                server_hostname=address.host,
                https_compatible=True,
            )
            await tls.do_handshake()
            return tls
    except (trio.BrokenResourceError, ssl.SSLError) as error:
        await trio.aclose_forcefully(stream)
        fault = connection_fault(error, address.host, UNKNOWN_AUTHORITY)
        # A connection that is simply gone has no fault of its own.
        raise SignallingError(
            f"TLS with {authority(address.host, address.port)}:"
            f" {fault or 'the connection was closed in the handshake'}"
        ) from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _open_tcp(address: BridgeAddress, proxy: Proxy | None) -> trio.SocketStream:
    """To the Bridge, or to the proxy: then nobody here looks the Bridge's name up."""
    host, port = (address.host, address.port) if proxy is None else (proxy.host, proxy.port)
    try:
        return await trio.open_tcp_stream(host, port)
    except (OSError, UnicodeError) as error:
        # trio says only that all addresses failed; why the first did is what a person can act on.
        why = connection_fault(error, host) or _first(error.__cause__ or error)
        where = str(proxy) if proxy is not None else authority(host, port)
        raise SignallingError(f"{where}: {why}") from error


def _first(error: BaseException) -> BaseException:
    """The first that went wrong of a group; else the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _websocket(
    stream: trio.abc.Stream,
    address: BridgeAddress,
    task_status: "trio.TaskStatus[Socket]" = trio.TASK_STATUS_IGNORED,
) -> None:
    """Upgrade `stream` and run the WebSocket's reader until it is closed."""
    upgrading = _Upgrading(stream)
    try:
        async with trio.open_nursery() as nursery:
            connection = await trio_websocket.wrap_client_stream(
                nursery,
                cast(trio.SocketStream, upgrading),
                address.host_header,
                address.path,
                max_message_size=MAXIMUM_MESSAGE,
                receive_buffer_size=RECEIVE_BUFFER,
            )
            upgrading.done = True
            task_status.started(WebSocket(connection))
    except* Exception as group:
        error = _first(group)
        if isinstance(error, SignallingError):
            raise error from None
        if isinstance(error, trio_websocket.ConnectionRejected):
            what = f"it answers status {error.status_code} to the WebSocket upgrade: {NO_UPGRADE}"
        else:
            what = f"WebSocket: {type(error).__name__}"
        raise SignallingError(f"{authority(address.host, address.port)}: {what}") from group
    finally:
        await trio.aclose_forcefully(stream)


class _Upgrading(trio.abc.Stream):
    """Raises when the connection is lost during the upgrade, which trio-websocket waits out."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.done = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            if self.done:
                raise
        if not data and not self.done:
            raise SignallingError("the connection was closed during the WebSocket upgrade")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class WebSocket:
    """A trio-websocket connection, of either end, as a Socket."""

    def __init__(self, connection: "trio_websocket.WebSocketConnection") -> None:
        self._connection = connection

    async def receive(self) -> bytes:
        try:
            frame: Any = await self._connection.get_message()
        except trio_websocket.ConnectionClosed:
            return b""
        if not isinstance(frame, bytes):
            raise SignallingError("a text frame came; all messages are binary")
        return frame

    async def send(self, frame: bytes) -> None:
        try:
            await self._connection.send_message(frame)
        except (trio_websocket.ConnectionClosed, LocalProtocolError) as error:
            # wsproto's error: it has read the peer's close frame, and the connection does not know
            # yet, since its reader waits behind messages that nobody has received.
            raise SignallingError(f"the connection is closed: {type(error).__name__}") from error

    async def aclose(self) -> None:
        await self._connection.aclose()
