"""A hospital's way out: an HTTP proxy that makes tunnels (CONNECT, RFC 9110 §9.3.6)."""

import base64
import re
from typing import Self
from urllib.parse import unquote, urlsplit

import attrs
import trio

from relay.errors import SignallingError

# A proxy's answer to CONNECT is a status line and a few headers.
MAXIMUM_ANSWER = 16 * 1024


@attrs.frozen(slots=True)
class Proxy:
    """Where the proxy is, and how we say who we are there."""

    host: str
    port: int
    authorization: str | None = attrs.field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """From http://[user:password@]host:port. Raises SignallingError, without the password."""
        expected = "proxy: expected http://[user:password@]host:port"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise SignallingError(expected) from None
        if parts.scheme != "http" or not parts.hostname or port is None:
            raise SignallingError(expected)
        authorization = None
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(credentials.encode()).decode("ascii")
        return cls(parts.hostname, port, authorization)


def authority(host: str, port: int) -> str:
    """host:port as HTTP writes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def connect_through(proxy: Proxy, stream: trio.abc.Stream, host: str, port: int) -> None:
    """Make `stream`, connected to the proxy, a tunnel to host:port.

    Raises SignallingError if the proxy does not make one.
    """
    target = authority(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    where = f"proxy {authority(proxy.host, proxy.port)}"
    answer = bytearray()
    try:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode("ascii"))
        while b"\r\n\r\n" not in answer:
            data = await stream.receive_some(MAXIMUM_ANSWER)
            answer += data
            if not data or len(answer) > MAXIMUM_ANSWER:
                raise SignallingError(f"{where}: no HTTP answer to CONNECT {target}")
    except trio.BrokenResourceError as error:
        raise SignallingError(f"{where}: connection lost at CONNECT {target}") from error
    head, _, rest = bytes(answer).partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r|$)", head)
    if status is None:
        raise SignallingError(f"{where}: no HTTP answer to CONNECT {target}")
    code = int(status[1])
    if code == 407:
        raise SignallingError(f"{where}: it wants another user name or password (407)")
    if not 200 <= code < 300:
        raise SignallingError(f"{where}: it does not connect to {target} (status {code})")
    if rest:
        # Nobody behind the tunnel speaks before we do: this would be the proxy in its place.
        raise SignallingError(f"{where}: data before the tunnel's first word")
