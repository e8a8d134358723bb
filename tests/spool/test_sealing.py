"""A segment that is sealed while it comes: what AES-256-GCM makes of all of it at once."""

import random

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.dicom.pdu import Buffer
from relay.spool.sealing import SEGMENT, TAG_SIZE, SegmentSealer, nonce

KEY = bytes(range(32))
CONTENT = random.Random(3).randbytes(SEGMENT)


def room() -> memoryview:
    """Memory for a segment, in which something was before."""
    return memoryview(bytearray(b"x" * (SEGMENT + TAG_SIZE)))


def seal(number: int, *parts: Buffer, memory: memoryview | None = None) -> memoryview:
    sealer = SegmentSealer(KEY, number, room() if memory is None else memory)
    for part in parts:
        sealer.add(part)
    return sealer.end()


def cut(size: int, sizes: tuple[int, ...]) -> list[bytes]:
    """The first bytes of the content, in parts of these sizes in turn."""
    parts: list[bytes] = []
    at = 0
    while at < size:
        end = min(size, at + sizes[len(parts) % len(sizes)])
        parts.append(CONTENT[at:end])
        at = end
    return parts


@pytest.mark.parametrize("number", [0, 1, 2**32])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 70_001, SEGMENT - 1, SEGMENT])
@pytest.mark.parametrize("sizes", [(SEGMENT,), (4097, 15, 16_383), (7, 65_536, 1, 33)])
def test_in_parts_it_is_sealed_as_at_once(number: int, size: int, sizes: tuple[int, ...]) -> None:
    sealed = seal(number, *cut(size, sizes))
    assert sealed == AESGCM(KEY).encrypt(nonce(number), CONTENT[:size], None)
    assert AESGCM(KEY).decrypt(nonce(number), sealed, None) == CONTENT[:size]


def test_byte_by_byte_it_is_sealed_as_at_once() -> None:
    sealed = seal(5, *cut(1000, (1,)))
    assert sealed == AESGCM(KEY).encrypt(nonce(5), CONTENT[:1000], None)


def test_parts_of_every_kind_are_taken() -> None:
    content = memoryview(CONTENT)
    sealed = seal(0, CONTENT[:5], bytearray(content[5:50]), b"", content[50:5000], memoryview(b""))
    assert AESGCM(KEY).decrypt(nonce(0), sealed, None) == CONTENT[:5000]


def test_an_empty_segment_is_its_tag() -> None:
    for parts in ((), (b"",), (b"", b"")):
        sealed = seal(0, *parts)
        assert len(sealed) == TAG_SIZE
        assert AESGCM(KEY).decrypt(nonce(0), sealed, None) == b""


def test_a_whole_segment_fills_its_memory() -> None:
    memory = room()
    sealed = seal(0, *cut(SEGMENT, (4096,)), memory=memory)
    assert len(sealed) == len(memory) == SEGMENT + TAG_SIZE
    assert AESGCM(KEY).decrypt(nonce(0), memory, None) == CONTENT


def test_it_lies_in_its_memory() -> None:
    memory = room()
    sealed = seal(0, CONTENT[:100], memory=memory)
    assert sealed.obj is memory.obj
    assert memory[: len(sealed)] == sealed
    memory[0] ^= 1
    with pytest.raises(InvalidTag):
        AESGCM(KEY).decrypt(nonce(0), sealed, None)


def test_nothing_behind_it_is_touched() -> None:
    memory = room()
    sealed = seal(0, CONTENT[:100], CONTENT[100:117], memory=memory)
    assert set(memory[len(sealed) :]) == set(b"x")


def test_memory_is_used_again() -> None:
    memory = room()
    seal(0, CONTENT, memory=memory)
    sealed = seal(1, CONTENT[:10], memory=memory)
    assert AESGCM(KEY).decrypt(nonce(1), sealed, None) == CONTENT[:10]


def test_it_does_not_open_as_another_segment_or_with_another_key() -> None:
    sealed = seal(1, CONTENT[:100])
    for key, number in ((KEY, 0), (KEY, 2), (bytes(32), 1)):
        with pytest.raises(InvalidTag):
            AESGCM(key).decrypt(nonce(number), sealed, None)


def test_no_two_segments_have_one_nonce() -> None:
    assert len({nonce(number) for number in range(1000)}) == 1000
    assert {len(nonce(number)) for number in (0, 1, 2**64)} == {12}
