"""Where one PDU ends and the next begins, however the bytes arrive."""

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dicom.framing import (
    MAXIMUM_ASSOCIATE_LENGTH,
    PLAUSIBLE_ASSOCIATE_LENGTH,
    PDUReader,
    RequestTooLong,
    pdu_name,
)
from relay.dicom.pdu import PDUType
from relay.errors import AbortReason, RemoteProtocolError
from tests.dicom import samples

ALL = [(octets[0], octets) for _, _, octets in samples.CASES] + [(4, samples.P_DATA_TF)]


def read(reader: PDUReader, octets: bytes, piece: int = 0) -> list[tuple[int, bytes]]:
    piece = piece or max(len(octets), 1)
    return [
        (pdu_type, bytes(body))
        for at in range(0, len(octets), piece)
        for pdu_type, body in reader.read(octets[at : at + piece])
    ]


@pytest.mark.parametrize(("pdu_type", "octets"), ALL, ids=lambda value: str(value)[:4])
class TestEachPDU:
    def test_whole(self, pdu_type: int, octets: bytes) -> None:
        assert read(PDUReader(16384), octets) == [(pdu_type, octets[6:])]

    def test_byte_by_byte(self, pdu_type: int, octets: bytes) -> None:
        assert read(PDUReader(16384), octets, 1) == [(pdu_type, octets[6:])]

    def test_with_trailing_bytes(self, pdu_type: int, octets: bytes) -> None:
        """What follows is the next PDU, and waits for its own end."""
        reader = PDUReader(16384)
        assert read(reader, octets + samples.A_ABORT[:7]) == [(pdu_type, octets[6:])]
        assert read(reader, samples.A_ABORT[7:]) == [(7, samples.A_ABORT[6:])]


@given(st.lists(st.sampled_from(ALL), max_size=6), st.lists(st.integers(0, 400)))
def test_any_pieces(pdus: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(octets for _, octets in pdus)
    reader = PDUReader(16384)
    got = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True):
        got += [(pdu_type, bytes(body)) for pdu_type, body in reader.read(stream[start:end])]
    assert got == [(pdu_type, octets[6:]) for pdu_type, octets in pdus]


def test_a_pdu_within_one_read_is_a_view_of_it() -> None:
    data = samples.A_ABORT + samples.P_DATA_TF + samples.A_ABORT
    bodies = [body for _, body in PDUReader(16384).read(data)]
    assert [body.obj is data for body in bodies] == [True] * 3


def test_a_gathered_pdu_is_not_touched_by_the_next() -> None:
    reader = PDUReader(16384)
    assert read(reader, samples.P_DATA_TF[:9]) == []
    ((_, body),) = reader.read(samples.P_DATA_TF[9:] + samples.A_ABORT[:3])
    assert read(reader, samples.A_ABORT[3:]) == [(7, samples.A_ABORT[6:])]
    assert bytes(body) == samples.P_DATA_TF[6:]
    assert body.readonly


class TestLengths:
    @pytest.mark.parametrize("length", [16384, 16383, 0])
    def test_p_data_up_to_our_maximum(self, length: int) -> None:
        """FIELD 4: the maximum limits the PDU length; the header is not counted (PS3.8 §D.1)."""
        octets = b"\x04\0" + length.to_bytes(4, "big") + bytes(length)
        assert read(PDUReader(16384), octets) == [(4, bytes(length))]

    @pytest.mark.parametrize("length", [16385, 0x80000000, 0xFFFFFFFF])
    @pytest.mark.parametrize("piece", [0, 1])
    def test_p_data_beyond(self, length: int, piece: int) -> None:
        """FIELD 4: what exceeds it is a protocol error; seen from the header alone."""
        with pytest.raises(RemoteProtocolError, match=f"length {length}: our maximum"):
            read(PDUReader(16384), b"\x04\0" + length.to_bytes(4, "big"), piece)

    @pytest.mark.parametrize("pdu_type", [1, 2])
    @pytest.mark.parametrize("length", [PLAUSIBLE_ASSOCIATE_LENGTH + 1, 0x80000000, 0xFFFFFFFF])
    def test_a_associate_that_cannot_be(self, pdu_type: int, length: int) -> None:
        """FIELD 5a: A-ASSOCIATE length 80000000H, FFFFFFFFH."""
        with pytest.raises(RemoteProtocolError, match="at most") as caught:
            read(PDUReader(16384), bytes((pdu_type, 0)) + length.to_bytes(4, "big"))
        assert not isinstance(caught.value, RequestTooLong)

    @pytest.mark.parametrize("length", [MAXIMUM_ASSOCIATE_LENGTH + 1, PLAUSIBLE_ASSOCIATE_LENGTH])
    def test_a_request_that_is_only_too_long(self, length: int) -> None:
        with pytest.raises(RequestTooLong):
            read(PDUReader(16384), b"\x01\0" + length.to_bytes(4, "big"))

    def test_the_longest_request(self) -> None:
        body = bytes(MAXIMUM_ASSOCIATE_LENGTH)
        octets = b"\x01\0" + len(body).to_bytes(4, "big") + body
        assert read(PDUReader(16384), octets, 10_000) == [(1, body)]

    @pytest.mark.parametrize("pdu_type", [3, 5, 6, 7])
    @pytest.mark.parametrize("length", [0, 3, 5, 0xFFFFFFFF])
    def test_short_pdus(self, pdu_type: int, length: int) -> None:
        with pytest.raises(RemoteProtocolError, match="must be 4"):
            read(PDUReader(16384), bytes((pdu_type, 0)) + length.to_bytes(4, "big"))


class TestForeignProtocols:
    @pytest.mark.parametrize(
        ("octets", "words"),
        [
            (b"GET / HTTP/1.1\r\n", "HTTP on the DICOM port"),
            (b"POST /", "HTTP on the DICOM port"),
            (b"HTTP/1.1 400 Bad Request", "HTTP on the DICOM port"),
            (b"OPTIONS *", "HTTP on the DICOM port"),
            (bytes.fromhex("16030102000100"), "TLS on a plain port"),
            (bytes.fromhex("15030300020246"), "TLS on a plain port"),
            (b"SSH-2.0-OpenSSH", "type 53H is not known"),
            (b"\0\0\0\0", "type 00H is not known"),
            (b"\xff", "type FFH is not known"),
        ],
    )
    @pytest.mark.parametrize("piece", [0, 1])
    def test_named_by_the_first_byte(self, octets: bytes, words: str, piece: int) -> None:
        """FIELD 5a: `GET / HTTP/1.1` and a TLS ClientHello on the plain port."""
        with pytest.raises(RemoteProtocolError, match=words) as caught:
            read(PDUReader(16384), octets, piece)
        assert caught.value.abort_reason is AbortReason.UNRECOGNIZED_PDU

    def test_the_first_byte_is_enough(self) -> None:
        with pytest.raises(RemoteProtocolError, match="HTTP"):
            read(PDUReader(16384), b"G")

    def test_later_it_is_only_an_unknown_pdu(self) -> None:
        with pytest.raises(RemoteProtocolError, match="type 47H is not known"):
            read(PDUReader(16384), samples.A_ABORT + b"GET / HTTP/1.1")


LENGTH = 256 * 1024
LARGE = b"\x04\0" + LENGTH.to_bytes(4, "big") + bytes(LENGTH)


@pytest.mark.parametrize("piece", [65536, 1])
def test_a_large_pdu_in_pieces_costs_its_size_once(piece: int) -> None:
    """No quadratic copying, and no object kept for each piece."""
    pieces = [LARGE[at : at + piece] for at in range(0, len(LARGE), piece)]
    reader = PDUReader(LENGTH)
    tracemalloc.start()
    began = time.process_time()
    bodies = [body for data in pieces for _, body in reader.read(data)]
    elapsed = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(body) for body in bodies] == [LENGTH]
    assert peak < 2 * LENGTH + 65536
    # Of the processor's time, whoever else has it: quadratic would be minutes, this is a second.
    assert elapsed < 10


def test_the_names_are_the_standards() -> None:
    assert pdu_name(PDUType.P_DATA_TF) == "P-DATA-TF"
    assert pdu_name(1) == "A-ASSOCIATE-RQ"
