"""relay.tunnel.seal, against the vectors and by every single thing that may be changed."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dicom.pdu import PDV, AAbort, AReleaseRP
from relay.errors import ChunkError, LocalProtocolError
from relay.tunnel import records
from relay.tunnel.chunks import MAXIMUM_CHUNK, Chunk
from relay.tunnel.compression import Decompressor, Filter
from relay.tunnel.seal import (
    MAXIMUM_ABORT,
    MAXIMUM_CHUNKS,
    MAXIMUM_SEALED,
    OVERHEAD,
    ChunkHeader,
    ChunkOpener,
    ChunkSealer,
)
from tests.vectors.reading import Vector, vectors

KEY, TRANSCRIPT = b"k" * 32, b"t" * 32
COMMAND = Chunk(records.encode(PDV(1, True, True, b"command!")))
LAST = Chunk(records.encode(AReleaseRP()), final=True)


def sealer() -> ChunkSealer:
    return ChunkSealer(KEY, TRANSCRIPT, 0)


def opener() -> ChunkOpener:
    return ChunkOpener(KEY, TRANSCRIPT, 0)


def same(one: Chunk, other: Chunk) -> bool:
    return [bytes(one.head), bytes(one.body), one.final] == [
        bytes(other.head),
        bytes(other.body),
        other.final,
    ]


def test_differences_are_for_what_goes_in_bulk() -> None:
    ramp = b"".join(number.to_bytes(2, "little") for number in range(1000, 31000, 3))
    chunk = Chunk(b"", records.encode(PDV(1, False, True, ramp)))
    for bulk, filter_ in ((True, Filter.DELTA), (False, Filter.SHUFFLE)):
        sealed = ChunkSealer(KEY, TRANSCRIPT, 0, bulk=bulk).seal(chunk)
        assert ChunkHeader.decode(sealed).filter == filter_
        assert same(opener().open(sealed, 0), chunk)


@pytest.mark.parametrize("vector", vectors("flow"), ids=str)
def test_flow_vector(vector: Vector) -> None:
    opening = ChunkOpener(
        vector.octets("key"), vector.octets("transcript"), vector.number("direction")
    )
    sealed = [bytes.fromhex(value) for value in vector.every("sealed")]
    outcome = vector.text("outcome")
    refused_at = vector.number("at") if outcome == "refused" else len(sealed)
    opened = [opening.open(one, number) for number, one in enumerate(sealed[:refused_at])]
    for chunk in opened:
        chunk.records()
    expected = [row.split(" ") for row in vector.every("chunk")]
    assert [
        ["final" if chunk.final else "more", chunk.head.hex() or "-", chunk.body.hex() or "-"]
        for chunk in opened
    ] == expected
    assert opening.finished == bool(opened and opened[-1].final)
    if outcome == "refused":
        with pytest.raises(ChunkError):
            opening.open(sealed[refused_at], refused_at).records()
        if opening.number > refused_at:
            return  # its records are what is refused; whoever parses them ends the session
        for number, one in enumerate(sealed):  # whatever comes after, the flow is dead
            with pytest.raises(ChunkError):
                opening.open(one, number)
    else:
        assert opening.finished == (outcome == "success")


CHUNKS = st.builds(
    Chunk,
    head=st.binary(max_size=2000),
    body=st.one_of(
        st.binary(max_size=2000), st.binary(min_size=1, max_size=99).map(lambda b: b * 50)
    ),
)


def test_an_abort_is_not_looked_for_in_what_has_to_be_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    abort = sealer().seal(Chunk(records.encode(AAbort(0, 0)), final=True))
    black = records.encode(PDV(1, False, True, bytes(1024 * 1024)))
    behind = sealer().seal(Chunk(records.encode(AAbort(0, 0)), black, final=True))
    assert len(behind) < MAXIMUM_ABORT
    unpacked: list[object] = []
    monkeypatch.setattr(Decompressor, "decompress", lambda *packed: unpacked.append(packed))
    assert opener().abort_in(abort, 0) == AAbort(0, 0)
    assert opener().abort_in(behind, 0) is None
    assert not unpacked


@given(st.lists(CHUNKS.filter(lambda chunk: chunk.head or chunk.body), max_size=8))
def test_round_trip(chunks: list[Chunk]) -> None:
    sealing, opening = sealer(), opener()
    for number, chunk in enumerate([*chunks, LAST]):
        sealed = sealing.seal(chunk)
        assert ChunkHeader.decode(sealed).number == number
        assert same(opening.open(memoryview(sealed), number), chunk)
    assert sealing.number == opening.number == len(chunks) + 1
    assert opening.finished


@pytest.mark.parametrize("size", [1, 16, MAXIMUM_CHUNK - 1, MAXIMUM_CHUNK])
def test_sizes_up_to_the_largest(size: int) -> None:
    for chunk in (Chunk(os.urandom(size)), Chunk(b"", os.urandom(size)), Chunk(b"", bytes(size))):
        sealed = sealer().seal(chunk)
        assert len(sealed) <= min(MAXIMUM_SEALED, size + OVERHEAD)
        assert same(opener().open(sealed, 0), chunk)


@pytest.mark.parametrize(
    "chunk", [Chunk(b"x", bytes(MAXIMUM_CHUNK)), Chunk(b""), Chunk(b"", final=True)]
)
def test_chunk_that_no_reader_takes_is_not_sealed(chunk: Chunk) -> None:
    sealing = sealer()
    with pytest.raises(LocalProtocolError):
        sealing.seal(chunk)
    with pytest.raises(LocalProtocolError, match="closed"):
        sealing.seal(COMMAND)


def test_nothing_is_sealed_after_the_final_chunk() -> None:
    sealing = sealer()
    sealing.seal(LAST)
    with pytest.raises(LocalProtocolError, match="closed"):
        sealing.seal(COMMAND)


def test_a_key_does_not_seal_for_ever() -> None:
    sealing = sealer()
    sealing._number = MAXIMUM_CHUNKS - 1
    sealing.seal(COMMAND)
    with pytest.raises(LocalProtocolError):
        sealing.seal(COMMAND)


def test_every_bit_counts() -> None:
    sealed = sealer().seal(COMMAND)
    for place in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[place] ^= 1 << bit
            with pytest.raises(ChunkError):
                opener().open(bytes(changed), 0)


def test_every_cut_is_noticed() -> None:
    sealed = sealer().seal(COMMAND)
    for length in range(len(sealed)):
        with pytest.raises(ChunkError):
            opener().open(sealed[:length], 0)


def test_announced_number_must_be_the_next() -> None:
    sealed = sealer().seal(COMMAND)
    for number in (1, 2**40):
        with pytest.raises(ChunkError, match="is next"):
            opener().open(sealed, number)


@given(st.binary(max_size=200))
def test_open_survives_anything(data: bytes) -> None:
    with pytest.raises(ChunkError):
        opener().open(data, 0)


def test_equal_chunks_do_not_look_equal() -> None:
    sealing = sealer()
    first, second = sealing.seal(COMMAND), sealing.seal(COMMAND)
    assert first[24:] != second[24:]
