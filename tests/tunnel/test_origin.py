"""Whom a URL speaks to, as httpx reads it, by whichever way it is read."""

import httpx
import pytest

from relay.tunnel.origin import Origin, origin_of, target_of


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        (Origin("https", "store.example", 443), "https://store.example"),
        (Origin("https", "store.example", 8443), "https://store.example:8443"),
        (Origin("http", "store.example", 443), "http://store.example:443"),
        (Origin("https", "2001:db8::1", 443), "https://[2001:db8::1]"),
        (Origin("http", "::1", 9000), "http://[::1]:9000"),
    ],
)
def test_an_origin_for_people_and_for_http(origin: Origin, url: str) -> None:
    assert origin.url == url
    assert origin.authority == url.partition("//")[2]


@pytest.mark.parametrize(
    "url",
    [
        "https://store.example/bucket/ab/cd?X-Amz-Signature=0a&X-Amz-Date=20260101T000000Z",
        "https://store.example:8443/v1/blobs/ab/cd?e=1&l=0&s=ff",
        "http://127.0.0.1:9000/a%20b",
        "https://STORE.example/a",
        "https://[2001:db8::1]:9000/a",
        "https://store.example?x",
        "https://store.example/a#fragment",
        "https://store.example/é",
    ],
)
def test_both_ways_read_the_same(url: str) -> None:
    parsed = httpx.URL(url)
    target = target_of(url)
    assert target.path.encode() == parsed.raw_path
    assert target.origin.host.encode() == parsed.raw_host
    assert target.origin == origin_of(url)
    assert not target.named


@pytest.mark.parametrize("url", ["https://user@store.example/a", "https://u:p@store.example/a"])
def test_a_user_name_is_seen(url: str) -> None:
    assert target_of(url).named


@pytest.mark.parametrize("url", ["https://a:1@evil.example/x", "https://a\\@evil.example/x"])
def test_what_could_be_read_in_two_ways_is_httpxs_to_read(url: str) -> None:
    assert target_of(url).origin.host == httpx.URL(url).raw_host.decode()
