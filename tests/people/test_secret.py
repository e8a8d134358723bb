"""Secrets: long, different each time, and kept as a digest."""

from base64 import urlsafe_b64decode

from relay.people.secret import LINK_SIZE, SIZE, digest, draw


def test_sizes() -> None:
    assert (SIZE, LINK_SIZE) == (32, 16)
    assert len(urlsafe_b64decode(draw() + "=")) == SIZE
    assert len(urlsafe_b64decode(draw(LINK_SIZE) + "==")) == LINK_SIZE
    assert len({draw() for _ in range(100)}) == 100


def test_a_digest_takes_whatever_a_peer_sends() -> None:
    assert digest("a") != digest("b")
    assert len(digest("\ud800\0ä")) == 32
