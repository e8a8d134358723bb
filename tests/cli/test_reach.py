import base64
import hashlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trio

from relay.cli import certificate, reach
from relay.config import RouterConfig
from relay.config_file import load
from relay.identity import Identity
from relay.invitation import Invitation
from relay.providers import Finding

HOST = "127.0.0.1"


class Server:
    """Answers each connection with `answer`, over TLS if it is given a context.

    But a WebSocket it opens, unless it does not let upgrades through.
    """

    def __init__(self, answer: bytes, context: ssl.SSLContext | None, upgrades: bool) -> None:
        self._answer = answer
        self._upgrades = upgrades
        self._context = context
        self._listening = socket.create_server((HOST, 0))
        self.port = self._listening.getsockname()[1]
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                try:
                    self._answer_one(connection)
                except OSError:
                    continue  # a client that does not trust us hangs up

    def _answer_one(self, connection: socket.socket) -> None:
        stream = connection
        if self._context is not None:
            stream = self._context.wrap_socket(connection, server_side=True)
        with stream:
            request = whole(stream)
            self.requests.append(request)
            if self._upgrades and request.startswith(b"GET /v1/signal "):
                stream.sendall(upgrade(request))
                stream.recv(65536)  # until the client hangs up
            else:
                stream.sendall(self._answer)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


def whole(stream: socket.socket) -> bytes:
    """A request with its body: who closes with some of it unread resets the connection."""
    request = b""
    while b"\r\n\r\n" not in request:
        piece = stream.recv(65536)
        request += piece
        if not piece or request.startswith(b"\x16"):  # a TLS record, RFC 8446 §5.1
            return request
    head, _, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length is not None and len(body) < int(length[1]):
        body += stream.recv(65536)
    return head + b"\r\n\r\n" + body


def upgrade(request: bytes) -> bytes:
    """The answer that opens a WebSocket (RFC 6455 §4.2.2)."""
    key = re.search(rb"(?i)sec-websocket-key: (\S+)", request)
    assert key is not None
    accept = hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n"
    )


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers = []

    def serve(
        answer: bytes, context: ssl.SSLContext | None = None, *, upgrades: bool = True
    ) -> Server:
        servers.append(Server(answer, context, upgrades))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    authority, chain, key = certificate.make(tmp_path, HOST)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context, authority


def http(status: str, date: float | None, body: str = "", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    if date is not None:
        lines.append(f"Date: {formatdate(date, usegmt=True)}")
    return ("\r\n".join([*lines, "", ""]) + body).encode()


def well(date: float | None = None) -> bytes:
    """What a Bridge answers to GET /healthz."""
    return http("200 OK", date, '{"status": "ok"}')


def look(url: str, **how: object) -> list[Finding]:
    """All findings of the way to `url`."""

    async def gather() -> list[Finding]:
        arguments: dict[str, Any] = {"proxy": None, "ca_file": None} | how
        return [finding async for finding in reach.bridge(url, **arguments)]

    return trio.run(gather)


Serve = Callable[..., Server]
TLS = tuple[ssl.SSLContext, Path]


def test_a_bridge_that_answers_and_a_clock_that_agrees(serve: Serve, tls: TLS) -> None:
    server = serve(well(time.time()), tls[0])
    answered, clock, upgraded = look(f"https://{HOST}:{server.port}", ca_file=tls[1])
    assert answered.ok
    assert clock.ok
    assert upgraded.ok, upgraded
    assert server.requests[0].startswith(b"GET /healthz ")
    assert server.requests[1].startswith(b"GET /v1/signal ")


@pytest.mark.parametrize(
    ("skew", "words"),
    [(7200, "2.0 hours ahead of"), (-10800, "3.0 hours behind"), (300, "5 minutes ahead of")],
)
def test_a_clock_that_is_wrong_is_said(serve: Serve, tls: TLS, skew: float, words: str) -> None:
    server = serve(well(time.time() - skew), tls[0])
    _, clock = look(f"https://{HOST}:{server.port}", ca_file=tls[1])
    assert not clock.ok
    assert words in clock.what
    assert "NTP" in clock.advice


@pytest.mark.parametrize(
    ("skew", "words"),
    [(0, "agrees with"), (1.4, "agrees with"), (-2, "agrees with"), (60, "by 60 s, which does no")],
)
def test_a_clock_that_is_right_as_far_as_can_be_seen(skew: float, words: str) -> None:
    found = reach.clock(skew)
    assert found.ok
    assert words in found.what


def test_without_a_date_nothing_is_said_of_the_clock(serve: Serve, tls: TLS) -> None:
    server = serve(http("404 Not Found", None), tls[0])
    (answered,) = look(f"https://{HOST}:{server.port}", ca_file=tls[1])
    assert not answered.ok
    assert "404" in answered.advice


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http("200 OK", None, "<html>", "Content-Type: text/html; x=y"), "no Bridge (text/html)"),
        (http("200 OK", None, "{}"), "no Bridge"),
        (http("302 Found", None, "", "Location: https://login.test/x"), "sent on to login.test"),
        (http("302 Found", None, ""), "sent on to elsewhere"),
    ],
)
def test_a_page_in_place_of_the_bridge_is_said(
    serve: Serve, tls: TLS, answer: bytes, words: str
) -> None:
    server = serve(answer, tls[0])
    (answered,) = look(f"https://{HOST}:{server.port}", ca_file=tls[1])
    assert not answered.ok
    assert words in answered.advice


def test_an_upgrade_that_does_not_get_through_is_said(serve: Serve, tls: TLS) -> None:
    server = serve(well(), tls[0], upgrades=False)
    answered, upgraded = look(f"https://{HOST}:{server.port}", ca_file=tls[1])
    assert answered.ok
    assert not upgraded.ok
    assert "not let WebSockets through" in upgraded.advice


def test_an_authority_that_is_not_known_is_said(serve: Serve, tls: TLS) -> None:
    server = serve(well(), tls[0])
    (finding,) = look(f"https://{HOST}:{server.port}", hint="a proxy?")
    assert not finding.ok
    assert "ca_file" in finding.advice
    assert "fullchain" in finding.advice
    assert "a proxy?" not in finding.advice


def test_what_speaks_no_tls_is_said(serve: Serve) -> None:
    server = serve(http("400 Bad Request", None))
    (finding,) = look(f"https://{HOST}:{server.port}")
    assert not finding.ok
    assert "no TLS there" in finding.advice


@pytest.fixture
def nobody() -> str:
    """A host and port where nobody listens."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        return f"{HOST}:{free.getsockname()[1]}"


def test_nobody_there_is_said(nobody: str) -> None:
    (finding,) = look(f"https://{nobody}", hint="a proxy?")
    assert not finding.ok
    assert "is it running?; a proxy?" in finding.advice


def test_a_host_that_is_none_is_said() -> None:
    (finding,) = look("https://relay.invalid")
    assert not finding.ok
    assert "no such host: relay.invalid" in finding.advice


def test_a_proxy_that_refuses_is_said_without_its_password(serve: Serve) -> None:
    server = serve(http("407 Proxy Authentication Required", None))
    proxy = f"http://user:hunter2@{HOST}:{server.port}"
    (finding,) = look("https://relay.example.org", proxy=proxy)
    assert not finding.ok
    assert finding.what == f"proxy {HOST}:{server.port} makes a tunnel to relay.example.org:443"
    assert "407" in finding.advice
    assert "hunter2" not in finding.what + finding.advice


def test_a_proxy_that_is_not_there_is_not_taken_for_the_bridge(nobody: str) -> None:
    (finding,) = look("https://relay.example.org", proxy=f"http://{nobody}")
    assert not finding.ok
    assert f"proxy {nobody} " in finding.what
    assert "nobody listens there" in finding.advice
    assert "is `proxy` the right host and port?" in finding.advice


def test_a_proxy_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "TIMEOUT", 0.1)
    with socket.create_server((HOST, 0)) as silent:
        proxy = f"http://{HOST}:{silent.getsockname()[1]}"
        (finding,) = look("https://relay.example.org", proxy=proxy)
    assert not finding.ok
    assert "does it know relay.example.org?" in finding.advice


def test_a_file_without_certificates_is_said(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    (finding,) = look("https://relay.example.org", ca_file=path)
    assert not finding.ok
    assert "no certificates in PEM" in finding.advice


def test_a_proxy_that_wants_another_password_says_where_ours_is(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(http("407 Proxy Authentication Required", None))
    (tmp_path / "password").write_text(f"http://user:hunter2@{HOST}:{server.port}")
    file = tmp_path / "relay.toml"
    file.write_text('[router]\ndata_dir = "data"\nproxy = "file:password"\n')
    config = load(file)
    assert isinstance(config, RouterConfig)

    async def gather() -> list[Finding]:
        url = "https://relay.example.org"
        return [finding async for finding in reach.of_router(url, config)]

    (finding,) = trio.run(gather)
    assert finding.advice.endswith(f"`proxy` is what file:{tmp_path}/password holds")
    assert "hunter2" not in finding.what + finding.advice


@pytest.mark.parametrize(
    ("answer", "ok", "words"),
    [
        (
            http("200 OK", None, '{"name": "North", "expires": 1800000000}'),
            True,
            "the invitation is open, for North, until 2027",
        ),
        (
            http("403 Forbidden", None, '{"error": "it is used"}'),
            False,
            "the invitation: it is used",
        ),
        (http("404 Not Found", None, '{"error": "Not Found"}'), True, "is it older than this"),
        (http("200 OK", None, "<html>"), True, f"{reach.NOT_TOLD}: `relay enroll` shows it"),
        (http("403 Forbidden", None, "[]"), True, reach.NOT_TOLD),
        (http("200 OK", None, '{"name": "N", "expires": Infinity}'), True, reach.NOT_TOLD),
        (http("200 OK", None, "[" * 99_999), True, reach.NOT_TOLD),
    ],
)
def test_a_bridge_is_asked_about_an_invitation(
    serve: Serve, tls: TLS, tmp_path: Path, answer: bytes, ok: bool, words: str
) -> None:
    server = serve(answer, tls[0])
    file = tmp_path / "relay.toml"
    file.write_text(f'[router]\ndata_dir = "data"\nca_file = "{tls[1]}"\n')
    config = load(file)
    assert isinstance(config, RouterConfig)
    invited = Invitation(
        f"https://{HOST}:{server.port}/",
        bytes(16),
        bytes(16),
        Identity.from_seed(bytes(32)).public,
        bytes(16),
        2**33,
    )
    finding = trio.run(reach.invitation, invited, config)
    assert finding.ok is ok
    assert words in f"{finding.what}: {finding.advice}"
    assert server.requests[0].startswith(b"POST /v1/enrolments/inquiry ")


def test_a_router_without_a_proxy_is_told_that_it_may_need_one(nobody: str, tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('[router]\ndata_dir = "data"\n')
    config = load(file)
    assert isinstance(config, RouterConfig)

    async def gather() -> list[Finding]:
        return [finding async for finding in reach.of_router(f"https://{nobody}", config)]

    (finding,) = trio.run(gather)
    assert reach.NEEDS_PROXY in finding.advice
