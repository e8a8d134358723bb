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
# Of what a proxy says itself, how much is told on.
MAXIMUM_WORDS = 80

PASSWORD_REFUSED = "it wants another user name or password (407)"

DEFAULT_PORT = 80  # of an http URL without one (RFC 9110 §4.2.1)


@attrs.frozen(slots=True)
class Proxy:
    """Where the proxy is, and how we say who we are there."""

    host: str
    port: int
    authorization: str | None = attrs.field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """From http://[user:password@]host[:port].

        Raises SignallingError, without the password.
        """
        expected = "proxy: expected http://[user:password@]host:port"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise SignallingError(expected) from None
        if parts.scheme != "http" or not parts.hostname:
            raise SignallingError(expected)
        authorization = None
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(credentials.encode()).decode("ascii")
        return cls(parts.hostname, port or DEFAULT_PORT, authorization)

    def __str__(self) -> str:
        """For people, without the password."""
        return f"proxy {authority(self.host, self.port)}"


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
    answer = bytearray()
    try:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode("ascii"))
        while b"\r\n\r\n" not in answer:
            data = await stream.receive_some(MAXIMUM_ANSWER)
            answer += data
            if not data or len(answer) > MAXIMUM_ANSWER:
                raise SignallingError(f"{proxy}: no HTTP answer to CONNECT {target}: is it one?")
    except trio.BrokenResourceError as error:
        raise SignallingError(f"{proxy}: connection lost at CONNECT {target}") from error
    head, _, rest = bytes(answer).partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r|$)", head)
    if status is None:
        raise SignallingError(f"{proxy}: no HTTP answer to CONNECT {target}: is it one?")
    code = int(status[1])
    if not 200 <= code < 300:
        raise SignallingError(f"{proxy}: {_refusal(code, head, proxy, target)}")
    if _is_page(head, rest):
        raise SignallingError(
            f"{proxy}: it answers with a page of its own instead of a tunnel to {target}:"
            " a login or block page; open it in a browser on this machine, or have its"
            f" administrator let CONNECT {target} through"
        )
    if rest:
        # Nobody behind the tunnel speaks before we do: this would be the proxy in its place.
        raise SignallingError(f"{proxy}: data before the tunnel's first word")


def _refusal(code: int, head: bytes, proxy: Proxy, target: str) -> str:
    """What an answer other than 2xx means, and who can do what about it."""
    if code == 407:
        challenges = _headers(head, b"proxy-authenticate")
        schemes = [word for value in challenges for word in value.split()[:1]]
        if schemes and "basic" not in (scheme.lower() for scheme in schemes):
            return (
                f"it lets in by {', '.join(schemes)[:MAXIMUM_WORDS]} only (407), and Relay speaks"
                " Basic: have its administrator let this machine through without, or by Basic"
            )
        if proxy.authorization is None:
            return "it wants a user name and password (407): give them in `proxy`"
        return PASSWORD_REFUSED
    if 300 <= code < 400:
        elsewhere = "".join(_headers(head, b"location")[:1])
        host = urlsplit(elsewhere).hostname if _is_url(elsewhere) else None
        return (
            f"it sends us to {(host or 'another page')[:MAXIMUM_WORDS]} instead (status {code}):"
            " a login page? Have its administrator let CONNECT "
            f"{target} through without one"
        )
    if code in (502, 503, 504):
        return (
            f"it does not reach {target} (status {code}): is that address right, and does the"
            " proxy know its name?"
        )
    return (
        f"it does not connect to {target} (status {code}): have its administrator let CONNECT"
        f" {target} through"
    )


def _is_page(head: bytes, rest: bytes) -> bool:
    """Whether a 2xx answer is a page for a person's browser.

    A Content-Length alone says nothing: it is to be ignored here (RFC 9110 §9.3.6).
    """
    types = _headers(head, b"content-type")
    return rest.lstrip()[:1] == b"<" or any(value.lower().startswith("text/") for value in types)


def _headers(head: bytes, name: bytes) -> list[str]:
    """The values of a header, in order, without what could disguise a line of a terminal."""
    rows = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    values = (
        value.strip().decode("ascii", "replace")
        for key, _, value in rows
        if key.strip().lower() == name
    )
    return [
        "".join(character if character.isprintable() else "�" for character in value)
        for value in values
    ]


def _is_url(text: str) -> bool:
    try:
        urlsplit(text)
    except ValueError:
        return False
    return True
