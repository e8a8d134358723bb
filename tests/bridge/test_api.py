"""The network port: what is thrown at it, enrolment, health, and its own description."""

import os

import attrs
import httpx
import pytest
import trio
from starlette.routing import Route, WebSocketRoute

from relay.bridge.api import SIGNAL_PATH, network_app, network_operations
from relay.bridge.sockets import SignalEndpoint
from relay.errors import DatabaseError
from relay.invitation import InvitationInquiry
from relay.web.health import Part, health_operations

from .conftest import PATIENCE, Bridge, Router, connected
from .schemas import conforms, operations_of

UPGRADE = (
    b"GET /v1/signal HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
FRAME = b"\x82\x81\x00\x00\x00\x00A"


async def is_well(bridge: Bridge) -> bool:
    with trio.fail_after(PATIENCE):
        return (await bridge.web.get("/readyz")).json()["status"] == "ok"


@pytest.mark.parametrize(
    "said",
    [
        UPGRADE + FRAME,
        UPGRADE + FRAME * 1000,
        UPGRADE + b"\x82\xff" + b"\xff" * 12,  # a frame of 2**64-1 bytes
        UPGRADE + os.urandom(1000),
        UPGRADE.replace(b"/v1/signal", b"/healthz") + FRAME,
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v1/blobs/../bridge.db HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v1/invitations HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(194),
        b"\x01\x00\x00\x00\x00\xcd\x00\x01\x00\x00" + b"PACS".ljust(16) + b"CT".ljust(16),
        b"GET /" + b"a" * 200_000,
        b"POST /v1/enrolments HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\n",
        b"POST /v1/enrolments HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
        b"Connection: close\r\nContent-Encoding: gzip\r\n\r\n"
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
        b"POST /v1/enrolments HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"ffff\r\n"
        + bytes(65535)
        + b"\r\n",
    ],
    ids=[
        "websocket-and-frame",
        "websocket-and-frames",
        "websocket-huge-frame",
        "websocket-and-noise",
        "websocket-elsewhere",
        "nothing-there",
        "traversal",
        "blob-traversal",
        "people's",
        "tls",
        "dicom",
        "long-header",
        "four-gigabytes",
        "gzip",
        "endless-chunks",
    ],
)
async def test_lives_through(bridge: Bridge, said: bytes) -> None:
    answer = await bridge.says(said)
    assert not answer.startswith(b"HTTP/1.1 2")
    assert not answer.startswith(b"HTTP/1.1 500")
    assert await is_well(bridge)


async def test_flood_of_strangers_keeps_no_router_out(bridge: Bridge) -> None:
    router = await bridge.enrol()
    flood = []
    for number in range(300):
        stream = await trio.open_tcp_stream("127.0.0.1", bridge.port)
        await stream.send_all(UPGRADE if number % 2 else b"GET")
        flood.append(stream)
    async with connected(bridge, router):
        assert await is_well(bridge)
    for stream in flood:
        await stream.aclose()


# --- enrolment ----------------------------------------------------------------------------------


async def test_enrolment_over_http(bridge: Bridge) -> None:
    invitation = await bridge.invite("North")
    assert invitation.url == bridge.url
    router = Router(invitation.network)
    answer = await bridge.web.post("/v1/enrolments", content=router.enrolment(invitation))
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/octet-stream"
    other = Router(invitation.network)
    answer = await bridge.web.post("/v1/enrolments", content=other.enrolment(invitation))
    assert answer.status_code == 403
    assert "ask for a new one" in answer.json()["error"]


async def test_whether_an_invitation_is_open_is_told_and_nothing_used_up(bridge: Bridge) -> None:
    invitation = await bridge.invite("North")
    inquiry = InvitationInquiry.of(invitation)
    described = (await bridge.web.get("/v1/openapi.json")).json()
    for _ in range(2):
        answer = await bridge.web.post("/v1/enrolments/inquiry", content=inquiry.pack())
        conforms(described, "POST", "/v1/enrolments/inquiry", answer)
        assert answer.json() == {"name": "North", "expires": invitation.expires}
    router = Router(invitation.network)
    used = await bridge.web.post("/v1/enrolments", content=router.enrolment(invitation))
    assert used.status_code == 201
    answer = await bridge.web.post("/v1/enrolments/inquiry", content=inquiry.pack())
    assert (answer.status_code, "ask for a new one" in answer.text) == (403, True)
    # Who does not know the code is an intruder, and the first.
    another = InvitationInquiry.of(await bridge.invite("South"))
    forged = attrs.evolve(another, mac=bytes(32))
    answer = await bridge.web.post("/v1/enrolments/inquiry", content=forged.pack())
    assert (answer.status_code, "does not match" in answer.text) == (403, True)
    with trio.fail_after(PATIENCE):
        while not (told := await refusals(bridge)):
            await trio.sleep(0.01)
    assert told == [answer.json()["error"]]


async def refusals(bridge: Bridge) -> list[str]:
    """Why somebody was refused, as the audit has it."""
    entries = (await bridge.get("/v1/audit?kind=alert"))["entries"]
    return [entry["why"] for entry in entries if entry["outcome"] != "success"]


async def test_the_others_learn_of_a_new_router(bridge: Bridge) -> None:
    first = await bridge.enrol("North")
    async with connected(bridge, first) as north:
        second = await bridge.enrol("South")
        await north.heard(
            lambda heard: any(
                row[:2] == (second.id, "South") for part in heard.listings for row in part.routers
            )
        )


@pytest.mark.parametrize("content", [b"", b"\x93\xc4\x00\xc4\x00\xc4\x00", b"{}", bytes(8192)])
async def test_enrolment_garbage(bridge: Bridge, content: bytes) -> None:
    answer = await bridge.web.post("/v1/enrolments", content=content)
    assert answer.status_code == 403
    assert answer.json().keys() == {"error"}


async def test_enrolment_too_large(bridge: Bridge) -> None:
    answer = await bridge.web.post("/v1/enrolments", content=bytes(8193))
    assert answer.status_code == 413


# --- health and description ---------------------------------------------------------------------


async def test_health(bridge: Bridge) -> None:
    database, store = {"database": "ok"}, {"object store": "ok"}
    answer = (await bridge.web.get("/healthz")).json()
    assert answer == {"status": "ok", "parts": database}
    answer = (await bridge.web.get("/readyz")).json()
    assert answer == {"status": "ok", "parts": database | store}
    assert (await bridge.web.post("/healthz")).status_code == 405
    assert (await bridge.web.get("/nothing")).json() == {"error": "Not Found"}


async def test_not_ready() -> None:
    async def database() -> str:
        raise DatabaseError("/srv/relay: disk is full")

    async def enrol(data: bytes) -> bytes:
        return data

    operations = network_operations(
        enrol=enrol,
        inquire=inquire,
        health=health_operations([], [Part("database", database)]),
        store=None,
    )
    app = network_app(operations, SignalEndpoint(no_signal))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["parts"] == {"database": "fails: the log says why"}
        assert (await client.get("/v1/blobs/ab/cd")).status_code == 404


async def inquire(data: bytes) -> dict[str, object]:
    raise AssertionError("nobody asks here")


async def no_signal(socket: object, version: str) -> None:
    raise AssertionError("nobody connects here")


async def test_every_route_is_described_and_every_description_has_a_route(bridge: Bridge) -> None:
    async def enrol(data: bytes) -> bytes:
        return data

    class Store:
        verify = write = open = remove = None

    operations = network_operations(
        enrol=enrol, inquire=inquire, health=health_operations([], []), store=Store()
    )
    app = network_app(operations, SignalEndpoint(no_signal))
    described = (await bridge.web.get("/v1/openapi.json")).json()
    routes = {
        (method, operation.template)
        for operation in operations
        for route in app.routes
        if isinstance(route, Route) and route.path == operation.path
        for method in route.methods - {"HEAD"}
    }
    assert routes == operations_of(described)
    [signal] = [route for route in app.routes if isinstance(route, WebSocketRoute)]
    assert signal.path == SIGNAL_PATH
    assert len(app.routes) == len(operations) + 1


async def test_answers_are_as_described(bridge: Bridge) -> None:
    described = (await bridge.web.get("/v1/openapi.json")).json()
    for path in ("/healthz", "/readyz", "/v1/openapi.json"):
        conforms(described, "GET", path, await bridge.web.get(path))
    conforms(described, "POST", "/v1/enrolments", await bridge.web.post("/v1/enrolments"))
    answer = await bridge.web.get("/v1/blobs/ab/cd")
    conforms(described, "GET", "/v1/blobs/{name}", answer)
    assert answer.status_code == 403
