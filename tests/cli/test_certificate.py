import datetime
import ssl
from pathlib import Path

import pytest

from relay.cli import certificate


@pytest.mark.parametrize("host", ["127.0.0.1", "relay.example.org"])
def test_what_is_made_is_good_for_its_host(tmp_path: Path, host: str) -> None:
    authority, chain, key = certificate.make(tmp_path, host)
    ssl.create_default_context(cafile=authority)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
    assert key.stat().st_mode & 0o077 == 0
    until, names = certificate.examine(chain, host)
    assert names.ok
    assert not until.ok, "two days are soon over, and a real one would have to be renewed"


def test_another_host_is_named(tmp_path: Path) -> None:
    _, chain, _ = certificate.make(tmp_path, "relay.example.org")
    _, names = certificate.examine(chain, "bridge.example.org")
    assert not names.ok
    assert "relay.example.org" in names.advice


def test_a_wildcard_covers_one_label(tmp_path: Path) -> None:
    _, chain, _ = certificate.make(tmp_path, "*.example.org")
    found = {
        host: list(certificate.examine(chain, host))[1].ok
        for host in ("relay.example.org", "RELAY.example.org", "a.relay.example.org", "example.org")
    }
    assert list(found.values()) == [True, True, False, False]


def test_time_left_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, chain, _ = certificate.make(tmp_path, "relay.example.org")
    monkeypatch.setattr(certificate, "SOON", datetime.timedelta(hours=1))
    until, _ = certificate.examine(chain, "relay.example.org")
    assert until.ok


@pytest.mark.parametrize(
    ("days", "words"), [(-3, "only from "), (3, "it has expired, and no Router gets in")]
)
def test_a_certificate_of_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, words: str
) -> None:
    _, chain, _ = certificate.make(tmp_path, "relay.example.org")
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    monkeypatch.setattr(certificate, "_now", lambda: then)
    until, _ = certificate.examine(chain, "relay.example.org")
    assert not until.ok
    assert words in until.advice


def test_an_ipv6_address_in_another_spelling(tmp_path: Path) -> None:
    _, chain, _ = certificate.make(tmp_path, "2001:db8::1")
    _, names = certificate.examine(chain, "2001:0DB8:0::1")
    assert names.ok


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "chain.pem"
    path.write_bytes(content)
    (finding,) = certificate.examine(path, "h")
    assert not finding.ok


def test_whose_it_is_and_what_is_lost_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, chain, _ = certificate.make(tmp_path, "relay.example.org")
    told = {"server": "the Router", "lost": "nobody gets in"}
    assert certificate.lasting(chain, **told).advice == "renew it, and restart the Router"
    later = certificate._now() + datetime.timedelta(days=3)
    monkeypatch.setattr(certificate, "_now", lambda: later)
    finding = certificate.lasting(chain, **told)
    assert not finding.ok
    assert "expired, and nobody gets in: renew it, and restart the Router" in finding.advice
    assert "not a PEM certificate" in certificate.lasting(tmp_path / "none", **told).advice
