"""TLS over TCP: the handshake in either role, and what went wrong, in words that say what to do.

A peer that closes without close_notify is at an end and no error: what DICOM says over TLS has an
end of its own (release or abort), so that nothing cut short passes for whole.
"""

import socket
import ssl
from contextlib import suppress

import trio

from relay.dicom.framing import TLS_ON_A_PLAIN_PORT
from relay.dicom.pdu import PDUType
from relay.tls_words import LOST, in_words, is_end
from relay.transport import acknowledger, failed

# For the alert to reach the peer before the connection closes: it may have sent what nobody reads
# any more, and closing on that would reset the connection and take the alert with it.
FAREWELL = 2.0

# What a peer may send meanwhile, at most: an A-ASSOCIATE-RQ under TLS 1.3, whose client speaks
# before it knows that the server has refused its certificate.
FAREWELL_SIZE = 256 * 1024

# The most that one record holds (RFC 8446 §5.1): more is never read at once.
RECORD_SIZE = 16 * 1024

# One read from the socket: several records, each of which is read by itself.
READ_SIZE = 256 * 1024


async def plain_dicom(stream: trio.SocketStream, deadline: float) -> bool:
    """Whether the peer of a TLS port begins an A-ASSOCIATE-RQ (PS3.8 §9.3.2); takes nothing.

    Raises `AssociationAborted` if nothing comes within `deadline` seconds; `stream` is closed then.
    """
    try:
        with trio.fail_after(deadline):
            first = await stream.socket.recv(1, socket.MSG_PEEK)
    except trio.TooSlowError as error:
        await trio.aclose_forcefully(stream)
        raise failed(_silence(deadline)) from error
    except OSError:
        return False  # reset; the handshake finds out
    return first == bytes([PDUType.A_ASSOCIATE_RQ])


async def start_tls(
    stream: trio.SocketStream,
    context: ssl.SSLContext,
    deadline: float,
    *,
    server_hostname: str | None = None,
) -> "TLSStream":
    """The TLS stream over `stream` after its handshake; as the server without `server_hostname`.

    Raises `AssociationAborted` that says what is wrong; `stream` is closed then.
    """
    calling = server_hostname is not None
    try:
        tls = TLSStream(stream, context, server_hostname)
        try:
            with trio.fail_after(deadline):
                await tls.do_handshake()
        except trio.BrokenResourceError as error:
            await tls.farewell()
            raise failed(in_words(error.__cause__, calling=calling)) from error
    except trio.TooSlowError as error:
        await trio.aclose_forcefully(stream)
        hint = ": is this its TLS port?" if calling else ""
        raise failed(_silence(deadline) + hint) from error
    except ValueError as error:  # a name that cannot be one in a certificate
        await trio.aclose_forcefully(stream)
        raise failed(f"TLS: {server_hostname}: {error}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return tls


class TLSStream(trio.abc.Stream):
    """TLS over a socket: Python's `ssl.SSLObject`, and what it wants read and written.

    Not `trio.SSLStream`, which drops the alert that a failed handshake ends with, cannot read the
    alert behind a write that failed, and sends no close_notify to a peer from whom it takes an end
    without one. One task may send while another receives.

    A broken connection is a `trio.BrokenResourceError`, whose cause is the `ssl.SSLError` that says
    why, if anything does.
    """

    def __init__(
        self, stream: trio.SocketStream, context: ssl.SSLContext, server_hostname: str | None
    ) -> None:
        self._stream = stream
        self._acknowledge = acknowledger(stream)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self._fault: ssl.SSLError | None = None
        self._ahead = bytearray()  # read while looking for an alert
        self._write_lock = trio.StrictFIFOLock()
        self._broken = False
        self.version = ""  # the TLS version and the cipher suite, for the log

    async def do_handshake(self) -> None:
        """Raises `trio.BrokenResourceError`; then only `farewell` is left to do."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                self._broken = True
                raise trio.BrokenResourceError from error
            else:
                break
        suite = self._tls.cipher()
        self.version = f"{self._tls.version()} {suite[0] if suite else ''}"
        await self._flush()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The data of some records; empty at the end, with or without close_notify."""
        await trio.lowlevel.checkpoint()  # also where a record is here already
        if self._ahead:
            ahead, self._ahead = bytes(self._ahead), bytearray()
            return ahead
        size = max_bytes or READ_SIZE
        while True:
            try:
                if self._fault is not None:
                    raise self._fault
                return self._records(self._tls.read(size), size)
            except ssl.SSLWantReadError:
                await self._flush()  # the answer to a key update (RFC 8446 §4.6.3)
                await self._fill()
            except ssl.SSLError as error:
                self._broken = True
                if is_end(error):
                    return b""
                raise trio.BrokenResourceError from error

    def _records(self, first: bytes, size: int) -> bytes:
        """What is here already of the next records too: each read of one alone costs a turn."""
        parts, left = [first], size - len(first)
        while parts[-1] and left > 0 and self._incoming.pending:
            try:
                parts.append(self._tls.read(left))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:  # told when what came before it has been read
                self._fault = error
                break
            left -= len(parts[-1])
        return b"".join(parts)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Cancelled in the middle, or failed, it leaves the stream broken."""
        if self._broken:
            raise trio.BrokenResourceError
        if data:
            try:
                self._tls.write(data)
            except ssl.SSLError as error:
                self._broken = True
                raise trio.BrokenResourceError from error
        await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Say close_notify, which is that nothing has been cut off, and close (RFC 8446 §6.1)."""
        try:
            if not self._broken:
                with suppress(ssl.SSLError):  # the peer's own is not waited for
                    self._tls.unwrap()
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._flush()
        finally:
            await trio.aclose_forcefully(self._stream)
        await trio.lowlevel.checkpoint()

    async def farewell(self) -> None:
        """After a failed handshake: send its alert, wait a moment for the peer to close, close."""
        try:
            with trio.move_on_after(FAREWELL), suppress(trio.BrokenResourceError):
                if alert := self._outgoing.read():
                    await self._stream.send_all(alert)
                    await self._stream.send_eof()
                    left = FAREWELL_SIZE
                    while left > 0 and (data := await self._stream.receive_some(READ_SIZE)):
                        left -= len(data)
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _fill(self) -> None:
        """Read from the socket once. Cancelled, it has taken nothing."""
        data = await self._stream.receive_some(READ_SIZE)
        if data:
            self._incoming.write(data)
            if len(data) < READ_SIZE:  # all that there was
                self._acknowledge()
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        """Write what the last call left to write, in the order in which it was made."""
        # At once: what waits for the lock is each task's own, and a task that only reads must not
        # wait for one that writes.
        data = self._outgoing.read()
        if not data:
            return
        try:
            async with self._write_lock:
                try:
                    await self._stream.send_all(data)
                except trio.BrokenResourceError as error:
                    self._broken = True
                    raise trio.BrokenResourceError from (await self._last_words() or error)
        except BaseException:  # cancelled in the middle of a record, or with it not yet begun:
            self._broken = True  # what would come next does not open at the peer without it
            raise

    async def _last_words(self) -> ssl.SSLError | None:
        """The alert that the peer sent before it closed, if it is there to be read.

        Data before it is kept: that may say why, too.
        """
        with (
            suppress(trio.BrokenResourceError, trio.BusyResourceError),
            trio.move_on_after(FAREWELL),
        ):
            while len(self._ahead) < FAREWELL_SIZE:
                await self._fill()
                try:
                    while data := self._tls.read(RECORD_SIZE):
                        self._ahead += data
                    return None
                except ssl.SSLWantReadError:
                    continue
                except ssl.SSLError as alert:
                    return None if is_end(alert) else alert
        return None


def version(stream: trio.abc.Stream) -> str:
    """The version and cipher suite of a TLS stream, for the log; empty for any other stream."""
    return stream.version if isinstance(stream, TLSStream) else ""


def lost(error: BaseException, *, calling: bool) -> str:
    """What a broken connection's `error` says, in words for the log."""
    if isinstance(error.__cause__, ssl.SSLError):
        return in_words(error.__cause__, calling=calling)
    return LOST


def answered(fault: str) -> str:
    """What was wrong with the peer's bytes, for who has called it without TLS."""
    if TLS_ON_A_PLAIN_PORT in fault:
        return "the peer answers with TLS: call it over TLS (`relay device add … --tls`)"
    return fault


def explains(words: str) -> bool:
    """Whether `words` are of TLS, and so say by themselves what to do."""
    return "TLS" in words


def _silence(deadline: float) -> str:
    return f"silence: no TLS handshake within {deadline:g} s"
