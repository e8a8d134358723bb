"""Digests: BLAKE3 as its authors publish it, whatever pieces it is made of."""

from hypothesis import given
from hypothesis import strategies as st

from relay.digest import Digest
from relay.tunnel.notes import DIGEST_LENGTH


def vector(length: int) -> bytes:
    """The input of the published test vectors: 0, 1, …, 250, again from 0."""
    return bytes(number % 251 for number in range(length))


def test_it_is_what_its_authors_publish() -> None:
    # github.com/BLAKE3-team/BLAKE3, test_vectors/test_vectors.json: input_len 0, 1 and 1024.
    for length, published in (
        (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
        (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
    ):
        assert Digest(vector(length)).digest().hex() == published


def test_it_has_the_length_that_a_note_carries() -> None:
    assert len(Digest().digest()) == DIGEST_LENGTH


@given(st.lists(st.integers(0, 5000), max_size=8))
def test_pieces_make_no_difference(lengths: list[int]) -> None:
    whole, made = vector(sum(lengths)), Digest()
    rest = memoryview(whole)
    for length in lengths:
        made.update(rest[:length])
        rest = rest[length:]
    assert made.digest() == Digest(whole).digest()
