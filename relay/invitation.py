"""How hospitals find each other: contact and invitation strings, and enrolment.

PROTOCOL.md §5 and §6 have every byte. What comes from outside is bounded before it is parsed and
refused with `IdentityError`, which names what does not hold.
"""

import base64
import binascii
import hashlib
import hmac
import re
from typing import Any, Self

import attrs

from relay.errors import IdentityError
from relay.identity import (
    MAXIMUM_STATEMENT,
    Identity,
    KeyStatement,
    check_network,
    fingerprint,
    is_name,
    public_identity,
    verify,
)
from relay.packed import Packed, bounded, octets, octets_up_to, unsigned

MAXIMUM_URL = 512  # characters of a Bridge's URL, so that an invitation still fits a chat message
MAXIMUM_STRING = 2048  # characters of a contact or invitation string, before it is looked at
MAXIMUM_ENROLMENT = 8192  # bytes of an enrolment request or answer: a key statement and names


# --- strings that people exchange ---------------------------------------------------------------

# What mail programs and chats put in: TAB to CR, space, no-break space.
_WHITE_SPACE = dict.fromkeys([*range(0x09, 0x0E), 0x20, 0xA0])


def _letters(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


class _Exchanged(Packed):
    """What people copy and paste: a prefix, then base64url of the array and a checksum."""

    __slots__ = ()
    LIMIT = MAXIMUM_STRING
    LEADING = (1,)

    def to_string(self) -> str:
        payload = self.pack()
        return self._prefix() + _letters(payload + self._checksum(payload))

    @classmethod
    def parse(cls, string: str) -> Self:
        """What `to_string` gave. Raises IdentityError for a string that is another or damaged."""
        if len(string) > MAXIMUM_STRING:
            raise IdentityError(f"{cls.WHAT} string is too long")
        # Mail programs break long lines; nothing in the alphabet is white space.
        string = string.translate(_WHITE_SPACE)
        if not string.startswith(cls._prefix()):
            raise IdentityError(
                f"not {cls._article()} {cls.WHAT} string: those begin with {cls._prefix()}"
            )
        letters = string.removeprefix(cls._prefix())
        try:
            data = base64.b64decode(letters + "=" * (-len(letters) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise IdentityError(f"{cls.WHAT} string is damaged; copy it again") from None
        payload = data[:-4]
        # Compared as letters: padding, or bits set behind the last byte, are damage as well.
        if _letters(payload + cls._checksum(payload)) != letters:
            raise IdentityError(f"{cls.WHAT} string is damaged; copy it again")
        return cls.unpack(payload)

    @classmethod
    def _article(cls) -> str:
        return "an" if cls.WHAT[0] in "aeiou" else "a"

    @classmethod
    def _prefix(cls) -> str:
        return f"relay-{cls.WHAT}:"

    @classmethod
    def _checksum(cls, payload: bytes) -> bytes:
        return hashlib.sha256(cls._prefix().encode("ascii") + payload).digest()[:4]


@attrs.frozen(slots=True)
class Contact(_Exchanged):
    """A hospital's identity and name, exchanged by mail or in person, to verify a peer."""

    WHAT = "contact"
    public: bytes = public_identity()
    name: str = bounded(is_name)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)


# Scheme, host and port, path: what `/v1/...` can be put behind. No user, query or fragment.
_URL = re.compile(r"https?://[A-Za-z0-9._\[\]:-]+(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?")


def _is_url(value: Any) -> bool:
    return type(value) is str and len(value) <= MAXIMUM_URL and _URL.fullmatch(value) is not None


@attrs.frozen(slots=True)
class Invitation(_Exchanged):
    """What a hospital needs to enrol: where the Bridge is, who it is, and a code to use once.

    `code` is a secret; `expires` is Unix seconds.
    """

    WHAT = "invitation"
    url: str = bounded(_is_url)
    network: bytes = octets(16)
    invitation_id: bytes = octets(16)
    bridge: bytes = public_identity()
    code: bytes = bounded(lambda v: type(v) is bytes and len(v) == 16, repr=False)
    expires: int = unsigned()


# --- is it open still? ---------------------------------------------------------------------------


@attrs.frozen(slots=True)
class InvitationInquiry(Packed):
    """Whoever holds an invitation asks its Bridge whether it lets anybody in still.

    It proves the code as an enrolment does (PROTOCOL.md §6), and uses nothing up.
    """

    WHAT = "invitation-inquiry"
    LIMIT = MAXIMUM_ENROLMENT
    network: bytes = octets(16)
    invitation_id: bytes = octets(16)
    mac: bytes = octets(32)

    @classmethod
    def of(cls, invitation: Invitation) -> Self:
        """The question about `invitation`."""
        mac = cls._mac_of(
            invitation.code, invitation.network, invitation.invitation_id, invitation.bridge
        )
        return cls(invitation.network, invitation.invitation_id, mac)

    def verify(self, network: bytes, code: bytes, bridge: bytes) -> None:
        """Raises IdentityError unless who asks knows the code, and means this Bridge."""
        check_network(self.WHAT, self.network, network)
        expected = self._mac_of(code, self.network, self.invitation_id, bridge)
        if not hmac.compare_digest(self.mac, expected):
            raise IdentityError(f"{self.WHAT}: the code does not match")

    @classmethod
    def _mac_of(cls, code: bytes, network: bytes, invitation_id: bytes, bridge: bytes) -> bytes:
        message = b"relay/1/" + cls.WHAT.encode("ascii") + b"\0" + network + invitation_id + bridge
        return hmac.digest(code, message, "sha256")


# --- enrolment ----------------------------------------------------------------------------------


@attrs.frozen(slots=True)
class _Enrolment(Packed):
    """The envelope of both: the MAC proves the code, the signature the identity."""

    WHAT = "enrolment"
    LIMIT = MAXIMUM_ENROLMENT
    body: bytes = octets_up_to(MAXIMUM_ENROLMENT)
    mac: bytes = octets(32)
    signature: bytes = octets(64)

    @classmethod
    def seal(cls, what: str, identity: Identity, code: bytes, body: bytes, other: bytes) -> bytes:
        mac = cls._mac_of(what, code, body, other)
        return cls(body, mac, identity.sign(what, body + mac)).pack()

    def verify(self, what: str, signer: bytes, code: bytes, other: bytes) -> None:
        if not hmac.compare_digest(self.mac, self._mac_of(what, code, self.body, other)):
            raise IdentityError(f"{what}: the code does not match")
        verify(signer, what, self.body + self.mac, self.signature)

    @staticmethod
    def _mac_of(what: str, code: bytes, body: bytes, other: bytes) -> bytes:
        message = b"relay/1/" + what.encode("ascii") + b"\0" + body + other
        return hmac.digest(code, message, "sha256")


@attrs.frozen(slots=True)
class EnrolmentRequest(Packed):
    """A Router asks the Bridge to be let in. The code itself is never sent, only its MAC.

    `name` is what the Router calls itself (its AE title). The Bridge goes by the invitation's name.
    """

    WHAT = "enrolment-request"
    LIMIT = MAXIMUM_ENROLMENT
    network: bytes = octets(16)
    invitation_id: bytes = octets(16)
    router: bytes = public_identity()
    name: str = bounded(is_name)
    key_statement: bytes = octets_up_to(MAXIMUM_STATEMENT)

    def seal(self, identity: Identity, code: bytes, bridge: bytes) -> bytes:
        """The request's bytes, proving knowledge of `code` to this Bridge and of the identity."""
        return _Enrolment.seal(self.WHAT, identity, code, self.pack(), bridge)


@attrs.frozen(slots=True)
class ReceivedEnrolmentRequest:
    """A request as it came; `request` says which invitation to look up before `verify`."""

    request: EnrolmentRequest
    _data: bytes = attrs.field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the request without believing it. Raises IdentityError."""
        return cls(EnrolmentRequest.unpack(_Enrolment.unpack(data).body), data)

    def verify(self, network: bytes, code: bytes, bridge: bytes) -> KeyStatement:
        """The Router's HPKE key, if all holds: network, code, both signatures."""
        request = self.request
        check_network(request.WHAT, request.network, network)
        _Enrolment.unpack(self._data).verify(request.WHAT, request.router, code, bridge)
        owner, key = KeyStatement.open(request.key_statement, network)
        if owner != request.router:
            raise IdentityError(f"{request.WHAT}: the HPKE key is another Router's")
        return key

    def answer(self, identity: Identity, code: bytes, name: str) -> bytes:
        """The Bridge's answer to exactly this request: it is `name` now. Call after `verify`."""
        request = self.request
        answer = EnrolmentAnswer(
            request.network,
            request.invitation_id,
            identity.public,
            request.router,
            name,
            hashlib.sha256(self._data).digest(),
        )
        return _Enrolment.seal(answer.WHAT, identity, code, answer.pack(), request.router)


@attrs.frozen(slots=True)
class EnrolmentAnswer(Packed):
    """The Bridge has let the Router in, under `name`."""

    WHAT = "enrolment-answer"
    LIMIT = MAXIMUM_ENROLMENT
    network: bytes = octets(16)
    invitation_id: bytes = octets(16)
    bridge: bytes = public_identity()
    router: bytes = public_identity()
    name: str = bounded(is_name)
    request_hash: bytes = octets(32)

    @classmethod
    def open(cls, data: bytes, invitation: Invitation, request: bytes, router: bytes) -> Self:
        """The inviting Bridge's answer to this very request; else IdentityError."""
        envelope = _Enrolment.unpack(data)
        answer = cls.unpack(envelope.body)
        envelope.verify(cls.WHAT, invitation.bridge, invitation.code, router)
        expected = cls(
            invitation.network,
            invitation.invitation_id,
            invitation.bridge,
            router,
            answer.name,
            hashlib.sha256(request).digest(),
        )
        if answer != expected:
            raise IdentityError(f"{cls.WHAT}: it answers another request")
        return answer
