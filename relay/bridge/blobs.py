"""`/v1/blobs/{name}`: the Bridge's own object store, for whoever holds a signed URL."""

from collections.abc import AsyncIterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol

import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relay.errors import Refused
from relay.providers.disk import BLOB_PATH, Blob
from relay.web.answers import check_headers
from relay.web.operations import BINARY, BYTES, Operation

# A whole PUT or GET, however slowly it moves; the Router's own limit for one is the same. The
# sweeper counts with it: after a PUT URL's life and this long, nothing can arrive any more.
TRANSFER_TIMEOUT = 120.0


class BlobStore(Protocol):
    """What this endpoint needs of the disk provider."""

    def verify(self, method: str, name: str, query: Mapping[str, str]) -> int: ...

    async def write(self, name: str, stream: AsyncIterable[bytes], length: int) -> None: ...

    def open(self, name: str) -> AbstractAsyncContextManager[Blob]: ...

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
        return _BlobResponse(store, name, timeout)

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
            "Read an object, by a signed URL.",
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
    """A blob in pieces; cut off, and so not whole for anybody, if it takes too long."""

    def __init__(self, store: BlobStore, name: str, timeout: float) -> None:
        super().__init__(media_type=BYTES)
        self._store = store
        self._name = name
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with trio.move_on_after(self._timeout):
            async with self._store.open(self._name) as blob:
                self.headers["Content-Length"] = str(blob.size)
                self.headers["Cache-Control"] = "no-store"
                await send(
                    {
                        "type": "http.response.start",
                        "status": self.status_code,
                        "headers": self.raw_headers,
                    }
                )
                async for piece in blob.pieces():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
