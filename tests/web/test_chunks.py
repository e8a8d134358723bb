"""A body in chunks, however the pieces of it come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.web.chunks import MAXIMUM_LINE, BadChunks, Chunks


def taken(data: bytes, pieces: int = 1) -> tuple[bytes, bytes, bool]:
    """The body, what stands behind it, and whether it is whole."""
    chunks, ahead, body = Chunks(), bytearray(), b""
    step = max(1, len(data) // pieces)
    for at in range(0, len(data), step):
        ahead += data[at : at + step]
        while piece := chunks.take(ahead):
            body += piece
    return body, bytes(ahead), chunks.whole


@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_a_body_ends_where_it_says(pieces: int) -> None:
    data = b'3\r\nabc\r\nA ;x="y"\r\n0123456789\r\n000\r\nTrailer: a\r\n\r\nGET'
    assert taken(data, pieces) == (b"abc0123456789", b"GET", True)


def test_small_chunks_that_are_there_come_together() -> None:
    ahead = bytearray(b"1\r\na\r\n1\r\nb\r\n2\r\ncd\r\n3\r\ne")
    assert Chunks().take(ahead) == b"abcde"


@pytest.mark.parametrize(
    "cut", [b"", b"3", b"3\r\n", b"3\r\nab", b"3\r\nabc", b"3\r\nabc\r\n0\r\n"]
)
def test_what_is_cut_short_is_not_whole(cut: bytes) -> None:
    assert not taken(cut)[2]


@pytest.mark.parametrize(
    "bad",
    [
        b"\r\n",
        b"zz\r\n",
        b"-1\r\n",
        b"0x3\r\nabc\r\n",
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"1" * 16 + b"\r\n",
        b"3;a\x00b\r\n",
        b"3 \r\nabc\r\n",
        b"3\t\r\nabc\r\n",
        b"0\r\nT: a\nGET / HTTP/1.1\r\n\r\n",
        b"0\r\nT: a\rb\r\n\r\n",
        b"0\r\nT: a\0b\r\n\r\n",
        b"0\r\nT : a\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nT: a\r\n continued\r\n\r\n",
        b"0\r\n\n\r\n",
        b"0\r\n" + b"T: a\r\n" * MAXIMUM_LINE,
        b"3;" + b"a" * MAXIMUM_LINE,
    ],
)
def test_what_are_no_chunks(bad: bytes) -> None:
    with pytest.raises(BadChunks):
        taken(bad)


@given(st.lists(st.binary(min_size=1, max_size=300)), st.integers(1, 1000))
def test_all_of_a_body_comes_out(parts: list[bytes], pieces: int) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    assert taken(data, pieces) == (b"".join(parts), b"", True)
