"""An association over TCP or TLS: the trio glue around `relay.dicom.upperlayer`.

`Association` is what every conversation in Relay looks like, over a socket here and through a
tunnel elsewhere: a few verbs over the atoms of `relay.dicom.pdu`. `receive()` and `send()` may run
in two tasks at once. There is no task of its own behind an association: `receive()` does the
reading, so that a peer is read no faster than its atoms are taken, and whoever awaits is the one
that time runs out for.

How an association ends: `receive()` gives exactly one *terminal* atom (A-ASSOCIATE-RJ,
A-RELEASE-RP or A-ABORT). Whatever the peer does wrong, silence and a lost connection included,
arrives as an A-ABORT, and `cause` says in words what it was. So does an end that this side made
itself, for a task that still waits in `receive()`.
"""

import ssl
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeGuard, runtime_checkable

import trio

from relay import tls, tls_words, transport
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    Atom,
    Buffer,
)
from relay.dicom.statemachine import State
from relay.dicom.upperlayer import (
    Action,
    Close,
    Indicate,
    Role,
    Send,
    StartARTIM,
    StopARTIM,
    UpperLayer,
)
from relay.errors import AbortReason, AbortSource, AssociationAborted, LocalProtocolError
from relay.patience import Patience, Timeouts
from relay.reading import Reader
from relay.writing import write

# What we take in one P-DATA-TF. Larger gains nothing on a local network, and a peer's PDU is held
# whole: it is part of the memory that each association costs.
DEFAULT_MAXIMUM_LENGTH = 256 * 1024

# An A-ABORT goes out under this limit even where everything around it is cancelled, and the peer
# has as long to close (DESIGN §5). Enough for a round trip by satellite.
ABORT_LIMIT = 2.0

# The `cause` of an association that ended as it should.
RELEASED = "released"

# The atoms that end an association.
TERMINAL = (AAssociateRJ, AReleaseRP, AAbort)


class Association(Protocol):
    """A conversation between two application entities, whatever carries it."""

    @property
    def cause(self) -> str:
        """How it ended, in words for the log; empty before."""

    async def receive(self) -> Atom:
        """The next indication. After a terminal one: `LocalProtocolError`."""

    async def send(self, atom: Atom, *, end_of_message: bool = True) -> None:
        """Send one atom; returns when it is on its way, and so holds its caller back.

        `end_of_message` False: more of this message follows at once. A command, with which the peer
        can do nothing yet, may be kept until then, to go out with the beginning of its data set.
        Raises `AssociationAborted` if the association is over or the peer takes nothing, and
        `LocalProtocolError`, with nothing changed, where the state does not allow the atom.
        Cancelled in the middle of a write it leaves the connection closed.
        """

    async def abort(
        self, source: int = AbortSource.SERVICE_USER, reason: int = AbortReason.NOT_SPECIFIED
    ) -> None:
        """Send an A-ABORT if the association is not over yet. Never raises, takes 2 s at most."""

    async def aclose(self) -> None:
        """Free everything; an association that is not over is aborted."""


@runtime_checkable
class Gathering(Protocol):
    """An association that takes and gives many atoms in one call.

    Where a message is some hundred bytes, as the answers to a query are, what each call costs
    beside it is most of what a Router does.
    """

    async def receive_some(self) -> Sequence[Atom]:
        """As `Association.receive`, all that has come: one atom at least, a terminal one last."""

    async def send_all(self, pdvs: Sequence[PDV], *, end_of_message: bool = True) -> None:
        """As `Association.send` of each in turn; `end_of_message` is of the last."""


def gathers(association: Association) -> TypeGuard[Gathering]:
    """Whether it is one that takes and gives many atoms in one call."""
    return _gathers(type(association))


# To look a protocol's methods up takes 12 µs in Python 3.11, for each thing that is received.
@lru_cache(64)
def _gathers(kind: type[Association]) -> bool:
    return issubclass(kind, Gathering)


async def receive_some(association: Association) -> Sequence[Atom]:
    """What has come over `association`, or, where it cannot say how much that is, the next atom."""
    if gathers(association):
        return await association.receive_some()
    return (await association.receive(),)


class TCPAssociation:
    """An `Association` over a byte stream: TCP, TLS, or a Unix socket.

    `host` is the peer's address as text, empty for a Unix socket.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        maximum_length: int = DEFAULT_MAXIMUM_LENGTH,
        timeouts: Timeouts | None = None,
        host: str = "",
        port: int = 0,
    ) -> None:
        self.host = host
        self.port = port
        self.cause = ""
        self.bytes_received = 0
        self.bytes_sent = 0
        self._stream = stream
        self._reader = Reader(stream)
        self._calling = role is Role.REQUESTOR
        self._timeouts = timeouts or Timeouts()
        self._upper = UpperLayer(role, maximum_length)
        self._indications: deque[Atom] = deque()
        self._requested = not self._calling  # a requestor begins by sending its request
        self._ended = False  # the terminal atom has been taken
        self._write_lock = trio.Lock()
        self._kept: list[Buffer] = []  # to go out with what is sent next
        self._busy = False  # a task reads
        self._reading: trio.CancelScope | None = None  # the wait for what it reads
        self._patience = Patience(self._timeouts, self._upper.state, trio.current_time())
        self._close_due = self._closed = False
        self._apply(self._upper.connected())

    def __repr__(self) -> str:
        return f"<TCPAssociation {self.host}:{self.port} {self._upper.state.name}>"

    @property
    def peer_maximum_length(self) -> int:
        """The Maximum Length that the peer announced; 0 is unlimited."""
        return self._upper.peer_maximum_length

    @property
    def tls(self) -> str:
        """The TLS version and cipher suite that carry it; empty where it goes without TLS."""
        return tls.version(self._stream)

    @property
    def over(self) -> bool:
        """Nothing more can be sent; there may still be something to receive."""
        state = self._upper.state
        return self._closed or state is State.STA13 or (state is State.STA1 and self._requested)

    async def receive(self) -> Atom:
        """See `Association.receive`."""
        await self.wait_indication()
        atom = self._indications.popleft()
        self._ended = isinstance(atom, TERMINAL)
        return atom

    async def receive_some(self) -> Sequence[Atom]:
        """See `Gathering.receive_some`."""
        await self.wait_indication()
        atoms, self._indications = self._indications, deque()
        self._ended = isinstance(atoms[-1], TERMINAL)
        return atoms

    async def wait_indication(self) -> Atom:
        """The atom that the next `receive()` gives, left in its place."""
        if self._ended:
            raise LocalProtocolError(f"receive() after the end of the association ({self.cause})")
        if not self._requested:
            raise LocalProtocolError("receive() before the A-ASSOCIATE-RQ was sent")
        while not self._indications:
            if self._upper.state is not State.STA1:
                await self._read()
            if self.over and not self._indications:
                self._indications.append(
                    AAbort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED)
                )
        return self._indications[0]

    async def send(self, atom: Atom, *, end_of_message: bool = True) -> None:
        """See `Association.send`."""
        match atom:
            case PDV():
                await self.send_all((atom,), end_of_message=end_of_message)
            case AAbort(source, reason):
                await self.abort(source, reason)
            case _:
                await self._send(atom)

    async def _send(self, atom: Atom) -> None:
        await self._begin_to_write()
        try:
            parts = [*self._kept, *self._apply(self._upper.send(atom))]
            self._kept = []
            match atom:
                case AAssociateRQ():
                    self._requested = True
                case AAssociateRJ():
                    self._note(f"rejected here: {_triple(atom)}")
                case AReleaseRP():
                    self._note(RELEASED)
            await self._write(parts)
        finally:
            self._write_lock.release()

    async def send_all(self, pdvs: Sequence[PDV], *, end_of_message: bool = True) -> None:
        """See `Gathering.send_all`."""
        await self._begin_to_write()
        try:
            now, later = pdvs, pdvs[:0]
            if pdvs[-1].is_command and not end_of_message:
                now, later = pdvs[:-1], pdvs[-1:]
            parts, kept = self._upper.send_data(now), self._upper.send_data(later)
            if parts or not later:
                parts, self._kept = [*self._kept, *parts], kept
                await self._write(parts)
            else:
                self._kept += kept
        finally:
            self._write_lock.release()

    async def _begin_to_write(self) -> None:
        """Have the write lock. Raises `AssociationAborted` if nothing can be sent any more."""
        try:
            # A lock that is free costs a turn of the event loop where it is waited for.
            self._write_lock.acquire_nowait()
        except trio.WouldBlock:
            await self._write_lock.acquire()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self.over:
                raise self._aborted()
        except BaseException:
            self._write_lock.release()
            raise

    async def abort(
        self, source: int = AbortSource.SERVICE_USER, reason: int = AbortReason.NOT_SPECIFIED
    ) -> None:
        """See `Association.abort`."""
        if self.over:
            return
        self._note(f"aborted here: source {source}, reason {reason}")
        try:
            parts = self._apply(self._upper.send(AAbort(source, reason)))
        except LocalProtocolError:
            # Before an A-ASSOCIATE-RQ (Sta2) there is no association that could be aborted.
            await self._lose()
            return
        await self._write_last(parts)

    async def aclose(self) -> None:
        """See `Association.aclose`. After an end that this side made, wait for the peer's close.

        Closing first could reset the connection and take the last PDU with it (Sta13, ARTIM).
        """
        try:
            await self.abort()
            with trio.move_on_after(ABORT_LIMIT, shield=True):
                await self._await_close()
            await self._await_close()
        finally:
            self._note("closed here")
            await self._lose()

    async def _await_close(self) -> None:
        # Another task that waits in receive() is reading already; closing ends its wait.
        while self._upper.state is State.STA13 and not self._busy:
            await self._read()

    # --- reading ------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read once, or let a deadline pass, and do what the upper layer says to it."""
        if self._busy:
            raise trio.BusyResourceError("another task is in receive()")
        self._busy = True
        try:
            data = None
            if trio.current_time() < self._patience.deadline:  # however much comes meanwhile
                data = await self._reader.take()
            if data is None:
                data = await self._wait()
        except trio.ClosedResourceError:
            data = b""
        except trio.BrokenResourceError as error:
            self._note(self._lost(error))
            data = b""
        else:
            if data == b"":
                self._note(tls_words.CLOSED)
        finally:
            self._busy = False
        if data is None:
            await self._expire()
        elif self._upper.state is not State.STA1:  # closed by another task meanwhile
            self.bytes_received += len(data)
            await self._answer(self._upper.receive(data))

    async def _wait(self) -> bytes | None:
        """What comes next; None where a deadline passes before."""
        data: bytes | None = None
        self._reading = trio.CancelScope()
        try:
            self._set_deadline()
            with self._reading:
                data = await self._reader.wait()
        finally:
            self._reading = None
        return data

    async def _expire(self) -> None:
        now = trio.current_time()
        missing = self._patience.missing(now)
        if missing:
            self._note(f"silence: {missing}")
        if self._patience.artim_expired(now):
            await self._answer(self._upper.artim_expired())
        elif missing:
            await self.abort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED)

    async def _answer(self, actions: Iterable[Action]) -> None:
        """Perform what the upper layer does by itself. All that it sends so is its last word."""
        parts = self._apply(actions)
        if parts:
            await self._write_last(parts)
        if self._close_due:
            self._note("aborted by the peer")  # in Sta2, where that is not indicated
            await self._lose()

    # --- writing ------------------------------------------------------------------------------

    async def _write(self, parts: Sequence[Buffer]) -> None:
        """Write all of it, or end the association: a PDU cut short cannot be mended.

        Holds the write lock. Raises `AssociationAborted`.
        """
        try:
            await write(self._stream, parts, self._timeouts.write, self._sent)
        except trio.TooSlowError:
            self._note(f"silence: the peer took no data for {self._timeouts.write:g} s")
            await self._lose()
            raise self._aborted() from None
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # The peer's last words may wait to be read, and say why: the socket is not closed yet.
            raise self._aborted(self._lost(error)) from error
        except trio.Cancelled:
            self._note("closed here in the middle of a PDU")
            await self._lose()
            raise

    def _sent(self, count: int) -> None:
        self.bytes_sent += count
        self._moved()

    async def _write_last(self, parts: Sequence[Buffer]) -> None:
        """Write an A-ABORT or A-ASSOCIATE-RJ whatever happens around it; never raises."""
        with trio.move_on_after(ABORT_LIMIT, shield=True) as limit:
            async with self._write_lock:
                with suppress(AssociationAborted):
                    await self._write(parts)
        if limit.cancelled_caught:
            await self._lose()

    async def _lose(self) -> None:
        """Close the stream; a task that waits in `receive()` gets the end of the association."""
        if self._closed:
            return
        self._closed = True
        if self._upper.state is not State.STA1:
            self._apply(self._upper.receive(b""))
        # At once for a socket; TLS tells the peer first.
        with (
            suppress(trio.BrokenResourceError, trio.BusyResourceError),
            trio.move_on_after(ABORT_LIMIT, shield=True),
        ):
            await self._stream.aclose()

    # --- the upper layer's actions ------------------------------------------------------------

    def _apply(self, actions: Iterable[Action]) -> list[Buffer]:
        """Do all that needs no waiting; gives what is to be written."""
        parts: list[Buffer] = []
        for action in actions:
            match action:
                case Send(encoded):
                    parts += encoded
                case Indicate(atom):
                    self._note_end(atom)
                    self._indications.append(atom)
                case StartARTIM():
                    self._patience.start_artim(self._upper.state, trio.current_time())
                case StopARTIM():
                    self._patience.stop_artim()
                case Close():
                    self._close_due = True
        if self._upper.fault:
            self._note(tls.answered(self._upper.fault) if self._calling else self._upper.fault)
        self._moved()
        return parts

    def _moved(self) -> None:
        """Something went either way: a task that waits in `receive()` has a new deadline."""
        self._patience.moved(self._upper.state, trio.current_time())
        self._set_deadline()

    def _set_deadline(self) -> None:
        if self._reading is not None:
            deadline = self._patience.deadline
            if self._reading.deadline != deadline:
                self._reading.deadline = deadline

    def _note(self, cause: str) -> None:
        """Keep why the association ended: the first cause is the cause."""
        self.cause = self.cause or cause

    def _lost(self, error: BaseException) -> str:
        """Why the connection broke. A device that refuses our certificate may just close."""
        words = tls.lost(error, calling=self._calling)
        if self._calling and self.tls and not self.bytes_received and not tls.explains(words):
            words += " right after the TLS handshake: does the peer take the certificate shown?"
        return words

    def _note_end(self, atom: Atom) -> None:
        match atom:
            case AReleaseRP():
                self._note(RELEASED)
            case AAssociateRJ():
                self._note(f"rejected by the peer: {_triple(atom)}")
            case AAbort() if not self._upper.fault:
                self._note(f"aborted by the peer: source {atom.source}, reason {atom.reason}")

    def _aborted(self, words: str = "") -> AssociationAborted:
        return AssociationAborted(
            AbortSource.SERVICE_PROVIDER,
            AbortReason.NOT_SPECIFIED,
            f"association ended: {self.cause or words}",
        )


def _triple(rejection: AAssociateRJ) -> str:
    return f"result {rejection.result}, source {rejection.source}, reason {rejection.reason}"


async def connect(
    host: str,
    port: int,
    *,
    maximum_length: int = DEFAULT_MAXIMUM_LENGTH,
    timeouts: Timeouts | None = None,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str = "",
) -> TCPAssociation:
    """Connect to a device; nothing has been sent yet. Then `send(AAssociateRQ(...))`, `receive()`.

    With `ssl_context` over TLS, where the certificate must be for `server_hostname`, or for `host`
    if that is empty. Under TLS 1.3 a device that refuses our certificate says so only afterwards:
    the first `receive()` gives an A-ABORT, and `cause` the words.
    Raises `AssociationAborted`, which says why there is no connection.
    """
    timeouts = timeouts or Timeouts()
    tcp = await transport.open_tcp(host, port, timeouts.connect)
    stream: trio.abc.Stream = tcp
    if ssl_context is not None:
        stream = await tls.start_tls(
            tcp, ssl_context, timeouts.tls_handshake, server_hostname=server_hostname or host
        )
    return TCPAssociation(
        stream,
        Role.REQUESTOR,
        maximum_length=maximum_length,
        timeouts=timeouts,
        host=host,
        port=port,
    )


async def connect_unix(
    path: Path, *, maximum_length: int = DEFAULT_MAXIMUM_LENGTH, timeouts: Timeouts | None = None
) -> TCPAssociation:
    """As `connect`, over a Unix socket."""
    return TCPAssociation(
        await transport.open_unix(path),
        Role.REQUESTOR,
        maximum_length=maximum_length,
        timeouts=timeouts,
    )
