"""Compression of bodies: what comes back, what is left alone, and what a reader does not take."""

import os
import random
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ChunkError
from relay.tunnel.compression import (
    Compression,
    Compressor,
    Decompressor,
    Filter,
    shuffle,
    unshuffle,
)

NOISE = random.Random(1)
IMAGE = struct.pack("<40000H", *(int(NOISE.gauss(1000, 30)) for _ in range(40000)))


@given(st.binary(max_size=1000))
def test_shuffle_round_trip(plain: bytes) -> None:
    assert bytes(unshuffle(shuffle(plain))) == plain


def test_shuffle_by_example() -> None:
    assert shuffle(b"AaBbCcD") == b"ABCDabc"


def test_images_are_shuffled_and_text_is_not() -> None:
    compressor = Compressor()
    assert compressor.compress(IMAGE)[:2] == (Compression.ZSTD, Filter.SHUFFLE)
    words = b" ".join(b"%d times" % (i * i % 1000) for i in range(9000))
    assert compressor.compress(words)[:2] == (Compression.ZSTD, Filter.NONE)


@pytest.mark.parametrize("body", [b"", bytes(511), os.urandom(100_000)], ids=["", "short", "noise"])
def test_what_does_not_gain_is_left_alone(body: bytes) -> None:
    assert Compressor().compress(body) == (Compression.NONE, Filter.NONE, body)


def test_what_gains_only_in_the_middle_is_left_alone() -> None:
    noise = os.urandom(2_000_000)
    body = noise[:1_000_000] + bytes(40_000) + noise[1_000_000:]
    assert Compressor().compress(body)[0] == Compression.NONE


@given(st.binary(max_size=5000))
def test_compression_round_trip(body: bytes) -> None:
    for body_ in (body, body * 20, memoryview(body * 20)):
        compression, filter_, packed = Compressor().compress(body_)
        if compression == Compression.ZSTD:
            assert len(packed) <= 0.95 * len(body_)
            packed = Decompressor().decompress(packed, filter_, len(body_))
        assert packed == body_


@pytest.mark.parametrize(
    ("window", "fits"), [(0x60, True), (0x61, False), (0x88, False), (0xA0, False)], ids=hex
)
def test_window_of_a_chunk_at_most(window: int, fits: bool) -> None:
    body = bytes(1000)
    frame = zstandard.ZstdCompressor().compress(body)
    assert frame[4] == 0x60  # a single segment, content size in 2 bytes
    widened = frame[:4] + bytes([0x40, window]) + frame[5:]
    if fits:
        assert Decompressor().decompress(widened, Filter.NONE, len(body)) == body
    else:
        with pytest.raises(ChunkError, match="window"):
            Decompressor().decompress(widened, Filter.NONE, len(body))


def test_decompression_stops_at_the_stated_length() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(200 * 1024 * 1024))
    assert len(bomb) < 50_000
    with pytest.raises(ChunkError):
        Decompressor().decompress(bomb, Filter.NONE, 1000)
