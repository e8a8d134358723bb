"""Reads from a peer: what has come already is taken at once, without a turn of the event loop.

trio's own reads take such a turn each time. An object of half a megabyte comes in five pieces, of
which four are there when they are asked for: at four senders the turns, and a deadline set for each
piece, took a tenth of what the Router does until an object is in custody.
"""

import os

import trio

from relay import transport

# One read from the socket: a whole PDU of ours where the kernel has one, so that its fragments
# need not be put together from pieces.
READ_SIZE = 256 * 1024

# What is taken without a wait between two turns of the event loop: bytes, and pieces where they are
# small. A peer that is always faster than we are must not have the loop for itself.
FAIR_SIZE = READ_SIZE
FAIR_PIECES = 8


class Reader:
    """What comes over `stream`: TCP, TLS, or a Unix socket."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._acknowledge = transport.acknowledger(stream)
        self._bytes = self._pieces = 0  # taken since the last turn of the event loop

    async def take(self) -> bytes | None:
        """What has come, up to READ_SIZE; none at the end of the stream, None where nothing has.

        Raises trio.ClosedResourceError, trio.BrokenResourceError; cancelled, nothing was taken.
        """
        if self._socket is None:
            return None
        if self._bytes >= FAIR_SIZE or self._pieces >= FAIR_PIECES:
            self._bytes = self._pieces = 0
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        data = self._read(self._socket)
        if data is not None:
            self._bytes += len(data)
            self._pieces += 1
        return data

    async def wait(self) -> bytes:
        """As `take`, once something has come."""
        self._bytes = self._pieces = 0
        if self._socket is None:
            return bytes(await self._stream.receive_some(READ_SIZE))
        while True:
            _descriptor(self._socket)
            await trio.lowlevel.wait_readable(self._socket)
            if (data := self._read(self._socket)) is not None:
                return data

    def _read(self, connection: trio.socket.SocketType) -> bytes | None:
        try:
            data = os.read(_descriptor(connection), READ_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise trio.BrokenResourceError(f"connection lost: {error.strerror}") from error
        if 0 < len(data) < READ_SIZE:  # all that there was
            self._acknowledge()
        return data


def _descriptor(connection: trio.socket.SocketType) -> int:
    descriptor = connection.fileno()
    if descriptor < 0:
        raise trio.ClosedResourceError("connection is closed")
    return descriptor
