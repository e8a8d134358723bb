"""Why an association is rejected: the values of an A-ASSOCIATE-RJ by name (PS3.8 Table 9-21)."""

from relay.dicom.atoms import AAssociateRJ
from relay.errors import AssociationRejected

PERMANENT, TRANSIENT = 1, 2  # result
_USER, _ACSE, _PRESENTATION = 1, 2, 3  # source: the service user, or either part of the provider

CALLING_AE_TITLE_NOT_RECOGNIZED = AAssociateRJ(PERMANENT, _USER, 3)
CALLED_AE_TITLE_NOT_RECOGNIZED = AAssociateRJ(PERMANENT, _USER, 7)

# By the service provider.
NO_REASON_GIVEN = AAssociateRJ(PERMANENT, _ACSE, 1)
PROTOCOL_VERSION_NOT_SUPPORTED = AAssociateRJ(PERMANENT, _ACSE, 2)
TEMPORARY_CONGESTION = AAssociateRJ(TRANSIENT, _PRESENTATION, 1)
LOCAL_LIMIT_EXCEEDED = AAssociateRJ(TRANSIENT, _PRESENTATION, 2)

_WORDS = {
    (_USER, 1): "no reason given",
    (_USER, 2): "application context name not supported",
    (_USER, 3): "calling AE title not recognized",
    (_USER, 7): "called AE title not recognized",
    (_ACSE, 1): "no reason given",
    (_ACSE, 2): "protocol version not supported",
    (_PRESENTATION, 1): "temporary congestion",
    (_PRESENTATION, 2): "local limit exceeded",
}


def in_words(rejection: AAssociateRJ) -> str:
    """What it says, for people and the log."""
    words = _WORDS.get(
        (rejection.source, rejection.reason), "for a reason that PS3.8 does not know"
    )
    kind = "permanently" if rejection.result == PERMANENT else "for now"
    return f"rejected {kind}: {words}"


def word_of(rejection: AAssociateRJ) -> str:
    """Why, in a few words of the standard's; "other" for what it does not know."""
    return _WORDS.get((rejection.source, rejection.reason), "other")


def rejected(rejection: AAssociateRJ, message: str) -> AssociationRejected:
    """The error that carries `rejection`; `message` is for the log, the peer never sees it."""
    return AssociationRejected(rejection.result, rejection.source, rejection.reason, message)
