"""Takes associations from devices: many at once, each in a task of the caller's, within limits.

Some of its ports may speak TLS; the limits are the same for all of them together.

A connection that holds no association (before its A-ASSOCIATE-RQ is whole, and after its end until
the peer has closed) occupies no place that an association could have. Such connections have a
limit of their own, in all and for each source address; past it the oldest of them is pushed out,
so that clients that connect and say nothing never keep a device out that speaks.

One handler that fails, and whatever a peer sends, end that one connection. Each connection that
comes to nothing, and each association that ends, is one line in the log with its cause.
"""

import errno
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import attrs
import structlog
import trio

from relay import tls, tracing, transport
from relay.association import ABORT_LIMIT, DEFAULT_MAXIMUM_LENGTH, TCPAssociation
from relay.dicom.pdu import AAssociateRJ, AAssociateRQ
from relay.dicom.rejection import LOCAL_LIMIT_EXCEEDED, PROTOCOL_VERSION_NOT_SUPPORTED
from relay.dicom.upperlayer import Role
from relay.errors import AssociationAborted, RelayError
from relay.patience import Timeouts

log = structlog.get_logger()

Handler = Callable[[TCPAssociation], Awaitable[object]]

# What accept() fails with when the machine is short of something; it passes.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

# A device that opens many connections at once has sent each one's A-ASSOCIATE-RQ by then: only who
# has been silent for longer has to make room for others from its address.
FIRST_WORD = 1.0

# After a shortage: long enough to cost nothing, short enough that no device gives up meanwhile.
SHORTAGE_PAUSE = 0.1


@attrs.frozen(slots=True, kw_only=True)
class ServerLimits:
    """How much a listener takes on at once."""

    # Associations. Each may hold some MiB of chunks; a hospital's devices together have fewer.
    associations: int = 256
    # Connections without an association, in all: each costs a descriptor and a few KiB.
    waiting: int = 128
    # ... and from one address. A modality opens a handful at once, not more.
    waiting_per_address: int = 32
    # How long running associations may go on after `stopping`, in seconds.
    grace: float = 30.0


async def serve(
    listeners: Sequence[trio.abc.Listener[trio.SocketStream]],
    handler: Handler,
    *,
    limits: ServerLimits | None = None,
    timeouts: Timeouts | None = None,
    maximum_length: int = DEFAULT_MAXIMUM_LENGTH,
    tls_listeners: Sequence[trio.abc.Listener[trio.SocketStream]] = (),
    ssl_context: ssl.SSLContext | None = None,
    stopping: trio.Event | None = None,
    on_rejected: Callable[[AAssociateRJ], None] = lambda rejection: None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept on `listeners` and run `handler(association)` for each A-ASSOCIATE-RQ.

    So also on `tls_listeners`, whose connections begin with a TLS handshake by `ssl_context`.

    The request is what the handler's first `receive()` gives; when the handler returns or raises,
    the association is closed (aborted, if it has not ended). Over the limit an A-ASSOCIATE-RQ is
    answered with A-ASSOCIATE-RJ transient, local limit exceeded. `on_rejected` is told of each that
    the handler never sees.

    Runs until `stopping` is set: then nothing new is taken, what runs has `limits.grace` seconds
    to end before it is aborted, and `serve` returns. The listeners are closed in any case.
    """
    if tls_listeners and ssl_context is None:
        raise ValueError("a listener for TLS without an ssl_context would serve without TLS")
    server = _Server(
        handler, limits or ServerLimits(), timeouts or Timeouts(), maximum_length, on_rejected
    )
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            for listener in listeners:
                accepting.start_soon(server.accept, listener, connections, None)
            for listener in tls_listeners:
                accepting.start_soon(server.accept, listener, connections, ssl_context)
            task_status.started()
            await (trio.Event() if stopping is None else stopping).wait()
            accepting.cancel_scope.cancel()
        server.drop_waiting("the listener stops")
        connections.cancel_scope.deadline = trio.current_time() + server.limits.grace


@attrs.define(slots=True, eq=False)
class _Waiting:
    """A connection without an association; cancelling `scope` closes it."""

    address: str
    scope: trio.CancelScope
    since: float
    pushed_out: str = ""  # why
    said: bool = False  # the log has a cause for this connection already


@attrs.define(slots=True, eq=False)
class _Server:
    handler: Handler
    limits: ServerLimits
    timeouts: Timeouts
    maximum_length: int
    on_rejected: Callable[[AAssociateRJ], None]
    associations: int = 0
    waiting: list[_Waiting] = attrs.Factory(list)  # oldest first

    async def accept(
        self,
        listener: trio.abc.Listener[trio.SocketStream],
        connections: trio.Nursery,
        context: ssl.SSLContext | None,
    ) -> None:
        short = False
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno not in SHORTAGES:
                        raise
                    if not short:  # one line for each shortage, not for each try
                        log.error("cannot accept connections", why=error.strerror)
                    short = True
                    await trio.sleep(SHORTAGE_PAUSE)
                else:
                    short = False
                    connections.start_soon(self._connection, stream, context)

    def drop_waiting(self, why: str) -> None:
        for connection in self.waiting:
            self._push_out(connection, why)

    async def _connection(self, stream: trio.SocketStream, context: ssl.SSLContext | None) -> None:
        address, port = _address(stream)
        peer = f"{address}:{port}" if address else "unix socket"
        try:
            with tracing.arrived(), _failures_logged(peer):
                association = await self._request(stream, context, address, port, peer)
                if association is not None:
                    await self._serve(association, address, peer)
        finally:
            await trio.aclose_forcefully(stream)  # where an error of our own left it open

    async def _serve(self, association: TCPAssociation, address: str, peer: str) -> None:
        try:
            with _failures_logged(peer):  # before the wait for the peer's close
                await self._associate(association)
        finally:
            with self._without_association(address):
                await association.aclose()
            carried = {"tls": association.tls} if association.tls else {}
            log.info(
                "association ended",
                peer=peer,
                **carried,
                why=association.cause,
                bytes_received=association.bytes_received,
                bytes_sent=association.bytes_sent,
            )

    async def _request(
        self,
        stream: trio.SocketStream,
        context: ssl.SSLContext | None,
        address: str,
        port: int,
        peer: str,
    ) -> TCPAssociation | None:
        """The association once its A-ASSOCIATE-RQ is there; None, and logged, if none comes."""
        said = log.bind(peer=peer)
        with self._without_association(address) as waiting:
            try:
                association = await self._open(stream, context, address, port)
            except AssociationAborted as error:
                said.warning("connection without association", why=str(error))
                return None
            requested = False
            try:
                request = await association.wait_indication()
                requested = isinstance(request, AAssociateRQ)
                if isinstance(request, AAssociateRQ):
                    _log_request(request, peer)
                    return association
                said.warning("connection without association", why=association.cause)
                waiting.said = True  # before the wait for the peer's close, which may be long
            finally:
                if not requested:
                    await association.aclose()
        if waiting.pushed_out and not waiting.said:
            said.warning("connection without association", why=waiting.pushed_out)
        return None

    async def _open(
        self, stream: trio.SocketStream, context: ssl.SSLContext | None, address: str, port: int
    ) -> TCPAssociation:
        if address:
            transport.keep_alive(stream.socket)
        connection: trio.abc.Stream = stream
        if context is not None:
            if await tls.plain_dicom(stream, self.timeouts.tls_handshake):
                await self._turn_away(stream, address, port)
                raise transport.failed("plain DICOM on the TLS port")
            connection = await tls.start_tls(stream, context, self.timeouts.tls_handshake)
        return self._association(connection, address, port, self.timeouts)

    def _association(
        self, connection: trio.abc.Stream, address: str, port: int, timeouts: Timeouts
    ) -> TCPAssociation:
        return TCPAssociation(
            connection,
            Role.ACCEPTOR,
            maximum_length=self.maximum_length,
            timeouts=timeouts,
            host=address,
            port=port,
        )

    async def _turn_away(self, stream: trio.SocketStream, address: str, port: int) -> None:
        """Say no in plain DICOM to who asks for an association without TLS: its log has it then.

        Of all that PS3.8 Table 9-21 knows, the protocol's version comes nearest.
        """
        timeouts = attrs.evolve(self.timeouts, artim=ABORT_LIMIT)
        association = self._association(stream, address, port, timeouts)
        try:
            if isinstance(await association.receive(), AAssociateRQ):
                self.on_rejected(PROTOCOL_VERSION_NOT_SUPPORTED)
                await association.send(PROTOCOL_VERSION_NOT_SUPPORTED)
        finally:
            await association.aclose()

    async def _associate(self, association: TCPAssociation) -> None:
        if self.associations >= self.limits.associations:
            self.on_rejected(LOCAL_LIMIT_EXCEEDED)
            await association.send(LOCAL_LIMIT_EXCEEDED)
            log.warning("association limit reached", limit=self.limits.associations)
            return
        self.associations += 1
        try:
            await self.handler(association)
        finally:
            self.associations -= 1

    @contextmanager
    def _without_association(self, address: str) -> Iterator[_Waiting]:
        """Take a place among the connections that hold no association; it may be taken away."""
        now = trio.current_time()
        standing = [entry for entry in self.waiting if not entry.pushed_out]
        beside = [entry for entry in standing if entry.address == address]
        if len(beside) >= self.limits.waiting_per_address and now - beside[0].since >= FIRST_WORD:
            self._push_out(
                beside[0],
                f"pushed out: {len(beside)} connections from {address} without an association",
            )
        elif len(standing) >= self.limits.waiting:
            self._push_out(
                standing[0], f"pushed out: {len(standing)} connections without an association"
            )
        with trio.CancelScope() as scope:
            entry = _Waiting(address, scope, now)
            self.waiting.append(entry)
            try:
                yield entry
            finally:
                self.waiting.remove(entry)

    @staticmethod
    def _push_out(entry: _Waiting, why: str) -> None:
        entry.pushed_out = why
        entry.scope.cancel()


def _log_request(request: AAssociateRQ, peer: str) -> None:
    log.info(
        "association asked for",
        peer=peer,
        calling=request.calling,
        called=request.called,
        contexts=len(request.contexts),
    )


@contextmanager
def _failures_logged(peer: str) -> Iterator[None]:
    """What goes wrong with one connection is a line in the log, and the others' never know."""
    try:
        yield
    except RelayError as error:
        log.warning("association failed", peer=peer, why=str(error))
    except Exception:
        log.exception("association handler failed", peer=peer)


def _address(stream: trio.SocketStream) -> tuple[str, int]:
    """The peer's address and port; empty for a Unix socket, or where the peer is gone already."""
    try:
        name = stream.socket.getpeername()
    except OSError:
        return "", 0
    if not isinstance(name, tuple):
        return "", 0
    # A dual-stack listener sees IPv4 peers as ::ffff:192.0.2.1; people write 192.0.2.1.
    return str(name[0]).removeprefix("::ffff:"), int(name[1])
