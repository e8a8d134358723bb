"""relay.tunnel.keys, against the vectors and an HPKE written out by hand from PROTOCOL.md §7."""

import hashlib
import hmac

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.errors import HandshakeError, IdentityError
from relay.tunnel.keys import (
    SEALED_SECRET_LENGTH,
    HPKEKeyPair,
    SessionKeys,
    expand,
    key_id,
    seal_to,
)
from tests.vectors.reading import Vector, vectors

PAIR = HPKEKeyPair.from_seed(bytes(range(96)))


@pytest.mark.parametrize("vector", vectors("hkdf"), ids=str)
def test_hkdf_vector(vector: Vector) -> None:
    derived = expand(vector.octets("salt"), vector.octets("ikm"), vector.octets("info"))
    assert derived == vector.octets("output")


@pytest.mark.parametrize("vector", vectors("aes-gcm"), ids=str)
def test_aes_gcm_vector(vector: Vector) -> None:
    key, nonce, aad, plaintext = map(vector.octets, ("key", "nonce", "aad", "plaintext"))
    assert AESGCM(key).encrypt(nonce, plaintext, aad) == vector.octets("ciphertext")


@pytest.mark.parametrize("vector", vectors("hpke"), ids=str)
def test_hpke_vector(vector: Vector) -> None:
    pair = HPKEKeyPair.from_seed(vector.octets("seed"))
    sealed, info = vector.octets("sealed"), vector.octets("info")
    if not vector.succeeds:
        with pytest.raises(HandshakeError):
            pair.open(sealed, info)
        return
    assert pair.public == vector.octets("public")
    assert pair.key_id == vector.octets("key-id")
    assert pair.open(sealed, info) == vector.octets("plaintext")
    assert open_by_hand(pair.seed, sealed, info) == vector.octets("plaintext")


def open_by_hand(seed: bytes, sealed: bytes, info: bytes) -> bytes:
    """HPKE with X-Wing as PROTOCOL.md spells it out; shares nothing with the library's HPKE."""
    enc, ciphertext = sealed[:1120], sealed[1120:]
    mlkem = MLKEM768PrivateKey.from_seed_bytes(seed[:64])
    x25519 = X25519PrivateKey.from_private_bytes(seed[64:])
    ss_x = x25519.exchange(X25519PublicKey.from_public_bytes(enc[1088:]))
    pk_x = x25519.public_key().public_bytes_raw()
    ss_m = mlkem.decapsulate(enc[:1088])
    ss = hashlib.sha3_256(ss_m + ss_x + enc[1088:] + pk_x + bytes.fromhex("5c2e2f2f5e5c")).digest()
    suite = b"HPKE-v1HPKE" + bytes.fromhex("647a00010002")

    def extract(salt: bytes, label: bytes, material: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), suite + label + material, "sha256")

    def expand_to(length: int, label: bytes) -> bytes:
        info = length.to_bytes(2, "big") + suite + label + context
        return hmac.digest(secret, info + b"\1", "sha256")[:length]

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(ss, b"secret", b"")
    key, nonce = expand_to(32, b"key"), expand_to(12, b"base_nonce")
    return AESGCM(key).decrypt(nonce, ciphertext, b"")


def test_opening_by_hand_agrees() -> None:
    sealed = seal_to(PAIR.public, b"s" * 32, b"info")
    assert len(sealed) == SEALED_SECRET_LENGTH
    assert open_by_hand(PAIR.seed, sealed, b"info") == b"s" * 32
    with pytest.raises(InvalidTag):
        open_by_hand(PAIR.seed, sealed, b"another")


def test_key_pair_is_its_seed() -> None:
    generated = HPKEKeyPair.generate()
    again = HPKEKeyPair.from_seed(generated.seed)
    assert again.public == generated.public
    assert again.key_id == key_id(generated.public) == hashlib.sha256(generated.public).digest()
    assert generated.seed.hex()[:16] not in repr(generated)
    with pytest.raises(IdentityError):
        HPKEKeyPair.from_seed(bytes(95))


def test_sealed_is_for_one_key_and_one_info() -> None:
    sealed = seal_to(PAIR.public, b"secret", b"info")
    assert PAIR.open(sealed, b"info") == b"secret"
    assert sealed != seal_to(PAIR.public, b"secret", b"info")
    for pair, info in [(PAIR, b"other"), (HPKEKeyPair.generate(), b"info")]:
        with pytest.raises(HandshakeError):
            pair.open(sealed, info)


@pytest.mark.parametrize("sealed", [b"", b"x", bytes(1119), bytes(1120), bytes(1136), bytes(1168)])
def test_not_a_ciphertext(sealed: bytes) -> None:
    with pytest.raises(HandshakeError):
        PAIR.open(sealed, b"")


@pytest.mark.parametrize(
    "public",
    [
        b"",
        PAIR.public[:-1],
        PAIR.public + b"x",
        b"\xff" * 1184 + PAIR.public[1184:],
        PAIR.public[:1184] + bytes(32),
    ],
    ids=["empty", "short", "long", "coefficients out of range", "point of small order"],
)
def test_not_a_public_key(public: bytes) -> None:
    with pytest.raises(HandshakeError):
        seal_to(public, b"secret", b"info")


def test_session_keys_depend_on_everything() -> None:
    parts = [b"o" * 32, b"r" * 32, b"answer", b"s" * 32, b"e" * 32]
    keys = SessionKeys.derive(*parts)
    assert len({keys.transcript, keys.caller_to_callee, keys.callee_to_caller}) == 3
    for index in range(5):
        changed = [*parts[:index], b"x" * 32, *parts[index + 1 :]]
        other = SessionKeys.derive(*changed)
        assert other.caller_to_callee != keys.caller_to_callee
        assert other.callee_to_caller != keys.callee_to_caller
    assert keys.caller_to_callee.hex() not in repr(keys)
