"""Enrolment over real HTTP, against a Bridge that knows the protocol or does not."""

import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import structlog.testing
import trio
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from relay.database import open_database
from relay.errors import IdentityError, Refused, RelayError
from relay.identity import Identity, KeyStatement
from relay.invitation import Invitation, ReceivedEnrolmentRequest
from relay.router import membership
from relay.router.membership import MAXIMUM_ANSWER, Membership
from relay.router.schema import MIGRATIONS
from relay.tunnel.keys import HPKEKeyPair
from relay.web.server import listen_tcp, serve_asgi

NETWORK = bytes(16)
BRIDGE, ROUTER = Identity.from_seed(b"B" * 32), Identity.from_seed(b"R" * 32)
CODE = b"c" * 16
KEY = KeyStatement(NETWORK, HPKEKeyPair.from_seed(bytes(96)).public, 1, 10**10).sign(ROUTER)


def accepting(body: bytes) -> Response:
    received = ReceivedEnrolmentRequest.parse(body)
    received.verify(NETWORK, CODE, BRIDGE.public)
    answer = received.answer(BRIDGE, CODE, "North")
    return Response(answer, 201)


def forged(body: bytes) -> Response:
    received = ReceivedEnrolmentRequest.parse(body)
    answer = received.answer(Identity.generate(), secrets.token_bytes(16), "North")
    return Response(answer, 201)


@asynccontextmanager
async def bridge(answer: Callable[[bytes], Response]) -> AsyncIterator[Invitation]:
    async def enrolments(request: Request) -> Response:
        return answer(await request.body())

    app = Starlette(routes=[Route("/v1/enrolments", enrolments, methods=["POST"])])
    sockets = await listen_tcp([("127.0.0.1", 0)])
    port = sockets[0].getsockname()[1]
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: serve_asgi(app, sockets, stopping=stopping, task_status=task_status)
        )
        yield Invitation(
            f"http://127.0.0.1:{port}", NETWORK, bytes(16), BRIDGE.public, CODE, 10**10
        )
        stopping.set()


async def enrol(invitation: Invitation) -> Membership:
    with trio.fail_after(20):
        return await membership.enrol(
            invitation, ROUTER, "RELAY", KEY, ssl_context=None, proxy=None
        )


async def test_an_invitation_makes_a_member() -> None:
    async with bridge(accepting) as invitation:
        joined = await enrol(invitation)
        assert joined == await enrol(invitation)
    assert (joined.network, joined.bridge, joined.name) == (NETWORK, BRIDGE.public, "North")
    assert joined.origin == joined.url


async def test_an_answer_of_somebody_else_is_none() -> None:
    async with bridge(forged) as invitation:
        with pytest.raises(IdentityError):
            await enrol(invitation)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (lambda _: JSONResponse({"error": "used"}, 403), Refused, "the Bridge refuses: used"),
        (lambda _: PlainTextResponse("<html>", 404), Refused, "what is no Bridge"),
        (lambda _: JSONResponse([1], 500), Refused, "what is no Bridge"),
        (lambda _: PlainTextResponse("<html>", 200), IdentityError, "enrolment"),
        (lambda _: Response(bytes(MAXIMUM_ANSWER + 1)), Refused, "too long"),
    ],
)
async def test_what_else_may_answer(
    answer: Callable[[bytes], Response], error: type[RelayError], words: str
) -> None:
    async with bridge(answer) as invitation:
        with pytest.raises(error, match=words):
            await enrol(invitation)


async def test_nobody_there() -> None:
    invitation = Invitation("http://127.0.0.1:1", NETWORK, bytes(16), BRIDGE.public, CODE, 0)
    with pytest.raises(Refused, match=r"cannot be reached at .*nobody listens there") as caught:
        await enrol(invitation)
    assert caught.value.status == 502


async def test_a_certificate_that_is_not_trusted_is_the_cause(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    sockets = await listen_tcp([("127.0.0.1", 0)])
    stopping = trio.Event()
    url = f"https://127.0.0.1:{sockets[0].getsockname()[1]}"
    invitation = Invitation(url, NETWORK, bytes(16), BRIDGE.public, CODE, 10**10)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(serve_asgi, Starlette(), sockets, stopping=stopping, ssl_context=context)
        )
        with structlog.testing.capture_logs() as logs, pytest.raises(Refused) as caught:
            await enrol(invitation)
        stopping.set()
    assert "its certificate does not hold: " in str(caught.value)
    assert "as ca_file" in str(caught.value)
    (line,) = [line for line in logs if line["event"] == "enrolment failed"]
    assert "its certificate does not hold" in line["why"]


async def test_the_membership_is_kept(tmp_path: Path) -> None:
    joined = Membership(NETWORK, BRIDGE.public, "https://bridge.example:8443/x", "Nörth", b"i" * 16)
    assert joined.origin == "https://bridge.example:8443"
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        assert await membership.load(database) is None
        await membership.save(database, joined)
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        assert await membership.load(database) == joined
        assert attrs.evolve(joined, name="Other") != joined
