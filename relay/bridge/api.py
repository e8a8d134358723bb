"""The Bridge's network port: what a Router needs, and nothing for people.

Enrolment, signalling, blobs and health. Everything here may be reached by anybody: enrolment proves
knowledge of a code, signalling an identity, a blob's URL its signature.
"""

from collections.abc import Awaitable, Callable

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import WebSocketRoute

from relay import __version__
from relay.bridge.blobs import BlobEndpoint, BlobStore
from relay.bridge.sockets import SignalEndpoint
from relay.errors import Refused, RelayError
from relay.invitation import MAXIMUM_ENROLMENT
from relay.web.answers import read_body
from relay.web.operations import BINARY, BYTES, TEXT, Operation, record, rest_app, with_document

SIGNAL_PATH = "/v1/signal"
# Reading a request of 8 KiB and one transaction.
ENROLMENT_TIMEOUT = 20.0
# A probe (systemd, a load balancer) asks every few seconds and waits about as long.
READY_TIMEOUT = 3.0

STATE = record(status=TEXT)


def network_operations(
    *,
    enrol: Callable[[bytes], Awaitable[bytes]],
    ready: Callable[[], Awaitable[None]],
    store: BlobStore | None,
) -> list[Operation]:
    """The operations of the network port; `store` is None where no provider is the Bridge's own.

    `ready` raises RelayError if the Bridge cannot serve now.
    """

    async def enrolments(request: Request) -> Response:
        with trio.move_on_after(ENROLMENT_TIMEOUT):
            answer = await enrol(await read_body(request, MAXIMUM_ENROLMENT))
            return Response(answer, status_code=201, media_type=BYTES)
        raise Refused(408, "enrolment took too long")

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        with trio.move_on_after(READY_TIMEOUT):
            try:
                await ready()
            except RelayError as error:
                raise Refused(503, str(error)) from error
            return JSONResponse({"status": "ready"})
        raise Refused(503, "the database does not answer")

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
        Operation("GET", "/healthz", healthz, "The process lives.", answer=STATE),
        Operation("GET", "/readyz", readyz, "It can serve.", answer=STATE, refusals=(503,)),
    ]
    if store is not None:
        operations += BlobEndpoint(store).operations()
    return with_document("Relay Bridge, network port", __version__, operations)


def network_app(operations: list[Operation], signal: SignalEndpoint) -> Starlette:
    """The ASGI app of the network port."""
    return rest_app(operations, WebSocketRoute(SIGNAL_PATH, signal.endpoint))
