"""Who somebody is: Ed25519 identities, what they sign, and the strings that people exchange.

PROTOCOL.md §3 to §6 has every byte. A signature is always over a domain and a body, so that
nothing signed for one purpose passes for another. Whatever comes from outside is bounded before it
is parsed and refused with `IdentityError`, which names what does not hold.
"""

import base64
import binascii
import hashlib
import hmac
import re
from typing import Any, Self

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from relay.errors import IdentityError
from relay.packed import Packed, bounded, octets, octets_up_to, unsigned

# The longest signed statement: an HPKE key of 1216 bytes, or an AE title with the services of a
# device that has many private SOP classes. The signalling messages have the same bound.
MAXIMUM_STATEMENT = 4096
MAXIMUM_SERVICES = 64  # services of one publication: seven named ones and private SOP classes
MAXIMUM_NAME = 64  # characters of a hospital's name: what fits a line of a table
MAXIMUM_URL = 512  # characters of a Bridge's URL, so that an invitation still fits a chat message
MAXIMUM_STRING = 2048  # characters of a contact or invitation string, before it is looked at
MAXIMUM_ENROLMENT = 8192  # bytes of an enrolment request or answer: a key statement and names
HPKE_PUBLIC_LENGTH = 1184 + 32  # ML-KEM-768, then X25519


# --- identities and signatures ------------------------------------------------------------------


@attrs.frozen(slots=True, eq=False, repr=False)
class Identity:
    """An Ed25519 key pair: a Router's or the Bridge's identity."""

    _key: Ed25519PrivateKey
    public: bytes

    @classmethod
    def generate(cls) -> Self:
        """A new identity from the system's randomness."""
        return cls._of(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The identity whose private key is this 32-byte seed (RFC 8032 §5.1.5)."""
        if len(seed) != 32:
            raise IdentityError(f"identity seed of {len(seed)} bytes, not 32")
        return cls._of(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def _of(cls, key: Ed25519PrivateKey) -> Self:
        return cls(key, key.public_key().public_bytes_raw())

    @property
    def seed(self) -> bytes:
        """The 32-byte private key. Whoever has it is this Router."""
        return self._key.private_bytes_raw()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)

    def sign(self, domain: str, body: bytes) -> bytes:
        """The 64-byte signature of `body` for one purpose."""
        return self._key.sign(_signed_bytes(domain, body))

    def __repr__(self) -> str:
        return f"<Identity {self.fingerprint}>"


def verify(public: bytes, domain: str, body: bytes, signature: bytes) -> None:
    """Return if `signature` is that identity's over `body` in `domain`; else IdentityError."""
    if len(public) != 32 or len(signature) != 64:
        raise IdentityError(f"{domain}: identity or signature of the wrong length")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _signed_bytes(domain, body))
    except InvalidSignature:
        raise IdentityError(
            f"{domain}: signature does not hold for {fingerprint(public)}"
        ) from None


def _signed_bytes(domain: str, body: bytes) -> bytes:
    return b"relay/1/" + domain.encode("ascii") + b"\0" + body


def fingerprint(public: bytes) -> str:
    """An identity's name for people: 160 bits of SHA-256 in base32, eight groups of four."""
    letters = base64.b32encode(hashlib.sha256(public).digest()[:20]).decode("ascii").lower()
    return "-".join(letters[i : i + 4] for i in range(0, 32, 4))


def signal_body(
    network: bytes, router: bytes, bridge: bytes, router_nonce: bytes, bridge_nonce: bytes
) -> bytes:
    """What both ends of a new signalling connection sign.

    The Router in domain "signal-router", the Bridge in domain "signal-bridge".
    """
    parts = (network, router, bridge, router_nonce, bridge_nonce)
    if [len(part) for part in parts] != [16, 32, 32, 32, 32]:
        raise IdentityError("network, identity or nonce of the wrong length")
    return b"".join(parts)


@attrs.frozen(slots=True)
class _Statement(Packed):
    WHAT = "signed statement"
    LIMIT = MAXIMUM_STATEMENT
    public: bytes = octets(32)
    body: bytes = octets_up_to(MAXIMUM_STATEMENT)
    signature: bytes = octets(64)


def seal_statement(identity: Identity, domain: str, body: bytes) -> bytes:
    """A signed statement: msgpack [identity, body, signature]."""
    return _Statement(identity.public, body, identity.sign(domain, body)).pack()


def open_statement(statement: bytes, domain: str) -> tuple[bytes, bytes]:
    """(identity, body) of a signed statement whose signature holds in `domain`."""
    opened = _Statement.unpack(statement)
    verify(opened.public, domain, opened.body, opened.signature)
    return opened.public, opened.body


# --- what a Router states about itself ----------------------------------------------------------

# Printable ASCII without backslash (PS3.5 §6.2, AE), not blank at either end: trimmed on the wire.
_AE_TITLE = re.compile(r"(?! )[\x20-\x5b\x5d-\x7e]{1,16}(?<! )")
_SERVICE = re.compile(r"[a-z][a-z-]{0,15}|private:[0-9.]{1,64}")


def is_ae_title(title: Any) -> bool:
    """Is this an AE title as Relay publishes it, trimmed of the padding?"""
    return type(title) is str and _AE_TITLE.fullmatch(title) is not None


def is_services(value: Any) -> bool:
    """Are these services that a grant can name?"""
    return (
        type(value) is tuple
        and len(value) <= MAXIMUM_SERVICES
        and all(type(s) is str and _SERVICE.fullmatch(s) is not None for s in value)
    )


def _is_name(value: Any) -> bool:
    return (
        type(value) is str
        and 1 <= len(value) <= MAXIMUM_NAME
        and value.isprintable()
        and value.strip() == value
    )


@attrs.frozen(slots=True)
class Publication(Packed):
    """A Router's word that it serves `ae_title` with these services. The larger serial holds."""

    WHAT = "publication"
    LIMIT = MAXIMUM_STATEMENT
    network: bytes = octets(16)
    ae_title: str = bounded(is_ae_title)
    services: tuple[str, ...] = bounded(is_services, converter=tuple)
    serial: int = unsigned()

    def sign(self, identity: Identity) -> bytes:
        """The signed statement. Raises IdentityError for a title or service that cannot be."""
        return seal_statement(identity, self.WHAT, self.pack())

    @classmethod
    def open(cls, statement: bytes, network: bytes) -> tuple[bytes, Self]:
        """(owner's identity, publication) of a statement made for this network."""
        owner, body = open_statement(statement, cls.WHAT)
        publication = cls.unpack(body)
        _check_network(cls.WHAT, publication.network, network)
        return owner, publication


@attrs.frozen(slots=True)
class KeyStatement(Packed):
    """A Router's word that `public` is its HPKE key until `expires` (Unix seconds).

    The larger serial holds; an older one is refused by whoever saw a newer.
    """

    WHAT = "hpke-key"
    LIMIT = MAXIMUM_STATEMENT
    network: bytes = octets(16)
    public: bytes = octets(HPKE_PUBLIC_LENGTH)
    serial: int = unsigned()
    expires: int = unsigned()

    @property
    def key_id(self) -> bytes:
        """The 32-byte name of the key, by which an opening says which one it used."""
        return hashlib.sha256(self.public).digest()

    def sign(self, identity: Identity) -> bytes:
        """The signed statement."""
        return seal_statement(identity, self.WHAT, self.pack())

    @classmethod
    def open(cls, statement: bytes, network: bytes) -> tuple[bytes, Self]:
        """(owner's identity, key) of a statement made for this network.

        Whether it has expired is for the caller to judge, by its own clock and allowance.
        """
        owner, body = open_statement(statement, cls.WHAT)
        key = cls.unpack(body)
        _check_network(cls.WHAT, key.network, network)
        return owner, key


def _check_network(what: str, stated: bytes, network: bytes) -> None:
    if stated != network:
        raise IdentityError(f"{what} is for another network")


# --- strings that people exchange ---------------------------------------------------------------


class _Exchanged(Packed):
    """What people copy and paste: a prefix, then base64url of the array and a checksum."""

    __slots__ = ()
    LIMIT = MAXIMUM_STRING
    LEADING = (1,)

    def to_string(self) -> str:
        payload = self.pack()
        data = payload + self._checksum(payload)
        return self._prefix() + base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")

    @classmethod
    def parse(cls, string: str) -> Self:
        """What `to_string` gave. Raises IdentityError for a string that is another or damaged."""
        if len(string) > MAXIMUM_STRING:
            raise IdentityError(f"{cls.WHAT} string is too long")
        # Mail programs break long lines; nothing in the alphabet is white space.
        string = "".join(string.split())
        if not string.startswith(cls._prefix()):
            raise IdentityError(f"not a {cls.WHAT} string: those begin with {cls._prefix()}")
        letters = string.removeprefix(cls._prefix())
        try:
            data = base64.b64decode(letters + "=" * (-len(letters) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise IdentityError(f"{cls.WHAT} string is damaged; copy it again") from None
        payload = data[:-4]
        if data[-4:] != cls._checksum(payload):
            raise IdentityError(f"{cls.WHAT} string is damaged; copy it again")
        return cls.unpack(payload)

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
    public: bytes = octets(32)
    name: str = bounded(_is_name)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)


def _is_url(value: Any) -> bool:
    return (
        type(value) is str
        and len(value) <= MAXIMUM_URL
        and re.fullmatch(r"https?://[\x21-\x7e]+", value) is not None
    )


@attrs.frozen(slots=True)
class Invitation(_Exchanged):
    """What a hospital needs to enrol: where the Bridge is, who it is, and a code to use once.

    `code` is a secret; `expires` is Unix seconds.
    """

    WHAT = "invitation"
    url: str = bounded(_is_url)
    network: bytes = octets(16)
    invitation_id: bytes = octets(16)
    bridge: bytes = octets(32)
    code: bytes = bounded(lambda v: type(v) is bytes and len(v) == 16, repr=False)
    expires: int = unsigned()


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
    """A Router asks the Bridge to be let in. The code itself is never sent, only its MAC."""

    WHAT = "enrolment-request"
    LIMIT = MAXIMUM_ENROLMENT
    network: bytes = octets(16)
    invitation_id: bytes = octets(16)
    router: bytes = octets(32)
    name: str = bounded(_is_name)
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
        _check_network(request.WHAT, request.network, network)
        _Enrolment.unpack(self._data).verify(request.WHAT, request.router, code, bridge)
        owner, key = KeyStatement.open(request.key_statement, network)
        if owner != request.router:
            raise IdentityError(f"{request.WHAT}: the HPKE key is another Router's")
        return key

    def answer(self, identity: Identity, code: bytes) -> bytes:
        """The Bridge's answer to exactly this request; call after `verify`."""
        request = self.request
        answer = EnrolmentAnswer(
            request.network,
            request.invitation_id,
            identity.public,
            request.router,
            request.name,
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
    bridge: bytes = octets(32)
    router: bytes = octets(32)
    name: str = bounded(_is_name)
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
