"""DESIGN §11: what a device is told, reason by reason."""

import pytest

from relay.dicom.pdu import AAssociateRJ
from relay.errors import (
    ChunkError,
    HandshakeError,
    ObjectMissing,
    ProviderError,
    Refusal,
    RelayError,
    SessionEnded,
    SignallingError,
)
from relay.signalling.messages import EndReason
from relay.tunnel.verdict import (
    end_reason,
    end_reason_of,
    rejection_of_end,
    rejection_of_refusal,
    words,
)

AWAY = AAssociateRJ(2, 3, 1)
NOT_GRANTED = AAssociateRJ(1, 1, 3)
NOT_RECOGNIZED = AAssociateRJ(1, 1, 7)


@pytest.mark.parametrize("refusal", Refusal)
def test_each_refusal_is_a_rejection(refusal: Refusal) -> None:
    expected = {
        Refusal.NOT_GRANTED: NOT_GRANTED,
        Refusal.UNTRUSTED_PEER: NOT_GRANTED,
        Refusal.AMBIGUOUS_CALLING: NOT_GRANTED,
        Refusal.UNKNOWN_DEVICE: NOT_RECOGNIZED,
    }
    assert rejection_of_refusal(refusal) == expected.get(refusal, AWAY)


@pytest.mark.parametrize("reason", EndReason)
def test_each_end_is_a_rejection(reason: EndReason) -> None:
    expected = {
        EndReason.NOT_GRANTED: NOT_GRANTED,
        EndReason.REVOKED: NOT_GRANTED,
        EndReason.NOT_PUBLISHED: NOT_RECOGNIZED,
        EndReason.LIMIT_REACHED: AAssociateRJ(2, 3, 2),
    }
    assert rejection_of_end(reason) == expected.get(reason, AWAY)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ChunkError(""), EndReason.PROTOCOL_VIOLATION),
        (HandshakeError(""), EndReason.PROTOCOL_VIOLATION),
        (ProviderError(""), EndReason.STORE_UNAVAILABLE),
        (ObjectMissing(""), EndReason.STORE_UNAVAILABLE),
        (SessionEnded(""), EndReason.EXPIRED),
        (SignallingError(""), EndReason.EXPIRED),
    ],
)
def test_what_the_bridge_is_told(error: RelayError, reason: EndReason) -> None:
    assert end_reason_of(error) is reason


def test_an_unknown_reason_is_one_all_the_same() -> None:
    assert end_reason(5) is EndReason.REVOKED
    assert end_reason(200) is EndReason.PEER_FORGOT
    assert words(EndReason.PEER_FORGOT) == "peer forgot"
