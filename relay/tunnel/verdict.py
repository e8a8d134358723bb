"""What a device is told, and what the Bridge, when a session does not come about or breaks.

DESIGN §11; the values of A-ASSOCIATE-RJ are (result, source, reason) of PS3.8 Table 9-21.
"""

from relay.dicom.pdu import AAbort, AAssociateRJ
from relay.dicom.rejection import (
    CALLED_AE_TITLE_NOT_RECOGNIZED,
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
)
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

_REFUSALS = {
    Refusal.NOT_GRANTED: CALLING_AE_TITLE_NOT_RECOGNIZED,
    Refusal.UNTRUSTED_PEER: CALLING_AE_TITLE_NOT_RECOGNIZED,
    Refusal.AMBIGUOUS_CALLING: CALLING_AE_TITLE_NOT_RECOGNIZED,
    Refusal.UNKNOWN_DEVICE: CALLED_AE_TITLE_NOT_RECOGNIZED,
}
_ENDS = {
    EndReason.NOT_PUBLISHED: CALLED_AE_TITLE_NOT_RECOGNIZED,
    EndReason.NOT_GRANTED: CALLING_AE_TITLE_NOT_RECOGNIZED,
    EndReason.REVOKED: CALLING_AE_TITLE_NOT_RECOGNIZED,
    EndReason.LIMIT_REACHED: LOCAL_LIMIT_EXCEEDED,
}


def rejection_of_refusal(refusal: Refusal) -> AAssociateRJ:
    """For the calling device, when the far Router refuses the opening."""
    return _REFUSALS.get(refusal, TEMPORARY_CONGESTION)


def rejection_of_end(reason: EndReason) -> AAssociateRJ:
    """For the calling device, when the session ends before the far association's first word."""
    return _ENDS.get(reason, TEMPORARY_CONGESTION)


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
