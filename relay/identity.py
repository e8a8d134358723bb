"""Who somebody is: Ed25519 identities, and what they sign.

PROTOCOL.md §3 and §4 has every byte. A signature is always over a domain and a body, so that
nothing signed for one purpose passes for another. Whatever comes from outside is bounded before it
is parsed and refused with `IdentityError`, which names what does not hold.
"""

import base64
import hashlib
import os
import re
from pathlib import Path
from typing import Any, Self

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from relay.errors import IdentityError
from relay.packed import Packed, bounded, octets, octets_up_to, unsigned

# The longest signed statement: an HPKE key of 1216 bytes, or an AE title with the services of a
# device that has many private SOP classes. The signalling messages have the same bound.
MAXIMUM_STATEMENT = 4096
MAXIMUM_SERVICES = 64  # services of one publication: seven named ones and private SOP classes
MAXIMUM_NAME = 64  # characters of a hospital's name: what fits a line of a table
MLKEM_PUBLIC_LENGTH = 1184
HPKE_PUBLIC_LENGTH = MLKEM_PUBLIC_LENGTH + 32  # ML-KEM-768, then X25519


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


_FIELD = 2**255 - 19
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# The y of the eight points whose order divides 8. Under such a key a signature that nobody made
# holds for one body in eight or more, and no other check of RFC 8032 notices.
_SMALL_ORDER = frozenset((0, 1, _FIELD - 1, _ORDER_8, _FIELD - _ORDER_8))


def is_identity(value: Any) -> bool:
    """Can these be an identity: 32 bytes, canonical, and of no point of small order?

    Whether they are a point at all, only a signature shows: nothing holds for those that are none.
    """
    if type(value) is not bytes or len(value) != 32:
        return False
    y = int.from_bytes(value, "little") & (2**255 - 1)
    return y < _FIELD and y not in _SMALL_ORDER


def public_identity() -> Any:
    """A field of a `Packed` class that holds an identity."""
    return bounded(is_identity)


def verify(public: bytes, domain: str, body: bytes, signature: bytes) -> None:
    """Return if `signature` is that identity's over `body` in `domain`; else IdentityError.

    RFC 8032 §5.1.7 without the cofactor, as PROTOCOL.md §3 has it.
    """
    if not is_identity(public) or len(signature) != 64:
        raise IdentityError(f"{domain}: no identity, or a signature of the wrong length")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _signed_bytes(domain, body))
    except InvalidSignature:
        raise IdentityError(
            f"{domain}: signature does not hold for {fingerprint(public)}"
        ) from None


def _signed_bytes(domain: str, body: bytes) -> bytes:
    return b"relay/1/" + domain.encode("ascii") + b"\0" + body


def fingerprint(public: bytes) -> str:
    """An identity's name for people: 160 bits of SHA-256 in base32, eight groups of four.

    People compare it by telephone, so that no Bridge can show another identity in this one's place.
    Whoever wants to has years to try keys in: one of the same 160 bits is out of reach for ever
    (2^160 tries), which it would not be of the 40 or 60 bits of a short code. So nobody is verified
    by a part of it: a beginning is only a shorthand for one peer among those that are known already
    (relay.router.peers). 32 letters are read out in half a minute, without 0, 1, 8 and 9, which are
    taken for letters, and without case.
    """
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
    public: bytes = public_identity()
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


# What a name cannot hold: controls, formats, separators but the space, surrogates, private use and
# non-characters. A list and not the categories, which differ from one Unicode version to the next.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u1680\u180e"
    "\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ud800-\uf8ff\ufdd0-\ufdef\ufeff\ufff0-\uffff"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bcaf\U0001d173-\U0001d17a"
    "\U000e0000-\U0010ffff]"
)


def is_name(value: Any) -> bool:
    return (
        type(value) is str
        and 1 <= len(value) <= MAXIMUM_NAME
        and _UNPRINTABLE.search(value) is None
        and value.strip(" ") == value
    )


def is_hpke_public(value: Any) -> bool:
    """Is this a public key that ML-KEM-768 and X25519 both take (PROTOCOL.md §7)?"""
    if type(value) is not bytes or len(value) != HPKE_PUBLIC_LENGTH:
        return False
    try:
        # FIPS 203 §7.2: no coefficient out of range.
        MLKEM768PublicKey.from_public_bytes(value[:MLKEM_PUBLIC_LENGTH])
        # RFC 7748 §6.1: a point of small order gives zeros, whatever the private key.
        _PROBE.exchange(X25519PublicKey.from_public_bytes(value[MLKEM_PUBLIC_LENGTH:]))
    except ValueError:
        return False
    return True


_PROBE = X25519PrivateKey.from_private_bytes(bytes(32))


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
        check_network(cls.WHAT, publication.network, network)
        return owner, publication


@attrs.frozen(slots=True)
class KeyStatement(Packed):
    """A Router's word that `public` is its HPKE key until `expires` (Unix seconds).

    The larger serial holds; an older one is refused by whoever saw a newer.
    """

    WHAT = "hpke-key"
    LIMIT = MAXIMUM_STATEMENT
    network: bytes = octets(16)
    public: bytes = bounded(is_hpke_public)
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
        check_network(cls.WHAT, key.network, network)
        return owner, key


def check_network(what: str, stated: bytes, network: bytes) -> None:
    if stated != network:
        raise IdentityError(f"{what} is for another network")


# --- the file that holds an identity -------------------------------------------------------------

IDENTITY_FILE = "identity.key"


def load_identity(data_dir: Path) -> Identity:
    """The identity in `data_dir`, made (mode 0600) at the first start. Whoever has the file is it.

    Raises IdentityError for a file that is none, or that others may read.
    """
    path = data_dir / IDENTITY_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_identity(path)
    identity = Identity.generate()
    with os.fdopen(descriptor, "wb") as file:
        file.write(identity.seed.hex().encode("ascii") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return identity


def _read_identity(path: Path) -> Identity:
    if path.stat().st_mode & 0o077:
        raise IdentityError(f"{path}: others may read it; chmod 600 it, if nobody has")
    try:
        return Identity.from_seed(bytes.fromhex(path.read_text("ascii").strip()))
    except (ValueError, IdentityError):
        raise IdentityError(f"{path}: not an identity; restore it from a backup") from None
