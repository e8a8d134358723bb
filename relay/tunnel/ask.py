"""A person asks another hospital for a grant, sealed so that the Bridge cannot read it.

PROTOCOL.md §16. Outside any session: one message that is signed and sealed to the recipient's HPKE
key. It changes nothing by itself; a person at the other end decides. A replay shows the same
question again, for as long as `MAXIMUM_AGE` lets it.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from relay.errors import HandshakeError, IdentityError, Refusal
from relay.identity import Identity, is_ae_title, is_services, public_identity, verify
from relay.packed import Packed, bounded, octets, octets_up_to, unsigned
from relay.tunnel.handshake import MAXIMUM_AGE, SUITE, VERSION
from relay.tunnel.keys import HPKEKeyPair, key_id, seal_to

MAXIMUM_ASK = 8192  # bytes, sealed: a GrantRequest at its longest; signalling has the same bound
MAXIMUM_CALLING = 64  # calling AE titles in one request: the devices of a department
MAXIMUM_NOTE = 500  # characters that say why


def _is_calling(value: Any) -> bool:
    return type(value) is tuple and len(value) <= MAXIMUM_CALLING and all(map(is_ae_title, value))


@attrs.frozen(slots=True)
class GrantRequest(Packed):
    """Which services of the published `ae_title` are wished, for which calling AE titles, why."""

    WHAT = "grant request"
    LIMIT = MAXIMUM_ASK
    ae_title: str = bounded(is_ae_title)
    services: tuple[str, ...] = bounded(is_services, converter=tuple)
    calling: tuple[str, ...] = bounded(_is_calling, converter=tuple)
    note: str = bounded(lambda v: type(v) is str and len(v) <= MAXIMUM_NOTE)


@attrs.frozen(slots=True)
class _Header(Packed):
    WHAT = "ask header"
    LIMIT = 512
    LEADING = (VERSION, SUITE)
    network: bytes = octets(16)
    sender: bytes = public_identity()
    recipient: bytes = public_identity()
    recipient_key_id: bytes = octets(32)
    created: int = unsigned()


@attrs.frozen(slots=True)
class _Ask(Packed):
    WHAT = "ask"
    LIMIT = MAXIMUM_ASK
    header: bytes = octets_up_to(512)
    ciphertext: bytes = octets_up_to(MAXIMUM_ASK)
    signature: bytes = octets(64)


def _info(header: bytes) -> bytes:
    return b"relay/1/ask-info\0" + header


def _signed(header: bytes, ciphertext: bytes) -> bytes:
    return len(header).to_bytes(4, "big") + header + ciphertext


def seal_ask(
    identity: Identity,
    network: bytes,
    recipient: bytes,
    recipient_key: bytes,
    request: GrantRequest,
    now: int,
) -> bytes:
    """`request`, sealed to the recipient's HPKE public key and signed. Raises HandshakeError."""
    try:
        header = _Header(network, identity.public, recipient, key_id(recipient_key), now).pack()
        ciphertext = seal_to(recipient_key, request.pack(), _info(header))
        signature = identity.sign("ask", _signed(header, ciphertext))
        return _Ask(header, ciphertext, signature).pack()
    except IdentityError as error:
        raise HandshakeError(str(error)) from None


def open_ask(
    identity: Identity,
    keypairs: Mapping[bytes, HPKEKeyPair],
    network: bytes,
    sender: bytes,
    sealed: bytes,
    now: int,
) -> GrantRequest:
    """What `sender`, as the Bridge authenticated it, asks of us. Raises HandshakeError."""
    try:
        ask = _Ask.unpack(sealed)
        header = _Header.unpack(ask.header)
        if (header.network, header.sender, header.recipient) != (network, sender, identity.public):
            raise HandshakeError("ask is for another network or between other Routers")
        verify(sender, "ask", _signed(ask.header, ask.ciphertext), ask.signature)
        if abs(now - header.created) > MAXIMUM_AGE:
            raise HandshakeError("ask is too old, or from the future", Refusal.EXPIRED)
        keypair = keypairs.get(header.recipient_key_id)
        if keypair is None:
            raise HandshakeError("ask is sealed to an HPKE key not held", Refusal.UNKNOWN_KEY)
        return GrantRequest.unpack(keypair.open(ask.ciphertext, _info(ask.header)))
    except IdentityError as error:
        raise HandshakeError(str(error)) from None
