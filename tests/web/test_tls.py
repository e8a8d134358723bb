"""TLS contexts: what they trust, and which file is at fault."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from relay.errors import RelayError
from relay.web.tls import client_tls, end_of, server_tls


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """A whole handshake in memory, for the host "relay.test"."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="relay.test"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ends[0].version() in ("TLSv1.2", "TLSv1.3")


@pytest.fixture
def issued(tmp_path: Path, authority: trustme.CA) -> tuple[Path, Path, Path]:
    """(authority's certificate, server's certificate, its key)."""
    paths = tmp_path / "ca.crt", tmp_path / "relay.crt", tmp_path / "relay.key"
    server = authority.issue_cert("relay.test")
    authority.cert_pem.write_to_path(paths[0])
    server.cert_chain_pems[0].write_to_path(paths[1])
    server.private_key_pem.write_to_path(paths[2])
    return paths


@pytest.mark.parametrize("trusted", [0, 1], ids=["the authority", "the certificate itself"])
def test_what_the_file_holds_is_trusted(issued: tuple[Path, Path, Path], trusted: int) -> None:
    handshake(client_tls(issued[trusted]), server_tls(issued[1], issued[2]))


def test_a_stranger_is_not(issued: tuple[Path, Path, Path]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client_tls(), server_tls(issued[1], issued[2]))


def test_both_need_tls_1_2(issued: tuple[Path, Path, Path]) -> None:
    for context in (client_tls(), server_tls(issued[1], issued[2])):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("content", [None, "no PEM"])
def test_a_bad_authority_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RelayError, match=f"{path}: no certificates"):
        client_tls(path)


def test_server_tls_names_the_files(issued: tuple[Path, Path, Path], tmp_path: Path) -> None:
    missing = tmp_path / "missing.key"
    with pytest.raises(RelayError, match=f"certificate {issued[1]} with key {missing}"):
        server_tls(issued[1], missing)


def test_until_when_a_certificate_holds(tmp_path: Path, authority: trustme.CA) -> None:
    path = tmp_path / "short.crt"
    ends = datetime(2027, 3, 1, 12, tzinfo=UTC)
    issued = authority.issue_cert("relay.test", not_after=ends)
    issued.cert_chain_pems[0].write_to_path(path)
    assert end_of(path) == int(ends.timestamp())
    path.write_text("no certificate")
    with pytest.raises(RelayError, match=r"short\.crt: no certificate in PEM"):
        end_of(path)
