"""By which names the pages are asked for, from where, and by whom."""

import pytest
from starlette.datastructures import Headers

from relay.errors import Refused
from relay.pages.hosts import Hosts, is_loopback, is_own_name

PLAIN = Hosts.of(["relay.example.org", "fd00::1"])
TLS = Hosts.of(["Relay.Example.org."], tls=True)
NETWORK = Hosts.of(["bridge.example.org"], tls=True, loopback=False)


@pytest.mark.parametrize(
    ("hosts", "host", "scheme"),
    [
        (PLAIN, "localhost:8080", "http"),
        (PLAIN, "LOCALHOST", "http"),
        (PLAIN, "127.0.0.1:9999", "http"),
        (PLAIN, "127.1.2.3", "http"),
        (PLAIN, "[::1]:8080", "http"),
        (PLAIN, "relay.example.org", "https"),
        (PLAIN, "Relay.Example.Org.:443", "https"),
        (PLAIN, "[fd00::1]", "https"),
        (TLS, "localhost", "https"),
        (TLS, "relay.example.org:8443", "https"),
        (NETWORK, "bridge.example.org", "https"),
    ],
)
def test_how_it_is_reached(hosts: Hosts, host: str, scheme: str) -> None:
    assert hosts.scheme(host) == scheme


@pytest.mark.parametrize(
    ("hosts", "host"),
    [
        (PLAIN, ""),
        (PLAIN, "evil.example"),
        (PLAIN, "relay.example.org.evil.example"),
        (PLAIN, "evil.example:127.0.0.1"),
        (PLAIN, "127.0.0.1.evil.example"),
        (PLAIN, "localhost/sign-in?"),
        (PLAIN, "localhost#"),
        (PLAIN, "a@localhost"),
        (PLAIN, "localhost, evil.example"),
        (PLAIN, "[::1"),
        (PLAIN, "10.0.0.1"),
        (NETWORK, "localhost"),
        (NETWORK, "127.0.0.1"),
    ],
)
def test_who_asks_by_another_name_is_misdirected(hosts: Hosts, host: str) -> None:
    with pytest.raises(Refused, match="hosts") as refused:
        hosts.scheme(host)
    assert refused.value.status == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost:8080"},
        {"origin": "HTTP://LOCALHOST:8080"},
        {"sec-fetch-site": "same-origin"},
        {"origin": "http://localhost:8080", "sec-fetch-site": "same-origin"},
    ],
)
def test_what_a_page_of_ours_sends(headers: dict[str, str]) -> None:
    PLAIN.check_same_origin(Headers({"host": "localhost:8080", **headers}))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://localhost:8081"},
        {"origin": "https://localhost:8080"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8080"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "none"},
        {"origin": "http://localhost:8080", "sec-fetch-site": "cross-site"},
        {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
    ],
)
def test_what_another_page_sends(headers: dict[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        PLAIN.check_same_origin(Headers({"host": "localhost:8080", **headers}))
    assert refused.value.status == 403


def test_behind_a_proxy_the_origin_is_https() -> None:
    host = {"host": "relay.example.org"}
    PLAIN.check_same_origin(Headers({**host, "origin": "https://relay.example.org"}))
    with pytest.raises(Refused, match="reached over https"):
        PLAIN.check_same_origin(Headers({**host, "origin": "http://relay.example.org"}))


def test_who_asks() -> None:
    forwarded = {"x-forwarded-for": "6.6.6.6, 10.0.0.7", "host": "relay.example.org"}
    # A proxy on this machine says who; whoever comes himself says nothing that is believed.
    assert PLAIN.address(Headers(forwarded), ("127.0.0.1", 1)) == "10.0.0.7"
    assert (
        PLAIN.address(Headers({**forwarded, "host": "localhost"}), ("127.0.0.1", 1)) == "127.0.0.1"
    )
    assert TLS.address(Headers(forwarded), ("10.0.0.9", 1)) == "10.0.0.9"
    behind = Hosts.of(["b.example"], loopback=False, forwarded=True)
    assert behind.address(Headers(forwarded), ("10.0.0.2", 1)) == "10.0.0.7"
    nonsense = Headers({"x-forwarded-for": "<b>", "host": "b.example"})
    assert behind.address(nonsense, ("10.0.0.2", 1)) == "10.0.0.2"
    assert behind.address(Headers(), None) == ""


def test_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "::1")))
    assert not any(map(is_loopback, ("", "relay", "0.0.0.0", "::", "10.0.0.1")))
    assert is_own_name("localhost:1")
    assert not is_own_name("relay.example.org")
