"""The probe says which promise a store breaks, and what to do."""

import gzip
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from relay.errors import ProviderError
from relay.providers import Finding, SignedRequest
from relay.providers.probe import MAXIMUM_ANSWER, alive, probe, reached

SECRET = "s=SIGNATURE"


class Signer:
    """Signs for a store at http://store."""

    name = "fake"
    fails = False

    async def _sign(self, method: str, name: str) -> SignedRequest:
        if self.fails:
            raise ProviderError("credentials have expired")
        return SignedRequest(method, f"http://store/{name}?m={method}&{SECRET}", (("a", "b"),), 0)

    async def sign_put(self, name: str, *, size_limit: int, lifetime: int) -> SignedRequest:
        return await self._sign("PUT", name)

    async def sign_get(self, name: str, *, lifetime: int) -> SignedRequest:
        return await self._sign("GET", name)

    async def sign_delete(self, name: str, *, lifetime: int) -> SignedRequest:
        return await self._sign("DELETE", name)


class Store:
    """A good store, but for what `breaks` answers."""

    def __init__(self, breaks: Callable[[httpx.Request], httpx.Response | None]) -> None:
        self.objects: dict[str, bytes] = {}
        self.breaks = breaks
        self.gets = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["a"] == "b"
        if (broken := self.breaks(request)) is not None:
            return broken
        if request.url.params["m"] != request.method:
            return httpx.Response(403)
        path = request.url.path
        if request.method == "PUT":
            if path in self.objects:
                return httpx.Response(412)
            self.objects[path] = request.content
            return httpx.Response(200)
        if request.method == "GET":
            known = path in self.objects
            return httpx.Response(200, content=self.objects[path]) if known else NOT_FOUND
        self.objects.pop(path, None)
        return httpx.Response(204)


NOT_FOUND = httpx.Response(404)


async def failed(breaks: Callable[[httpx.Request], httpx.Response | None]) -> list[str]:
    transport = httpx.MockTransport(Store(breaks))
    async with httpx.AsyncClient(transport=transport) as client:
        findings = await probe(Signer(), client)
    assert SECRET not in str(findings)
    assert all(finding.ok or finding.advice for finding in findings)
    return [finding.what for finding in findings if not finding.ok]


async def test_good_store() -> None:
    assert await failed(lambda request: None) == []


@pytest.mark.parametrize(
    ("method", "broken", "found"),
    [
        ("PUT", httpx.Response(403), "PUT of a new object"),
        ("PUT", httpx.Response(200), "second PUT is refused"),
        ("GET", httpx.Response(200, content=b"other"), "GET of the same bytes"),
        ("DELETE", httpx.Response(204), "a GET's URL does not delete"),
        ("DELETE", httpx.Response(500), "DELETE"),
    ],
)
async def test_broken_promises(method: str, broken: httpx.Response, found: str) -> None:
    found_all = await failed(lambda request: broken if request.method == method else None)
    assert found in found_all


async def test_unreachable() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"no route to {request.url}")

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
        [finding] = await probe(Signer(), client)
    assert (finding.what, finding.ok) == ("reach store", False)
    assert not reached([Finding("PUT", True), finding])
    assert reached([Finding("PUT", False, "no"), Finding("reach store", True)])
    assert SECRET not in finding.advice
    assert "ConnectError" in finding.advice


async def test_store_that_cannot_sign() -> None:
    signer = Signer()
    signer.fails = True
    async with httpx.AsyncClient() as client:
        [finding] = await probe(signer, client)
    assert (finding.ok, finding.advice) == (False, "credentials have expired")


async def test_unreachable_says_the_systems_cause() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("") from ConnectionRefusedError(111, "refused")

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
        [finding] = await probe(Signer(), client)
    assert "nobody listens there" in finding.advice


async def test_alive_is_silent_where_the_store_works() -> None:
    store = Store(lambda request: None)
    async with httpx.AsyncClient(transport=httpx.MockTransport(store)) as client:
        await alive(Signer(), client)
    assert store.objects == {}


@pytest.mark.parametrize(
    ("method", "broken", "words"),
    [
        ("PUT", httpx.Response(507), "store: PUT: the store answered 507"),
        ("GET", httpx.Response(404), "store: GET: the store answered 404"),
        ("GET", httpx.Response(200, content=b"other"), "other bytes"),
        ("DELETE", httpx.Response(403), "store: DELETE: the store answered 403"),
    ],
)
async def test_alive_says_what_does_not_work(method: str, broken, words: str) -> None:
    store = Store(lambda request: broken if request.method == method else None)
    async with httpx.AsyncClient(transport=httpx.MockTransport(store)) as client:
        with pytest.raises(ProviderError, match=words):
            await alive(Signer(), client)


async def test_alive_has_the_words_of_the_check() -> None:
    store = Store(lambda request: httpx.Response(403))
    async with httpx.AsyncClient(transport=httpx.MockTransport(store)) as client:
        with pytest.raises(ProviderError, match=r"^store: PUT: check secret_key$"):
            await alive(Signer(), client, lambda answer: "check secret_key")


async def test_alive_without_a_line() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"no route to {request.url}")

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(ProviderError, match="store: ConnectError; check") as caught:
            await alive(Signer(), client)
    assert SECRET not in str(caught.value)


async def test_every_answer_is_explained() -> None:
    seen: list[int] = []

    def explain(answer: httpx.Response) -> str:
        seen.append(answer.status_code)
        return "in words"

    store = Store(lambda request: NOT_FOUND if request.method == "GET" else None)
    async with httpx.AsyncClient(transport=httpx.MockTransport(store)) as client:
        findings = await probe(Signer(), client, explain)
    assert seen == [200, 412, 404, 403, 204, 404]
    assert [f.advice for f in findings if not f.ok] == ["in words"]


class Endless(httpx.AsyncByteStream):
    """A body that goes on until its connection is closed."""

    def __init__(self) -> None:
        self.given = 0
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._closed:
            self.given += 1
            assert self.given < 100, "it is read without end"
            yield b"x" * MAXIMUM_ANSWER

    async def aclose(self) -> None:
        self._closed = True


async def test_an_answer_without_end_is_read_to_a_limit() -> None:
    bodies: list[Endless] = []

    def breaks(request: httpx.Request) -> httpx.Response | None:
        if request.method != "GET":
            return None
        bodies.append(Endless())
        return httpx.Response(200, stream=bodies[-1])

    assert await failed(breaks) == ["GET of the same bytes", "the object is gone"]
    assert [body.given for body in bodies] == [2, 2]


async def test_an_answer_is_not_unpacked() -> None:
    """What is short as it comes may be longer than memory."""

    async def packed() -> AsyncIterator[bytes]:
        yield gzip.compress(bytes(1024 * 1024))

    lengths: list[int] = []

    def note(answer: httpx.Response) -> str:
        lengths.append(len(answer.content))
        return "no"

    def breaks(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(500, headers={"Content-Encoding": "gzip"}, content=packed())

    async with httpx.AsyncClient(transport=httpx.MockTransport(Store(breaks))) as client:
        await probe(Signer(), client, note)
    assert lengths == [0]
