"""How a Router gets to a store: by itself, guarded, or through the hospital's HTTP proxy."""

import base64
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import unquote, urlsplit

import h11
import trio

from relay.byte_stream import PlainStream
from relay.tunnel.connections import (
    MAXIMUM_HEAD,
    Connection,
    NoAnswer,
    Patience,
    ProxyRefused,
    secure,
)
from relay.tunnel.guard import Guard, connect_tcp
from relay.tunnel.heads import fields_of
from relay.tunnel.origin import Origin

# Of what a proxy says against it, how much is told on.
MAXIMUM_WORDS = 80
DEFAULT_PORT = 80  # of an http URL without one (RFC 9110 §4.2.1)

Connect = Callable[[Origin], Awaitable[Connection]]


def directly(guard: Guard, context: ssl.SSLContext, patience: Patience) -> Connect:
    """Connects to the addresses that `guard` lets through."""

    async def connect(origin: Origin) -> Connection:
        transport = await guard.connect(origin.host, origin.port, patience.connect)
        wire = PlainStream(transport)
        if origin.scheme != "https":
            return Connection(wire, patience)
        return Connection(await secure(wire, context, origin.host, patience), patience)

    return connect


def through(proxy: str, context: ssl.SSLContext, patience: Patience) -> Connect:
    """Connects through the proxy "http://user:password@host:port", which looks names up.

    https by a tunnel (CONNECT, RFC 9110 §9.3.6), http by asking the proxy (RFC 9112 §3.2.2).
    """
    parts = urlsplit(proxy)
    authorization: list[tuple[str, str]] = []
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        words = base64.b64encode(credentials.encode()).decode("ascii")
        authorization.append(("Proxy-Authorization", f"Basic {words}"))

    async def connect(origin: Origin) -> Connection:
        host, port = parts.hostname or "", parts.port or DEFAULT_PORT
        wire = PlainStream(await connect_tcp(host, port, patience.connect))
        if origin.scheme != "https":
            via = f"http://{origin.authority}"
            return Connection(wire, patience, via, fields_of(authorization))
        try:
            await _tunnel(wire, origin, authorization, patience)
        except BaseException:
            with trio.CancelScope(shield=True):
                await wire.aclose()
            raise
        return Connection(await secure(wire, context, origin.host, patience), patience)

    return connect


async def _tunnel(
    wire: PlainStream, origin: Origin, authorization: list[tuple[str, str]], patience: Patience
) -> None:
    """Make `wire`, connected to the proxy, a tunnel to the origin. Raises NoAnswer."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}"
    engine = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAXIMUM_HEAD)
    headers = [("Host", target), *authorization]
    asked = engine.send(h11.Request(method="CONNECT", target=target, headers=headers))
    engine.send(h11.EndOfMessage())
    try:
        with trio.fail_after(patience.connect):
            await wire.send_all(asked or b"")
            while True:
                event = engine.next_event()
                if isinstance(event, h11.Response):
                    break
                if event is h11.NEED_DATA:
                    engine.receive_data(await wire.receive_some(MAXIMUM_HEAD))
                elif not isinstance(event, h11.InformationalResponse):
                    raise NoAnswer("RemoteProtocolError")
    except trio.TooSlowError as error:
        raise NoAnswer("ConnectTimeout") from error
    except h11.RemoteProtocolError as error:
        raise NoAnswer("RemoteProtocolError") from error
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise NoAnswer("ConnectError") from error
    if not 200 <= event.status_code < 300:
        reason = event.reason.decode("ascii", "replace")
        raise ProxyRefused(f"{event.status_code} {reason}"[:MAXIMUM_WORDS])
    if engine.trailing_data[0]:
        # Nobody behind the tunnel speaks before we do: this would be the proxy in its place.
        raise ProxyRefused("data before the tunnel's first word")
