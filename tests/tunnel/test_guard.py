"""Which addresses may be spoken to, and that no other is."""

import ipaddress

import pytest
import trio

from relay.errors import ProviderError
from relay.tunnel.connections import NoAnswer
from relay.tunnel.guard import Guard, is_public, literal
from tests.tunnel.fakes import Names

PATIENCE = 10.0


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("100.64.0.1", False),
        ("169.254.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff0e::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
        ("fec0::1", False),
        ("::7f00:1", False),
        ("64:ff9b:1::7f00:1", False),
        ("5f00::1", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("127.1", ["127.0.0.1"]),
        ("0x7f.1", ["127.0.0.1"]),
        ("2130706433", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("localhost", []),
        ("store.example", []),
    ],
)
def test_addresses_are_seen_in_any_notation(host: str, addresses: list[str]) -> None:
    assert list(map(str, literal(host))) == addresses


async def test_one_inner_address_is_enough_to_refuse() -> None:
    guard = Guard(frozenset(), is_public)
    for inside in (["127.0.0.1"], ["8.8.8.8", "10.0.0.1"]):
        trio.socket.set_custom_hostname_resolver(Names(inside))
        with pytest.raises(ProviderError, match="not public") as caught:
            await guard.connect("store.example", 443, PATIENCE)
        assert caught.value.permanent


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]
    with listener:
        guard = Guard(frozenset(), lambda address: True)
        trio.socket.set_custom_hostname_resolver(Names(["::1", "127.0.0.2", "127.0.0.1"], ["::1"]))
        stream = await guard.connect("store.example", port, PATIENCE)
        assert stream.socket.getpeername() == ("127.0.0.1", port)
        await stream.aclose()
        with pytest.raises(NoAnswer, match="ConnectError"):
            await guard.connect("store.example", port, PATIENCE)


async def test_an_allowed_origin_may_be_anywhere() -> None:
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]
    with listener:
        guard = Guard(frozenset({("127.0.0.1", port)}), is_public)
        stream = await guard.connect("127.0.0.1", port, PATIENCE)
        await stream.aclose()
        with pytest.raises(ProviderError):
            await guard.connect("localhost", port, PATIENCE)
