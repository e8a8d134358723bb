"""Bundles: what goes in comes out, and what is none is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ChunkError
from relay.tunnel.bundle import MAXIMUM_BUNDLE, OVERHEAD, join, split
from relay.tunnel.seal import MAXIMUM_SEALED


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=8))
def test_round_trip(chunks: list[bytes]) -> None:
    content = b"".join(join(chunks))
    assert len(content) == sum(OVERHEAD + len(chunk) for chunk in chunks)
    assert [bytes(chunk) for chunk in split(content, len(chunks))] == chunks


def test_the_longest_chunk_has_room() -> None:
    assert sum(map(len, join([bytes(MAXIMUM_SEALED)]))) == MAXIMUM_BUNDLE


@pytest.mark.parametrize(
    ("content", "count", "words"),
    [
        (b"", 1, "ends before"),
        (bytes(3), 1, "ends before"),
        (b"\0\0\0\2ab", 2, "ends before"),
        (b"\0\0\0\3ab", 1, "chunk of 3 bytes"),
        (b"\xff\xff\xff\xffab", 1, "chunk of 4294967295 bytes"),
        (b"\0\0\0\2abc", 1, "1 bytes behind"),
    ],
)
def test_what_is_none_is_refused(content: bytes, count: int, words: str) -> None:
    with pytest.raises(ChunkError, match=words):
        split(content, count)
