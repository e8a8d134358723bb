"""CONNECT through a hospital's proxy, byte for byte."""

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from relay.errors import SignallingError
from relay.signalling.proxy import MAXIMUM_ANSWER, Proxy, authority, connect_through

OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy:3128", Proxy("proxy", 3128)),
        ("http://proxy:3128/", Proxy("proxy", 3128)),
        ("http://proxy", Proxy("proxy", 80)),
        ("http://[::1]:8080", Proxy("::1", 8080)),
        ("http://me:secret@proxy:80", Proxy("proxy", 80, "Basic bWU6c2VjcmV0")),
        ("http://me:a%3Ab%40c@proxy:80", Proxy("proxy", 80, "Basic bWU6YTpiQGM=")),
        ("http://me@proxy:80", Proxy("proxy", 80, "Basic bWU6")),
    ],
)
def test_a_proxys_url(url: str, proxy: Proxy) -> None:
    assert Proxy.parse(url) == proxy


@pytest.mark.parametrize(
    "url", ["", "proxy", "proxy:3128", "https://proxy:1", "http://", "http://:1", "http://p:x"]
)
def test_what_is_no_proxy_url(url: str) -> None:
    with pytest.raises(SignallingError, match=r"^proxy: expected http://"):
        Proxy.parse(url)


def test_the_password_is_never_shown() -> None:
    assert "c2VjcmV0" not in repr(Proxy.parse("http://me:secret@proxy:80"))
    with pytest.raises(SignallingError) as error:
        Proxy.parse("ftp://me:secret@proxy:80")
    assert "secret" not in str(error.value)


def test_an_authority_as_http_writes_it() -> None:
    assert authority("bridge.example", 443) == "bridge.example:443"
    assert authority("2001:db8::1", 443) == "[2001:db8::1]:443"


async def attempt(proxy: Proxy, *answer: bytes) -> bytes:
    """Ask for a tunnel of a proxy that answers in these pieces; what it was asked."""
    near, far = memory_stream_pair()
    asked = b""
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            nonlocal asked
            while not asked.endswith(b"\r\n\r\n"):
                asked += await far.receive_some()
            for piece in answer:
                await far.send_all(piece)
                await trio.sleep(0.001)
            if not b"".join(answer).startswith(b"HTTP/1.1 2"):
                await far.aclose()

        nursery.start_soon(serve)
        await connect_through(proxy, near, "bridge.example", 443)
    return asked


async def test_a_tunnel_with_a_name_and_password(autojump_clock: MockClock) -> None:
    assert await attempt(Proxy.parse("http://me:secret@proxy:80"), OK) == (
        b"CONNECT bridge.example:443 HTTP/1.1\r\n"
        b"Host: bridge.example:443\r\n"
        b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"
    )
    assert b"Authorization" not in await attempt(Proxy("proxy", 80), OK)


@pytest.mark.parametrize(
    "answer",
    [
        [OK],
        [bytes([byte]) for byte in OK],
        [b"HTTP/1.0 200 \r\n\r\n"],
        [b"HTTP/1.1 200\r\nVia: x\r\nContent-Length: 5\r\n\r\n"],  # RFC 9110: to be ignored
        [b"HTTP/1.1 299 Odd\r\n\r\n"],
    ],
    ids=["whole", "byte by byte", "1.0", "headers", "299"],
)
async def test_answers_that_make_a_tunnel(answer: list[bytes], autojump_clock: MockClock) -> None:
    await attempt(Proxy("proxy", 80), *answer)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            [b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic\r\n\r\n"],
            r"wants a user name and password \(407\): give them in `proxy`",
        ),
        (
            [
                b"HTTP/1.1 407 Who?\r\nproxy-authenticate: NTLM\r\n",
                b"Proxy-Authenticate: Negotiate\r\n\r\n",
            ],
            "lets in by NTLM, Negotiate only",
        ),
        # Blank to Python, and to HTTP not (RFC 9110 §5.5).
        ([b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: \x1c\r\n\r\n"], "lets in by � only"),
        (
            [b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: NT\x1b[2JLM\r\n\r\n"],
            r"lets in by NT�\[2JLM only",
        ),
        ([b"HTTP/1.1 502 No\r\n\r\n"], "does the proxy know its name"),
        (
            [b"HTTP/1.1 302 Go\r\nLocation: http://login.example/?u=1\r\n\r\n"],
            "us to login.example ",
        ),
        ([b"HTTP/1.1 302 Go\r\nLocation: http://[\r\n\r\n"], "us to another page"),
        ([b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"], "a login or block page"),
        ([OK + b"<html>"], "a login or block page"),
        ([b"HTTP/1.1 403 No\r\n\r\n"], r"let CONNECT bridge\.example:443 through"),
        ([b"HTTP/1.1 301 There\r\nLocation: http://evil/\r\n\r\n"], "status 301"),
        ([b"HTTP/1.1 2000 OK\r\n\r\n"], "no HTTP answer"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], "no HTTP answer"),
        ([b"\r\n\r\n"], "no HTTP answer"),
        ([b"HTTP/1.1 200 OK\r\n"], "status|no HTTP answer|closed"),
        ([b""], "no HTTP answer"),
        ([b"x" * (MAXIMUM_ANSWER + 1)], "no HTTP answer"),
        ([OK + b"\x16\x03"], "before the tunnel's first word"),
    ],
)
async def test_answers_that_make_none(
    answer: list[bytes], words: str, autojump_clock: MockClock
) -> None:
    near, far = memory_stream_pair()

    await far.send_all(b"".join(answer))
    await far.send_eof()
    with pytest.raises(SignallingError, match=words) as error:
        await connect_through(Proxy("proxy", 80), near, "bridge.example", 443)
    assert str(error.value).startswith("proxy proxy:80: ")


async def test_a_password_that_is_refused_is_not_asked_for(autojump_clock: MockClock) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await attempt(Proxy("proxy", 80, "Basic x"), b"HTTP/1.1 407 Who?\r\n\r\n")
    assert "another user name or password (407)" in str(caught.value.exceptions[0])


async def test_a_proxy_that_is_gone(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    await far.aclose()
    with pytest.raises(SignallingError, match="proxy proxy:80: connection lost"):
        await connect_through(Proxy("proxy", 80), near, "bridge.example", 443)
