"""WebSockets at either end: messages, pings, goodbyes, and what is no frame."""

from collections.abc import Sequence
from functools import partial

import pytest
import trio
import trio.testing
from wsproto.connection import Connection as Framing
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from relay.websocket import Buffer, Closed, WebSocket, server_framing

MAXIMUM = 100_000
PATIENCE = 5.0


class Line:
    """One direction of a connection."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](1000)
        self.broken = False

    async def push(self, parts: Sequence[Buffer]) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise ConnectionResetError("gone")
        self._send.send_nowait(b"".join(parts))

    async def receive(self) -> bytes:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return b""

    def end(self) -> None:
        self._send.close()


def pair() -> tuple[WebSocket, WebSocket]:
    """A client's and a server's end."""
    out, back = Line(), Line()
    client = WebSocket(back.receive, out.push, Framing(ConnectionType.CLIENT), MAXIMUM)
    return client, WebSocket(out.receive, back.push, server_framing(), MAXIMUM)


class Peer:
    """A client by wsproto alone, before a server's end of ours."""

    def __init__(self) -> None:
        self.framing = Framing(ConnectionType.CLIENT)
        self.out, self.back = Line(), Line()
        self.websocket = WebSocket(self.out.receive, self.back.push, server_framing(), MAXIMUM)

    async def says(self, *events: object) -> None:
        await self.out.push([self.framing.send(event) for event in events])  # type: ignore[arg-type]

    async def hears(self) -> list[object]:
        self.framing.receive_data(await self.back.receive())
        return list(self.framing.events())


@pytest.mark.parametrize("size", [1, 125, 126, 4096, 4097, 65535, 65536, MAXIMUM])
async def test_messages_of_any_size_both_ways(size: int) -> None:
    client, server = pair()
    for one, other in ((client, server), (server, client)):
        message = bytes(range(251)) * (size // 251 + 1)
        await one.send(message[:size])
        assert await other.receive() == message[:size]
        await one.send_text("ä" * 10)
        assert await other.receive() == "ä" * 10


async def test_messages_in_parts_and_several_at_once() -> None:
    peer = Peer()
    await peer.says(
        BytesMessage(data=b"a", message_finished=False),
        Ping(payload=b"between"),
        BytesMessage(data=b"b", message_finished=True),
        TextMessage(data="c"),
        BytesMessage(data=b""),
    )
    assert await peer.websocket.receive() == b"ab"
    assert await peer.websocket.receive() == "c"
    assert await peer.websocket.receive() == b""
    assert await peer.hears() == [Pong(payload=b"between")]


async def test_of_many_pings_at_once_the_newest_is_answered() -> None:
    peer = Peer()
    many = [Ping(payload=b"%d" % number) for number in range(1000)]
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await peer.says(*many)
            nursery.start_soon(peer.websocket.receive)
            assert await peer.hears() == [Pong(payload=b"999")]
            await peer.says(BytesMessage(data=b"a"))
        # Before a message is handed on: what is done with it may take its time.
        await peer.says(*many[:5], BytesMessage(data=b"b"), *many[5:9], BytesMessage(data=b"c"))
        assert await peer.websocket.receive() == b"b"
        assert await peer.hears() == [Pong(payload=b"4")]
        assert await peer.websocket.receive() == b"c"
        assert await peer.hears() == [Pong(payload=b"8")]


async def test_what_came_behind_the_upgrade_is_heard() -> None:
    early = Framing(ConnectionType.CLIENT).send(BytesMessage(data=b"early"))
    line = Line()
    assert await WebSocket(line.receive, line.push, server_framing(early), 9).receive() == b"early"


async def test_a_message_that_is_too_long_closes() -> None:
    peer = Peer()
    await peer.says(
        BytesMessage(data=bytes(MAXIMUM), message_finished=False), BytesMessage(data=b"x")
    )
    assert await peer.websocket.receive() is None
    assert [event.code for event in await peer.hears()] == [1009]  # type: ignore[attr-defined]
    with pytest.raises(Closed):
        await peer.websocket.send(b"late")


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (b"\x82\x01A", 1002),  # not masked
        (b"\xf2\x81\x00\x00\x00\x00A", 1002),  # bits that nobody agreed on
        (b"\x83\x81\x00\x00\x00\x00A", 1002),  # no opcode
        (b"\x80\x81\x00\x00\x00\x00A", 1002),  # goes on with nothing
        (b"\x81\x81\x00\x00\x00\x00\xff", 1007),  # no text
    ],
)
async def test_what_is_no_frame_closes(wrong: bytes, code: int) -> None:
    peer = Peer()
    await peer.out.push([wrong])
    with trio.fail_after(PATIENCE):
        assert await peer.websocket.receive() is None
        assert [event.code for event in await peer.hears()] == [code]  # type: ignore[attr-defined]
    assert peer.websocket.code == code


async def test_a_goodbye_is_answered() -> None:
    peer = Peer()
    await peer.says(CloseConnection(code=1001))
    assert await peer.websocket.receive() is None
    assert await peer.websocket.receive() is None
    assert peer.websocket.code == 1001
    assert [event.code for event in await peer.hears()] == [1001]  # type: ignore[attr-defined]
    with pytest.raises(Closed):
        await peer.websocket.send(b"late")
    await peer.websocket.close()


async def test_a_goodbye_of_ours_is_heard_once() -> None:
    peer = Peer()
    await peer.websocket.close(1012)
    await peer.websocket.close(1000)
    heard = await peer.hears()
    assert [event.code for event in heard] == [1012]  # type: ignore[attr-defined]
    await peer.says(heard[0].response())  # type: ignore[attr-defined]
    assert await peer.websocket.receive() is None
    for late in (peer.websocket.send(b"x"), peer.websocket.send_text("x"), peer.websocket.ping()):
        with pytest.raises(Closed):
            await late


async def test_a_connection_that_ends_without_a_goodbye() -> None:
    peer = Peer()
    peer.out.end()
    assert await peer.websocket.receive() is None
    assert peer.websocket.code == 1006
    with pytest.raises(Closed):
        await peer.websocket.send(b"x")


async def test_a_connection_that_breaks() -> None:
    peer = Peer()
    peer.back.broken = True
    with pytest.raises(Closed, match="gone"):
        await peer.websocket.send(b"x")
    # A ping that cannot be answered is no error of who receives.
    await peer.says(Ping(), BytesMessage(data=b"last"))
    assert await peer.websocket.receive() == b"last"


async def test_a_ping_is_answered() -> None:
    client, server = pair()
    await server.ping()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.receive)
        await server.send(b"behind")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(client.send, b"answer"))
        assert await server.receive() == b"answer"


async def test_frames_do_not_mix() -> None:
    """A frame is written whole, and a second one behind it."""
    pieces: list[bytes] = []

    async def slow(parts: Sequence[Buffer]) -> None:
        for part in parts:
            await trio.testing.wait_all_tasks_blocked()
            pieces.append(bytes(part))

    line = Line()
    websocket = WebSocket(line.receive, slow, server_framing(), MAXIMUM)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(websocket.send, b"a" * 5000)
        nursery.start_soon(websocket.send, b"b" * 5000)
    first = pieces[1][:1]
    assert [piece[:1] for piece in pieces] == [
        b"\x82",
        first,
        b"\x82",
        b"b" if first == b"a" else b"a",
    ]
