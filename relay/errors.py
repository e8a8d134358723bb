"""Every error that Relay raises, by blame, with the reply that the peer should get.

    RelayError
    ├── ConfigurationError          the person who wrote relay.toml
    ├── LocalProtocolError          our own code asked for what the state does not allow
    ├── RemoteProtocolError         the peer's bytes are wrong; carries the A-ABORT to answer with
    ├── AssociationRejected         an A-ASSOCIATE-RJ, to send or received
    ├── AssociationAborted          an A-ABORT or a lost connection
    │   └── PeerSilent              ... our own A-ABORT, since the peer said nothing in time
    ├── IdentityError               a signature, fingerprint, contact or invitation does not hold
    ├── TunnelError                 the encrypted conversation between two Routers
    │   ├── HandshakeError          an opening or answer is refused; carries the refusal to answer
    │   ├── ChunkError              a sealed chunk does not open; the flow is dead
    │   └── SessionEnded            the session is over: revoked, unknown, or silent too long
    ├── SignallingError             the WebSocket to the Bridge
    │   └── ConnectionClosed        ... ended, by a close or a loss, and nothing is wrong with it
    ├── Refused                     the Bridge or Router says no to a person; carries a status
    ├── SourceFailed                a device that the federation asks; carries the outcome
    ├── ProviderError               the object store
    │   └── ObjectMissing           ... has no such object
    ├── DatabaseError               SQLite, or a schema newer than this program
    └── SpoolError                  objects on this machine's disk
        ├── SpoolFull               ... for which there is no room now
        ├── SpoolBroken             ... where a write failed: nothing more is accepted
        └── ObjectDamaged           ... of which one cannot be read any more

Messages name what is wrong, where, and what to do. They never hold patient data.
"""

import socket
import ssl
from collections.abc import Iterator
from enum import Enum, IntEnum
from typing import TypeVar

E = TypeVar("E", bound=BaseException)


class RelayError(Exception):
    """The root of all errors that Relay raises on purpose."""


class ConfigurationError(RelayError):
    """One line that names the file, the key and what was expected there."""

    def __init__(self, file: str, key: str, expected: str) -> None:
        super().__init__(f"{file}: {key}: {expected}" if key else f"{file}: {expected}")
        self.file = file
        self.key = key
        self.expected = expected


class LocalProtocolError(RelayError):
    """Our own code asked for something that the protocol does not allow in this state."""


class AbortSource(IntEnum):
    """Who aborts (PS3.8 §9.3.8)."""

    SERVICE_USER = 0
    SERVICE_PROVIDER = 2


class AbortReason(IntEnum):
    """Why the service provider aborts (PS3.8 §9.3.8)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PDU_PARAMETER = 4
    UNEXPECTED_PDU_PARAMETER = 5
    INVALID_PDU_PARAMETER_VALUE = 6


class RemoteProtocolError(RelayError):
    """The peer broke the protocol; `abort_reason` is what its A-ABORT should say."""

    def __init__(
        self, message: str, abort_reason: AbortReason = AbortReason.INVALID_PDU_PARAMETER_VALUE
    ) -> None:
        super().__init__(message)
        self.abort_reason = abort_reason


class AssociationRejected(RelayError):
    """An A-ASSOCIATE-RJ: result, source and reason as in PS3.8 Table 9-21."""

    def __init__(self, result: int, source: int, reason: int, message: str) -> None:
        super().__init__(message)
        self.result = result
        self.source = source
        self.reason = reason


class AssociationAborted(RelayError):
    """The association ended by A-ABORT or by a lost connection."""

    def __init__(self, source: int, reason: int, message: str) -> None:
        super().__init__(message)
        self.source = source
        self.reason = reason


class PeerSilent(AssociationAborted):
    """We have aborted the association: what the peer was to say did not come in time."""


class IdentityError(RelayError):
    """A signature, fingerprint, contact string or invitation does not hold."""


class TunnelError(RelayError):
    """The encrypted conversation between two Routers."""


class Refusal(IntEnum):
    """Why a callee's Router refuses an opening; signed, and seen by the Bridge."""

    NOT_SPECIFIED = 0
    EXPIRED = 1
    UNKNOWN_KEY = 2
    REPLAY = 3
    NOT_GRANTED = 4
    UNKNOWN_DEVICE = 5
    BUSY = 6
    MALFORMED = 7
    UNTRUSTED_PEER = 8
    AMBIGUOUS_CALLING = 9


class HandshakeError(TunnelError):
    """An opening or an answer does not hold; `refusal` is what the caller should be told."""

    def __init__(self, message: str, refusal: Refusal = Refusal.MALFORMED) -> None:
        super().__init__(message)
        self.refusal = refusal


class ChunkError(TunnelError):
    """A sealed chunk does not open, or comes out of turn: the flow is dead."""


class SessionEnded(TunnelError):
    """The session is over: revoked, unknown to the Bridge, or without its peer for too long."""


class SignallingError(RelayError):
    """The WebSocket to the Bridge is lost, silent, or speaks out of turn."""


class ConnectionClosed(SignallingError):
    """The other end has closed the WebSocket, or it is lost; nothing that came was wrong."""


class Refused(RelayError):
    """A request is refused; `status` is the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Outcome(Enum):
    """How the part of one device in an operation of the federation ended (DESIGN §7)."""

    COMPLETE = "complete"
    UNREACHABLE = "unreachable"  # it, its Router, or the way there, for now
    SLOW = "slow"  # no word of it in time
    REFUSED = "refused"  # it says no, or fails
    CAPPED = "capped"  # it has more than is taken of one device
    UNABLE = "unable"  # it cannot be asked that: the characters, or the issuer, are not its own
    NOT_GRANTED = "not granted"  # its hospital does not let this caller use it
    CANCELLED = "cancelled"  # by whoever asked


class SourceFailed(RelayError):
    """A device that the federation asks does not answer as it should; `outcome` is how.

    The words are for people, and name no device: who catches it knows which.
    """

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


class ProviderError(RelayError):
    """The object store failed; `permanent` when trying again cannot help."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class ObjectMissing(ProviderError):
    """The object store has no such object."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class SpoolError(RelayError):
    """The objects that are kept on this machine's disk."""


class SpoolFull(SpoolError):
    """There is no room for an object now; there may be later."""


class SpoolBroken(SpoolError):
    """A write, a sync or a commit failed: what the disk holds is not known any more.

    Nothing is accepted until the Router was started anew and has looked (DESIGN §6).
    """


class ObjectDamaged(SpoolError):
    """A kept object is not there, cut short, changed, or locked with another key."""


class DatabaseError(RelayError):
    """SQLite failed, or the database was written by a newer Relay."""


def leaves(group: BaseExceptionGroup[E]) -> Iterator[E]:
    """The errors in a group, however deep: a nursery wraps what its tasks raise."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


_OTHER_HOST = "is the address right, or does something in between answer in its place?"

# What to do about a certificate, by OpenSSL's X509_V_ERR_*: of one that is not valid yet, has
# expired, is for another name, is for another address. All others are the authority's.
_CERTIFICATE_ADVICE = {
    9: "is this machine's clock right?",
    10: "it has to be renewed there, unless this machine's clock is wrong",
    62: _OTHER_HOST,
    64: _OTHER_HOST,
}


def connection_fault(error: BaseException, host: str, authority: str = "") -> str | None:
    """Why there is no HTTPS to `host`, in words, if TLS or the system has said so.

    HTTP libraries wrap that, often without a word of their own. `authority` says what to do for a
    certificate of an authority that is not known.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = next(leaves(cause))
        if isinstance(cause, ssl.SSLCertVerificationError):
            words = f"its certificate does not hold: {cause.verify_message}"
            advice = _CERTIFICATE_ADVICE.get(getattr(cause, "verify_code", 0), authority)
            return f"{words}; {advice}" if advice else words
        if isinstance(cause, ssl.SSLError):
            # Those that Python raises itself have no reason, only words.
            why = getattr(cause, "reason", None) or cause.strerror
            return f"no TLS there ({why}): is the address right?"
        if isinstance(cause, socket.gaierror):
            return f"no such host: {host}; check the URL and this machine's name server"
        if isinstance(cause, ConnectionRefusedError):
            return "nobody listens there: is it running?"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return None
