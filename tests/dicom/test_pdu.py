"""PDUs to bytes and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dicom import pdu
from relay.dicom.pdu import PDV, AAbort, AAssociateRJ, AReleaseRQ, Atom
from relay.errors import AbortReason, LocalProtocolError, RemoteProtocolError
from tests.dicom import samples


def view(octets: str) -> memoryview:
    return memoryview(bytes.fromhex(octets))


@pytest.mark.parametrize(("name", "atom", "octets"), samples.CASES, ids=samples.CASE_IDS)
class TestCases:
    def test_encode(self, name: str, atom: Atom, octets: bytes) -> None:
        assert pdu.encode(atom) == octets

    def test_decode(self, name: str, atom: Atom, octets: bytes) -> None:
        assert pdu.decode(octets) == atom
        assert pdu.decode(memoryview(bytearray(octets))) == atom

    def test_trailing_bytes_are_refused(self, name: str, atom: Atom, octets: bytes) -> None:
        with pytest.raises(RemoteProtocolError, match="PDU length"):
            pdu.decode(octets + b"\0")

    def test_every_truncation_is_refused(self, name: str, atom: Atom, octets: bytes) -> None:
        for length in range(len(octets)):
            with pytest.raises(RemoteProtocolError):
                pdu.decode(octets[:length])

    def test_every_shortened_body_is_refused(self, name: str, atom: Atom, octets: bytes) -> None:
        """The header tells the truth and the items inside do not."""
        for length in range(len(octets) - 6):
            try:
                shorter = pdu.decode_body(octets[0], memoryview(octets)[6 : 6 + length])
            except RemoteProtocolError:
                continue
            # A cut between two items leaves a PDU that is whole, with less in it.
            assert name.startswith("A-ASSOCIATE")
            assert shorter != atom


def test_several_pdvs_in_a_pdu() -> None:
    """FIELD 4: several PDVs in a PDU; the end of a command and the start of its data in one."""
    assert pdu.encode_pdata(samples.PDVS) == samples.P_DATA_TF
    decoded = pdu.decode_pdata(memoryview(samples.P_DATA_TF)[6:])
    assert tuple(decoded) == samples.PDVS


def test_fragments_are_views_of_what_was_read() -> None:
    whole = bytes(samples.P_DATA_TF)
    for pdv in pdu.decode_pdata(memoryview(whole)[6:]):
        assert isinstance(pdv.fragment, memoryview)
        assert pdv.fragment.obj is whole


def test_the_header_before_a_fragment_is_that_of_a_pdu_with_one_pdv() -> None:
    pdv = PDV(3, False, True, b"abcd")
    header = pdu.pdata_header(3, pdu.control_header(pdv), 4)
    assert header + b"abcd" == pdu.encode(pdv) == pdu.encode_pdata([pdv])


@pytest.mark.parametrize("control", range(256))
def test_only_the_two_low_control_bits_are_tested(control: int) -> None:
    """FIELD 4: only the two low control bits are tested (PS3.8 §E.2)."""
    (pdv,) = pdu.decode_pdata(view(f"00000004 01 {control:02X} AABB"))
    assert (pdv.is_command, pdv.is_last) == (bool(control & 1), bool(control & 2))


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        ("", "without a PDV"),
        ("00", "no room for its header"),
        ("00000002 01", "no room for its header"),
        ("00000000 01 03", "less than the 2"),
        ("00000001 01 03", "less than the 2"),
        ("00000003 01 03", "beyond the end"),
        ("00000005 01 03 AABB", "beyond the end"),
        ("FFFFFFFF 01 03 AABB", "beyond the end"),
        ("FFFFFFFC 01 03 AABB", "beyond the end"),
        ("80000000 01 03 AABB", "beyond the end"),
        ("00000004 01 03 AABB 00", "no room for its header"),
        ("00000004 00 03 AABB", "not odd"),
        ("00000004 02 03 AABB", "not odd"),
    ],
)
def test_pdvs_that_lie(octets: str, words: str) -> None:
    """FIELD 4: PDV item length below 2 or past the PDU's end, no control byte. 5a: near 2^32."""
    with pytest.raises(RemoteProtocolError, match=words):
        pdu.decode_pdata(view(octets))


def test_an_empty_fragment_is_taken() -> None:
    (pdv,) = pdu.decode_pdata(view("00000002 01 02"))
    assert (bytes(pdv.fragment), pdv.is_last) == (b"", True)


@pytest.mark.parametrize("octets", ["03 00 00000004 FF 01 09 77", "03 AB 00000004 00 01 09 77"])
def test_rejections_are_carried_as_they_are(octets: str) -> None:
    assert pdu.decode(view(octets)) == AAssociateRJ(1, 9, 0x77)


def test_reserved_bytes_are_not_tested() -> None:
    assert pdu.decode(view("05 FF 00000004 DEADBEEF")) == AReleaseRQ()


@pytest.mark.parametrize("source", range(3))
@pytest.mark.parametrize("reason", range(8))
def test_abort_source_and_reason(source: int, reason: int) -> None:
    """FIELD 4: abort source and reason codes (PS3.8 §9.3.8), reserved ones as they are."""
    abort = AAbort(source, reason)
    assert pdu.encode(abort) == bytes((7, 0, 0, 0, 0, 4, 0, 0, source, reason))
    assert pdu.decode(pdu.encode(abort)) == abort


@pytest.mark.parametrize("pdu_type", [3, 5, 6, 7])
@pytest.mark.parametrize("length", [0, 3, 5])
def test_short_pdus_have_four_bytes(pdu_type: int, length: int) -> None:
    with pytest.raises(RemoteProtocolError, match="must be 4"):
        pdu.decode(bytes((pdu_type, 0, 0, 0, 0, length)) + bytes(length))


@pytest.mark.parametrize("pdu_type", [0, 8, 0x16, 0x47, 0xFF])
def test_unknown_types(pdu_type: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        pdu.decode(bytes((pdu_type, 0, 0, 0, 0, 0)))
    assert caught.value.abort_reason is AbortReason.UNRECOGNIZED_PDU


def test_p_data_is_for_its_own_function() -> None:
    with pytest.raises(RemoteProtocolError, match="P-DATA-TF"):
        pdu.decode(samples.P_DATA_TF)


@pytest.mark.parametrize(
    "atom",
    [
        PDV(0, True, True, b""),
        PDV(2, True, True, b""),
        PDV(257, True, True, b""),
        AAssociateRJ(256, 0, 0),
        AAbort(0, -1),
    ],
)
def test_what_fits_no_field_is_our_own_fault(atom: Atom) -> None:
    with pytest.raises(LocalProtocolError):
        pdu.encode(atom)


@given(samples.control_atoms)
def test_round_trip(atom: Atom) -> None:
    assert pdu.decode(pdu.encode(atom)) == atom


@given(st.lists(samples.pdvs, min_size=1, max_size=5))
def test_pdata_round_trip(pdvs: list[PDV]) -> None:
    assert pdu.decode_pdata(memoryview(pdu.encode_pdata(pdvs))[6:]) == pdvs


noise = st.binary(max_size=300)


@given(noise | samples.damaged(samples.control_atoms.map(pdu.encode)))
def test_fuzz(octets: bytes) -> None:
    """Whatever comes, decoding gives an atom that survives encoding, or a RemoteProtocolError."""
    try:
        atom = pdu.decode(octets)
    except RemoteProtocolError:
        return
    assert pdu.decode(pdu.encode(atom)) == atom


@given(samples.control_atoms.map(pdu.encode), st.data())
def test_fuzz_behind_a_true_header(octets: bytes, data: st.DataObject) -> None:
    body = data.draw(samples.damaged(st.just(octets[6:])) | noise)
    try:
        atom = pdu.decode_body(octets[0], memoryview(body))
    except RemoteProtocolError:
        return
    assert pdu.decode(pdu.encode(atom)) == atom


@given(noise | samples.damaged(st.lists(samples.pdvs, max_size=4).map(pdu.encode_pdata)))
def test_fuzz_pdata(octets: bytes) -> None:
    try:
        pdvs = pdu.decode_pdata(memoryview(octets))
    except RemoteProtocolError:
        return
    assert pdu.decode_pdata(memoryview(pdu.encode_pdata(pdvs))[6:]) == pdvs
