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
from relay.tunnel.records import MAXIMUM_RECORDS, decode, encode, pdv_header
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
ATOMS = st.lists(st.one_of(st.sampled_from(CONTROL), PDVS), max_size=20)


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


@given(ATOMS)
def test_round_trip(atoms: list[Atom]) -> None:
    data = b"".join(map(encode, atoms))
    assert decode(data) == atoms
    assert decode(memoryview(data)) == atoms


@given(ATOMS, st.data())
def test_cut_anywhere_but_between_records_is_refused(
    atoms: list[Atom], data: st.DataObject
) -> None:
    encoded = [encode(atom) for atom in atoms]
    whole = b"".join(encoded)
    at = data.draw(st.integers(0, len(whole)))
    borders = {sum(map(len, encoded[:count])) for count in range(len(encoded) + 1)}
    if at in borders:
        assert len(decode(whole[:at])) <= len(atoms)
    else:
        with pytest.raises(ChunkError):
            decode(whole[:at])


@given(st.binary(max_size=100))
def test_decode_survives_anything(data: bytes) -> None:
    try:
        atoms = decode(data)
    except ChunkError:
        return
    assert b"".join(map(encode, atoms)) == data or any(not isinstance(a, PDV) for a in atoms)


def test_fragments_are_views() -> None:
    data = encode(PDV(1, False, True, b"fragment"))
    (pdv,) = decode(data)
    assert isinstance(pdv, PDV)
    assert isinstance(pdv.fragment, memoryview)
    assert pdv.fragment.obj is data


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
