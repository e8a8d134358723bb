"""Both ends prove who they are; what does not prove it is refused."""

import pytest
import trio
from trio.testing import MockClock

from relay.errors import SignallingError
from relay.identity import Identity, signal_body
from relay.signalling.authentication import (
    BRIDGE_DOMAIN,
    ROUTER_DOMAIN,
    Proven,
    challenge,
    introduce,
)
from relay.signalling.messages import Authenticate, Hello, Welcome, decode, encode
from tests.signalling.bridge import NETWORK, MemorySocket, socket_pair

BRIDGE, ROUTER = Identity.from_seed(b"B" * 32), Identity.from_seed(b"a" * 32)


async def test_both_know_each_other(autojump_clock: MockClock) -> None:
    near, far = socket_pair()
    async with trio.open_nursery() as nursery:

        async def bridge() -> None:
            proven = await challenge(far, BRIDGE, NETWORK, 10)
            assert proven.router == ROUTER.public
            await far.send(proven.welcome)

        nursery.start_soon(bridge)
        assert await introduce(near, ROUTER, NETWORK, BRIDGE.public, 10) > 1_700_000_000


async def prove(said: Authenticate | bytes) -> Proven:
    """What the Bridge makes of that answer to its Hello."""
    near, far = socket_pair()
    async with trio.open_nursery() as nursery:

        async def router() -> None:
            await near.receive()
            await near.send(said if isinstance(said, bytes) else encode(said))

        nursery.start_soon(router)
        return await challenge(far, BRIDGE, NETWORK, 10)
    raise AssertionError


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Authenticate(ROUTER.public, bytes(32), bytes(64)), "signature does not hold"),
        (Authenticate(b"\xff" * 32, bytes(32), b"\xff" * 64), "no identity"),
        (encode(Welcome(bytes(64), 0)), "Welcome came where Authenticate is due"),
        (b"\xc1", "not msgpack"),
    ],
)
async def test_a_router_that_proves_nothing_is_refused(
    said: Authenticate | bytes, words: str, autojump_clock: MockClock
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(SignallingError, match=words)):
        await prove(said)


async def answer_with(near: MemorySocket, identity: Identity, domain: str, network: bytes) -> None:
    hello = decode(await near.receive())
    assert isinstance(hello, Hello)
    body = signal_body(network, identity.public, hello.bridge, bytes(32), hello.nonce)
    signature = identity.sign(domain, body)
    await near.send(encode(Authenticate(identity.public, bytes(32), signature)))


@pytest.mark.parametrize(
    ("domain", "network", "holds"),
    [
        (ROUTER_DOMAIN, NETWORK, True),
        (BRIDGE_DOMAIN, NETWORK, False),  # the Bridge's own answer, reflected
        (ROUTER_DOMAIN, bytes(16), False),  # made for another network
    ],
)
async def test_a_signature_serves_for_one_purpose(
    domain: str, network: bytes, holds: bool, autojump_clock: MockClock
) -> None:
    near, far = socket_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_with, near, ROUTER, domain, network)
        if holds:
            assert (await challenge(far, BRIDGE, NETWORK, 10)).router == ROUTER.public
        else:
            with pytest.raises(SignallingError, match="does not hold"):
                await challenge(far, BRIDGE, NETWORK, 10)


async def test_a_signature_for_another_connection_is_refused(autojump_clock: MockClock) -> None:
    """Replay: the nonce is fresh each time."""
    near, far = socket_pair()
    recorded: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_with, near, ROUTER, ROUTER_DOMAIN, NETWORK)
        await far.send(encode(Hello(1, NETWORK, BRIDGE.public, bytes(32))))
        recorded.append(await far.receive())
    with pytest.RaisesGroup(pytest.RaisesExc(SignallingError, match="does not hold")):
        await prove(recorded[0])


async def hear(hello: Hello, *then: bytes) -> int:
    """What the Router makes of a Bridge that says that."""
    near, far = socket_pair()
    async with trio.open_nursery() as nursery:

        async def bridge() -> None:
            await far.send(encode(hello))
            for frame in then:
                await far.receive()
                await far.send(frame)

        nursery.start_soon(bridge)
        return await introduce(near, ROUTER, NETWORK, BRIDGE.public, 10)
    raise AssertionError


@pytest.mark.parametrize(
    ("hello", "then", "words"),
    [
        (Hello(2, NETWORK, BRIDGE.public, bytes(32)), (), "version 2 .* upgrade the older one"),
        (Hello(1, bytes(16), BRIDGE.public, bytes(32)), (), "another network"),
        (Hello(1, NETWORK, ROUTER.public, bytes(32)), (), "not the enrolled one"),
        (
            Hello(1, NETWORK, BRIDGE.public, bytes(32)),
            (encode(Welcome(bytes(64), 0)),),
            "signal-bridge: signature does not hold",
        ),
        (
            Hello(1, NETWORK, BRIDGE.public, bytes(32)),
            (encode(Hello(1, NETWORK, BRIDGE.public, bytes(32))),),
            "did not let this Router in",
        ),
    ],
)
async def test_a_bridge_that_proves_nothing_is_left(
    hello: Hello, then: tuple[bytes, ...], words: str, autojump_clock: MockClock
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(SignallingError, match=words)):
        await hear(hello, *then)


async def test_a_silent_end_is_given_up(autojump_clock: MockClock) -> None:
    near, far = socket_pair()
    with pytest.raises(SignallingError, match="silent for 10 s"):
        await introduce(near, ROUTER, NETWORK, BRIDGE.public, 10)
    with pytest.raises(SignallingError, match="Hello could not be written for 10 s"):
        await challenge(far, BRIDGE, NETWORK, 10)
