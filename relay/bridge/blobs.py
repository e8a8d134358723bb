"""`/v1/blobs/{name}`: the Bridge's own object store, for whoever holds a signed URL.

An ASGI app that stands in front of the others, since most of a Bridge's requests are for it. With
Starlette's middleware, routes, requests and responses a GET took 69 us of processor time beside
what the store does, and takes 14; a PUT 55 and 12.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, cast

import structlog
import trio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.errors import ObjectMissing, ProviderError, Refused
from relay.providers.blob_urls import BLOB_PATH
from relay.web.answers import refusal
from relay.web.operations import BINARY, BYTES, Handler, Operation

log = structlog.get_logger()

# A whole PUT or GET, however slowly it moves; the Router's own limit for one is the same. The
# sweeper counts with it: after a PUT URL's life and this long, nothing can arrive any more.
TRANSFER_TIMEOUT = 120.0

_NO_BODY = [(b"content-length", b"0")]
_ALLOW = (b"allow", b"DELETE, GET, PUT")


class Blob(Protocol):
    """An object opened for reading (`relay.providers.disk.Blob`)."""

    @property
    def size(self) -> int: ...

    @property
    def pieces(self) -> Callable[[], AsyncGenerator[bytes, None]]: ...

    @property
    def close(self) -> Callable[[], None]: ...


class BlobStore(Protocol):
    """What this endpoint needs of the disk provider."""

    def verify(self, method: str, name: str, query: bytes) -> tuple[int, str]: ...

    async def write(self, name: str, stream: AsyncIterable[bytes], length: int) -> None: ...

    async def open(self, name: str) -> Blob: ...

    async def open_ahead(
        self, name: str, reader: str, gone: Callable[[], Awaitable[None]]
    ) -> Blob: ...

    async def remove(self, name: str) -> None: ...


class BlobEndpoint:
    """The ASGI app of the blobs in `store`. `timeout` is in seconds, for a whole transfer."""

    def __init__(self, store: BlobStore, *, timeout: float = TRANSFER_TIMEOUT) -> None:
        self._store = store
        self._timeout = timeout

    def in_front_of(self, others: ASGIApp) -> ASGIApp:
        """This app for the paths of blobs, and `others` for all other paths."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            is_blob = scope["type"] == "http" and scope["path"].startswith(BLOB_PATH)
            await (self if is_blob else others)(scope, receive, send)

        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        except Refused as error:
            answer = refusal(error.status, str(error))
        except ObjectMissing as error:
            answer = refusal(404, str(error))
        except ProviderError as error:
            answer = refusal(503, str(error))
        else:
            return
        if answer.status_code == 405:
            answer.raw_headers.append(_ALLOW)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method: str = scope["method"]
        if method not in ("PUT", "GET", "DELETE"):
            raise Refused(405, "Method Not Allowed")
        name = scope["path"][len(BLOB_PATH) :]
        limit, reader = self._store.verify(method, name, scope["query_string"])
        if method == "PUT":
            await self._put(name, _length(scope, limit), receive, send)
        elif method == "GET":
            await self._get(name, reader, receive, send)
        else:
            await self._store.remove(name)
            await _send_empty(send, 204, [])

    async def _put(self, name: str, length: int, receive: Receive, send: Send) -> None:
        with trio.move_on_after(self._timeout) as transfer:
            try:
                await self._store.write(name, _Body(receive), length)
            except ClientDisconnect:
                await _send_empty(send, 400, _NO_BODY)  # nobody is there to read it
                return
        if transfer.cancelled_caught:
            raise Refused(408, "upload took too long")
        await _send_empty(send, 201, _NO_BODY)

    async def _get(self, name: str, reader: str, receive: Receive, send: Send) -> None:
        """Send the object; with `reader`, one that is not there yet is waited for."""

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        # Cut off, and so not whole for anybody, if it takes too long.
        with trio.move_on_after(self._timeout):
            if not reader:
                blob = await self._store.open(name)
            else:
                try:
                    blob = await self._store.open_ahead(name, reader, gone)
                except ObjectMissing:  # it did not come
                    await _send_empty(send, 204, [])
                    return
            try:
                await _send_blob(send, blob)
            finally:
                blob.close()

    def operations(self) -> list[Operation]:
        """What it answers, described, and as routes for an app that it does not stand before."""
        path = BLOB_PATH + "{name:path}"
        handler = cast(Handler, self)  # Starlette takes an ASGI app for a route as well
        return [
            Operation(
                "PUT",
                path,
                handler,
                "Store an object once, by a signed URL.",
                status=201,
                body=BINARY,
                body_media=BYTES,
                refusals=(400, 403, 408, 409, 411, 413, 415, 503, 507),
            ),
            Operation(
                "GET",
                path,
                handler,
                "Read an object, by a signed URL; by one signed for it, wait for what is not there"
                " yet (204 if it does not begin to come in time), and read it as it arrives.",
                answer=BINARY,
                media=BYTES,
                refusals=(403, 404, 503),
            ),
            Operation(
                "DELETE",
                path,
                handler,
                "Delete an object, by a signed URL; a missing one is no error.",
                status=204,
                refusals=(403, 503),
            ),
        ]


class _Body:
    """A request's body in pieces. Raises ClientDisconnect where it ends before its time."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._over = False

    def __aiter__(self) -> "_Body":
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._over = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body


def _length(scope: Scope, at_most: int) -> int:
    """The body's length in bytes, by the request's head.

    Raises Refused before anything of the body is read: 415 for a Content-Encoding (an inflated
    body has no bound), 411 without a Content-Length, 413 for one over `at_most`.
    """
    length = None
    for header, value in scope["headers"]:
        if header == b"content-length":
            length = int(value)  # digits only: the HTTP engine has seen to it
        elif header == b"content-encoding" and value.lower() != b"identity":
            raise Refused(415, "no Content-Encoding is taken")
    if length is None:
        raise Refused(411, "Content-Length is needed")
    if length > at_most:
        raise Refused(413, f"body of {length} bytes is larger than {at_most}")
    return length


async def _send_empty(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _send_blob(send: Send, blob: Blob) -> None:
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"content-length", b"%d" % blob.size),
            (b"content-type", BYTES.encode()),
            (b"cache-control", b"no-store"),
        ],
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
