"""What really passed over a device's socket: a plain TCP proxy that records, and a small reader.

The reader is written from PS3.8 §9.3 alone and shares no code with relay/, so that it can judge it.
"""

import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import attrs
import trio

from tests.interop.peers import LOOPBACK, Address

PIECE = 256 * 1024


@attrs.define(slots=True, eq=False)
class Tapped:
    """One association: the bytes from its requestor, and those from its acceptor."""

    requested: bytearray = attrs.field(factory=bytearray)
    answered: bytearray = attrs.field(factory=bytearray)


@attrs.define(slots=True)
class Tap:
    """Where to call instead of the device itself, and what has passed."""

    address: Address
    associations: list[Tapped] = attrs.field(factory=list)

    def data_sets_requested(self) -> list[bytes]:
        """All data sets that requestors sent, in order."""
        return [
            message.data_set
            for tapped in self.associations
            for message in messages(bytes(tapped.requested))
            if message.data_set is not None
        ]

    def data_sets_answered(self) -> list[bytes]:
        """All data sets that acceptors sent, in order."""
        return [
            message.data_set
            for tapped in self.associations
            for message in messages(bytes(tapped.answered))
            if message.data_set is not None
        ]


@attrs.frozen(slots=True)
class Message:
    """A DIMSE message as it lay on the wire."""

    context_id: int
    command: bytes
    data_set: bytes | None

    @property
    def field(self) -> int | None:
        """Command Field (0000,0100)."""
        return self.number(0x0100)

    @property
    def status(self) -> int | None:
        """Status (0000,0900), if the command set has one."""
        return self.number(0x0900)

    def number(self, element: int) -> int | None:
        """The US value of (0000,element), if the command set has one."""
        value = self.value(element)
        return None if value is None else int.from_bytes(value, "little")

    def text(self, element: int) -> str | None:
        """The text of (0000,element) without padding, if the command set has one."""
        value = self.value(element)
        return None if value is None else value.decode("ascii").strip(" \0")

    def value(self, element: int) -> bytes | None:
        """The value of (0000,element): Implicit VR Little Endian (PS3.7 §6.3.1)."""
        at = 0
        while at + 8 <= len(self.command):
            group, number, length = struct.unpack_from("<HHI", self.command, at)
            if (group, number) == (0, element):
                return self.command[at + 8 : at + 8 + length]
            at += 8 + length
        return None


def pdus(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each whole PDU (PS3.8 §9.3.1)."""
    at = 0
    while at + 6 <= len(stream):
        kind, length = struct.unpack_from(">BxI", stream, at)
        yield kind, stream[at + 6 : at + 6 + length]
        at += 6 + length


def messages(stream: bytes) -> Iterator[Message]:
    """The DIMSE messages of one direction (PS3.8 §9.3.5 and Annex E)."""
    command, data_set = bytearray(), bytearray()
    for kind, body in pdus(stream):
        at = 0
        while kind == 4 and at < len(body):
            length, context_id, control = struct.unpack_from(">IBB", body, at)
            fragment = body[at + 6 : at + 4 + length]
            at += 4 + length
            (command if control & 1 else data_set).extend(fragment)
            if control == 3 and _data_set_type(command) == 0x0101:
                yield Message(context_id, bytes(command), None)
                command, data_set = bytearray(), bytearray()
            elif control == 2:
                yield Message(context_id, bytes(command), bytes(data_set))
                command, data_set = bytearray(), bytearray()


def _data_set_type(command: bytes) -> int:
    """Command Data Set Type (0000,0800); 0101H says that no data set follows (PS3.7 §9.3)."""
    at = command.index(b"\x00\x00\x00\x08\x02\x00\x00\x00")
    return int.from_bytes(command[at + 8 : at + 10], "little")


@asynccontextmanager
async def tap(target: Address) -> AsyncIterator[Tap]:
    """Record everything that passes to and from `target`."""
    listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
    port = listeners[0].socket.getsockname()[1]
    tapped = Tap(Address(port, target.ae_title))

    async def serve(near: trio.SocketStream) -> None:
        near.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        association = Tapped()
        tapped.associations.append(association)
        far = await trio.open_tcp_stream(target.host, target.port)

        async def copy(
            source: trio.SocketStream, record: bytearray, sink: trio.SocketStream
        ) -> None:
            try:
                while data := await source.receive_some(PIECE):
                    record += data
                    await sink.send_all(data)
                await sink.send_eof()
            except trio.BrokenResourceError:
                nursery.cancel_scope.cancel()

        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(copy, near, association.requested, far)
            nursery.start_soon(copy, far, association.answered, near)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield tapped
        nursery.cancel_scope.cancel()
