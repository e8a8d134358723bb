"""Compression of a chunk's bodies, each by itself (PROTOCOL.md §11).

What it gains decides whether a body is compressed, and by which filter: the data knows better than
its transfer syntax what it holds.
"""

from enum import IntEnum

import zstandard

from relay.dicom.pdu import Buffer
from relay.errors import ChunkError

# Head and body together, in plain. Bounds what a reader sets aside for one chunk.
MAXIMUM_CHUNK = 4 * 1024 * 1024
# Under this a zstd frame's own overhead and the call cost more than they gain.
MINIMUM_COMPRESSIBLE = 512
# A body is tried by its middle, past the attributes at the front of a data set.
SAMPLE_SIZE = 32 * 1024
# Compression that gains less than one part in twenty is not worth the reader's time.
WORTH_IT = 0.95
# The fastest level: on 16-bit images the higher ones gain a few per cent at a third of the speed.
ZSTD_LEVEL = 1


class Compression(IntEnum):
    NONE = 0
    ZSTD = 1


class Filter(IntEnum):
    NONE = 0
    SHUFFLE = 1  # bytes at even offsets, then those at odd ones: high bytes of 16-bit samples


def shuffle(data: Buffer) -> bytes:
    """The bytes at even offsets, then those at odd offsets."""
    data = bytes(
        data
    )  # slicing bytes with a step is far faster than slicing a view; no copy of bytes
    return data[0::2] + data[1::2]


def unshuffle(data: Buffer) -> memoryview:
    """The inverse of `shuffle`."""
    view = memoryview(data)
    half = (len(view) + 1) // 2
    plain = bytearray(len(view))
    plain[0::2] = view[:half]
    plain[1::2] = view[half:]
    return memoryview(plain)


class Compressor:
    """Compresses bodies, each by itself. Not for two threads at once."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL)

    def compress(self, body: Buffer) -> tuple[Compression, Filter, Buffer]:
        """How the body is best carried, and so carried.

        Which filter, and whether any, a sample from the middle decides: the data knows better than
        its transfer syntax whether it holds 16-bit samples.
        """
        as_it_is = (Compression.NONE, Filter.NONE, body)
        if len(body) < MINIMUM_COMPRESSIBLE:
            return as_it_is
        middle = max(0, (len(body) - SAMPLE_SIZE) // 2)
        sample = bytes(body[middle : middle + SAMPLE_SIZE])
        plain = len(self._zstd.compress(sample))
        shuffled = len(self._zstd.compress(shuffle(sample)))
        if min(plain, shuffled) > WORTH_IT * len(sample):
            return as_it_is
        filter_ = Filter.SHUFFLE if shuffled < plain else Filter.NONE
        packed = self._zstd.compress(shuffle(body) if filter_ else body)
        if len(packed) > WORTH_IT * len(body):
            return as_it_is
        return Compression.ZSTD, filter_, packed


class Decompressor:
    """Undoes `Compressor`, never giving more than was announced. Not for two threads at once."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor()

    def decompress(self, packed: Buffer, filter_: Filter, length: int) -> Buffer:
        """The `length` bytes of a body. Raises ChunkError if the frame holds more, less or else."""
        try:
            frame = zstandard.get_frame_parameters(packed)
            if frame.content_size != length:
                # Checked first: the library sets aside what the frame states.
                raise ChunkError(f"zstd frame states another length than the chunk's {length}")
            if frame.window_size > MAXIMUM_CHUNK or frame.dict_id:
                raise ChunkError("zstd frame needs a larger window than a chunk, or a dictionary")
            plain = self._zstd.decompress(packed, max_output_size=length, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ChunkError(f"zstd: {error}") from None
        if len(plain) != length:
            raise ChunkError(f"body of {len(plain)} bytes, not {length}")
        return unshuffle(plain) if filter_ else plain
