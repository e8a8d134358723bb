"""How a Router reaches the Bridge: TCP or the hospital's proxy, TLS, the WebSocket upgrade."""

import ssl
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

import attrs
import trio
from wsproto.connection import Connection as Framing
from wsproto.connection import ConnectionType
from wsproto.events import RejectConnection, Request
from wsproto.handshake import H11Handshake
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from relay import __version__
from relay.byte_stream import Buffer, PlainStream, TLSStream
from relay.errors import ConnectionClosed, SignallingError, connection_fault
from relay.signalling.messages import MAXIMUM_MESSAGE
from relay.signalling.proxy import Proxy, authority, connect_through
from relay.signalling.transport import Socket
from relay.websocket import Closed, WebSocket

SIGNAL_PATH = "/v1/signal"
# One read of the socket: half of what a home line carries in a round trip, and most messages whole.
RECEIVE_BUFFER = 64 * 1024

# By which a Bridge's people see how old a Router is (RFC 9110 §10.1.5).
USER_AGENT = (b"User-Agent", f"Relay/{__version__}".encode("ascii"))

# What to do about a certificate whose authority is not known.
UNKNOWN_AUTHORITY = (
    "if it comes from a private authority, or a proxy opens TLS, give that authority as ca_file"
)
# What is between when HTTPS works and this does not.
NO_UPGRADE = "does a proxy or login page in between not let WebSockets through?"

CLOSED_EARLY = "the connection was closed during the WebSocket upgrade"

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
        try:
            socket = WebSocketSocket(stream, await _upgrade(stream, address))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        nursery.start_soon(socket.keep)
        return socket

    return dial


async def _connect(
    address: BridgeAddress, proxy: Proxy | None, ssl_context: ssl.SSLContext | None
) -> PlainStream | TLSStream:
    plain = PlainStream(await _open_tcp(address, proxy))
    try:
        if proxy is not None:
            await connect_through(proxy, plain, address.host, address.port)
        if not address.secure:
            return plain
        assert ssl_context is not None
        tls = TLSStream(plain, ssl_context, server_hostname=address.host)
        await tls.do_handshake()
        return tls
    except (trio.BrokenResourceError, ssl.SSLError) as error:
        await trio.aclose_forcefully(plain)
        fault = connection_fault(error, address.host, UNKNOWN_AUTHORITY)
        # A connection that is simply gone has no fault of its own.
        raise SignallingError(
            f"TLS with {authority(address.host, address.port)}:"
            f" {fault or 'the connection was closed in the handshake'}"
        ) from error
    except BaseException:
        await trio.aclose_forcefully(plain)
        raise


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


async def _upgrade(stream: PlainStream | TLSStream, address: BridgeAddress) -> Framing:
    """Make `stream` a WebSocket (RFC 6455 §4.1). Raises SignallingError."""
    where = authority(address.host, address.port)
    handshake = H11Handshake(ConnectionType.CLIENT)
    asked = handshake.send(
        Request(host=address.host_header, target=address.path, extra_headers=[USER_AGENT])
    )
    try:
        await stream.send_all(asked)
        while handshake.connection is None:
            data = await stream.receive_some(RECEIVE_BUFFER)
            if not data:
                raise SignallingError(CLOSED_EARLY)
            handshake.receive_data(bytes(data))
            for event in handshake.events():
                if isinstance(event, RejectConnection):
                    raise SignallingError(
                        f"{where}: it answers status {event.status_code} to the WebSocket"
                        f" upgrade: {NO_UPGRADE}"
                    )
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise SignallingError(CLOSED_EARLY) from error
    except (RemoteProtocolError, LocalProtocolError) as error:
        raise SignallingError(f"{where}: WebSocket: {error}") from error
    return handshake.connection


class WebSocketSocket:
    """The Router's end of a WebSocket, as a Socket."""

    def __init__(self, stream: PlainStream | TLSStream, framing: Framing) -> None:
        self._stream = stream
        self._closed = trio.Event()
        self._websocket = WebSocket(self._hear, self._push, framing, MAXIMUM_MESSAGE)

    async def keep(self) -> None:
        """Run until it is closed; cancelled, close it."""
        try:
            await self._closed.wait()
        finally:
            await trio.aclose_forcefully(self._stream)

    async def receive(self) -> bytes:
        frame = await self._websocket.receive()
        if isinstance(frame, str):
            raise SignallingError("a text frame came; all messages are binary")
        return frame or b""

    async def send(self, frame: bytes) -> None:
        try:
            await self._websocket.send(frame)
        except Closed as error:
            raise ConnectionClosed(f"the connection is closed: {error}") from error

    async def aclose(self) -> None:
        try:
            await self._websocket.close()
            # The other end's goodbye: closing on what nobody has read would reset the connection,
            # and take ours with it.
            while await self._websocket.receive() is not None:
                pass
        finally:
            self._closed.set()
            await trio.aclose_forcefully(self._stream)

    async def _hear(self) -> bytes | bytearray:
        try:
            return await self._stream.receive_some(RECEIVE_BUFFER)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _push(self, parts: Sequence[Buffer]) -> None:
        try:
            await self._stream.send_parts(parts)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Closed(str(error)) from error
