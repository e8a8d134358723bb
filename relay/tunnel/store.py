"""The Router's way to object stores: signed requests carried out, and nothing else.

A Router holds no cloud credentials. It is told by the Bridge which URL to PUT, GET or DELETE, and
trusts neither: a URL that points into the hospital is refused (DESIGN §3, "Stores"), a redirect is
not followed, an answer is cut off at the size that was announced, and nothing of Relay's but the
sealed bytes goes there.
"""

import ssl
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar

import attrs
import httpx
import trio

from relay.byte_stream import Buffer
from relay.errors import LocalProtocolError, ObjectMissing, ProviderError, connection_fault
from relay.tunnel.connections import Answer, NoAnswer, Patience, Pool, ProxyRefused, acquire
from relay.tunnel.guard import NOT_PUBLIC, Guard, IPAddress, is_public, literal
from relay.tunnel.heads import fields_of
from relay.tunnel.origin import Origin, Target, host_of, origin_of, target_of
from relay.tunnel.via import directly, through

T = TypeVar("T")

# Transfers in flight with one store over all sessions of one Router: enough to fill a long fat line
# with chunks of 1 MiB, few enough not to look like an attack to a hospital's proxy.
TRANSFERS_PER_STORE = 24
# Deleting has turns of its own: a store that is slow at it must not hold up what devices wait for.
DELETES_PER_STORE = 8
# So have requests for what is not there yet, each of which waits for most of its time: as many as
# eight deliveries have. The Bridge's own store has places for twice as many of one Router.
AHEAD_PER_STORE = 64
# With all stores together: one that hangs leaves enough for three others. All of them are kept: a
# new one costs as much as three requests, and three round trips.
MAXIMUM_CONNECTIONS = 4 * (TRANSFERS_PER_STORE + DELETES_PER_STORE + AHEAD_PER_STORE)
KEPT_FOR = 30.0  # seconds idle, below the 60 s after which the clouds close

CONNECT_TIMEOUT = 10.0  # TCP over all of a name's addresses, then TLS; slower is down
# One piece of a transfer, not the whole: a slow line is served, a dead one noticed.
PIECE_TIMEOUT = 10.0
# A whole request. Slower than this (1 MiB at 9 KB/s) no association survives anyway.
REQUEST_TIMEOUT = 120.0
# A DELETE has nothing to transfer, and the sweeper comes after it.
DELETE_TIMEOUT = 10.0
# What the Bridge's own store takes at most until an object that is asked for ahead of time begins
# to come (`relay.providers.disk.AHEAD_WAIT`), and the way there and back.
AHEAD_PATIENCE = 25.0

# What a PUT or DELETE is answered is read for nothing but to keep the connection.
MAXIMUM_ANSWER = 4096

# Statuses that say nothing about the request itself: waiting may help. 425 and 429 ask for it.
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# Put-if-absent met an object of that name (412 on S3, 409 on Azure; DESIGN §12): a slot's name is
# used for one chunk only, so that it can only be this one, put by an attempt whose answer got lost.
EXISTS_STATUSES = frozenset({409, 412})
# S3's 409 says otherwise: an attempt that was given up is still under way there, and may yet fail.
# S3 API reference, "PutObject", conditional writes: on a 409, upload again.
UNDER_WAY_CODES = (b"<Code>ConditionalRequestConflict<", b"<Code>OperationAborted<")

# Stores whose last request failed, for people: the Bridge names stores, and may name any number.
MAXIMUM_FAILING = 16

# What a URL's signer may not set: these frame the request, or name its target.
FRAMING_HEADERS = frozenset(
    {"connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)


class _Turn(Enum):
    """Kinds of requests of which each waits for its own kind alone."""

    TRANSFER = "transfer"
    DELETE = "delete"
    AHEAD = "ahead"


_TURNS = {
    _Turn.TRANSFER: TRANSFERS_PER_STORE,
    _Turn.DELETE: DELETES_PER_STORE,
    _Turn.AHEAD: AHEAD_PER_STORE,
}


@attrs.frozen(slots=True)
class ObjectRequest:
    """One signed request as it came over signalling (`relay.providers.SignedRequest`)."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    expires: int

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> "ObjectRequest":
        """The request in one row of a SlotURLs, Announce or Resigned message, bounds checked."""
        method, url, headers, expires = row
        return cls(method, url, tuple((name, value) for name, value in headers), expires)


@attrs.frozen(slots=True)
class StoreStatistics:
    """What an ObjectClient has done so far; bytes are sealed bytes.

    `failing`: of each store (scheme, host, port as a URL) whose last request failed, why.
    """

    puts: int
    gets: int
    deletes: int
    failures: int
    bytes_put: int
    bytes_got: int
    failing: Mapping[str, str] = attrs.field(factory=dict)


class ObjectClient:
    """Puts, gets and deletes sealed chunks by signed requests; one for each Router.

    Made by `open_object_client`. All methods raise ProviderError, `permanent` where another try
    of the same request cannot help, and ObjectMissing.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        allowed_origins: Collection[str],
        permitted: Callable[[IPAddress], bool],
    ) -> None:
        self._pool = pool
        self._allowed = frozenset(map(origin_of, allowed_origins))
        self._permitted = permitted
        self._turns: dict[tuple[Origin, _Turn], trio.CapacityLimiter] = {}
        self._puts = self._gets = self._deletes = self._failures = 0
        self._bytes_put = self._bytes_got = 0
        self._failing: dict[str, str] = {}  # oldest first
        self._last: Origin | None = None  # the store that answered last

    async def put(self, request: ObjectRequest, data: Buffer | Sequence[Buffer]) -> None:
        """Store `data`, one buffer or the parts of one, sent as they lie.

        An object that is there already counts as stored.
        """
        parts: Sequence[Buffer]
        parts = (data,) if isinstance(data, (bytes, bytearray, memoryview)) else data
        length = sum(memoryview(part).nbytes for part in parts)

        async def hear(answer: Answer) -> None:
            if answer.status not in EXISTS_STATUSES:
                _refuse_failure(request, answer)
            words = await answer.read(MAXIMUM_ANSWER) or b""
            if answer.status == 409 and any(code in words for code in UNDER_WAY_CODES):
                raise ProviderError(f"{_where(request)}: another PUT of it is under way")

        await self._exchange("PUT", request, hear, parts, length=length)
        self._puts += 1
        self._bytes_put += length

    async def get(self, request: ObjectRequest, size: int) -> bytearray:
        """The object, which must be `size` bytes long: less or more is a failure."""

        async def hear(answer: Answer) -> bytearray | None:
            _refuse_failure(request, answer)
            return await answer.read(size)

        data = await self._exchange("GET", request, hear)
        if data is None:
            raise self._failed(request, f"object is larger than {size} bytes")
        if len(data) != size:
            raise self._failed(request, f"object has {len(data)} bytes, not {size}")
        self._gets += 1
        self._bytes_got += size
        return data

    async def get_ahead(
        self, request: ObjectRequest, limit: int, begun: Callable[[], None] = lambda: None
    ) -> bytearray | None:
        """The object, of at most `limit` bytes, which may not be there yet.

        The Bridge's own store waits for it, and answers while it still arrives. None where it did
        not begin to come in that time, or, at once, where too many such requests wait there
        already: it is then to be got when it is announced. A PUT that is cut short is a failure of
        the GET. `begun` is called when the answer has begun. Raises WouldBlock if too many such
        requests wait here.
        """

        async def hear(answer: Answer) -> tuple[int, bytearray | None]:
            begun()
            _refuse_failure(request, answer)
            if not answer.delimited:  # one that is cut would look whole
                raise ProviderError(f"{_where(request)}: answered without a length")
            return answer.status, await answer.read(limit)

        status, data = await self._exchange("GET", request, hear, turn_of=_Turn.AHEAD)
        if status == 204:
            return None
        if data is None:
            raise self._failed(request, f"object is larger than {limit} bytes")
        self._gets += 1
        self._bytes_got += len(data)
        return data

    async def delete(self, request: ObjectRequest) -> None:
        """Delete the object; one that is not there counts as deleted."""

        async def hear(answer: Answer) -> None:
            if answer.status != 404:
                _refuse_failure(request, answer)
            await answer.read(MAXIMUM_ANSWER)

        await self._exchange("DELETE", request, hear, turn_of=_Turn.DELETE)
        self._deletes += 1

    async def warm(self, count: int) -> None:
        """Have so many connections ready with the store that answered last: most likely it is the
        next one too. What fails is left to those who need it."""
        if self._last is not None:
            await self._pool.warm(self._last, count)

    def statistics(self) -> StoreStatistics:
        """Counts since the start."""
        return StoreStatistics(
            puts=self._puts,
            gets=self._gets,
            deletes=self._deletes,
            failures=self._failures,
            bytes_put=self._bytes_put,
            bytes_got=self._bytes_got,
            failing=dict(self._failing),
        )

    async def _exchange(
        self,
        method: str,
        request: ObjectRequest,
        hear: Callable[[Answer], Awaitable[T]],
        parts: Sequence[Buffer] = (),
        *,
        length: int | None = None,
        turn_of: _Turn = _Turn.TRANSFER,
    ) -> T:
        """What `hear` makes of the answer to one request; foreign exceptions do not leave it.

        Raises trio.WouldBlock where all turns of a kind that is not waited for are taken.
        """
        try:
            origin, target, _ = self._admit(method, request)
            fields = _standing_fields(origin)
            if request.headers:
                fields += fields_of(request.headers)
            if length is not None:
                fields += b"Content-Length: %d\r\n" % length
            waits = AHEAD_PATIENCE if turn_of is _Turn.AHEAD else 0.0
            within = DELETE_TIMEOUT if turn_of is _Turn.DELETE else REQUEST_TIMEOUT
            with trio.CancelScope(deadline=trio.current_time() + within) as scope:
                limiter = await self._turn(origin, turn_of)
                try:
                    async with self._pool.connection(origin) as connection:
                        result = await hear(
                            await connection.request(method, target, fields, parts, waits=waits)
                        )
                finally:
                    limiter.release()
                    # Stores come and go by the Bridge's word: none is remembered that nobody
                    # speaks to. Whoever waits has a token as soon as one is free.
                    if not limiter.borrowed_tokens:
                        self._turns.pop((origin, turn_of), None)
            if scope.cancelled_caught:
                raise NoAnswer("TooSlowError")
            if self._failing:
                self._failing.pop(origin.url, None)
            self._last = origin
            return result
        except ProviderError as error:
            self._failures += 1
            if not isinstance(error, ObjectMissing):  # the store works, and says so
                self._note(request, error)
            raise
        # UnicodeError: a name that HTTP cannot say.
        except (NoAnswer, LocalProtocolError, httpx.InvalidURL, UnicodeError) as error:
            raise self._failed(request, _words(error, _where(request))) from error

    async def _turn(self, origin: Origin, kind: _Turn) -> trio.CapacityLimiter:
        """Wait for one of the store's connections, so that none takes those of the others.

        The limiter that it is of is to be released.
        """
        key = origin, kind
        limiter = self._turns.get(key)
        if limiter is None:
            limiter = self._turns[key] = trio.CapacityLimiter(_TURNS[kind])
        if kind is _Turn.AHEAD and not limiter.available_tokens:
            raise trio.WouldBlock
        await acquire(limiter)
        return limiter

    def _admit(self, method: str, request: ObjectRequest) -> Target:
        """Whom to ask for what, unless the URL is refused whatever its name leads to."""
        if request.method != method:
            raise _refused(request, f"signed for {request.method[:8]!r}, not {method}")
        for name, _ in request.headers:
            if name.lower() in FRAMING_HEADERS:
                raise _refused(request, f"header {name[:32]!r} may not be set by a signer")
        target = target_of(request.url)
        if target.named:
            raise _refused(request, "URLs with a user name are not taken")
        origin = target.origin
        if origin in self._allowed:
            return target
        if origin.scheme != "https":
            raise _refused(request, "only https is spoken to stores that are not configured")
        if not origin.host:
            raise _refused(request, "names no host")
        # Names are checked where they are looked up: by the guard, or by no one where a proxy does
        # it (DESIGN §3: then only literal addresses can be checked).
        if not all(map(self._permitted, literal(origin.host))):
            raise _refused(request, NOT_PUBLIC)
        return target

    def _failed(self, request: ObjectRequest, why: str) -> ProviderError:
        self._failures += 1
        error = ProviderError(f"{_where(request)}: {why}")
        self._note(request, error)
        return error

    def _note(self, request: ObjectRequest, error: ProviderError) -> None:
        """Keep why a store's last request failed."""
        origin = _origin_url(request)
        self._failing.pop(origin, None)
        self._failing[origin] = str(error)
        if len(self._failing) > MAXIMUM_FAILING:
            del self._failing[next(iter(self._failing))]


@asynccontextmanager
async def open_object_client(
    *,
    ssl_context: ssl.SSLContext,
    allowed_origins: Collection[str] = (),
    proxy: str | None = None,
    permitted: Callable[[IPAddress], bool] = is_public,
) -> AsyncIterator[ObjectClient]:
    """An ObjectClient for as long as the block lasts.

    `allowed_origins` ("https://host:port", "http://host") may be spoken to wherever they are: the
    enrolled Bridge's own and those of the configuration. All others only by https at addresses
    that are `permitted`. `proxy` is "http://user:password@host:port".
    """
    ssl_context.set_alpn_protocols(["http/1.1"])
    patience = Patience(connect=CONNECT_TIMEOUT, piece=PIECE_TIMEOUT)
    if proxy is None:
        allowed = frozenset(
            (origin.host, origin.port) for origin in map(origin_of, allowed_origins)
        )
        connect = directly(Guard(allowed, permitted), ssl_context, patience)
    else:
        connect = through(proxy, ssl_context, patience)
    pool = Pool(connect, maximum=MAXIMUM_CONNECTIONS, kept_for=KEPT_FOR)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.close_idle)
        try:
            yield ObjectClient(pool, allowed_origins=allowed_origins, permitted=permitted)
        finally:
            await pool.aclose()
        nursery.cancel_scope.cancel()


@lru_cache(maxsize=64)
def _standing_fields(origin: Origin) -> bytes:
    """What is said with each request to this store. Raises LocalProtocolError, UnicodeError."""
    return fields_of(
        (
            ("Host", origin.authority),
            # Sealed bytes do not compress, and a bomb is not asked for.
            ("Accept-Encoding", "identity"),
            ("User-Agent", "Relay"),  # there are gateways that take no request without one
        )
    )


def _refuse_failure(request: ObjectRequest, answer: Answer) -> None:
    """Raise what `answer` means, unless it is success."""
    if 200 <= answer.status < 300:
        return
    words = f"{_where(request)}: answered {answer.status}"
    if answer.status in {404, 410}:
        raise ObjectMissing(words)
    raise ProviderError(words, permanent=answer.status not in TRANSIENT_STATUSES)


def _where(request: ObjectRequest) -> str:
    """The request for a log: its host only, since path and query hold a signature."""
    try:
        return host_of(httpx.URL(request.url)) or "store"
    except (httpx.InvalidURL, UnicodeError):
        return "store"


def _origin_url(request: ObjectRequest) -> str:
    """The store as `allowed_origins` would name it, for people."""
    try:
        url = httpx.URL(request.url)
        return f"{url.scheme}://{url.netloc.decode('ascii')}" if url.host else "store"
    except (httpx.InvalidURL, UnicodeError):
        return "store"


def _words(error: Exception, host: str) -> str:
    """What kept a request to `host` from its answer; never empty, and of the URL no more."""
    if isinstance(error, ProxyRefused):
        return f"the proxy does not connect to it: {error}"
    kind = str(error) if isinstance(error, NoAnswer) else type(error).__name__
    fault = connection_fault(error, host)
    return f"{kind}: {fault}" if fault else kind


def _refused(request: ObjectRequest, why: str) -> ProviderError:
    return ProviderError(f"{_where(request)}: {why}", permanent=True)
