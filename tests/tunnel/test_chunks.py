"""relay.tunnel.chunks: whatever goes in comes out, in order, in chunks that keep the rules."""

import os
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dicom.pdu import PDV, AAbort, AAssociateRJ, AReleaseRP, AReleaseRQ, Atom
from relay.errors import ChunkError
from relay.tunnel.chunks import (
    FIRST_CHUNKS,
    FIRST_TARGET,
    MINIMUM_TARGET,
    SMALL_OBJECT,
    TARGET_SIZE,
    Chunk,
    ChunkBuilder,
)
from relay.tunnel.compression import (
    MAXIMUM_CHUNK,
)
from relay.tunnel.records import MAXIMUM_NOTE, MAXIMUM_RECORDS, Note, Record, decode, encode

NOISE = random.Random(1)
IMAGE = struct.pack("<40000H", *(int(NOISE.gauss(1000, 30)) for _ in range(40000)))


def command(text: bytes = b"command!", context_id: int = 1) -> PDV:
    return PDV(context_id, True, True, text)


def data(fragment: bytes, *, last: bool = False, context_id: int = 1) -> PDV:
    return PDV(context_id, False, last, fragment)


def build(builder: ChunkBuilder, said: list[tuple[Record, bool]]) -> list[Chunk]:
    chunks = []
    for record, compressible in said:
        chunks += builder.add(record, compressible=compressible)
    last = builder.cut()
    return chunks if last is None else [*chunks, last]


def messages(atoms: list[Record]) -> list[object]:
    """Records with all fragments of a message joined: what does not depend on how they are cut."""
    out: list[object] = []
    parts: list[bytes] = []
    kind = None
    for atom in atoms:
        if not isinstance(atom, PDV):
            out.append(atom)
            continue
        if parts and kind != (atom.context_id, atom.is_command):
            out.append((kind, b"".join(parts), False))
            parts = []
        kind = (atom.context_id, atom.is_command)
        parts.append(bytes(atom.fragment))
        if atom.is_last:
            out.append((kind, b"".join(parts), True))
            parts = []
    if parts:
        out.append((kind, b"".join(parts), False))
    return out


def test_a_command_and_its_data_set_share_a_chunk() -> None:
    builder = ChunkBuilder()
    assert builder.add(command()) == []
    assert builder.add(data(b"data", last=True), compressible=True) == []
    chunk = builder.cut()
    assert chunk is not None
    assert decode(chunk.head) == [command()]
    assert decode(chunk.body) == [data(b"data", last=True)]
    assert builder.cut() is None
    assert builder.pending == 0


def test_what_is_not_compressible_stays_in_the_head_in_order() -> None:
    (chunk,) = build(
        ChunkBuilder(),
        [
            (command(), True),
            (data(b"jpeg", last=True), False),
            (command(), False),
            (data(b"jpeg", last=True), False),
            (AReleaseRQ(), True),
        ],
    )
    assert chunk.body == b""
    assert len(chunk.records()) == 5


ITEM, RESULT = Note(b"item"), Note(b"result")


def test_an_item_its_command_and_its_data_set_share_a_chunk() -> None:
    said = [(ITEM, False), (command(), False), (data(b"data", last=True), True)]
    chunks = build(ChunkBuilder(), [*said, *said])
    assert [decode(chunk.head) for chunk in chunks] == [[ITEM, command()]] * 2
    assert [decode(chunk.body) for chunk in chunks] == [[data(b"data", last=True)]] * 2


def test_small_objects_that_are_not_to_be_compressed_share_a_chunk() -> None:
    small = data(bytes(SMALL_OBJECT - 2), last=True)
    said = [(ITEM, False), (command(), False), (small, False)]
    chunks = build(ChunkBuilder(), said * 60)
    assert len(chunks) == 1
    assert chunks[0].records() == [ITEM, command(), small] * 60


def test_a_note_is_in_the_head_whatever_is_said_of_it() -> None:
    (chunk,) = build(ChunkBuilder(), [(RESULT, True), (RESULT, True), (AReleaseRP(), False)])
    assert decode(chunk.head) == [RESULT, RESULT, AReleaseRP()]
    assert chunk.body == b""


def test_a_note_behind_a_body_is_in_the_next_chunk() -> None:
    chunks = build(ChunkBuilder(), [(command(), False), (data(b"one"), True), (RESULT, False)])
    assert [chunk.records() for chunk in chunks] == [[command(), data(b"one")], [RESULT]]


def test_the_longest_note_makes_a_chunk_whatever_the_target() -> None:
    note = Note(bytes(MAXIMUM_NOTE))
    said = [(command(), False), (note, False), (command(), False)]
    chunks = build(ChunkBuilder(MINIMUM_TARGET), said)
    assert [chunk.records() for chunk in chunks] == [[command()], [note], [command()]]


def test_a_body_holds_one_data_set() -> None:
    one = [(command(), False), (data(b"one", last=True), True)]
    two = [(command(), False), (data(b"two", last=True), True)]
    chunks = build(ChunkBuilder(), [*one, *two, (AReleaseRQ(), False)])
    assert [len(decode(chunk.body)) for chunk in chunks] == [1, 1, 0]
    # Even where no command stands between them, which no sound peer sends.
    chunks = build(ChunkBuilder(), [(data(b"one", last=True), True), (data(b"two"), True)])
    assert len(chunks) == 2


def test_adjacent_fragments_become_one_record() -> None:
    fragments = [(data(b"%04d" % i, last=i == 99), True) for i in range(100)]
    (chunk,) = build(ChunkBuilder(), fragments)
    (pdv,) = chunk.records()
    assert isinstance(pdv, PDV)
    assert pdv.is_last
    assert bytes(pdv.fragment) == b"".join(b"%04d" % i for i in range(100))


@pytest.mark.parametrize("compressible", [True, False])
def test_large_fragment_is_split_at_even_places(compressible: bool) -> None:
    fragment = os.urandom(10 * MINIMUM_TARGET + 2)
    chunks = build(ChunkBuilder(MINIMUM_TARGET), [(data(fragment, last=True), compressible)])
    pdvs = [atom for chunk in chunks for atom in chunk.records() if isinstance(atom, PDV)]
    assert b"".join(bytes(pdv.fragment) for pdv in pdvs) == fragment
    assert [pdv.is_last for pdv in pdvs] == [False] * (len(pdvs) - 1) + [True]
    assert all(len(pdv.fragment) % 2 == 0 for pdv in pdvs)
    sizes = [len(chunk.head) + len(chunk.body) for chunk in chunks]
    assert all(MINIMUM_TARGET - 8 <= size <= MINIMUM_TARGET for size in sizes[:-1])


def test_full_chunks_come_out_as_they_fill() -> None:
    builder = ChunkBuilder(MINIMUM_TARGET)
    given_out = [len(builder.add(data(bytes(300)), compressible=True)) for _ in range(20)]
    assert sum(given_out) >= 5
    assert builder.pending < MINIMUM_TARGET


def test_the_first_chunks_may_be_small() -> None:
    builder = ChunkBuilder(first_target=MINIMUM_TARGET)
    chunks = builder.add(data(bytes(FIRST_CHUNKS * MINIMUM_TARGET)), compressible=True)
    assert len(chunks) == FIRST_CHUNKS
    assert all(len(chunk.body) <= MINIMUM_TARGET for chunk in chunks)
    assert builder.add(data(bytes(TARGET_SIZE // 2)), compressible=True) == []
    (large,) = builder.add(data(bytes(TARGET_SIZE)), compressible=True)
    assert TARGET_SIZE // 2 < len(large.body) <= TARGET_SIZE


def test_final_chunk() -> None:
    builder = ChunkBuilder()
    builder.add(AReleaseRP())
    chunk = builder.cut(final=True)
    assert chunk is not None
    assert chunk.final
    assert chunk.records() == [AReleaseRP()]
    assert builder.cut(final=True) is None  # a final chunk has the record that makes it so


ENDS: list[Atom] = [AReleaseRP(), AAbort(2, 0), AAssociateRJ(1, 1, 1)]


@pytest.mark.parametrize("end", ENDS, ids=str)
def test_what_ends_a_session_is_the_last_of_a_final_chunk(end: Atom) -> None:
    record, release = encode(end), encode(AReleaseRQ())
    assert Chunk(release + record, final=True).records() == [AReleaseRQ(), end]
    for wrong in [
        Chunk(record),
        Chunk(release, final=True),
        Chunk(b"", final=True),
        Chunk(record + release, final=True),
        Chunk(record + encode(RESULT), final=True),
        Chunk(encode(RESULT), final=True),
        Chunk(record + record, final=True),
        Chunk(record, encode(data(b"data")), final=True),
        Chunk(b"", record, final=True),
    ]:
        with pytest.raises(ChunkError):
            wrong.records()


@pytest.mark.parametrize(
    "body",
    [
        [command()],
        [AReleaseRQ()],
        [Note(b"note")],
        [data(b"one"), Note(b"note")],
        [Note(b"note"), data(b"one")],
        [data(b"one", last=True), data(b"two")],
        [data(b"one"), data(b"two", context_id=3)],
        [data(b"one"), command()],
    ],
)
def test_a_body_with_more_than_one_data_set_is_refused(body: list[Record]) -> None:
    with pytest.raises(ChunkError, match="body"):
        Chunk(b"", b"".join(map(encode, body))).records()


def test_a_body_ends_where_another_context_begins() -> None:
    chunks = build(ChunkBuilder(), [(data(b"one"), True), (data(b"two", context_id=3), True)])
    assert [len(chunk.records()) for chunk in chunks] == [1, 1]


def test_target_within_what_a_reader_takes() -> None:
    for target in (0, MINIMUM_TARGET - 1, MAXIMUM_CHUNK + 1):
        with pytest.raises(ValueError, match="target"):
            ChunkBuilder(target)


PDVS = st.builds(
    PDV,
    context_id=st.sampled_from([1, 3]),
    is_command=st.booleans(),
    is_last=st.booleans(),
    fragment=st.binary(max_size=3000),
)
SAID = st.lists(
    st.tuples(
        st.one_of(PDVS, PDVS, PDVS, st.just(AReleaseRQ()), st.just(RESULT)),
        st.booleans(),
    ),
    max_size=30,
)


@given(SAID, st.integers(MINIMUM_TARGET, 4000))
def test_nothing_is_lost_or_reordered(said: list[tuple[Record, bool]], target: int) -> None:
    chunks = build(ChunkBuilder(target), said)
    atoms = [atom for chunk in chunks for atom in chunk.records()]
    assert messages(atoms) == messages([atom for atom, _ in said])
    for chunk in chunks:
        assert len(chunk.head) + len(chunk.body) <= target
        ends = [atom.is_last for atom in decode(chunk.body) if isinstance(atom, PDV)]
        assert not any(ends[:-1])


def test_a_chunk_is_cut_at_the_most_records_that_a_reader_takes() -> None:
    atoms = [(command(b""), False)] * (MAXIMUM_RECORDS + 1) + [(AReleaseRQ(), False)]
    chunks = build(ChunkBuilder(), atoms)
    assert [len(chunk.records()) for chunk in chunks] == [MAXIMUM_RECORDS, 2]


def test_empty_fragments_fill_no_memory() -> None:
    builder = ChunkBuilder()
    for _ in range(1000):
        assert builder.add(data(b"")) == []
    assert builder.add(data(b"ab", last=True)) == []
    chunk = builder.cut()
    assert chunk is not None
    assert chunk.records() == [data(b"ab", last=True)]


def test_what_a_chunk_holds_may_change_on_the_way_but_for_the_first_ones() -> None:
    builder = ChunkBuilder(first_target=FIRST_TARGET)
    builder.aim(2 * FIRST_TARGET)
    full = builder.add(PDV(1, False, False, bytes((FIRST_CHUNKS + 4) * FIRST_TARGET)))
    assert all(len(chunk.head) <= FIRST_TARGET for chunk in full[:FIRST_CHUNKS])
    assert all(len(chunk.head) > FIRST_TARGET for chunk in full[FIRST_CHUNKS:])
    builder.cut()
    builder.aim(FIRST_TARGET)
    full = builder.add(PDV(1, False, False, bytes(4 * FIRST_TARGET)))
    assert full
    assert all(len(chunk.head) <= FIRST_TARGET for chunk in full)
