"""What an association sends and receives: one frozen class for each thing on the wire.

An *atom* is A-ASSOCIATE-RQ, -AC, -RJ, one PDV, A-RELEASE-RQ, -RP or A-ABORT. A P-DATA-TF is none:
it carries PDVs, and each hop packs them to its own peer's maximum length. `relay.dicom.pdu` has
their bytes, and is where other rooms take them from.

What may hold a patient's or a user's data is not shown by `repr`, so that no log line holds it.
"""

from enum import IntEnum
from typing import TypeAlias

import attrs

from relay.errors import LocalProtocolError

Buffer: TypeAlias = bytes | bytearray | memoryview

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 §A.2.1: the only one that DICOM defines

AE_TITLE_LENGTH = 16  # PS3.8 §9.3.2
UID_LENGTH = 64  # PS3.5 §9.1

_UID_CHARACTERS = frozenset(b"0123456789.")
_AE_CHARACTERS = frozenset(range(0x20, 0x7F)) - {ord("\\")}  # PS3.5 §6.2, AE


def _size(value: Buffer) -> str:
    return f"<{len(value)} bytes>"


class PDUType(IntEnum):
    """PS3.8 §9.3.1."""

    A_ASSOCIATE_RQ = 0x01
    A_ASSOCIATE_AC = 0x02
    A_ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    A_RELEASE_RQ = 0x05
    A_RELEASE_RP = 0x06
    A_ABORT = 0x07


class ContextResult(IntEnum):
    """Result/reason of a presentation context (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@attrs.frozen(slots=True)
class PresentationContext:
    """A presentation context as proposed (PS3.8 §9.3.2.2); `id` is odd, 1 to 255."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@attrs.frozen(slots=True)
class PresentationContextResult:
    """A presentation context as answered (PS3.8 §9.3.3.2).

    `transfer_syntax` means nothing unless `result` is 0, and is then empty where the peer left it
    out or filled it with what is no UID.
    """

    id: int
    result: int
    transfer_syntax: str

    @property
    def accepted(self) -> bool:
        return self.result == ContextResult.ACCEPTANCE


@attrs.frozen(slots=True)
class UserItem:
    """A sub-item of the user information, verbatim (PS3.8 §9.3.2.3, PS3.7 §D.3.3).

    `reserved` is the second byte: 0, but the version in a SOP Class Common Extended Negotiation.
    """

    type: int
    value: bytes = attrs.field(repr=_size)
    reserved: int = 0


@attrs.frozen(slots=True)
class AAssociateRQ:
    """PS3.8 §9.3.2."""

    called: str
    calling: str
    contexts: tuple[PresentationContext, ...]
    user_items: tuple[UserItem, ...] = ()
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1


@attrs.frozen(slots=True)
class AAssociateAC:
    """PS3.8 §9.3.3. Received AE titles are not significant: made harmless, never tested."""

    called: str
    calling: str
    contexts: tuple[PresentationContextResult, ...]
    user_items: tuple[UserItem, ...] = ()
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1


@attrs.frozen(slots=True)
class AAssociateRJ:
    """PS3.8 §9.3.4, values as in Table 9-21; unknown ones are carried as they are."""

    result: int
    source: int
    reason: int


@attrs.frozen(slots=True)
class AReleaseRQ:
    """PS3.8 §9.3.6."""


@attrs.frozen(slots=True)
class AReleaseRP:
    """PS3.8 §9.3.7."""


@attrs.frozen(slots=True)
class AAbort:
    """PS3.8 §9.3.8, values as in Table 9-26; unknown ones are carried as they are."""

    source: int
    reason: int


@attrs.frozen(slots=True)
class PDV:
    """A presentation data value: one fragment of a message (PS3.8 §9.3.5.1, Annex E)."""

    context_id: int
    is_command: bool
    is_last: bool
    fragment: Buffer = attrs.field(repr=_size)


Atom: TypeAlias = (
    AAssociateRQ | AAssociateAC | AAssociateRJ | PDV | AReleaseRQ | AReleaseRP | AAbort
)


def is_uid(uid: str) -> bool:
    """1 to 64 digits and dots; component rules are not tested, since devices break them."""
    return 0 < len(uid) <= UID_LENGTH and uid.isascii() and _UID_CHARACTERS.issuperset(uid.encode())


def encode_uid(uid: str) -> bytes:
    """Without padding, as PS3.8 Annex F and PS3.7 §D.3.3 have it. Raises `LocalProtocolError`."""
    if not is_uid(uid):
        raise LocalProtocolError("UID: must be 1 to 64 characters, digits and dots")
    return uid.encode("ascii")


def unpadded_uid(octets: Buffer) -> str:
    """What a peer sent as a UID, whatever it is, less the padding that should not be there.

    Devices pad with NUL, as in a data set (PS3.5 §9.1), or even with a space.
    """
    return bytes(octets).rstrip(b"\0 ").decode("latin-1")


def is_ae_title(title: str) -> bool:
    """What fits the AE title fields of A-ASSOCIATE (PS3.5 §6.2); empty does."""
    return (
        len(title) <= AE_TITLE_LENGTH
        and title.isascii()
        and _AE_CHARACTERS.issuperset(title.encode())
    )


def is_ae_octets(octets: bytes) -> bool:
    """Whether these bytes are characters that an AE title may hold."""
    return _AE_CHARACTERS.issuperset(octets)
