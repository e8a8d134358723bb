"""The blob endpoint alone: its refusals and deadlines. tests/providers runs it over real HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from starlette.applications import Starlette

from relay.bridge.blobs import blob_operations
from relay.errors import ObjectMissing, ProviderError, Refused
from relay.web.answers import EXCEPTION_HANDLERS


class Blob:
    def __init__(self, size: int, *pieces: bytes) -> None:
        self.size = size
        self._pieces = pieces

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class Store:
    """A store that takes everything signed with "good"."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.slow = False
        self.down = False
        self.came = trio.Event()
        self.patience = 0.1  # for what is asked for ahead of time

    def verify(self, method: str, name: str, query) -> int:
        if query.get("s") != "good":
            raise Refused(403, "signature does not hold")
        return 100 if method == "PUT" else 0

    async def write(self, name: str, stream, length: int) -> None:
        if self.down:
            raise ProviderError("down")
        if self.slow:
            await trio.sleep_forever()
        self.objects[name] = b"".join([piece async for piece in stream])

    @asynccontextmanager
    async def open(self, name: str, session: str = ""):
        if name not in self.objects and session:
            with trio.move_on_after(self.patience):
                await self.came.wait()
        if name not in self.objects:
            raise ObjectMissing("no such object")
        yield Blob(len(self.objects[name]), self.objects[name])

    async def remove(self, name: str) -> None:
        self.objects.pop(name, None)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def client(store: Store):
    routes = [operation.route for operation in blob_operations(store, timeout=0.2)]
    app = Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)
    transport = httpx.ASGITransport(app)
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
    assert (await client.post("/ab/cd", content=b"x")).status_code == 405
    assert (await client.patch("/ab/cd", content=b"x")).status_code == 405


async def test_slow_upload_is_given_up(client, store: Store) -> None:
    store.slow = True
    assert (await client.put("/ab/cd", content=b"x")).status_code == 408


async def test_store_that_is_down(client, store: Store) -> None:
    store.down = True
    assert (await client.put("/ab/cd", content=b"x")).status_code == 503


async def test_ahead_of_time_an_object_is_waited_for(client, store: Store) -> None:
    async def put() -> None:
        store.objects["ab/cd"] = b"sealed"
        store.came.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        answer = await client.get("/ab/cd", params={"a": "session"})
    assert (answer.status_code, answer.content) == (200, b"sealed")


async def test_ahead_of_time_an_object_that_does_not_come_is_no_error(client) -> None:
    answer = await client.get("/ab/cd", params={"a": "session"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await client.get("/ab/cd")).status_code == 404


async def answered(store: Store, query: bytes, *messages: dict) -> list[dict]:
    """What the app sends to a GET over an ASGI that says `messages`."""
    routes = [operation.route for operation in blob_operations(store)]
    app = Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/blobs/ab/cd",
        "query_string": query,
        "headers": [],
    }
    to_come, sent = list(messages), []

    async def receive() -> dict:
        return to_come.pop(0)

    async def send(message: dict) -> None:
        sent.append(message)

    with trio.fail_after(5):
        await app(scope, receive, send)
    assert to_come == []
    return sent


async def test_nobody_is_waited_for_who_has_gone(store: Store) -> None:
    store.patience = 60.0
    gone = {"type": "http.request", "body": b""}, {"type": "http.disconnect"}
    await answered(store, b"s=good&a=session", *gone)


async def test_an_object_that_is_cut_short_is_not_whole_for_anybody(store: Store) -> None:
    class Cut(Blob):
        async def pieces(self) -> AsyncIterator[bytes]:
            yield b"half"
            raise ProviderError("cut short")

    @asynccontextmanager
    async def opened(name: str, session: str = ""):
        yield Cut(8)

    store.open = opened
    start, *body = await answered(store, b"s=good")
    assert (b"content-length", b"8") in start["headers"]
    assert [(message["body"], message["more_body"]) for message in body] == [(b"half", True)]


async def test_ahead_of_time_a_store_that_fails_says_so(client, store: Store) -> None:
    @asynccontextmanager
    async def opened(name: str, session: str = ""):
        raise ProviderError("disk store: Input/output error")
        yield

    store.open = opened
    assert (await client.get("/ab/cd", params={"a": "session"})).status_code == 503
