"""Digests: what their authors publish, whatever the pieces; each kind is told apart."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.digest import begin, begin_like, is_digest


def vector(length: int) -> bytes:
    """The input of BLAKE3's published test vectors: 0, 1, …, 250, again from 0."""
    return bytes(number % 251 for number in range(length))


# github.com/BLAKE3-team/BLAKE3, test_vectors/test_vectors.json; one chunk has 1,024 bytes.
PUBLISHED = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
    1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
    102400: "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
}


@pytest.mark.parametrize("length", PUBLISHED)
def test_it_is_what_its_authors_publish_behind_its_kind(length: int) -> None:
    made = begin()
    made.update(vector(length))
    assert made.digest().hex() == "01" + PUBLISHED[length]


@given(st.lists(st.integers(0, 5000), max_size=8))
def test_pieces_make_no_difference(lengths: list[int]) -> None:
    whole, made = vector(sum(lengths)), begin()
    rest = memoryview(whole)
    for length in lengths:
        made.update(rest[:length])
        rest = rest[length:]
    once = begin()
    once.update(whole)
    assert made.digest() == once.digest()


def test_each_is_compared_with_its_own_kind() -> None:
    made = begin()
    made.update(b"an object")
    for known in (made.digest(), hashlib.sha256(b"an object").digest()):
        assert is_digest(known)
        same, other = begin_like(known), begin_like(known)
        same.update(b"an object")
        other.update(b"an objecT")
        assert same.digest() == known
        assert other.digest() != known


@pytest.mark.parametrize("known", [b"", bytes(31), bytes(33), b"\x02" + bytes(32), bytes(34)])
def test_anything_else_is_none(known: bytes) -> None:
    assert not is_digest(known)
