"""Signed URLs of the Bridge's own store: what was signed holds, and nothing else does."""

from urllib.parse import urlsplit

import pytest

from relay.errors import ProviderError, Refused
from relay.providers import SignedRequest
from relay.providers.blob_urls import BLOB_PATH, BlobURLs

NOW = 1_700_000_000.0
NAME = "ab/" + "c" * 62


@pytest.fixture
def urls() -> BlobURLs:
    return BlobURLs("https://bridge.example/", b"k" * 32, lambda: NOW)


def parts(signed: SignedRequest) -> tuple[str, str, bytes]:
    split = urlsplit(signed.url)
    return signed.method, split.path[len(BLOB_PATH) :], split.query.encode()


def test_what_was_signed_holds(urls: BlobURLs) -> None:
    put = urls.sign("PUT", NAME, 60, 1000)
    assert put.url.startswith(f"https://bridge.example/v1/blobs/{NAME}?e=1700000060&l=1000&s=")
    assert (put.headers, put.expires) == ((), NOW + 60)
    assert urls.verify(*parts(put)) == (1000, "")
    assert urls.verify(*parts(urls.sign("GET", NAME, 60))) == (0, "")


def test_a_router_that_may_wait_is_told_from_others(urls: BlobURLs) -> None:
    tags = []
    for reader in (b"n" * 32, b"s" * 32, b"n" * 32):
        limit, tag = urls.verify(*parts(urls.sign("GET", NAME, 60, reader=reader)))
        assert (limit, len(tag)) == (0, 16)
        tags.append(tag)
    assert tags[0] == tags[2] != tags[1]


def test_the_bytes_that_were_signed(urls: BlobURLs) -> None:
    """They stay: a Bridge that is restarted as a newer one takes the URLs that it gave out."""
    assert parts(urls.sign("PUT", "ab/cd", 60, 1000))[2] == (
        b"e=1700000060&l=1000&s=aacee7e8691fc2c98545a0ce59871c189f7f93b44395f6f71143f7e9c56798b5"
    )


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "put", "PUT\n"])
def test_for_one_method(urls: BlobURLs, method: str) -> None:
    _, name, query = parts(urls.sign("PUT", NAME, 60, 1000))
    with pytest.raises(Refused, match="does not hold") as caught:
        urls.verify(method, name, query)
    assert caught.value.status == 403


def test_for_one_name(urls: BlobURLs) -> None:
    method, _, query = parts(urls.sign("PUT", NAME, 60, 1000))
    with pytest.raises(Refused, match="does not hold"):
        urls.verify(method, NAME[:-1], query)
    for name in ("", "../" + NAME, NAME + "\n", NAME.upper(), "é"):
        with pytest.raises(Refused, match="not a signed request"):
            urls.verify(method, name, query)


def test_every_byte_of_the_query_counts(urls: BlobURLs) -> None:
    method, name, query = parts(urls.sign("GET", NAME, 60, reader=b"n" * 32))
    for at in range(len(query)):
        for byte in b"0", b"9", b"f", b"&", b"=", b"", b"%30", b"\n":
            forged = query[:at] + byte + query[at + 1 :]
            if forged != query:
                with pytest.raises(Refused) as caught:
                    urls.verify(method, name, forged)
                assert caught.value.status == 403


@pytest.mark.parametrize(
    "change",
    [
        lambda e, limit, s, a: [],
        lambda e, limit, s, a: [limit, e, s, a],
        lambda e, limit, s, a: [e, limit, s],
        lambda e, limit, s, a: [e, limit, s, a, a],
        lambda e, limit, s, a: [e, limit, s, a, b"x=1"],
        lambda e, limit, s, a: [e, limit, s, b"a="],
        lambda e, limit, s, a: [e.replace(b"=", b"=0"), limit, s, a],
        lambda e, limit, s, a: [e.replace(b"=", b"=+"), limit, s, a],
        lambda e, limit, s, a: [e, limit, s.upper(), a],
    ],
)
def test_only_the_query_as_it_was_signed(urls: BlobURLs, change) -> None:
    method, name, query = parts(urls.sign("GET", NAME, 60, reader=b"n" * 32))
    with pytest.raises(Refused, match=r"not a signed request|does not hold"):
        urls.verify(method, name, b"&".join(change(*query.split(b"&"))))


def test_for_a_time() -> None:
    now = NOW
    urls = BlobURLs("https://x", b"k", lambda: now)
    signed = parts(urls.sign("GET", NAME, 60))
    now += 59.9
    urls.verify(*signed)
    now += 0.1
    with pytest.raises(Refused, match="expired"):
        urls.verify(*signed)


def test_another_key(urls: BlobURLs) -> None:
    signed = parts(urls.sign("GET", NAME, 60))
    with pytest.raises(Refused, match="does not hold"):
        BlobURLs("https://bridge.example", b"o" * 32, lambda: NOW).verify(*signed)


def test_names_alone_are_signed(urls: BlobURLs) -> None:
    with pytest.raises(ProviderError, match="name"):
        urls.sign("GET", "../etc", 60)
