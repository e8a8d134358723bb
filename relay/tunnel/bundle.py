"""Bundles: what lies in one slot of a store, one chunk or several (PROTOCOL.md §13).

    bundle = (length u32 || sealed chunk)+

A request to a store costs the same whatever it carries, so where chunks wait to be put they go
together. Each stays sealed by itself.
"""

import struct
from collections.abc import Iterable

from relay.dicom.pdu import Buffer
from relay.errors import ChunkError
from relay.signalling.messages import MAXIMUM_BUNDLED
from relay.tunnel.seal import MAXIMUM_SEALED

_LENGTH = struct.Struct(">I")
OVERHEAD = _LENGTH.size
# Of a whole bundle: one chunk of the longest fits, and a reader sets aside no more than for that.
MAXIMUM_BUNDLE = OVERHEAD + MAXIMUM_SEALED


def join(chunks: Iterable[bytes]) -> list[bytes]:
    """The bundle of these sealed chunks, in parts that are not copied."""
    parts: list[bytes] = []
    for sealed in chunks:
        parts += (_LENGTH.pack(len(sealed)), sealed)
    return parts


def split(bundle: Buffer, count: int | None = None) -> list[memoryview]:
    """The sealed chunks in `bundle`, views of it: `count`, where that is known.

    Raises ChunkError.
    """
    rest = memoryview(bundle)
    chunks: list[memoryview] = []
    while len(chunks) < (MAXIMUM_BUNDLED if count is None else count):
        if count is None and chunks and not rest:
            break
        if len(rest) < OVERHEAD:
            raise ChunkError("bundle ends before its last chunk")
        (length,) = _LENGTH.unpack_from(rest)
        if length > len(rest) - OVERHEAD:
            raise ChunkError(f"chunk of {length} bytes in a bundle that has {len(rest)} left")
        chunks.append(rest[OVERHEAD : OVERHEAD + length])
        rest = rest[OVERHEAD + length :]
    if rest:
        raise ChunkError(f"bundle of {len(chunks)} chunks with {len(rest)} bytes behind them")
    return chunks
