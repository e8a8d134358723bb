"""`/v1/blobs/{name}`: the Bridge's own object store, for whoever holds a signed URL."""

from collections.abc import AsyncIterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import Protocol

import structlog
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relay.errors import ObjectMissing, ProviderError, Refused
from relay.providers.disk import BLOB_PATH, Blob
from relay.web.answers import check_headers
from relay.web.operations import BINARY, BYTES, Operation

log = structlog.get_logger()

# A whole PUT or GET, however slowly it moves; the Router's own limit for one is the same. The
# sweeper counts with it: after a PUT URL's life and this long, nothing can arrive any more.
TRANSFER_TIMEOUT = 120.0


class BlobStore(Protocol):
    """What this endpoint needs of the disk provider."""

    def verify(self, method: str, name: str, query: Mapping[str, str]) -> int: ...

    async def write(self, name: str, stream: AsyncIterable[bytes], length: int) -> None: ...

    def open(self, name: str, session: str = "") -> AbstractAsyncContextManager[Blob]: ...

    async def remove(self, name: str) -> None: ...


def blob_operations(store: BlobStore, *, timeout: float = TRANSFER_TIMEOUT) -> list[Operation]:
    """What serves `store`. `timeout` is in seconds, for a whole transfer."""

    def verify(request: Request) -> tuple[str, int]:
        name: str = request.path_params["name"]
        return name, store.verify(request.method, name, request.query_params)

    async def put(request: Request) -> Response:
        name, limit = verify(request)
        length = check_headers(request, limit)
        if length is None:
            raise Refused(411, "Content-Length is needed")
        with trio.move_on_after(timeout):
            async with aclosing(request.stream()) as body:
                try:
                    await store.write(name, body, length)
                except ClientDisconnect:
                    return Response(status_code=400)  # nobody is there to read it
            return Response(status_code=201)
        raise Refused(408, "upload took too long")

    async def get(request: Request) -> Response:
        name, _ = verify(request)
        return _BlobResponse(store, name, request.query_params.get("a", ""), timeout)

    async def delete(request: Request) -> Response:
        name, _ = verify(request)
        await store.remove(name)
        return Response(status_code=204)

    path = BLOB_PATH + "{name:path}"
    return [
        Operation(
            "PUT",
            path,
            put,
            "Store an object once, by a signed URL.",
            status=201,
            body=BINARY,
            body_media=BYTES,
            refusals=(400, 403, 408, 409, 411, 413, 415, 503, 507),
        ),
        Operation(
            "GET",
            path,
            get,
            "Read an object, by a signed URL; by one signed for it, wait for what is not there yet"
            " (204 if it does not begin to come in time), and read it as it arrives.",
            answer=BINARY,
            media=BYTES,
            refusals=(403, 404, 503),
        ),
        Operation(
            "DELETE",
            path,
            delete,
            "Delete an object, by a signed URL; a missing one is no error.",
            status=204,
            refusals=(403, 503),
        ),
    ]


class _BlobResponse(Response):
    """A blob in pieces; cut off, and so not whole for anybody, if it takes too long.

    With `session`, a request ahead of time: what is not there yet is waited for, for as long as
    the peer does.
    """

    def __init__(self, store: BlobStore, name: str, session: str, timeout: float) -> None:
        super().__init__(media_type=BYTES)
        self._store = store
        self._name = name
        self._session = session
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with trio.move_on_after(self._timeout):
            async with AsyncExitStack() as stack:
                opening = self._store.open(self._name, self._session)
                if not self._session:
                    await self._send(await stack.enter_async_context(opening), send)
                elif blob := await self._await(opening, stack, receive):
                    await self._send(blob, send)
                else:
                    await Response(status_code=204)(scope, receive, send)

    async def _await(
        self, opening: AbstractAsyncContextManager[Blob], stack: AsyncExitStack, receive: Receive
    ) -> Blob | None:
        """The blob, or None where it does not come, or the peer has gone."""
        blob = None
        failure: ProviderError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
            try:
                blob = await stack.enter_async_context(opening)
            except ObjectMissing:
                pass  # it did not come
            except ProviderError as error:
                failure = error  # which the nursery would wrap
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return blob

    async def _send(self, blob: Blob, send: Send) -> None:
        self.headers["Content-Length"] = str(blob.size)
        self.headers["Cache-Control"] = "no-store"
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        left = blob.size
        async with aclosing(blob.pieces()) as pieces:
            try:
                async for piece in pieces:
                    if left == blob.size:
                        await send(start)
                    left -= len(piece)
                    # The last piece says so: one write less.
                    await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
            except ProviderError as error:
                if left == blob.size:
                    raise
                # A PUT that was cut short, or the disk: whoever reads sees that it is not whole.
                log.info("object not sent to its end", missing=left, why=str(error))
                return
        if not blob.size:
            await send(start)
            await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive, waiting: trio.CancelScope) -> None:
    """Let nobody be waited for who has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    waiting.cancel()
