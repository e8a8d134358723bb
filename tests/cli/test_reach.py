import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from relay.cli import certificate, reach

HOST = "127.0.0.1"


class Server:
    """Answers each connection with `answer`, over TLS if it is given a context."""

    def __init__(self, answer: bytes, context: ssl.SSLContext | None) -> None:
        self._answer = answer
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
            self.requests.append(stream.recv(65536))
            stream.sendall(self._answer)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers = []

    def serve(answer: bytes, context: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(answer, context))
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


def http(status: str, date: float | None) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n"
    if date is not None:
        head += f"Date: {formatdate(date, usegmt=True)}\r\n"
    return (head + "\r\n").encode()


def test_a_bridge_that_answers_and_a_clock_that_agrees(
    serve: Callable[..., Server], tls: tuple[ssl.SSLContext, Path]
) -> None:
    server = serve(http("200 OK", time.time()), tls[0])
    url = f"https://{HOST}:{server.port}"
    answered, clock = reach.bridge(url, proxy=None, ca_file=tls[1])
    assert answered.ok
    assert clock.ok
    assert server.requests[0].startswith(b"GET /healthz ")


def test_a_clock_that_is_wrong_is_said(
    serve: Callable[..., Server], tls: tuple[ssl.SSLContext, Path]
) -> None:
    server = serve(http("200 OK", time.time() - 7200), tls[0])
    _, clock = reach.bridge(f"https://{HOST}:{server.port}", proxy=None, ca_file=tls[1])
    assert not clock.ok
    assert "NTP" in clock.advice


def test_without_a_date_nothing_is_said_of_the_clock(
    serve: Callable[..., Server], tls: tuple[ssl.SSLContext, Path]
) -> None:
    server = serve(http("404 Not Found", None), tls[0])
    (answered,) = reach.bridge(f"https://{HOST}:{server.port}", proxy=None, ca_file=tls[1])
    assert not answered.ok
    assert "404" in answered.advice


def test_an_authority_that_is_not_known_is_said(
    serve: Callable[..., Server], tls: tuple[ssl.SSLContext, Path]
) -> None:
    server = serve(http("200 OK", None), tls[0])
    (finding,) = reach.bridge(f"https://{HOST}:{server.port}", proxy=None, ca_file=None)
    assert not finding.ok
    assert "ca_file" in finding.advice


def test_what_speaks_no_tls_is_said(serve: Callable[..., Server]) -> None:
    server = serve(http("400 Bad Request", None))
    (finding,) = reach.bridge(f"https://{HOST}:{server.port}", proxy=None, ca_file=None)
    assert not finding.ok
    assert "no TLS there" in finding.advice


def test_nobody_there_is_said() -> None:
    with socket.socket() as free:
        free.bind((HOST, 0))
        url = f"https://{HOST}:{free.getsockname()[1]}"
        (finding,) = reach.bridge(url, proxy=None, ca_file=None)
    assert not finding.ok
    assert "is it running?" in finding.advice


def test_a_host_that_is_none_is_said() -> None:
    (finding,) = reach.bridge("https://relay.invalid", proxy=None, ca_file=None)
    assert not finding.ok
    assert "no such host: relay.invalid" in finding.advice


def test_a_proxy_that_refuses_is_said_without_its_password(serve: Callable[..., Server]) -> None:
    server = serve(http("407 Proxy Authentication Required", None))
    proxy = f"http://user:hunter2@{HOST}:{server.port}"
    (finding,) = reach.bridge("https://relay.example.org", proxy=proxy, ca_file=None)
    assert not finding.ok
    assert "407" in finding.advice
    assert "hunter2" not in finding.what + finding.advice


def test_a_file_without_certificates_is_said(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    (finding,) = reach.bridge("https://relay.example.org", proxy=None, ca_file=path)
    assert not finding.ok
    assert "no certificates in PEM" in finding.advice
