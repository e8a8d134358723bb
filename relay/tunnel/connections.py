"""HTTP/1.1 with object stores, over connections that are kept.

No more of HTTP than that takes: a request whose body is sent as it lies, an answer that is read
into one buffer, no redirects, no cookies, nothing that is inflated. h11 parses and frames heads and
chunks. With httpx and httpcore a GET of 2 MiB took 11 ms of processor time here and not 3, a DELETE
0.75 ms and not 0.3.
"""

import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import h11
import trio

from relay.byte_stream import WIRE_PIECE, Buffer, PlainStream, TLSStream
from relay.tunnel.origin import Origin

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
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """`via` stands before each target, and `headers` with each, for a proxy that asks."""
        self._stream = stream
        self._patience = patience
        self._via = via
        self._headers = tuple(headers)
        self.idle_since = trio.current_time()
        self.reusable = True

    async def request(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        parts: Sequence[Buffer] = (),
        *,
        waits: float = 0.0,
    ) -> "Answer":
        """Send a request and read the head of its answer.

        `headers` say how long `parts` are together. The head may take `waits` seconds more than
        any piece. Raises NoAnswer.
        """
        self.reusable = False  # until the answer's end was read
        engine = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAXIMUM_HEAD)
        try:
            head = engine.send(
                h11.Request(
                    method=method, target=self._via + target, headers=[*headers, *self._headers]
                )
            )
        except h11.LocalProtocolError as error:
            raise NoAnswer(f"LocalProtocolError: {error}") from None
        assert head is not None
        early = False
        try:
            for batch in _batches([head, *parts]):
                with trio.fail_after(self._patience.piece):
                    await self._stream.send_parts(batch)
        except trio.TooSlowError as error:
            raise NoAnswer("WriteTimeout") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Who does not want the body answers, and closes: that answer says why.
            early = True
        return await self._answer(engine, self._patience.piece + waits, early=early)

    async def _answer(self, engine: h11.Connection, patience: float, *, early: bool) -> "Answer":
        while True:
            try:
                event = engine.next_event()
            except h11.RemoteProtocolError as error:
                raise NoAnswer("RemoteProtocolError") from error
            if isinstance(event, h11.Response):
                return Answer(self, engine, event, early=early)
            if event is h11.NEED_DATA:
                engine.receive_data(await self._hear(patience))  # type: ignore[arg-type]
            elif not isinstance(event, h11.InformationalResponse):
                raise NoAnswer("RemoteProtocolError")

    async def _hear(self, patience: float) -> bytes | bytearray:
        """Some of an answer's head, none at the end. Raises NoAnswer.

        `patience` begins anew while the other end takes what the kernel has yet to send: a slow
        line gets its time, and one that is dead no more than `patience`.
        """
        deadline = trio.current_time() + patience
        unsent = self._stream.unacknowledged
        while unsent:
            with trio.move_on_at(min(deadline, trio.current_time() + patience / LOOKS)):
                return await self.receive(HEAD_PIECE, patience)
            before, unsent = unsent, self._stream.unacknowledged
            if unsent < before:
                deadline = trio.current_time() + patience
            elif trio.current_time() >= deadline:
                raise NoAnswer("ReadTimeout")
        return await self.receive(HEAD_PIECE, deadline - trio.current_time())

    async def receive(self, size: int, patience: float | None = None) -> bytes | bytearray:
        """What has come, none at the end. Raises NoAnswer."""
        try:
            with trio.fail_after(self._patience.piece if patience is None else patience):
                return await self._stream.receive_some(size)
        except trio.TooSlowError as error:
            raise NoAnswer("ReadTimeout") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise NoAnswer("ReadError") from error

    async def receive_into(self, buffer: memoryview) -> None:
        """Fill `buffer`. Raises NoAnswer."""
        received = 0
        try:
            while received < len(buffer):
                with trio.fail_after(self._patience.piece):
                    count = await self._stream.receive_into(buffer[received:])
                if not count:
                    raise NoAnswer("RemoteProtocolError")
                received += count
        except trio.TooSlowError as error:
            raise NoAnswer("ReadTimeout") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise NoAnswer("ReadError") from error

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
        self, connection: Connection, engine: h11.Connection, response: h11.Response, *, early: bool
    ) -> None:
        self.status = response.status_code
        self._connection = connection
        self._engine = engine
        headers = dict(response.headers)
        self._keeps = (
            not early
            and response.http_version == b"1.1"
            and b"close" not in headers.get(b"connection", b"").lower()
        )
        self._length: int | None = None
        # Whether the answer itself says where it ends (RFC 9112 §6.3), and so a cut is seen.
        self.delimited = True
        if self.status in (204, 304):
            self._length = 0
        elif b"transfer-encoding" not in headers and b"content-length" in headers:
            self._length = int(headers[b"content-length"])  # digits only: h11 has seen to it
        elif b"transfer-encoding" not in headers:
            self.delimited = False

    async def read(self, limit: int) -> bytearray | None:
        """The body, or None where it is longer than `limit`; the connection ends then.

        Raises NoAnswer.
        """
        if self._length is None:
            return await self._read_unmeasured(limit)
        if self._length > limit:
            return None
        # Past h11, which would copy each byte twice.
        come, _ = self._engine.trailing_data
        body = bytearray(self._length)
        body[: len(come)] = come[: self._length]
        if len(come) < self._length:
            with memoryview(body) as view:
                await self._connection.receive_into(view[len(come) :])
        # More than was announced is no answer of ours.
        self._connection.reusable = self._keeps and len(come) <= self._length
        return body

    async def _read_unmeasured(self, limit: int) -> bytearray | None:
        """A body in chunks, or one that ends with the connection, whole or not."""
        body = bytearray()
        try:
            while not isinstance(event := self._engine.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > limit:
                        return None
                elif event is h11.NEED_DATA:
                    self._engine.receive_data(await self._connection.receive(WIRE_PIECE))  # type: ignore[arg-type]
                else:
                    raise NoAnswer("RemoteProtocolError")
        except h11.RemoteProtocolError as error:
            raise NoAnswer("RemoteProtocolError") from error
        self._connection.reusable = self._keeps and self._engine.their_state is h11.DONE
        return body


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

    @asynccontextmanager
    async def connection(self, origin: Origin) -> AsyncIterator[Connection]:
        """A connection for one request. Raises what `connect` raises."""
        async with turn(self._turns):
            kept = await self._take(origin)
            taken = trio.current_time()
            connection = kept or await self._open(origin)
            try:
                yield connection
            except NoAnswer:
                if kept is not None:
                    # A firewall that has forgotten this one has forgotten those that were idle
                    # with it: each would cost the next try all of its patience.
                    await self._drop(lambda connection: connection.idle_since <= taken, origin)
                raise
            finally:
                if connection.reusable:
                    connection.idle_since = trio.current_time()
                    self._idle.setdefault(origin, deque()).append(connection)
                    self._kept += 1
                else:
                    with trio.CancelScope(shield=True):
                        await connection.aclose()

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

    async def _open(self, origin: Origin) -> Connection:
        if self._kept + self._turns.borrowed_tokens > self._maximum:
            oldest = min(idle[0].idle_since for idle in self._idle.values())
            await self._drop(lambda connection: connection.idle_since <= oldest)
        return await self._connect(origin)

    async def _expire(self) -> None:
        past = trio.current_time() - self._kept_for
        if any(idle[0].idle_since <= past for idle in self._idle.values()):
            await self._drop(lambda connection: connection.idle_since <= past)

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


@asynccontextmanager
async def turn(limiter: trio.CapacityLimiter) -> AsyncIterator[None]:
    """One of the limiter's turns, without a turn of the event loop where one is free."""
    try:
        limiter.acquire_nowait()
    except trio.WouldBlock:
        await limiter.acquire()
    try:
        yield
    finally:
        limiter.release()


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
