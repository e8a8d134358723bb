"""What a device is told, and what the Bridge, when a session does not come about or breaks.

DESIGN §11; the values of A-ASSOCIATE-RJ are (result, source, reason) of PS3.8 Table 9-21.
"""

from relay.dicom.pdu import AAbort, AAssociateRJ
from relay.errors import (
    AbortReason,
    AbortSource,
    ChunkError,
    HandshakeError,
    ProviderError,
    Refusal,
    RelayError,
)
from relay.signalling.messages import EndReason

LOST = AAbort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED)

NOT_RECOGNIZED = AAssociateRJ(1, 1, 7)  # permanent, service-user: called AE title not recognized
NOT_GRANTED = AAssociateRJ(1, 1, 3)  # permanent, service-user: calling AE title not recognized
AWAY = AAssociateRJ(2, 3, 1)  # transient, presentation: temporary congestion
LIMIT = AAssociateRJ(2, 3, 2)  # transient, presentation: local limit exceeded

_REFUSALS = {
    Refusal.NOT_GRANTED: NOT_GRANTED,
    Refusal.UNTRUSTED_PEER: NOT_GRANTED,
    Refusal.AMBIGUOUS_CALLING: NOT_GRANTED,
    Refusal.UNKNOWN_DEVICE: NOT_RECOGNIZED,
}
_ENDS = {
    EndReason.NOT_PUBLISHED: NOT_RECOGNIZED,
    EndReason.NOT_GRANTED: NOT_GRANTED,
    EndReason.REVOKED: NOT_GRANTED,
    EndReason.LIMIT_REACHED: LIMIT,
}


def rejection_of_refusal(refusal: Refusal) -> AAssociateRJ:
    """For the calling device, when the far Router refuses the opening."""
    return _REFUSALS.get(refusal, AWAY)


def rejection_of_end(reason: EndReason) -> AAssociateRJ:
    """For the calling device, when the session ends before the far association's first word."""
    return _ENDS.get(reason, AWAY)


def end_reason(number: int) -> EndReason:
    """What an End says; a newer Bridge may know reasons that we do not."""
    try:
        return EndReason(number)
    except ValueError:
        return EndReason.PEER_FORGOT


def end_reason_of(error: RelayError) -> EndReason:
    """What the Bridge and the far Router are told when `error` ends the session here."""
    match error:
        case ProviderError():
            return EndReason.STORE_UNAVAILABLE
        case ChunkError() | HandshakeError():
            return EndReason.PROTOCOL_VIOLATION
        case _:
            return EndReason.EXPIRED


def words(value: Refusal | EndReason) -> str:
    """For the log."""
    return value.name.lower().replace("_", " ")
