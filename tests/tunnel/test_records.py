"""relay.tunnel.records, against the vectors and the PDU codec."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
    PresentationContext,
    PresentationContextResult,
    UserItem,
)
from relay.errors import ChunkError, LocalProtocolError
from relay.tunnel.records import (
    MAXIMUM_NOTE,
    MAXIMUM_RECORDS,
    Note,
    Record,
    decode,
    encode,
    pdv_header,
)
from tests.vectors.reading import Vector, vectors

AC = AAssociateAC(
    "PACS_B",
    "WS_A",
    (PresentationContextResult(1, 0, "1.2.840.10008.1.2"),),
    (UserItem(0x51, b"\0\0\x40\0"), UserItem(0x99, b"unknown")),
)
CONTROL: list[Atom] = [
    AC,
    AAssociateRJ(1, 1, 7),
    AReleaseRQ(),
    AReleaseRP(),
    AAbort(2, 0),
    AAbort(0, 0),
]

PDVS = st.builds(
    PDV,
    context_id=st.integers(0, 127).map(lambda n: 2 * n + 1),
    is_command=st.booleans(),
    is_last=st.booleans(),
    fragment=st.binary(max_size=50),
)
NOTES = st.builds(Note, st.binary(min_size=1, max_size=50))
RECORDS = st.lists(st.one_of(st.sampled_from(CONTROL), PDVS, NOTES), max_size=20)


@pytest.mark.parametrize("vector", vectors("records"), ids=str)
def test_records_vector(vector: Vector) -> None:
    data = vector.octets("data")
    if not vector.succeeds:
        with pytest.raises(ChunkError):
            decode(data)
        return
    atoms = decode(data)
    rows = [(record[0], record[5:]) for record in map(encode, atoms)]
    expected = [row.partition(" ") for row in vector.every("record")]
    assert rows == [(int(number), bytes.fromhex(payload)) for number, _, payload in expected]


@given(RECORDS)
def test_round_trip(records: list[Record]) -> None:
    data = b"".join(map(encode, records))
    assert decode(data) == records
    assert decode(memoryview(data)) == records


@given(RECORDS, st.data())
def test_cut_anywhere_but_between_records_is_refused(
    records: list[Record], data: st.DataObject
) -> None:
    encoded = [encode(record) for record in records]
    whole = b"".join(encoded)
    at = data.draw(st.integers(0, len(whole)))
    borders = {sum(map(len, encoded[:count])) for count in range(len(encoded) + 1)}
    if at in borders:
        assert len(decode(whole[:at])) <= len(records)
    else:
        with pytest.raises(ChunkError):
            decode(whole[:at])


@given(st.binary(max_size=100))
def test_decode_survives_anything(data: bytes) -> None:
    try:
        records = decode(data)
    except ChunkError:
        return
    again = b"".join(map(encode, records))
    assert again == data or any(not isinstance(record, PDV | Note) for record in records)


def test_fragments_are_views() -> None:
    data = encode(PDV(1, False, True, b"fragment"))
    (pdv,) = decode(data)
    assert isinstance(pdv, PDV)
    assert isinstance(pdv.fragment, memoryview)
    assert pdv.fragment.obj is data


def test_a_note_has_bytes_of_its_own() -> None:
    """It is kept while its chunk is not."""
    data = encode(Note(b"note"))
    assert data[0] == 16
    for buffer in (data, memoryview(data), bytearray(data)):
        (note,) = decode(buffer)
        assert note == Note(b"note")
        assert type(note.payload) is bytes


@pytest.mark.parametrize("length", [0, MAXIMUM_NOTE + 1])
def test_a_note_that_is_too_long_or_nothing(length: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"note of {length} bytes"):
        encode(Note(bytes(length)))
    with pytest.raises(ChunkError, match=f"note of {length} bytes"):
        decode(b"\x10" + length.to_bytes(4, "big") + bytes(length))


def test_the_longest_note_is_carried() -> None:
    note = Note(bytes(MAXIMUM_NOTE))
    assert decode(encode(note)) == [note]
    assert repr(note) == f"Note(payload=<{MAXIMUM_NOTE} bytes>)"


def test_associate_rq_is_not_carried() -> None:
    with pytest.raises(LocalProtocolError):
        encode(AAssociateRQ("A", "B", (PresentationContext(1, "1.2", ("1.2",)),)))


@pytest.mark.parametrize("context_id", [0, 2, 256, 257, -1])
def test_context_id_that_cannot_be(context_id: int) -> None:
    with pytest.raises(LocalProtocolError):
        pdv_header(context_id, False, True, 2)


def test_user_items_travel_verbatim() -> None:
    (atom,) = decode(encode(AC))
    assert isinstance(atom, AAssociateAC)
    assert atom.user_items == AC.user_items


def test_more_records_than_memory_should_hold_are_refused() -> None:
    record = encode(PDV(1, True, True, b""))
    assert len(decode(record * MAXIMUM_RECORDS)) == MAXIMUM_RECORDS
    with pytest.raises(ChunkError, match="more than 8192 records"):
        decode(record * (MAXIMUM_RECORDS + 1))
