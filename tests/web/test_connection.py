"""One connection: what broken and hostile programs send ends it, and nothing else."""

import os
import struct

import pytest
import trio

from relay.web import connection as connection_module
from relay.web.connection import BODY_PIECE, LOOK, LOOKS, Timeouts

from .conftest import FRAME, PATIENCE, SHORT, UPGRADE, both, causes, read_all, read_until

CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(194)
# The head of an A-ASSOCIATE-RQ (PS3.8 Table 9-11).
ASSOCIATE_RQ = b"\x01\x00\x00\x00\x00\xcd\x00\x01\x00\x00" + b"PACS".ljust(16) + b"CT".ljust(16)


@both
async def test_upgrade_with_a_frame_behind_it_in_one_packet(running, tls: bool) -> None:
    """The packet that kills a whole Hypercorn 0.18 process."""
    async with running(tls=tls) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(UPGRADE + FRAME)
            answer = await read_until(stream, b"\x82\x01A")
            assert answer.startswith(b"HTTP/1.1 101")
            await stream.aclose()
            assert await server.is_well()
            await server.seen.socket_closed.wait()
        assert server.seen.messages == [b"A"]


@both
async def test_many_frames_behind_an_upgrade_are_taken_in_their_turn(running, tls: bool) -> None:
    """They wait in the kernel for as long as the app does."""
    count = 20_000
    async with running(tls=tls) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, UPGRADE + FRAME * count)
                answer = await read_until(stream, b"\r\n\r\n")
                echoes = answer.partition(b"\r\n\r\n")[2]
                while len(echoes) < 3 * count:
                    echoes += await stream.receive_some(65536)
            assert echoes == b"\x82\x01A" * count
            await stream.aclose()
        assert await server.is_well()


@both
async def test_upgrade_with_a_frame_behind_it_where_no_websocket_is(running, tls: bool) -> None:
    async with running(tls=tls) as server:
        answer = await server.says(UPGRADE.replace(b"/echo", b"/hello") + FRAME * 100)
        assert answer.split(b"\r\n")[0] in (b"HTTP/1.1 403 Forbidden", b"HTTP/1.1 404 Not Found")
        assert await server.is_well()


@pytest.mark.parametrize(
    "head",
    [
        b"1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        b"1.0\r\nTransfer-Encoding: chunked",
    ],
    ids=["both", "1.0"],
)
async def test_a_request_with_two_ends_is_refused_and_the_connection_closed(
    running, head: bytes
) -> None:
    """What is behind the one may be somebody else's request (RFC 9112 §6.1)."""
    async with running() as server:
        behind = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
        answer = await server.says(b"POST /hello HTTP/" + head + b"\r\n\r\n0\r\n\r\n" + behind)
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert await server.is_well()


@both
@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 4096,
        b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        os.urandom(64) + b"\r\n\r\n",
    ],
    ids=["version", "zeros", "escape", "negative", "twice", "space", "http2", "noise"],
)
async def test_garbage(running, tls: bool, garbage: bytes) -> None:
    async with running(tls=tls, timeouts=SHORT) as server:
        answer = await server.says(garbage)
        assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 405", b"HTTP/1.1 505")
        assert await server.is_well()


async def test_upgrade_to_http2_is_ignored(running) -> None:
    async with running() as server:
        answer = await server.says(
            b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 200")


async def test_oversize_header(running) -> None:
    async with running() as server:
        answer = await server.says(b"GET /hello HTTP/1.1\r\nX: " + b"a" * 200_000)
        assert answer.startswith(b"HTTP/1.1 431")
        assert await server.is_well()


async def test_tls_hello_on_the_plain_port(running, logs) -> None:
    async with running() as server:
        await server.says(CLIENT_HELLO)
        assert "TLS on a plain port" in causes(logs)
        assert await server.is_well()


async def test_plain_http_on_the_tls_port(running, logs) -> None:
    async with running(tls=True) as server:
        await server.says(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", tls=False)
        assert "plain HTTP on the TLS port" in causes(logs)
        assert await server.is_well()


@both
async def test_dicom_on_the_http_port(running, logs, tls: bool) -> None:
    async with running(tls=tls) as server:
        await server.says(ASSOCIATE_RQ, tls=False)
        expected = "not TLS on the TLS port" if tls else "DICOM on the HTTP port"
        assert expected in causes(logs)
        assert await server.is_well()


async def test_dripping_header_ends_at_the_deadline(running) -> None:
    async with running(timeouts=SHORT) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            dripped = 0

            async def drip() -> None:
                nonlocal dripped
                for octet in b"GET /hello HTTP/1.1\r\nHost: " + b"x" * 1000:
                    try:
                        await stream.send_all(bytes([octet]))
                    except trio.BrokenResourceError:
                        return
                    dripped += 1
                    await trio.sleep(0.02)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(drip)
                assert await read_all(stream) == b""
                nursery.cancel_scope.cancel()
        assert dripped < 100
        assert await server.is_well()


async def test_idle_connection_ends_at_the_deadline(running) -> None:
    async with running(timeouts=Timeouts(idle=0.2)) as server:
        answer = await server.says(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.endswith(b"hello")


async def test_body_that_stops_ends_at_the_deadline(running) -> None:
    async with running(timeouts=SHORT) as server:
        await server.says(b"PUT /count HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        assert server.seen.disconnected.is_set()
        assert await server.is_well()


async def test_silent_websocket_is_closed(running) -> None:
    async with running(timeouts=SHORT) as server:
        await server.says(UPGRADE)
        await server.seen.socket_closed.wait()
        assert await server.is_well()


async def test_a_quiet_websocket_is_asked_and_stays(running, monkeypatch) -> None:
    monkeypatch.setattr(connection_module, "PING_AFTER", 0.2)
    async with running(timeouts=Timeouts(read=3.0)) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(UPGRADE)
            await read_until(stream, b"\r\n\r\n")
            for _ in range(2):
                await read_until(stream, b"\x89\x00")  # a ping
                await stream.send_all(b"\x8a\x80\x00\x00\x00\x00")  # its pong
            await stream.send_all(FRAME)
            await read_until(stream, b"\x82\x01A")
            await stream.aclose()
        assert server.seen.messages == [b"A"]


async def test_a_websocket_that_answers_no_ping_is_closed(running, logs, monkeypatch) -> None:
    monkeypatch.setattr(connection_module, "PING_AFTER", 0.2)
    async with running(timeouts=Timeouts(read=0.6)) as server:
        assert (await server.says(UPGRADE)).endswith(b"\x89\x00")
        await server.seen.socket_closed.wait()
        assert "silent for too long" in causes(logs)


def test_who_takes_too_long_is_looked_for_often_enough() -> None:
    assert Timeouts().look == LOOK
    assert SHORT.look == pytest.approx(0.3 / LOOKS)


@pytest.mark.parametrize("key", [b"", b"AAAA", b"AAAAAAAAAAAAAAAAAAAAAA=", b"A" * 22 + b"!!"])
async def test_an_upgrade_without_a_right_key_is_refused(running, key: bytes) -> None:
    async with running() as server:
        answer = await server.says(UPGRADE.replace(b"A" * 22 + b"==", key))
        assert answer.startswith(b"HTTP/1.1 400")
        version = UPGRADE.replace(b"Version: 13", b"Version: 8")
        assert (await server.says(version)).startswith(b"HTTP/1.1 400")


async def test_peer_that_does_not_read_is_closed(running) -> None:
    async with running(timeouts=SHORT) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
            await trio.sleep(1)  # past the write deadline, reading nothing
            assert len(await read_all(stream)) < 64 * 1024 * 1024
        assert await server.is_well()


async def test_frozen_handshake_ends_at_the_deadline(running, logs) -> None:
    async with running(tls=True, timeouts=Timeouts(handshake=0.2)) as server:
        assert await server.says(CLIENT_HELLO[:40], tls=False) == b""
        assert "TLS handshake not finished in time" in causes(logs)
        assert await server.is_well()


@both
async def test_large_upload_streams_in_bounded_pieces(running, tls: bool) -> None:
    size = 32 * 1024 * 1024
    async with running(tls=tls) as server:
        with trio.fail_after(60):
            stream = await server.connect()
            await stream.send_all(
                b"PUT /count HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n" % size
            )
            for _ in range(size // 262144):
                await stream.send_all(bytes(262144))
            answer = await read_all(stream)
        assert answer.endswith(b'{"bytes":%d}' % size)
        assert 0 < server.seen.largest_piece <= BODY_PIECE


async def test_client_that_leaves_in_an_upload(running) -> None:
    async with running() as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(b"PUT /count HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nab")
            await stream.aclose()
            await server.seen.disconnected.wait()
        assert await server.is_well()


async def test_early_refusal_reaches_a_peer_that_still_sends(running) -> None:
    async with running() as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(
                b"PUT /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\n"
            )
            for _ in range(16):
                await stream.send_all(bytes(65536))
            assert (await read_until(stream, b"too large")).startswith(b"HTTP/1.1 413")
        assert await server.is_well()


async def test_message_over_the_limit_closes_its_socket(running) -> None:
    async with running(maximum_message=1000) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(UPGRADE)
            await read_until(stream, b"\r\n\r\n")
            await stream.send_all(b"\x82\xfe" + struct.pack(">H", 2000) + bytes(4) + bytes(2000))
            await read_until(stream, b"\x88\x02\x03\xf1")  # a close frame: 1009, too big
            await stream.aclose()
        assert server.seen.messages == []
        assert await server.is_well()


async def test_compression_is_not_taken(running) -> None:
    async with running() as server:
        stream = await server.connect()
        await stream.send_all(
            UPGRADE[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        )
        answer = await read_until(stream, b"\r\n\r\n")
        assert b"permessage-deflate" not in answer
        await stream.aclose()
