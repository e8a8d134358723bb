"""The ways to a store: what a proxy is asked, and what of it is believed."""

import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from relay.tunnel.connections import NoAnswer, Patience, ProxyRefused
from relay.tunnel.guard import Guard
from relay.tunnel.heads import fields_of
from relay.tunnel.origin import Origin
from relay.tunnel.via import MAXIMUM_WORDS, directly, through
from tests.tunnel.fakes import Names

PATIENCE = Patience(connect=5.0, piece=5.0)
HTTPS, HTTP = Origin("https", "store.example", 8443), Origin("http", "store.example", 9000)


@asynccontextmanager
async def proxy(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy that answers `answer` to anything; where it is, and what it was asked."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = await stream.receive_some()
            if not piece:
                return
            head += piece
        asked.append(head)
        await stream.send_all(answer)
        try:
            await stream.receive_some()
        except trio.BrokenResourceError:
            return  # gone, as it should

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            yield f"127.0.0.1:{listener.socket.getsockname()[1]}", asked
            nursery.cancel_scope.cancel()


def context() -> ssl.SSLContext:
    return ssl.create_default_context()


@pytest.mark.parametrize("host", ["", ".example"])
async def test_a_name_that_no_certificate_can_hold(host: str) -> None:
    async with proxy(b"HTTP/1.1 200 OK\r\n\r\n") as (where, _):
        with pytest.raises(NoAnswer, match="ConnectError"):
            await through(f"http://{where}", context(), PATIENCE)(Origin("https", host, 443))


async def test_a_tunnel_is_asked_for_with_the_proxys_own_credentials() -> None:
    async with proxy(b"HTTP/1.1 407 Authenticate\r\nContent-Length: 0\r\n\r\n") as (where, asked):
        with pytest.raises(ProxyRefused, match="407 Authenticate"):
            await through(f"http://user:p%40ss@{where}", context(), PATIENCE)(HTTPS)
    [head] = asked
    first, *lines = head.decode().split("\r\n")
    assert first == "CONNECT store.example:8443 HTTP/1.1"
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert headers["host"] == "store.example:8443"
    assert headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"


async def test_http_is_asked_of_the_proxy_itself() -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with proxy(ok) as (where, asked):
        connection = await through(f"http://user:pass@{where}", context(), PATIENCE)(HTTP)
        answer = await connection.request("GET", "/a?s=1", fields_of([("Host", HTTP.authority)]))
        assert bytes(await answer.read(2) or b"") == b"ok"
        await connection.aclose()
    assert asked[0].startswith(b"GET http://store.example:9000/a?s=1 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in asked[0]


async def test_what_the_proxy_says_is_cut() -> None:
    async with proxy(b"HTTP/1.1 502 " + b"no " * 500 + b"\r\n\r\n") as (where, _):
        with pytest.raises(ProxyRefused) as caught:
            await through(f"http://{where}", context(), PATIENCE)(HTTPS)
    assert len(str(caught.value)) <= MAXIMUM_WORDS


async def test_a_proxy_that_speaks_in_the_stores_place_is_not_heard() -> None:
    async with proxy(b"HTTP/1.1 200 OK\r\n\r\n<html>") as (where, _):
        with pytest.raises(ProxyRefused, match="first word"):
            await through(f"http://{where}", context(), PATIENCE)(HTTPS)


@pytest.mark.parametrize(
    ("answer", "fault"), [(b"SSH-2.0\r\n\r\n", "RemoteProtocolError"), (b"HTTP/1.1 ", "Connect")]
)
async def test_what_is_no_proxy(answer: bytes, fault: str) -> None:
    patience = Patience(connect=0.3, piece=5.0)
    async with proxy(answer) as (where, _):
        with pytest.raises(NoAnswer, match=fault):
            await through(f"http://{where}", context(), patience)(HTTPS)


async def test_tls_that_does_not_come_about_is_given_up() -> None:
    """Something listens there, takes the connection, and says nothing."""
    patience = Patience(connect=0.3, piece=5.0)
    loopback = ipaddress.ip_address("127.0.0.1")
    async with proxy(b"") as (where, _):
        guard = Guard(frozenset(), lambda address: address == loopback)
        trio.socket.set_custom_hostname_resolver(Names(["127.0.0.1"]))
        origin = Origin("https", "store.example", int(where.partition(":")[2]))
        with pytest.raises(NoAnswer, match="ConnectTimeout"):
            await directly(guard, context(), patience)(origin)
