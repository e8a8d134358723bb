"""What all generators share: who is in the vectors, and how a vector is written."""

import hashlib
import struct
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from relay.dicom.pdu import (
    AAssociateRQ,
    PresentationContext,
    encode,
)
from relay.identity import Identity
from relay.tunnel.keys import HPKEKeyPair
from tests.vectors.reading import FOLDER, write

Lines = list[tuple[str, str | bytes | int]]

SOURCE = (
    "home-made by tests/vectors/generate.py; "
    "verifier: the second implementation, written from PROTOCOL.md alone"
)
NOW = 1_790_000_000


def put(name: str, kind: str, outcome: str, lines: Lines, remark: str = "", source: str = SOURCE):
    head: Lines = [("name", name), ("source", source), ("kind", kind), ("outcome", outcome)]
    (FOLDER / f"{name}.txt").write_text(write(head + lines, remark), "utf-8")


def drawn(label: str) -> Callable[[int], bytes]:
    """A stream of bytes that looks random and is the same in every run."""
    stream = hashlib.shake_256(b"relay test vectors: " + label.encode()).digest(4096)
    at = 0

    def draw(count: int) -> bytes:
        nonlocal at
        at += count
        return stream[at - count : at]

    return draw


draw = drawn("who")
CALLER = Identity.from_seed(draw(32))
CALLEE = Identity.from_seed(draw(32))
BRIDGE = Identity.from_seed(draw(32))
OTHER = Identity.from_seed(draw(32))
NETWORK = draw(16)
KEY = HPKEKeyPair.generate(draw)
OLD_KEY = HPKEKeyPair.generate(draw)

REQUEST = encode(
    AAssociateRQ(
        "PACS_B",
        "WORKSTATION_A",
        (PresentationContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),),
    )
)


# Keys that nobody should take: points of Ed25519 whose order divides 8 (orders 4, 1, 2 and 8), of
# the same a second encoding, with y = p or more or a sign where x is 0; and a y beyond p that is
# of a point of full order.
SMALL_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    b"\xec" + b"\xff" * 30 + b"\x7f",
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]
NOT_CANONICAL = [
    b"\xed" + b"\xff" * 30 + b"\x7f",
    b"\x01" + bytes(30) + b"\x80",
    b"\xf0" + b"\xff" * 30 + b"\x7f",
]

# HPKE public keys: one whose first ML-KEM coefficient is 4095, and an X25519 point of small order.
NOT_ML_KEM = b"\xff\x0f" + KEY.public[2:]
NOT_X25519 = KEY.public[:1184] + bytes(32)


def holds_for_library(public: bytes, domain: str, body: bytes, signature: bytes) -> bool:
    """Whether the signature holds without a look at the key."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(signature, b"relay/1/" + domain.encode() + b"\0" + body)
    except InvalidSignature:
        return False
    return True


def with_unreduced_s(signature: bytes) -> bytes:
    """The signature with the group's order added to S, which RFC 8032 refuses."""
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(signature[32:], "little") + order
    return signature[:32] + s.to_bytes(32, "little")


def long_bin(value: bytes) -> bytes:
    """As MessagePack bin 32."""
    return b"\xc6" + struct.pack(">I", len(value)) + value


def long_format(value: bytes | str | int | list) -> bytes:
    """The value in MessagePack's longest format: bin 32, str 32, uint 64, array 32."""
    match value:
        case bytes():
            return long_bin(value)
        case str():
            text = value.encode()
            return b"\xdb" + struct.pack(">I", len(text)) + text
        case int():
            return b"\xcf" + struct.pack(">Q", value)
        case list():
            rows = b"".join(map(long_format, value))
            return b"\xdd" + struct.pack(">I", len(value)) + rows


def flipped(data: bytes, at: int, bit: int = 1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= bit
    return bytes(changed)
