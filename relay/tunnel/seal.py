"""Sealed chunks: AES-256-GCM, each bound to its session, direction, place and finality.

PROTOCOL.md §11. The nonce is the chunk's number under a key that is used in one direction of one
session only, so it never repeats as long as a number is given once: numbering and sealing are one
step here, and whoever retries sends the same bytes.
"""

import struct
from typing import Self

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.dicom.pdu import AAbort, Buffer
from relay.errors import ChunkError, LocalProtocolError
from relay.tunnel.chunks import Chunk
from relay.tunnel.compression import (
    MAXIMUM_CHUNK,
    Compression,
    Compressor,
    Decompressor,
    Filter,
)

VERSION = 1
TAG_LENGTH = 16
# version, compression, filter, flags, head length, body length, reserved, number
_HEADER = struct.Struct(">BBBBIIIQ")
HEADER_LENGTH = _HEADER.size
OVERHEAD = HEADER_LENGTH + TAG_LENGTH
MAXIMUM_SEALED = MAXIMUM_CHUNK + OVERHEAD
# AES-GCM's bound on one key: 2^32 chunks of at most 2^18 blocks leave an attacker's advantage under
# 2^-28 (NIST SP 800-38D, and the usual 2^129 / blocks^2). 4 PiB at the default chunk size.
MAXIMUM_CHUNKS = 2**32

# A chunk with an A-ABORT and nothing else, sealed, takes 55 bytes. What is larger holds more, and
# is opened in its turn.
MAXIMUM_ABORT = 256

_FINAL = 0x01


@attrs.frozen(slots=True)
class ChunkHeader:
    """The 24 bytes before the ciphertext; in the clear, and authenticated."""

    compression: Compression
    filter: Filter
    final: bool
    head_length: int
    body_length: int
    number: int

    def encode(self) -> bytes:
        return _HEADER.pack(
            VERSION,
            self.compression,
            self.filter,
            _FINAL if self.final else 0,
            self.head_length,
            self.body_length,
            0,
            self.number,
        )

    @classmethod
    def decode(cls, sealed: Buffer) -> Self:
        """The header of a sealed chunk, as far as it can be believed before opening it.

        Raises ChunkError, naming the field.
        """
        if not OVERHEAD <= len(sealed) <= MAXIMUM_SEALED:
            raise ChunkError(f"sealed chunk of {len(sealed)} bytes")
        version, compression, filter_, flags, head, body, reserved, number = _HEADER.unpack_from(
            sealed
        )
        if version != VERSION:
            raise ChunkError(f"chunk of version {version}; this Router knows {VERSION}")
        if compression > Compression.ZSTD:
            raise ChunkError(f"chunk with unknown compression {compression}")
        if filter_ > (max(Filter) if compression else Filter.NONE):
            raise ChunkError(f"chunk with filter {filter_} where there can be none such")
        if flags & ~_FINAL or reserved:
            raise ChunkError("chunk with flags or reserved bytes set")
        if head + body > MAXIMUM_CHUNK:
            raise ChunkError(f"chunk of {head + body} bytes; at most {MAXIMUM_CHUNK} are taken")
        inside = len(sealed) - OVERHEAD
        if head > inside or (compression == Compression.NONE and head + body != inside):
            raise ChunkError("chunk's lengths do not agree with its size")
        final = bool(flags & _FINAL)
        if compression != Compression.NONE and not body:
            raise ChunkError("chunk with a compressed body of no bytes")
        if not head + body:
            raise ChunkError("chunk without records")
        return cls(Compression(compression), Filter(filter_), final, head, body, number)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


class ChunkSealer:
    """Seals one direction's chunks, numbered from 0. Dead after the final one or an error.

    One thread at a time: a second call while one runs would race for the number.
    """

    def __init__(
        self, key: bytes, transcript: bytes, direction: int, *, bulk: bool = False
    ) -> None:
        """`bulk`: many chunks are on their way at once."""
        self._aead = AESGCM(key)
        self._associated = _associated(transcript, direction)
        self._compressor = Compressor(bulk=bulk)
        self._number = 0
        self._dead = False

    @property
    def number(self) -> int:
        """The number that the next chunk gets: how many are sealed."""
        return self._number

    def seal(self, chunk: Chunk, rate: float | None = None) -> bytes:
        """The sealed bytes of `chunk`: to be kept, and sent again as they are.

        `rate` is the bytes a second that the way to the reader carries, where that is known: what
        compression is worth depends on it.
        Raises LocalProtocolError after the final chunk, or once sealing failed.
        """
        if self._dead or self._number >= MAXIMUM_CHUNKS:
            raise LocalProtocolError("this flow is closed: nothing more can be sealed")
        self._dead = True  # whatever happens below, this number is not used twice
        size = len(chunk.head) + len(chunk.body)
        if not 0 < size <= MAXIMUM_CHUNK:
            raise LocalProtocolError(f"chunk of {size} bytes cannot be sealed")
        compression, filter_, payload = self._compressor.compress(chunk.body, rate)
        header = ChunkHeader(
            compression, filter_, chunk.final, len(chunk.head), len(chunk.body), self._number
        ).encode()
        parts = [part for part in (chunk.head, payload) if part]
        plain = parts[0] if len(parts) == 1 else b"".join(parts)
        ciphertext = self._aead.encrypt(_nonce(self._number), plain, self._associated + header)
        self._number += 1
        self._dead = chunk.final
        return header + ciphertext


class ChunkOpener:
    """Opens one direction's chunks in order. Dead after the final one or an error."""

    def __init__(self, key: bytes, transcript: bytes, direction: int) -> None:
        self._aead = AESGCM(key)
        self._associated = _associated(transcript, direction)
        self._decompressor = Decompressor()
        self._number = 0
        self._finished = False
        self._dead = False

    @property
    def number(self) -> int:
        """The number of the chunk to open next: how many are opened."""
        return self._number

    @property
    def finished(self) -> bool:
        """Has the final chunk been opened?"""
        return self._finished

    def open(self, sealed: Buffer, number: int) -> Chunk:
        """The chunk announced as `number`, which must be the next; its records are not parsed yet.

        Raises ChunkError for anything else than the peer's next chunk, whole and unchanged; the
        flow is dead then.
        """
        if self._dead:
            raise ChunkError("this flow is dead")
        if self._finished:
            raise ChunkError("chunk after the final one")
        self._dead = True
        header = ChunkHeader.decode(sealed)
        if not header.number == number == self._number:
            raise ChunkError(
                f"chunk {header.number}, announced as {number}, where {self._number} is next"
            )
        if number >= MAXIMUM_CHUNKS:
            raise ChunkError("more chunks than one key may seal")
        chunk = self._decrypt(header, sealed)
        self._number += 1
        self._finished = header.final
        self._dead = False
        return chunk

    def abort_in(self, sealed: Buffer, number: int) -> AAbort | None:
        """The A-ABORT that chunk `number` holds, which may be asked before its turn.

        Nothing of what is before it matters any more then. None where it is no final chunk, or
        another; whether it can be opened shows in its turn.
        """
        try:
            header = ChunkHeader.decode(sealed)
            if not header.final or header.number != number or number < self._number:
                return None
            if len(sealed) > MAXIMUM_ABORT or header.body_length:
                return None  # with a body it holds none, and that may take long to unpack
            found = self._decrypt(header, sealed).records()
        except ChunkError:
            return None
        return found[-1] if isinstance(found[-1], AAbort) else None

    def _decrypt(self, header: ChunkHeader, sealed: Buffer) -> Chunk:
        view = memoryview(sealed)
        try:
            plain = self._aead.decrypt(
                _nonce(header.number),
                view[HEADER_LENGTH:],
                self._associated + bytes(view[:HEADER_LENGTH]),
            )
        except InvalidTag:
            raise ChunkError(f"chunk {header.number} does not open") from None
        head = memoryview(plain)[: header.head_length]
        body: Buffer = memoryview(plain)[header.head_length :]
        if header.compression == Compression.ZSTD:
            body = self._decompressor.decompress(body, header.filter, header.body_length)
        return Chunk(head, body, header.final)


def _associated(transcript: bytes, direction: int) -> bytes:
    assert len(transcript) == 32
    assert direction in (0, 1)
    return transcript + bytes([direction])
