"""The Router's way to object stores: signed requests carried out, and nothing else.

A Router holds no cloud credentials. It is told by the Bridge which URL to PUT, GET or DELETE, and
trusts neither: a URL that points into the hospital is refused (DESIGN §3, "Stores"), a redirect is
not followed, an answer is cut off at the size that was announced, and nothing of Relay's but the
sealed bytes goes there.
"""

import http.cookiejar
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import trio

from relay.errors import ObjectMissing, ProviderError, connection_fault
from relay.tunnel.guard import (
    NOT_PUBLIC,
    GuardedBackend,
    GuardedTransport,
    IPAddress,
    is_public,
    literal,
)

_Origin = tuple[str, str, int]

# Transfers in flight with one store over all sessions of one Router: enough to fill a long fat line
# with chunks of 1 MiB, few enough not to look like an attack to a hospital's proxy.
TRANSFERS_PER_STORE = 24
# Deleting has turns of its own: a store that is slow at it must not hold up what devices wait for.
DELETES_PER_STORE = 8
# With all stores together: one that hangs leaves enough for three others.
MAXIMUM_CONNECTIONS = 4 * (TRANSFERS_PER_STORE + DELETES_PER_STORE)
KEPT_CONNECTIONS = 16
KEPT_FOR = 30.0  # seconds idle, below the 60 s after which the clouds close

CONNECT_TIMEOUT = 10.0  # TCP over all of a name's addresses, then TLS; slower is down
# One piece of a transfer, not the whole: a slow line is served, a dead one noticed.
PIECE_TIMEOUT = 10.0
# A whole request. Slower than this (1 MiB at 9 KB/s) no association survives anyway.
REQUEST_TIMEOUT = 120.0
# A DELETE has nothing to transfer, and the sweeper comes after it.
DELETE_TIMEOUT = 10.0
# What is written under one PIECE_TIMEOUT, and so the slowest line served: 13 KB/s.
PIECE = 128 * 1024

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
# ... and of what a proxy says against it, how much is told on.
MAXIMUM_WORDS = 80

# What a URL's signer may not set: these frame the request, or name its target.
FRAMING_HEADERS = frozenset(
    {"connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)


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
        client: httpx.AsyncClient,
        *,
        allowed_origins: Collection[str],
        permitted: Callable[[IPAddress], bool],
    ) -> None:
        self._client = client
        self._allowed = frozenset(_origin(httpx.URL(origin)) for origin in allowed_origins)
        self._permitted = permitted
        self._turns: dict[tuple[_Origin, bool], trio.CapacityLimiter] = {}
        self._puts = self._gets = self._deletes = self._failures = 0
        self._bytes_put = self._bytes_got = 0
        self._failing: dict[str, str] = {}  # oldest first

    async def put(self, request: ObjectRequest, data: bytes | memoryview) -> None:
        """Store `data`; an object that is there already counts as stored."""
        async with self._exchange("PUT", request, data) as response:
            if response.status_code not in EXISTS_STATUSES:
                _refuse_failure(response)
            answer = await _read(response, MAXIMUM_ANSWER) or b""
            if response.status_code == 409 and any(code in answer for code in UNDER_WAY_CODES):
                raise ProviderError(f"{_where(request)}: another PUT of it is under way")
        self._puts += 1
        self._bytes_put += len(data)

    async def get(self, request: ObjectRequest, size: int) -> bytes:
        """The object, which must be `size` bytes long: less or more is a failure."""
        async with self._exchange("GET", request) as response:
            _refuse_failure(response)
            data = await _read(response, size)
        if data is None:
            raise self._failed(request, f"object is larger than {size} bytes")
        if len(data) != size:
            raise self._failed(request, f"object has {len(data)} bytes, not {size}")
        self._gets += 1
        self._bytes_got += size
        return bytes(data)

    async def delete(self, request: ObjectRequest) -> None:
        """Delete the object; one that is not there counts as deleted."""
        async with self._exchange("DELETE", request) as response:
            if response.status_code != 404:
                _refuse_failure(response)
            await _read(response, MAXIMUM_ANSWER)
        self._deletes += 1

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

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        request: ObjectRequest,
        data: bytes | memoryview | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """One request and the head of its answer; foreign exceptions do not leave it."""
        try:
            url = self._admit(method, request)
            # Sealed bytes do not compress, and a bomb is not asked for.
            headers = [("Accept-Encoding", "identity"), *request.headers]
            if data is not None:
                headers.append(("Content-Length", str(len(data))))
            outgoing = self._client.build_request(method, url, headers=headers)
            if data is not None:
                outgoing.stream = _Pieces(data)
            limit = DELETE_TIMEOUT if method == "DELETE" else REQUEST_TIMEOUT
            with trio.fail_after(limit):
                async with self._turn(_origin(url), method == "DELETE"):
                    response = await self._client.send(outgoing, stream=True)
                    try:
                        yield response
                    finally:
                        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                            await response.aclose()
            self._failing.pop(_origin_url(request), None)
        except ProviderError as error:
            self._failures += 1
            if not isinstance(error, ObjectMissing):  # the store works, and says so
                self._note(request, error)
            raise
        # UnicodeError: a name or header that HTTP cannot say.
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError, UnicodeError) as error:
            raise self._failed(request, _words(error, _where(request))) from error

    @asynccontextmanager
    async def _turn(self, origin: _Origin, deletes: bool) -> AsyncIterator[None]:
        """Wait for one of the store's connections, so that none takes those of the others."""
        key = origin, deletes
        limit = DELETES_PER_STORE if deletes else TRANSFERS_PER_STORE
        limiter = self._turns.setdefault(key, trio.CapacityLimiter(limit))
        try:
            async with limiter:
                yield
        finally:
            # Stores come and go by the Bridge's word: none is remembered that nobody speaks to.
            if not limiter.borrowed_tokens and not limiter.statistics().tasks_waiting:
                self._turns.pop(key, None)

    def _admit(self, method: str, request: ObjectRequest) -> httpx.URL:
        """The URL, unless it is one that is refused whatever its name leads to."""
        if request.method != method:
            raise _refused(request, f"signed for {request.method[:8]!r}, not {method}")
        for name, _ in request.headers:
            if name.lower() in FRAMING_HEADERS:
                raise _refused(request, f"header {name[:32]!r} may not be set by a signer")
        url = httpx.URL(request.url)
        if url.userinfo:
            raise _refused(request, "URLs with a user name are not taken")
        if _origin(url) in self._allowed:
            return url
        if url.scheme != "https":
            raise _refused(request, "only https is spoken to stores that are not configured")
        # Names are checked where they are looked up: by the network backend, or by no one where
        # a proxy does it (DESIGN §3: then only literal addresses can be checked).
        if not all(map(self._permitted, literal(_host(url)))):
            raise _refused(request, NOT_PUBLIC)
        return url

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
    limits = httpx.Limits(
        max_connections=MAXIMUM_CONNECTIONS,
        max_keepalive_connections=KEPT_CONNECTIONS,
        keepalive_expiry=KEPT_FOR,
    )
    transport: httpx.AsyncHTTPTransport
    if proxy is None:
        allowed = frozenset(_origin(httpx.URL(origin))[1:] for origin in allowed_origins)
        backend = GuardedBackend(allowed, permitted)
        transport = GuardedTransport(ssl_context, backend, limits)
    else:
        transport = httpx.AsyncHTTPTransport(verify=ssl_context, proxy=proxy, limits=limits)
    # Without a policy that refuses them, httpx would send a store's cookies back to it.
    no_cookies = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    async with httpx.AsyncClient(
        transport=transport,
        cookies=no_cookies,
        follow_redirects=False,
        trust_env=False,  # no .netrc, no proxy from the environment: relay.toml alone says
        timeout=httpx.Timeout(PIECE_TIMEOUT, connect=CONNECT_TIMEOUT, pool=REQUEST_TIMEOUT),
    ) as client:
        yield ObjectClient(client, allowed_origins=allowed_origins, permitted=permitted)


class _Pieces(httpx.AsyncByteStream):
    """What is put, a PIECE at a time.

    No generator: httpcore does not close one when it is cancelled in the middle of a write.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = bytes(self._data[self._at : self._at + PIECE])
        if not piece:
            raise StopAsyncIteration
        self._at += len(piece)
        return piece


async def _read(response: httpx.Response, limit: int) -> bytearray | None:
    """The body, or None where it is longer than `limit`; its connection is then closed."""
    data = bytearray()
    pieces = response.aiter_raw()
    async for piece in pieces:
        if len(data) + len(piece) > limit:
            break
        data += piece
    else:
        return data
    # httpx's generators are nested and cannot be closed from here; on a closed connection they
    # run to their end.
    await response.aclose()
    try:
        async for _ in pieces:
            pass
    except (httpx.HTTPError, httpx.StreamError):
        return None
    return None


def _refuse_failure(response: httpx.Response) -> None:
    """Raise what `response` means, unless it is success."""
    status = response.status_code
    if 200 <= status < 300:
        return
    words = f"{_host(response.request.url)}: answered {status}"
    if status in {404, 410}:
        raise ObjectMissing(words)
    raise ProviderError(words, permanent=status not in TRANSIENT_STATUSES)


def _host(url: httpx.URL) -> str:
    """The host in ASCII; `url.host` would decode it, and raise where that cannot be."""
    return url.raw_host.decode("ascii").lower()


def _origin(url: httpx.URL) -> _Origin:
    port = url.port or {"https": 443, "http": 80}.get(url.scheme, 0)
    return url.scheme, _host(url), port


def _where(request: ObjectRequest) -> str:
    """The request for a log: its host only, since path and query hold a signature."""
    try:
        return _host(httpx.URL(request.url)) or "store"
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
    if isinstance(error, httpx.ProxyError):
        return f"the proxy does not connect to it: {str(error)[:MAXIMUM_WORDS]}"
    fault = connection_fault(error, host)
    return f"{type(error).__name__}: {fault}" if fault else type(error).__name__


def _refused(request: ObjectRequest, why: str) -> ProviderError:
    return ProviderError(f"{_where(request)}: {why}", permanent=True)
