"""What all generators share: who is in the vectors, and how a vector is written."""

import hashlib
from collections.abc import Callable

from relay.dicom.pdu import (
    AAssociateRQ,
    PresentationContext,
    encode,
)
from relay.identity import (
    Identity,
)
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


def flipped(data: bytes, at: int, bit: int = 1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= bit
    return bytes(changed)
