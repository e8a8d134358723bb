"""HTTP/1.1 with object stores, over connections that are kept.

No more of HTTP than that takes: a request whose body is sent as it lies, an answer that is read
into one buffer, no redirects, no cookies, nothing that is inflated (relay.tunnel.heads). With httpx
and httpcore a GET of 2 MiB took 11 ms of processor time here and not 3, a DELETE 0.75 ms and not
0.15.
"""

import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

import attrs
import h11
import trio

from relay.byte_stream import WIRE_PIECE, Buffer, PlainStream, TLSStream
from relay.errors import LocalProtocolError
from relay.tunnel.heads import PlainHead, request_head
from relay.tunnel.origin import Origin
from relay.tunnel.warming import Warming

# An answer's head at most; an object store's has some 20 lines.
MAXIMUM_HEAD = 64 * 1024
# What is written under one `Patience.piece`, and so the slowest line served: 13 KB/s with 10 s.
PIECE = 128 * 1024
# What is read where it is not known how much comes.
HEAD_PIECE = 16 * 1024
# How often in the patience for an answer it is seen whether what was sent still arrives.
LOOKS = 4


class NoAnswer(Exception):
    """A request was not answered, or not wholly; the first argument is the kind of fault."""


class ProxyRefused(NoAnswer):
    """The proxy in between does not connect; the argument is what it says."""


@attrs.frozen(slots=True)
class Patience:
    """Seconds: for a connection's TLS, and for each piece of a transfer."""

    connect: float
    piece: float


class Connection:
    """One connection, on which one request is made at a time."""

    def __init__(
        self,
        stream: PlainStream | TLSStream,
        patience: Patience,
        via: str = "",
        fields: bytes = b"",
    ) -> None:
        """`via` stands before each target, and `fields` with each, for a proxy that asks."""
        self._stream = stream
        self._patience = patience
        self._via = via
        self._fields = fields
        self.idle_since = trio.current_time()
        self.reusable = True

    async def request(
        self,
        method: str,
        target: str,
        fields: bytes,
        parts: Sequence[Buffer] = (),
        *,
        waits: float = 0.0,
    ) -> "Answer":
        """Send a request and read the head of its answer.

        `fields` (relay.tunnel.heads.fields_of) say how long `parts` are together. The head may take
        `waits` seconds more than any piece. Raises NoAnswer.
        """
        self.reusable = False  # until the answer's end was read
        try:
            head = request_head(method, self._via + target, self._fields + fields)
        except LocalProtocolError as error:
            raise NoAnswer(f"LocalProtocolError: {error}") from None
        early = False
        try:
            # One scope whose deadline moves: one for each piece costs more than the piece.
            with trio.CancelScope(deadline=self._soon()) as scope:
                for batch in _batches([head, *parts]):
                    await self._stream.send_parts(batch)
                    scope.deadline = self._soon()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Who does not want the body answers, and closes: that answer says why.
            early = True
        if scope.cancelled_caught:
            raise NoAnswer("WriteTimeout")
        patience = self._patience.piece + waits
        come = await self._hear(patience)
        plain = PlainHead.decode(come)
        if plain is not None:
            return Answer(self, plain, come, early=early)
        return await self._long_answer(method, come, patience, early=early)

    async def _long_answer(
        self, method: str, come: Buffer, patience: float, *, early: bool
    ) -> "Answer":
        """What is not a plain head, or not whole in one piece, as h11 reads it."""
        engine = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAXIMUM_HEAD)
        engine.send(h11.Request(method=method, target="/", headers=[("Host", "")]))
        engine.receive_data(bytes(come))
        while True:
            try:
                event = engine.next_event()
            except h11.RemoteProtocolError as error:
                raise NoAnswer("RemoteProtocolError") from error
            if isinstance(event, h11.Response):
                return Answer(self, _plain_of(event), b"", engine, early=early)
            if event is h11.NEED_DATA:
                engine.receive_data(bytes(await self._hear(patience)))
            elif not isinstance(event, h11.InformationalResponse):
                raise NoAnswer("RemoteProtocolError")

    async def _hear(self, patience: float) -> bytes | bytearray:
        """Some of an answer's head, none at the end. Raises NoAnswer.

        `patience` begins anew while the other end takes what the kernel has yet to send: a slow
        line gets its time, and one that is dead no more than `patience`.
        """
        deadline = trio.current_time() + patience
        unsent = self._stream.unacknowledged
        while True:
            until = trio.current_time() + patience / LOOKS if unsent else deadline
            try:
                with trio.CancelScope(deadline=min(until, deadline)):
                    return await self._stream.receive_some(HEAD_PIECE)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise NoAnswer("ReadError") from error
            before, unsent = unsent, self._stream.unacknowledged if unsent else 0
            if unsent < before:
                deadline = trio.current_time() + patience
            elif trio.current_time() >= deadline:
                raise NoAnswer("ReadTimeout")

    async def receive(self) -> bytes | bytearray:
        """What has come, none at the end. Raises NoAnswer."""
        try:
            with trio.CancelScope(deadline=self._soon()):
                return await self._stream.receive_some(WIRE_PIECE)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise NoAnswer("ReadError") from error
        raise NoAnswer("ReadTimeout")

    async def receive_into(self, buffer: memoryview) -> None:
        """Fill `buffer`. Raises NoAnswer."""
        received = 0
        try:
            with trio.CancelScope(deadline=self._soon()) as scope:
                while received < len(buffer):
                    count = await self._stream.receive_into(buffer[received:])
                    if not count:
                        raise NoAnswer("RemoteProtocolError")
                    received += count
                    scope.deadline = self._soon()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise NoAnswer("ReadError") from error
        if received < len(buffer):
            raise NoAnswer("ReadTimeout")

    def _soon(self) -> float:
        """By when the next piece is to be through."""
        return trio.current_time() + self._patience.piece

    @property
    def quiet(self) -> bool:
        """Whether the other end has neither closed nor said anything unasked."""
        return self._stream.quiet

    async def aclose(self) -> None:
        """Close at once."""
        await self._stream.aclose()


class Answer:
    """The head of an answer, and the way to its body."""

    def __init__(
        self,
        connection: Connection,
        head: PlainHead,
        come: Buffer,
        engine: h11.Connection | None = None,
        *,
        early: bool,
    ) -> None:
        """`come` is what was read, head and all; or `engine` has it."""
        self.status = head.status
        # Whether the answer itself says where it ends (RFC 9112 §6.3), and so a cut is seen.
        self.delimited = head.length is not None or head.chunked
        self._connection = connection
        self._head = head
        self._come = come
        self._engine = engine
        self._keeps = head.keeps and not early

    async def read(self, limit: int) -> bytearray | None:
        """The body, or None where it is longer than `limit`; the connection ends then.

        Raises NoAnswer.
        """
        length = self._head.length
        if length is None:
            return await self._read_unmeasured(limit)
        if length > limit:
            return None
        # Past h11, which would copy each byte twice.
        if self._engine is None:
            come = memoryview(self._come)[self._head.size :]
        else:
            come = memoryview(self._engine.trailing_data[0])
        body = bytearray(length)
        body[: len(come)] = come[:length]
        if len(come) < length:
            with memoryview(body) as view:
                await self._connection.receive_into(view[len(come) :])
        # More than was announced is no answer of ours.
        self._connection.reusable = self._keeps and len(come) <= length
        return body

    async def _read_unmeasured(self, limit: int) -> bytearray | None:
        """A body in chunks, or one that ends with the connection, whole or not."""
        engine, body = self._engine, bytearray()
        assert engine is not None
        try:
            while not isinstance(event := engine.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > limit:
                        return None
                elif event is h11.NEED_DATA:
                    engine.receive_data(bytes(await self._connection.receive()))
                else:
                    raise NoAnswer("RemoteProtocolError")
        except h11.RemoteProtocolError as error:
            raise NoAnswer("RemoteProtocolError") from error
        self._connection.reusable = self._keeps and engine.their_state is h11.DONE
        return body


def _plain_of(response: h11.Response) -> PlainHead:
    """What h11 has read, as far as it matters."""
    headers = dict(response.headers)
    status = response.status_code
    chunked = b"transfer-encoding" in headers
    length = None
    if status in (204, 304):
        length = 0
    elif not chunked and b"content-length" in headers:
        length = int(headers[b"content-length"])  # digits only: h11 has seen to it
    keeps = (
        response.http_version == b"1.1" and b"close" not in headers.get(b"connection", b"").lower()
    )
    return PlainHead(status, length, keeps, 0, chunked)


class Pool:
    """Connections to any number of origins, kept for the next request."""

    def __init__(
        self, connect: Callable[[Origin], Awaitable[Connection]], *, maximum: int, kept_for: float
    ) -> None:
        self._connect = connect
        self._maximum = maximum
        self._kept_for = kept_for
        self._turns = trio.CapacityLimiter(maximum)
        # The one that was used last is used first: what is too many falls idle, and is closed.
        self._idle: dict[Origin, deque[Connection]] = {}
        self._kept = 0
        self._warming = Warming(connect, self._keep, NoAnswer)

    def connection(self, origin: Origin) -> "Lease":
        """A connection for one request, for as long as its block lasts."""
        return Lease(self, origin)

    async def take(self, origin: Origin) -> tuple[Connection, bool]:
        """A connection, and whether it was kept; `give_back` follows. Raises what `connect` does.

        Without a turn of the event loop where one is there.
        """
        await acquire(self._turns)
        try:
            kept = await self._take(origin)
            taken = kept or await self._warming.take(origin) or await self._open(origin)
            return taken, kept is not None
        except BaseException:
            self._turns.release()
            raise

    async def give_back(self, origin: Origin, connection: Connection) -> None:
        """The request on it is over."""
        try:
            if connection.reusable:
                self._keep(origin, connection)
            else:
                with trio.CancelScope(shield=True):
                    await connection.aclose()
        finally:
            self._turns.release()

    async def warm(self, origin: Origin, count: int) -> None:
        """Have `count` connections to `origin` that are idle, if there is room and they can be."""
        there = len(self._idle.get(origin, ())) + self._warming.coming(origin)
        taken = self._kept + self._turns.borrowed_tokens + self._warming.making
        await self._warming.make(origin, max(0, min(count - there, self._maximum - taken)))

    async def distrust(self, origin: Origin, taken: float) -> None:
        """One that was kept has heard nothing: close those that were idle at `taken` with it.

        A firewall that has forgotten this one has forgotten them: each would cost the next try all
        of its patience.
        """
        await self._drop(lambda connection: connection.idle_since <= taken, origin)

    async def close_idle(self) -> None:
        """Close, for ever, what has been idle for as long as it is kept.

        Otherwise what a busy hour has left stays through the night, closed by the other end alone.
        """
        while True:
            idle = [kept[0].idle_since for kept in self._idle.values()]
            await trio.sleep_until(min(idle, default=trio.current_time()) + self._kept_for)
            await self._expire()

    async def aclose(self) -> None:
        """Close what is idle."""
        await self._drop(lambda connection: True)

    async def _take(self, origin: Origin) -> Connection | None:
        await self._expire()
        while idle := self._idle.get(origin):
            connection = idle.pop()
            self._kept -= 1
            if not idle:
                del self._idle[origin]
            if connection.quiet:
                return connection
            await connection.aclose()
        return None

    def _keep(self, origin: Origin, connection: Connection) -> None:
        connection.idle_since = trio.current_time()
        self._idle.setdefault(origin, deque()).append(connection)
        self._kept += 1

    async def _open(self, origin: Origin) -> Connection:
        if self._kept + self._turns.borrowed_tokens > self._maximum:
            oldest = min(idle[0].idle_since for idle in self._idle.values())
            await self._drop(lambda connection: connection.idle_since <= oldest)
        return await self._connect(origin)

    async def _expire(self) -> None:
        now, kept_for = trio.current_time(), self._kept_for
        if any(idle[0].idle_since + kept_for <= now for idle in self._idle.values()):
            await self._drop(lambda connection: connection.idle_since + kept_for <= now)

    async def _drop(self, which: Callable[[Connection], bool], only: Origin | None = None) -> None:
        """Close the idle connections that `which` names: of each origin the oldest stand first."""
        dropped = []
        for origin, idle in list(self._idle.items()):
            while only in (None, origin) and idle and which(idle[0]):
                dropped.append(idle.popleft())
            if not idle:
                del self._idle[origin]
        self._kept -= len(dropped)
        with trio.CancelScope(shield=True):
            for connection in dropped:
                await connection.aclose()


class Lease:
    """A connection of a pool for one request. Raises what `connect` raises."""

    # By hand: contextlib's generators took a tenth of a small request's time.
    __slots__ = ("_connection", "_kept", "_origin", "_pool", "_taken")

    def __init__(self, pool: Pool, origin: Origin) -> None:
        self._pool = pool
        self._origin = origin

    async def __aenter__(self) -> Connection:
        self._taken = trio.current_time()
        self._connection, self._kept = await self._pool.take(self._origin)
        return self._connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._kept and isinstance(error, NoAnswer):
                await self._pool.distrust(self._origin, self._taken)
        finally:
            await self._pool.give_back(self._origin, self._connection)


async def acquire(limiter: trio.CapacityLimiter) -> None:
    """One of the limiter's turns, without a turn of the event loop where one is free."""
    try:
        limiter.acquire_nowait()
    except trio.WouldBlock:
        await limiter.acquire()


async def secure(
    wire: PlainStream, context: ssl.SSLContext, host: str, patience: Patience
) -> TLSStream:
    """TLS with `host` over `wire`, which is closed if there is none. Raises NoAnswer."""
    try:
        stream = TLSStream(wire, context, server_hostname=host)
        with trio.fail_after(patience.connect):
            await stream.do_handshake()
    except BaseException as error:
        with trio.CancelScope(shield=True):
            await wire.aclose()
        if isinstance(error, trio.TooSlowError):
            raise NoAnswer("ConnectTimeout") from error
        # ValueError: a name that no certificate can hold.
        if isinstance(error, (trio.BrokenResourceError, trio.ClosedResourceError, ValueError)):
            raise NoAnswer("ConnectError") from error
        raise
    return stream


def _batches(parts: Sequence[Buffer]) -> list[list[memoryview]]:
    """The parts in batches of PIECE; nothing is copied."""
    batches: list[list[memoryview]] = [[]]
    size = 0
    for part in parts:
        view = memoryview(part).cast("B")
        at = 0
        while at < len(view):
            piece = view[at : at + PIECE - size]
            batches[-1].append(piece)
            at += len(piece)
            size += len(piece)
            if size >= PIECE:
                batches.append([])
                size = 0
    return [batch for batch in batches if batch]
