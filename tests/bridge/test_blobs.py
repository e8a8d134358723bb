"""The blob endpoint alone: its refusals and deadlines. tests/providers runs it over real HTTP."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import httpx
import pytest
import trio
from starlette.responses import PlainTextResponse

from relay.bridge.blobs import BlobEndpoint
from relay.errors import ObjectMissing, ProviderError, Refused
from relay.web.operations import rest_app


class Blob:
    def __init__(self, *pieces: bytes, size: int | None = None) -> None:
        self.size = sum(map(len, pieces)) if size is None else size
        self._pieces = pieces
        self.closed = False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        for piece in filter(None, self._pieces):
            yield piece

    def close(self) -> None:
        self.closed = True


class Store:
    """A store that takes everything signed with "good", and has those of "ahead" wait."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.opened: list[Blob] = []
        self.slow = False
        self.error: ProviderError | None = None
        self.came = trio.Event()

    def verify(self, method: str, name: str, query: bytes) -> tuple[int, str]:
        if query not in (b"s=good", b"s=ahead"):
            raise Refused(403, "signature does not hold")
        return 100 if method == "PUT" else 0, "reader" if query == b"s=ahead" else ""

    async def write(self, name: str, stream, length: int) -> None:
        if self.error is not None:
            raise self.error
        if self.slow:
            await trio.sleep_forever()
        self.objects[name] = b"".join([piece async for piece in stream])

    async def open(self, name: str) -> Blob:
        if self.error is not None:
            raise self.error
        if name not in self.objects:
            raise ObjectMissing("no such object")
        self.opened.append(Blob(self.objects[name]))
        return self.opened[-1]

    async def open_ahead(self, name: str, reader: str, gone: Callable[[], Awaitable[None]]) -> Blob:
        assert reader == "reader"

        async def come() -> None:
            await self.came.wait()
            nursery.cancel_scope.cancel()

        if name not in self.objects and self.error is None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(come)
                await gone()
                nursery.cancel_scope.cancel()
        return await self.open(name)

    async def remove(self, name: str) -> None:
        self.objects.pop(name, None)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def client(store: Store):
    transport = httpx.ASGITransport(BlobEndpoint(store, timeout=0.2))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://x/v1/blobs", params={"s": "good"}
    ) as client:
        yield client


async def test_put_get_delete(client, store: Store) -> None:
    assert (await client.put("/ab/cd", content=b"sealed")).status_code == 201
    answer = await client.get("/ab/cd")
    assert (answer.content, answer.headers["content-length"]) == (b"sealed", "6")
    assert answer.headers["cache-control"] == "no-store"
    assert (await client.delete("/ab/cd")).status_code == 204
    assert (await client.delete("/ab/cd")).status_code == 204
    assert (await client.get("/ab/cd")).status_code == 404


async def test_refused_before_the_body_is_read(client, store: Store) -> None:
    too_large = await client.put("/ab/cd", content=bytes(101))
    assert (too_large.status_code, "101" in too_large.json()["error"]) == (413, True)
    packed = await client.put("/ab/cd", content=b"x", headers={"Content-Encoding": "gzip"})
    assert packed.status_code == 415
    unsigned = await client.put("/ab/cd", content=b"x", params={"s": "bad"})
    assert unsigned.status_code == 403
    assert store.objects == {}


async def test_other_methods(client) -> None:
    for method in ("POST", "PATCH", "OPTIONS", "HEAD"):
        answer = await client.request(method, "/ab/cd", content=b"x")
        assert answer.status_code == 405
        assert method == "HEAD" or answer.json() == {"error": "Method Not Allowed"}
        assert answer.headers["allow"] == "DELETE, GET, PUT"


async def test_length_is_needed(client, store: Store) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    assert (await client.put("/ab/cd", content=body())).status_code == 411
    assert store.objects == {}


async def test_slow_upload_is_given_up(client, store: Store) -> None:
    store.slow = True
    answer = await client.put("/ab/cd", content=b"x")
    assert (answer.status_code, answer.json()) == (408, {"error": "upload took too long"})


async def test_store_that_is_down(client, store: Store) -> None:
    store.error = ProviderError("disk store: Input/output error")
    for answer in (await client.put("/ab/cd", content=b"x"), await client.get("/ab/cd")):
        assert answer.status_code == 503
        assert answer.json() == {"error": "disk store: Input/output error"}
    assert (await client.get("/ab/cd", params={"s": "ahead"})).status_code == 503


async def test_an_object_of_no_bytes(client, store: Store) -> None:
    assert (await client.put("/ab/cd", content=b"")).status_code == 201
    answer = await client.get("/ab/cd")
    assert (answer.status_code, answer.headers["content-length"]) == (200, "0")


async def test_ahead_of_time_an_object_is_waited_for(store: Store) -> None:
    waiting = trio.Event()

    async def receive() -> dict:
        waiting.set()
        await trio.sleep_forever()
        raise AssertionError

    async def put() -> None:
        await waiting.wait()
        store.objects["ab/cd"] = b"sealed"
        store.came.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        start, body = await answered(store, receive, b"s=ahead")
    assert (start["status"], body["body"], body["more_body"]) == (200, b"sealed", False)
    assert [blob.closed for blob in store.opened] == [True]


async def test_ahead_of_time_an_object_that_does_not_come_is_no_error(client, store: Store) -> None:
    store.came.set()  # nothing has
    answer = await client.get("/ab/cd", params={"s": "ahead"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await client.get("/ab/cd")).status_code == 404


async def answered(store: Store, receive, query: bytes = b"s=good", method: str = "GET"):
    """What the app sends to a request."""
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": "/v1/blobs/ab/cd",
        "query_string": query,
        "headers": [(b"content-length", b"8")],
    }
    with trio.fail_after(5):
        await BlobEndpoint(store)(scope, receive, send)
    return sent


def says(*messages: dict):
    """An ASGI `receive` that says these, and no more."""
    to_come = list(messages)

    async def receive() -> dict:
        return to_come.pop(0)

    return receive


GONE = {"type": "http.disconnect"}


async def test_nobody_is_waited_for_who_has_gone(store: Store) -> None:
    [start, _] = await answered(store, says({"type": "http.request"}, GONE), b"s=ahead")
    assert start["status"] == 204


async def test_an_upload_that_ends_before_its_time(store: Store) -> None:
    half = {"type": "http.request", "body": b"half", "more_body": True}
    [start, _] = await answered(store, says(half, GONE), method="PUT")
    assert start["status"] == 400
    assert store.objects == {}


async def test_an_object_that_is_cut_short_is_not_whole_for_anybody(store: Store) -> None:
    class Cut(Blob):
        async def pieces(self) -> AsyncGenerator[bytes, None]:
            yield b"half"
            raise ProviderError("cut short")

    cut = Cut(size=8)

    async def opened(name: str) -> Blob:
        return cut

    store.open = opened
    start, *body = await answered(store, says())
    assert (b"content-length", b"8") in start["headers"]
    assert [(message["body"], message["more_body"]) for message in body] == [(b"half", True)]
    assert cut.closed


async def test_what_stands_behind_it_gets_all_else(store: Store) -> None:
    """By the front door and by a route, a blob is the same."""

    async def others(scope, receive, send) -> None:
        await PlainTextResponse("others")(scope, receive, send)

    store.objects["ab/cd"] = b"sealed"
    blobs = BlobEndpoint(store)
    for app, elsewhere in (
        (blobs.in_front_of(others), b"others"),
        (rest_app(blobs.operations()), b'{"error":"Not Found"}'),
    ):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            assert (await client.get("/v1/blobs/ab/cd?s=good")).content == b"sealed"
            assert (await client.get("/v1/blobs/ab/cd?s=bad")).status_code == 403
            assert (await client.get("/v1/blob/ab/cd?s=good")).content == elsewhere
            assert (await client.get("/healthz")).content == elsewhere
