"""Both ends of a new connection prove who they are, before anything else is said.

    Bridge                          Router
      | Hello: nonce                  |
      | --------------------------->  |
      |     Authenticate: nonce, sig  |
      | <---------------------------  |
      | Welcome: sig                  |
      | --------------------------->  |

Each signs network, both identities and both nonces in a domain of its own, so that neither answer
serves for the other, for another connection or for another network. No clock is needed.
"""

import secrets
import time
from typing import TypeVar

import attrs
import trio

from relay.errors import IdentityError, SignallingError
from relay.identity import Identity, fingerprint, signal_body, verify
from relay.signalling.conversation import receive
from relay.signalling.messages import (
    PROTOCOL_VERSION,
    Authenticate,
    Hello,
    Message,
    Welcome,
    decode,
    encode,
)
from relay.signalling.transport import Socket

ROUTER_DOMAIN = "signal-router"
BRIDGE_DOMAIN = "signal-bridge"

M = TypeVar("M", bound=Message)


@attrs.frozen(slots=True)
class Proven:
    """The Router has proven who it is; `welcome` is the frame that proves us to it."""

    router: bytes
    welcome: bytes


async def challenge(socket: Socket, identity: Identity, network: bytes, within: float) -> Proven:
    """The Bridge's half, but for sending Welcome, which says that the Router is let in.

    Raises SignallingError if the Router does not prove its identity within that many seconds.
    """
    nonce = secrets.token_bytes(32)
    hello = Hello(PROTOCOL_VERSION, network, identity.public, nonce)
    await _send(socket, hello, within)
    said = await _expect(socket, Authenticate, within)
    body = signal_body(network, said.router, identity.public, said.nonce, nonce)
    try:
        verify(said.router, ROUTER_DOMAIN, body, said.signature)
    except IdentityError as error:
        raise SignallingError(str(error)) from error
    welcome = Welcome(identity.sign(BRIDGE_DOMAIN, body), int(time.time()))
    return Proven(said.router, encode(welcome))


# How the failure begins that a revoked Router meets.
NOT_LET_IN = "the Bridge did not let this Router in"


async def introduce(
    socket: Socket, identity: Identity, network: bytes, bridge: bytes, within: float
) -> int:
    """The Router's half; returns the Bridge's clock, Unix seconds.

    Raises SignallingError if the other end is not the enrolled Bridge, or does not let us in.
    """
    hello = await _expect(socket, Hello, within)
    if hello.version != PROTOCOL_VERSION:
        raise SignallingError(
            f"the Bridge speaks version {hello.version} of the protocol, this Router "
            f"{PROTOCOL_VERSION}: upgrade the older one"
        )
    if hello.bridge != bridge:
        raise SignallingError(
            f"the Bridge there is {fingerprint(hello.bridge)}, not the enrolled one, "
            f"{fingerprint(bridge)}: check the URL, or enrol this Router anew"
        )
    if hello.network != network:
        raise SignallingError("the Bridge there serves another network: enrol this Router anew")
    nonce = secrets.token_bytes(32)
    body = signal_body(network, identity.public, bridge, nonce, hello.nonce)
    signature = identity.sign(ROUTER_DOMAIN, body)
    await _send(socket, Authenticate(identity.public, nonce, signature), within)
    try:
        welcome = await _expect(socket, Welcome, within)
    except SignallingError as error:
        raise SignallingError(f"{NOT_LET_IN} ({error}): is it enrolled and not revoked?") from error
    try:
        verify(bridge, BRIDGE_DOMAIN, body, welcome.signature)
    except IdentityError as error:
        raise SignallingError(str(error)) from error
    return welcome.time


async def _send(socket: Socket, message: Message, within: float) -> None:
    with trio.move_on_after(within) as scope:
        await socket.send(encode(message))
    if scope.cancelled_caught:
        raise SignallingError(f"{type(message).__name__} could not be written for {within:g} s")


async def _expect(socket: Socket, kind: type[M], within: float) -> M:
    message = decode(await receive(socket, within))
    if not isinstance(message, kind):
        raise SignallingError(f"{type(message).__name__} came where {kind.__name__} is due")
    return message
