"""Streams for HTTP: what is sent arrives, in whatever pieces, and what breaks says so."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
import trio.testing
import trustme

from relay.byte_stream import WIRE_PIECE, Buffer, PlainStream, TLSStream

PATIENCE = 10.0
HOST = "store.example"

Stream = PlainStream | TLSStream
Pair = Callable[[], AbstractAsyncContextManager[tuple[Stream, Stream]]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def sockets() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Two ends of a TCP connection."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream(*listener.socket.getsockname())
        far = await listener.accept()
    async with near, far:
        yield near, far


def contexts(authority: trustme.CA, name: str = HOST) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return client, server


@pytest.fixture(params=["plain", "TLS 1.2", "TLS 1.3"])
def pair(request: pytest.FixtureRequest, authority: trustme.CA) -> Pair:
    @asynccontextmanager
    async def made() -> AsyncIterator[tuple[Stream, Stream]]:
        async with sockets() as (near, far):
            if request.param == "plain":
                yield PlainStream(near), PlainStream(far)
                return
            client, server = contexts(authority)
            if request.param == "TLS 1.2":
                client.maximum_version = ssl.TLSVersion.TLSv1_2
            secure_near = TLSStream(PlainStream(near), client, server_hostname=HOST)
            secure_far = TLSStream(PlainStream(far), server, server_side=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(secure_far.do_handshake)
                await secure_near.do_handshake()
            yield secure_near, secure_far

    return made


async def all_of(stream: Stream) -> bytes:
    data = bytearray()
    while piece := await stream.receive_some():
        data += piece
    return bytes(data)


async def filled(stream: Stream, size: int) -> bytes:
    data = bytearray(size)
    with memoryview(data) as view:
        received = 0
        while received < size:
            count = await stream.receive_into(view[received:])
            assert count, "the end came too soon"
            received += count
    return bytes(data)


async def greeted(stream: TLSStream) -> bytes:
    """The first word behind the handshake: in TLS 1.3 a client's alert comes there."""
    await stream.do_handshake()
    return bytes(await stream.receive_some())


async def test_parts_of_any_kind_and_size_arrive_as_one(pair: Pair) -> None:
    whole = bytes(range(256)) * 8192
    parts: list[Buffer] = [
        b"",
        memoryview(whole)[:1],
        bytearray(whole[1:100_000]),
        whole[100_000 : 3 * WIRE_PIECE],
        memoryview(whole)[3 * WIRE_PIECE :],
    ]
    with trio.fail_after(PATIENCE):
        async with pair() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(near.send_parts, parts)
            assert await filled(far, len(whole)) == whole
            nursery.start_soon(far.send_all, whole)
            assert await filled(near, len(whole)) == whole


async def test_a_lean_stream_sends_the_same(pair: Pair) -> None:
    whole = bytes(range(256)) * 500
    parts: list[Buffer] = [b"", whole[:1], memoryview(whole)[1:5000], bytearray(whole[5000:])]
    with trio.fail_after(PATIENCE):
        async with pair() as (near, far), trio.open_nursery() as nursery:
            if isinstance(near, TLSStream):
                near.lean = True
            for _ in range(3):
                nursery.start_soon(near.send_parts, parts)
                assert await filled(far, len(whole)) == whole
            nursery.start_soon(far.send_all, whole)
            assert await filled(near, len(whole)) == whole


async def test_a_lean_write_that_was_cancelled_beforehand_sends_nothing(pair: Pair) -> None:
    with trio.fail_after(PATIENCE):
        async with pair() as (near, far):
            if isinstance(near, TLSStream):
                near.lean = True
            with trio.CancelScope() as scope:
                scope.cancel()
                await near.send_all(b"never")
            assert scope.cancelled_caught
            await near.send_all(b"this")
            assert await filled(far, 4) == b"this"


async def test_no_more_is_received_than_there_is_room_for(pair: Pair) -> None:
    with trio.fail_after(PATIENCE):
        async with pair() as (near, far):
            await near.send_all(bytes(range(200)) * 100)
            received = b""
            while len(received) < 20_000:
                piece = await far.receive_some(77)
                assert 0 < len(piece) <= 77
                received += piece
            assert received == bytes(range(200)) * 100


async def test_the_end_is_no_error_and_stays(pair: Pair) -> None:
    with trio.fail_after(PATIENCE):
        async with pair() as (near, far):
            await far.send_all(b"x")  # nothing is to be left unread: closing would be a reset
            await filled(near, 1)
            await near.send_all(b"last words")
            await near.aclose()
            assert await all_of(far) == b"last words"
            assert await far.receive_some() == b""
            assert await far.receive_into(memoryview(bytearray(10))) == 0


async def test_what_is_closed_neither_sends_nor_receives(pair: Pair) -> None:
    with trio.fail_after(PATIENCE):
        async with pair() as (near, _):
            await near.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await near.send_all(b"x")
            with pytest.raises(trio.ClosedResourceError):
                await near.receive_some()


async def test_closing_wakes_who_receives(pair: Pair) -> None:
    with trio.fail_after(PATIENCE):
        async with pair() as (near, _), trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await near.receive_some()

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await near.aclose()


async def test_a_write_that_was_cancelled_half_way_is_the_last(pair: Pair) -> None:
    with trio.fail_after(PATIENCE):
        async with pair() as (near, far):
            with trio.move_on_after(0.1) as scope:
                await near.send_all(bytes(64 * 1024 * 1024))  # nobody reads
            assert scope.cancelled_caught
            with pytest.raises(trio.BrokenResourceError):
                await near.send_all(b"something else")
            assert far.quiet is False


async def test_what_the_peer_said_is_received_though_a_write_failed(pair: Pair) -> None:
    with trio.fail_after(PATIENCE):
        async with pair() as (near, far):
            await far.send_all(b"no more of it")
            with trio.move_on_after(0.1) as scope:
                await near.send_all(bytes(64 * 1024 * 1024))  # nobody reads
            assert scope.cancelled_caught
            assert await filled(near, 13) == b"no more of it"


async def test_a_write_that_is_cancelled_before_it_begins_tears_no_hole(
    authority: trustme.CA,
) -> None:
    client, server = contexts(authority)
    with trio.fail_after(PATIENCE):
        async with sockets() as (near, far):
            secure_near = TLSStream(PlainStream(near), client, server_hostname=HOST)
            secure_far = TLSStream(PlainStream(far), server, server_side=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(secure_far.do_handshake)
                await secure_near.do_handshake()
            with trio.CancelScope() as scope:
                scope.cancel()
                await secure_near.send_all(b"one")
            assert scope.cancelled_caught
            await secure_near.send_all(b"two")
            assert await filled(secure_far, 6) == b"onetwo"


async def test_what_has_come_is_acknowledged(pair: Pair) -> None:
    with trio.fail_after(PATIENCE):
        async with pair() as (near, _):
            with trio.move_on_after(0.1):
                await near.send_all(bytes(64 * 1024 * 1024))  # nobody reads
            assert near.unacknowledged > 0
        async with pair() as (near, far):
            await near.send_all(b"x")
            await filled(far, 1)
            while near.unacknowledged:
                await trio.sleep(0.001)


async def test_receiving_that_was_cancelled_loses_nothing(pair: Pair) -> None:
    with trio.fail_after(PATIENCE):
        async with pair() as (near, far):
            with trio.move_on_after(0.05):
                await far.receive_some()
            await near.send_all(b"all of it")
            assert await filled(far, 9) == b"all of it"


async def test_what_tls_says_for_itself_is_quiet(authority: trustme.CA) -> None:
    async with sockets() as (near, far):
        client, server = contexts(authority)
        secure_near = TLSStream(PlainStream(near), client, server_hostname=HOST)
        secure_far = TLSStream(PlainStream(far), server, server_side=True)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(secure_far.do_handshake)
                await secure_near.do_handshake()
            await trio.lowlevel.wait_readable(near.socket)  # session tickets
            assert secure_near.quiet
            assert secure_near.quiet
            await secure_far.send_all(b"unasked")
            await trio.lowlevel.wait_readable(near.socket)
            assert not secure_near.quiet


async def test_quiet_until_something_comes(pair: Pair) -> None:
    with trio.fail_after(PATIENCE):
        async with pair() as (near, far):
            assert far.quiet
            await near.aclose()
            while far.quiet:
                await trio.sleep(0.001)


@pytest.mark.parametrize("into", [True, False])
async def test_who_receives_all_the_time_leaves_others_their_turn(pair: Pair, into: bool) -> None:
    """Even where every piece is there already, and nothing is waited for."""
    pieces = 64
    with trio.fail_after(PATIENCE):
        async with pair() as (near, far), trio.open_nursery() as nursery:
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    await trio.lowlevel.checkpoint()
                    turns += 1

            await near.send_all(bytes(pieces * 1024))
            nursery.start_soon(count)
            for _ in range(pieces):
                if into:
                    await filled(far, 1024)
                else:
                    assert await far.receive_some(1024)
            assert turns >= pieces // 2
            nursery.cancel_scope.cancel()


async def test_a_certificate_for_another_name_is_refused_and_the_peer_is_told(
    authority: trustme.CA,
) -> None:
    client, server = contexts(authority, "other.example")
    with trio.fail_after(PATIENCE):
        async with sockets() as (near, far), trio.open_nursery() as nursery:

            async def refused() -> None:
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await greeted(secure_far)
                assert isinstance(caught.value.__cause__, ssl.SSLError)
                assert "ALERT" in (caught.value.__cause__.reason or "")

            secure_near = TLSStream(PlainStream(near), client, server_hostname=HOST)
            secure_far = TLSStream(PlainStream(far), server, server_side=True)
            nursery.start_soon(refused)
            with pytest.raises(trio.BrokenResourceError) as caught:
                await secure_near.do_handshake()
            assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
            with pytest.raises(trio.BrokenResourceError):
                await secure_near.send_all(b"secret")


async def test_what_is_no_tls_is_named(authority: trustme.CA) -> None:
    _, server = contexts(authority)
    with trio.fail_after(PATIENCE):
        async with sockets() as (near, far):
            await near.send_all(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError) as caught:
                await TLSStream(PlainStream(far), server, server_side=True).do_handshake()
            assert getattr(caught.value.__cause__, "reason", None) == "HTTP_REQUEST"


@pytest.mark.parametrize("position", [0, 100])
async def test_a_changed_record_is_an_error_and_nothing_of_it_is_given(
    authority: trustme.CA, position: int
) -> None:
    client, server = contexts(authority)
    with trio.fail_after(PATIENCE):
        async with sockets() as (near, far):
            secure_near = TLSStream(PlainStream(near), client, server_hostname=HOST)
            secure_far = TLSStream(PlainStream(far), server, server_side=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(secure_far.do_handshake)
                await secure_near.do_handshake()
            forged = bytearray(b"\x17\x03\x03\x01\x00" + bytes(256))
            forged[5 + position] ^= 1
            await near.send_all(forged)
            with pytest.raises(trio.BrokenResourceError):
                await secure_far.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await secure_far.receive_some()
