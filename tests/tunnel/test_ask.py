"""relay.tunnel.ask: the question reaches one Router, unread by others and in the asker's name."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import HandshakeError, Refusal
from relay.identity import Identity
from relay.tunnel.ask import MAXIMUM_ASK, GrantRequest, open_ask, seal_ask
from relay.tunnel.handshake import MAXIMUM_AGE
from relay.tunnel.keys import HPKEKeyPair

NETWORK = b"n" * 16
SENDER = Identity.from_seed(b"a" * 32)
RECIPIENT = Identity.from_seed(b"b" * 32)
KEY = HPKEKeyPair.from_seed(b"k" * 96)
NOW = 1_800_000_000
REQUEST = GrantRequest("PACS_B", ("query", "retrieve"), ("WS_A",), "for the joint tumour board")


def ask(request: GrantRequest = REQUEST) -> bytes:
    return seal_ask(SENDER, NETWORK, RECIPIENT.public, KEY.public, request, NOW)


def test_round_trip() -> None:
    sealed = ask()
    opened = open_ask(RECIPIENT, {KEY.key_id: KEY}, NETWORK, SENDER.public, sealed, NOW)
    assert opened == REQUEST
    for hidden in (b"WS_A", b"PACS_B", b"tumour"):
        assert hidden not in sealed


def test_longest_request_fits() -> None:
    services = tuple(f"private:1.2.{i:060}" for i in range(64))
    titles = tuple(f"WORKSTATION_{i:04}" for i in range(64))
    longest = GrantRequest("A" * 16, services, titles, "\N{GRINNING FACE}" * 100)
    assert len(ask(longest)) <= MAXIMUM_ASK


@pytest.mark.parametrize(
    "change",
    [
        {"ae_title": "A\\B"},
        {"services": ("Not One",)},
        {"calling": ("",)},
        {"calling": ("A",) * 65},
        {"note": "x" * 501},
    ],
    ids=str,
)
def test_request_that_cannot_be(change: dict[str, object]) -> None:
    with pytest.raises(HandshakeError):
        ask(attrs.evolve(REQUEST, **change))


@pytest.mark.parametrize(
    ("who", "keys", "network", "sender", "now", "refusal"),
    [
        (SENDER, KEY, NETWORK, SENDER.public, NOW, Refusal.MALFORMED),
        (RECIPIENT, KEY, b"x" * 16, SENDER.public, NOW, Refusal.MALFORMED),
        (RECIPIENT, KEY, NETWORK, RECIPIENT.public, NOW, Refusal.MALFORMED),
        (RECIPIENT, KEY, NETWORK, SENDER.public, NOW + MAXIMUM_AGE + 1, Refusal.EXPIRED),
        (RECIPIENT, HPKEKeyPair.generate(), NETWORK, SENDER.public, NOW, Refusal.UNKNOWN_KEY),
    ],
    ids=["recipient", "network", "sender", "age", "key"],
)
def test_ask_for_another(
    who: Identity, keys: HPKEKeyPair, network: bytes, sender: bytes, now: int, refusal: Refusal
) -> None:
    with pytest.raises(HandshakeError) as caught:
        open_ask(who, {keys.key_id: keys}, network, sender, ask(), now)
    assert caught.value.refusal == refusal


def test_every_byte_counts() -> None:
    sealed = ask()
    for place in range(0, len(sealed), 3):
        changed = bytearray(sealed)
        changed[place] ^= 0x04
        with pytest.raises(HandshakeError):
            open_ask(RECIPIENT, {KEY.key_id: KEY}, NETWORK, SENDER.public, bytes(changed), NOW)


@given(st.binary(max_size=300))
def test_open_ask_survives_anything(data: bytes) -> None:
    with pytest.raises(HandshakeError):
        open_ask(RECIPIENT, {KEY.key_id: KEY}, NETWORK, SENDER.public, data, NOW)
