"""The Bridge's network port: what a Router needs, and nothing for people.

Enrolment, signalling, blobs and health. Everything here may be reached by anybody: enrolment proves
knowledge of a code, signalling an identity, a blob's URL its signature.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import WebSocketRoute

from relay import __version__
from relay.bridge.blobs import BlobEndpoint, BlobStore
from relay.bridge.schemas import INVITATION_OPEN
from relay.bridge.sockets import SignalEndpoint
from relay.errors import Refused
from relay.invitation import MAXIMUM_ENROLMENT
from relay.web.answers import read_body
from relay.web.operations import BINARY, BYTES, Operation, rest_app, with_public_document

SIGNAL_PATH = "/v1/signal"
# Reading a request of 8 KiB and one transaction.
ENROLMENT_TIMEOUT = 20.0


def network_operations(
    *,
    enrol: Callable[[bytes], Awaitable[bytes]],
    inquire: Callable[[bytes], Awaitable[dict[str, Any]]],
    health: Sequence[Operation],
    store: BlobStore | None,
    people: Sequence[Operation] = (),
) -> list[Operation]:
    """The operations of the network port; `store` is None where no provider is the Bridge's own.

    The document also describes those for `people`, where they are served on it, too.
    """

    async def enrolments(request: Request) -> Response:
        with trio.move_on_after(ENROLMENT_TIMEOUT):
            answer = await enrol(await read_body(request, MAXIMUM_ENROLMENT))
            return Response(answer, status_code=201, media_type=BYTES)
        raise Refused(408, "enrolment took too long")

    async def inquiry(request: Request) -> Response:
        with trio.move_on_after(ENROLMENT_TIMEOUT):
            return JSONResponse(await inquire(await read_body(request, MAXIMUM_ENROLMENT)))
        raise Refused(408, "enrolment took too long")

    operations = [
        Operation(
            "POST",
            "/v1/enrolments",
            enrolments,
            "Enrol a Router with an invitation (PROTOCOL.md has the bytes).",
            answer=BINARY,
            status=201,
            media=BYTES,
            body=BINARY,
            body_media=BYTES,
            refusals=(403, 408, 409, 413, 415),
        ),
        Operation(
            "POST",
            "/v1/enrolments/inquiry",
            inquiry,
            "Ask whether an invitation is open still, without using it up (PROTOCOL.md).",
            answer=INVITATION_OPEN,
            body=BINARY,
            body_media=BYTES,
            refusals=(403, 408, 413, 415),
        ),
        *health,
    ]
    if store is not None:
        operations += BlobEndpoint(store).operations()
    return with_public_document("Relay Bridge, network port", __version__, operations, people)


def network_app(operations: list[Operation], signal: SignalEndpoint) -> Starlette:
    """The ASGI app of the network port."""
    return rest_app(operations, WebSocketRoute(SIGNAL_PATH, signal.endpoint))
