"""HPKE key pairs and the key schedule (PROTOCOL.md §7 and §9; RFC 9180, RFC 5869).

The library has no serialisation for the composite keys of MLKEM768_X25519; the one used here is
PROTOCOL.md's: ML-KEM-768 first, then X25519, private keys as their seeds.
"""

import hashlib
import secrets
from collections.abc import Callable
from typing import Self

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from relay.errors import HandshakeError, IdentityError
from relay.identity import MLKEM_PUBLIC_LENGTH, is_hpke_public
from relay.identity import KeyStatement as KeyStatement

SEED_LENGTH = 64 + 32  # ML-KEM-768's d and z, then X25519's private key
SECRET_LENGTH = 32
ENCAPSULATED_LENGTH = 1088 + 32  # HPKE's enc: ML-KEM-768 ciphertext, then X25519 ephemeral key
SEALED_SECRET_LENGTH = ENCAPSULATED_LENGTH + SECRET_LENGTH + 16

Random = Callable[[int], bytes]

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_SEED = 64


@attrs.frozen(slots=True, eq=False, repr=False)
class HPKEKeyPair:
    """A key pair to which others seal: a Router's published one, or a caller's ephemeral one."""

    seed: bytes
    public: bytes
    _key: MLKEM768X25519PrivateKey

    @classmethod
    def generate(cls, random: Random = secrets.token_bytes) -> Self:
        return cls.from_seed(random(SEED_LENGTH))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key pair of a 96-byte seed. Raises IdentityError for another length."""
        if len(seed) != SEED_LENGTH:
            raise IdentityError(f"HPKE seed of {len(seed)} bytes, not {SEED_LENGTH}")
        mlkem = MLKEM768PrivateKey.from_seed_bytes(seed[:_MLKEM_SEED])
        x25519 = X25519PrivateKey.from_private_bytes(seed[_MLKEM_SEED:])
        public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        return cls(seed, public, MLKEM768X25519PrivateKey(mlkem, x25519))

    @property
    def key_id(self) -> bytes:
        return key_id(self.public)

    def open(self, ciphertext: bytes, info: bytes) -> bytes:
        """What `seal_to` sealed. Raises HandshakeError if it was not for this key and `info`."""
        try:
            return _SUITE.decrypt(ciphertext, self._key, info)
        except (InvalidTag, ValueError):
            raise HandshakeError("HPKE ciphertext does not open") from None

    def __repr__(self) -> str:
        return f"<HPKEKeyPair {self.key_id.hex()[:16]}>"


def key_id(public: bytes) -> bytes:
    """The 32-byte name of an HPKE public key: its SHA-256."""
    return hashlib.sha256(public).digest()


def seal_to(public: bytes, plaintext: bytes, info: bytes) -> bytes:
    """HPKE single-shot base mode: enc, then ciphertext and tag.

    Raises HandshakeError if `public` is not a key.
    """
    if not is_hpke_public(public):
        raise HandshakeError("HPKE public key is not a valid one")
    key = MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:MLKEM_PUBLIC_LENGTH]),
        X25519PublicKey.from_public_bytes(public[MLKEM_PUBLIC_LENGTH:]),
    )
    return _SUITE.encrypt(plaintext, key, info)


def expand(salt: bytes, material: bytes, info: bytes) -> bytes:
    """32 bytes of HKDF-SHA256 (RFC 5869: extract with `salt`, expand with `info`)."""
    return HKDF(SHA256(), 32, salt, info).derive(material)


def early_key(opening_hash: bytes, secret: bytes) -> bytes:
    """The key of the sealed request; only the caller contributed to it."""
    return expand(opening_hash, secret, b"relay/1/early")


@attrs.frozen(slots=True, repr=False)
class SessionKeys:
    """What both ends of a session share once it stands: the transcript hash, a key a direction."""

    transcript: bytes
    caller_to_callee: bytes
    callee_to_caller: bytes

    @classmethod
    def derive(
        cls, opening_hash: bytes, request_hash: bytes, answer: bytes, secret: bytes, entropy: bytes
    ) -> Self:
        """The keys of the session that `answer` makes; `request_hash`: of the sealed request."""
        answer_hash = hashlib.sha256(answer).digest()
        transcript = hashlib.sha256(
            b"relay/1/transcript\0" + opening_hash + request_hash + answer_hash
        ).digest()
        material = secret + entropy
        return cls(
            transcript,
            expand(transcript, material, b"relay/1/flow/0"),
            expand(transcript, material, b"relay/1/flow/1"),
        )
