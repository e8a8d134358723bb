"""What a probe is told."""

from collections.abc import AsyncIterator

import httpx
import pytest
import trio
from trio.testing import MockClock

from relay.errors import DatabaseError
from relay.web.health import CHECK_TIMEOUT, Part, health_operations
from relay.web.operations import rest_app


async def well() -> str:
    await trio.lowlevel.checkpoint()
    return ""


async def full() -> str:
    return "full"


async def fails() -> str:
    raise DatabaseError("/srv/secret of Hospital North")


async def silent() -> str:
    await trio.sleep_forever()
    return ""


def client(alive: list[Part], ready: list[Part]) -> httpx.AsyncClient:
    app = rest_app(health_operations(alive, ready))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay")


@pytest.fixture
async def failing() -> AsyncIterator[httpx.AsyncClient]:
    parts = [
        Part("spool", full),
        Part("disk", fails),
    ]
    async with client([Part("database", well)], parts) as http:
        yield http


async def test_all_is_well() -> None:
    async with client([Part("database", well)], [Part("spool", well)]) as http:
        alive, ready = await http.get("/healthz"), await http.get("/readyz")
    assert (alive.status_code, ready.status_code) == (200, 200)
    assert alive.json() == {"status": "ok", "parts": {"database": "ok"}}
    assert ready.json() == {"status": "ok", "parts": {"database": "ok", "spool": "ok"}}


async def test_what_fails_is_said_and_no_names(failing: httpx.AsyncClient) -> None:
    answer = await failing.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "failing",
        "parts": {"database": "ok", "spool": "full", "disk": "fails: the log says why"},
    }
    assert (await failing.get("/healthz")).status_code == 200


async def test_what_does_not_answer_is_not_waited_for(autojump_clock: MockClock) -> None:
    parts = [Part("database", silent), Part("other", silent)]
    async with client(parts, []) as http:
        begun = trio.current_time()
        answer = await http.get("/healthz")
        assert trio.current_time() - begun == pytest.approx(CHECK_TIMEOUT)
    assert answer.status_code == 503
    assert set(answer.json()["parts"].values()) == {f"no answer in {CHECK_TIMEOUT:g} s"}
