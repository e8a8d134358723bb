"""TCP for HTTP, plain or under TLS, in pieces as large as there are.

`trio.SSLStream` turns the event loop for each TLS record of 16 KiB; here all that has come is read
at once, and decrypted into the buffer where it is to lie. 1 MiB so costs 1.3 ms of processor time,
both ends together, and not 2.0.

Both streams are `trio.abc.Stream`s: one task may receive while another sends. A write that was
cancelled or failed half-way is the last; what the peer has said may still be received.
"""

import fcntl
import os
import select
import socket
import ssl
import sys
import termios
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import trio

Buffer = bytes | bytearray | memoryview

# What is read from the kernel, and handed to it, at once. Larger gains nothing more.
WIRE_PIECE: Final = 256 * 1024
# What is encrypted before it is handed to the kernel: each connection keeps buffers of that size.
SEALED_PIECE: Final = 64 * 1024
# The plaintext of one TLS record at most (RFC 8446 §5.1).
RECORD: Final = 16 * 1024
# The same for a connection that is to take little memory.
LEAN_PIECE: Final = 4 * 1024
# What is received without having waited costs a turn of the event loop, unless it is more than
# this: one read holds thousands of small messages, and who takes them must not have the loop alone
# meanwhile. Of larger pieces a read holds three at most. A turn for each 64 KiB would take 0.4 ms
# for 1 MiB, of 1.5.
SMALL_PIECE: Final = 64 * 1024
# How much that was not sent yet the kernel takes from us. With trio's 16 KiB the line idles when
# the process looks elsewhere for the 0.1 ms in which 1 Gbit/s sends that. Much more, and a deadline
# for a write says nothing of the line.
UNSENT: Final = 128 * 1024


class PlainStream(trio.abc.Stream):
    """A TCP or Unix connection as it is."""

    def __init__(self, transport: trio.SocketStream) -> None:
        self.socket = transport.socket
        self._transport = transport
        self._broken = False
        if self.socket.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)

    async def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes and put them into `buffer`; how many, 0 at the end of the stream."""
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while True:
            try:
                received = os.readv(self._descriptor(), [buffer])
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.socket)
                waited = True
                continue
            except OSError as error:
                raise _lost(error) from error
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return received

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes, at most this many; none at the end of the stream."""
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while True:
            try:
                received = os.read(self._descriptor(), max_bytes or WIRE_PIECE)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.socket)
                waited = True
                continue
            except OSError as error:
                raise _lost(error) from error
            if not waited:  # a peer that is always faster than we must not have the loop alone
                await trio.lowlevel.cancel_shielded_checkpoint()
            return received

    async def send_all(self, data: Buffer) -> None:
        """Send this."""
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        sent = 0
        with memoryview(data).cast("B") as view:
            try:
                while sent < len(view):
                    try:
                        sent += os.write(self._writable(), view[sent:])
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(self.socket)
                        waited = True
                    except OSError as error:
                        raise _lost(error) from error
            finally:
                self._broken = self._broken or sent < len(view)
        if not waited and sent > RECORD:  # what is less was waited for, and will be again
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def send_parts(self, parts: Iterable[Buffer]) -> None:
        """Send these one behind the other."""
        for part in parts:
            await self.send_all(part)

    async def wait_send_all_might_not_block(self) -> None:
        """Return when some of what is sent would be taken at once."""
        await self._transport.wait_send_all_might_not_block()

    @property
    def unacknowledged(self) -> int:
        """Bytes sent of which the other end's kernel has not said yet that they came."""
        try:
            answer = fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):  # closed: whoever receives will see it
            return 0
        return int.from_bytes(answer, sys.byteorder)

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to receive, not even the end."""
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    async def aclose(self) -> None:
        """Close at once: HTTP says where a message ends, so that TLS need not (RFC 9112 §9.8)."""
        await self._transport.aclose()

    def receive_now(self) -> bytes:
        """What has come, if that is known to be something; none at the end of the stream."""
        try:
            return os.read(self._descriptor(), WIRE_PIECE)
        except OSError as error:
            raise _lost(error) from error

    def send_now(self, data: Buffer) -> None:
        """Send what goes without waiting; the rest, and any failure, is nobody's concern."""
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            os.write(self._writable(), data)

    def _descriptor(self) -> int:
        descriptor = self.socket.fileno()
        if descriptor < 0:
            raise trio.ClosedResourceError("connection is closed")
        return descriptor

    def _writable(self) -> int:
        descriptor = self._descriptor()
        if self._broken:
            raise trio.BrokenResourceError("connection was left half-way")
        return descriptor


class TLSStream(trio.abc.Stream):
    """TLS over a `PlainStream`. `do_handshake` comes first."""

    def __init__(
        self,
        wire: PlainStream,
        context: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        server_side: bool = False,
    ) -> None:
        self._wire = wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self._sending = trio.Lock()
        self._broken = False
        # Set for a connection that stays, and is one of thousands.
        self.lean = False

    async def do_handshake(self) -> None:
        """Make the connection's keys; both ends call it.

        Raises trio.BrokenResourceError, from the ssl.SSLError that says why.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                raise self._failed(error) from error
            else:
                await self._flush()
                return

    async def receive_into(self, buffer: memoryview) -> int:
        """Wait for plaintext and put what there is into `buffer`; 0 at the end of the stream."""
        filled = False
        while True:
            received = self._decrypt(buffer)
            if self._outgoing.pending:  # an answer to a key update, or an alert
                await self._flush()
            if received is not None:
                if not filled and received <= SMALL_PIECE:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                return received
            await self._fill()
            filled = True

    async def receive_some(self, max_bytes: int | None = None) -> bytearray:
        """Wait for plaintext, at most this many bytes; none at the end of the stream.

        Nothing is allocated before it is there: thousands of streams may wait.
        """
        filled = False
        while True:
            size = min(max_bytes or WIRE_PIECE, self._incoming.pending + self._tls.pending())
            if size or self._incoming.eof:
                buffer = bytearray(size)
                with memoryview(buffer) as view:
                    received = self._decrypt(view)
                if self._outgoing.pending:
                    await self._flush()
                if received is not None:
                    if not filled and received <= SMALL_PIECE:
                        await trio.lowlevel.cancel_shielded_checkpoint()
                    del buffer[received:]
                    return buffer
            await self._fill()
            filled = True

    async def send_all(self, data: Buffer) -> None:
        """Send this."""
        await self.send_parts((data,))

    async def send_parts(self, parts: Iterable[Buffer]) -> None:
        """Send these one behind the other, in few writes."""
        if self.lean:
            await self._send_lean(parts)
            return
        waiting = 0
        for part in parts:
            with memoryview(part).cast("B") as view:
                for at in range(0, len(view), SEALED_PIECE):
                    piece = view[at : at + SEALED_PIECE]
                    self._encrypt(piece)
                    waiting += len(piece)
                    if waiting >= SEALED_PIECE:
                        await self._flush()
                        waiting = 0
        await self._flush()

    async def _send_lean(self, parts: Iterable[Buffer]) -> None:
        """The same, encrypted little by little: OpenSSL's buffer keeps what it has grown to."""
        await self._acquire()
        try:
            # What is encrypted below is lost to a cancel before it is sent.
            await trio.lowlevel.checkpoint_if_cancelled()
            sealed = self._outgoing.read()
            for part in parts:
                with memoryview(part).cast("B") as view:
                    for at in range(0, len(view), LEAN_PIECE):
                        self._encrypt(view[at : at + LEAN_PIECE])
                        sealed += self._outgoing.read()
                        if len(sealed) >= RECORD:
                            await self._wire.send_all(sealed)
                            await trio.lowlevel.checkpoint_if_cancelled()
                            sealed = b""
            if sealed:
                await self._wire.send_all(sealed)
        finally:
            self._sending.release()

    async def wait_send_all_might_not_block(self) -> None:
        """Return when some of what is sent would be taken at once."""
        await self._wire.wait_send_all_might_not_block()

    @property
    def unacknowledged(self) -> int:
        """Bytes sent of which the other end's kernel has not said yet that they came."""
        return self._wire.unacknowledged

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to receive, not even the end.

        What TLS says for itself is none of it, and is taken in: servers give session tickets right
        behind the handshake (RFC 8446 §4.6.1), when nobody may be receiving. What is not quiet is
        of no use any more.
        """
        try:
            if not self._wire.quiet:
                come = self._wire.receive_now()
                if not come:
                    return False
                self._incoming.write(come)
            self._tls.read(1)
        except ssl.SSLWantReadError:
            return not self._incoming.pending
        except (ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return False

    async def aclose(self) -> None:
        """Close at once: HTTP says where a message ends, so that TLS need not (RFC 9112 §9.8)."""
        await self._wire.aclose()

    def _decrypt(self, buffer: memoryview) -> int | None:
        """Plaintext of what has come; None where that is not a whole record."""
        self._check()
        received = 0
        try:
            while received < len(buffer):
                count: Any = self._tls.read(len(buffer) - received, buffer[received:])
                received += count
                # Asking once more would only raise: a quarter of the time of a small message.
                if not (count and self._incoming.pending):
                    break
        except ssl.SSLWantReadError:
            return received or None
        except ssl.SSLZeroReturnError:
            return received
        except ssl.SSLError as error:
            # A connection that only ends, without TLS's own goodbye: RFC 9112 §9.8.
            if isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING":
                return received
            raise self._failed(error) from error
        return received

    def _encrypt(self, piece: memoryview) -> None:
        self._check()
        try:
            self._tls.write(piece)
        except ssl.SSLError as error:
            raise self._failed(error) from error

    async def _fill(self) -> None:
        self._check()
        data = await self._wire.receive_some(WIRE_PIECE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        """Send what TLS has written, in the order in which it did."""
        await self._acquire()
        try:
            while self._outgoing.pending:
                # What is read below is lost to a cancel before it is sent.
                await trio.lowlevel.checkpoint_if_cancelled()
                await self._wire.send_all(self._outgoing.read())
        finally:
            self._sending.release()

    async def _acquire(self) -> None:
        try:
            self._sending.acquire_nowait()  # without a turn of the event loop, which acquire takes
        except trio.WouldBlock:
            await self._sending.acquire()

    def _check(self) -> None:
        if self._broken:
            raise trio.BrokenResourceError("TLS has failed on this connection")

    def _failed(self, error: ssl.SSLError) -> trio.BrokenResourceError:
        self._broken = True
        self._wire.send_now(self._outgoing.read())  # the alert that tells the peer why
        return trio.BrokenResourceError(f"TLS: {error.reason or error}")


def _lost(error: OSError) -> trio.BrokenResourceError:
    return trio.BrokenResourceError(f"connection lost: {error.strerror}")
