"""Refusals have one form, and a body is bounded before it is read."""

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from relay import errors
from relay.web.answers import BODY_WAIT, EXCEPTION_HANDLERS, MAXIMUM_BODY, only, read_json

RAISED = {
    "refused": (errors.Refused(418, "no coffee"), 418),
    "identity": (errors.IdentityError("signature does not hold"), 403),
    "missing": (errors.ObjectMissing("no such object"), 404),
    "store": (errors.ProviderError("store is down"), 503),
    "database": (errors.DatabaseError("disk is full"), 500),
}


async def raises(request: Request) -> JSONResponse:
    raise RAISED[request.path_params["what"]][0]


async def echo(request: Request) -> JSONResponse:
    return JSONResponse(await read_json(request))


@pytest.fixture
async def client():
    app = Starlette(
        routes=[Route("/raise/{what}", raises), Route("/echo", echo, methods=["POST"])],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


@pytest.mark.parametrize("what", RAISED)
async def test_errors(client, what: str) -> None:
    error, status = RAISED[what]
    answer = await client.get(f"/raise/{what}")
    assert (answer.status_code, answer.json()) == (status, {"error": str(error)})


async def test_what_starlette_refuses(client) -> None:
    answer = await client.get("/nothing")
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})
    answer = await client.get("/echo")
    assert (answer.status_code, answer.json()) == (405, {"error": "Method Not Allowed"})
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(("body", "value"), [(b"", {}), (b'{"a": 1}', {"a": 1})])
async def test_json(client, body: bytes, value: dict) -> None:
    assert (await client.post("/echo", content=body)).json() == value


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_00, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"1", "not a JSON object"),
    ],
    ids=["half", "not-utf8", "deep", "array", "number"],
)
async def test_not_json(client, body: bytes, words: str) -> None:
    answer = await client.post("/echo", content=body)
    assert (answer.status_code, words in answer.json()["error"]) == (400, True)


async def test_too_large_by_its_header(client) -> None:
    assert (await client.post("/echo", content=bytes(MAXIMUM_BODY + 1))).status_code == 413


async def test_nothing_is_inflated(client) -> None:
    for encoding, status in (("gzip", 415), ("br", 415), ("identity", 200)):
        answer = await client.post("/echo", content=b"{}", headers={"Content-Encoding": encoding})
        assert answer.status_code == status


def test_a_key_that_nobody_reads_is_refused() -> None:
    only({"name": 1}, "name", "kind")
    with pytest.raises(errors.Refused, match="colour: unknown; expected name, kind"):
        only({"name": 1, "colour": 2}, "name", "kind")


@pytest.mark.parametrize(
    "body", [rb'{"name": "\ud800"}', b'{"name": "\xed\xa0\x80"}', rb'["\uDFFF"]']
)
async def test_half_a_character_is_no_text(client, body: bytes) -> None:
    answer = await client.post("/echo", content=body)
    assert answer.status_code == 400


async def test_a_whole_one_is(client) -> None:
    answer = await client.post("/echo", content=rb'{"name": "\ud83d\ude00 \\ud800"}')
    assert answer.json() == {"name": "\N{GRINNING FACE} \\ud800"}


async def test_a_body_that_drips_in_is_not_waited_for(client, autojump_clock) -> None:
    async def drip():
        while True:
            yield b" "
            await trio.sleep(BODY_WAIT / 3)

    started = trio.current_time()
    app = client._transport.app
    scope = {"type": "http", "method": "POST", "path": "/echo", "headers": [], "query_string": b""}
    said: list[dict[str, object]] = []
    pieces = drip()

    async def receive():
        return {"type": "http.request", "body": await anext(pieces), "more_body": True}

    async def send(message) -> None:
        said.append(message)

    await app(scope, receive, send)
    assert said[0]["status"] == 408
    assert trio.current_time() - started == pytest.approx(BODY_WAIT)
