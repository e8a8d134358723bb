"""The store that the example provider is for: a small HTTP server that keeps objects in memory."""

import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relay.web.server import listen_tcp, serve_asgi

Signature = Callable[[bytes, str, str, int, int], str]


@attrs.define
class ShelfServer:
    """The server: its URL, and what lies on it."""

    url: str
    objects: dict[str, tuple[bytes, int]] = attrs.Factory(dict)


@asynccontextmanager
async def shelf_server(key: bytes, signature: Signature) -> AsyncIterator[ShelfServer]:
    """A shelf on a free loopback port, that takes what `signature` signs with `key`."""
    [listener] = await listen_tcp([("127.0.0.1", 0)])
    server = ShelfServer(f"http://127.0.0.1:{listener.getsockname()[1]}")

    async def answer(request: Request) -> Response:
        name, query = request.path_params["name"], request.query_params
        try:
            expires, limit = int(query["e"]), int(query["l"])
        except (KeyError, ValueError):
            return Response(status_code=400)
        expected = signature(key, request.method, name, expires, limit)
        if not hmac.compare_digest(expected, query.get("s", "")) or time.time() >= expires:
            return Response(status_code=403)
        body = await request.body()
        if request.method == "PUT":
            if len(body) > limit:
                return Response(status_code=413)
            if name in server.objects:
                return Response(status_code=412)
            server.objects[name] = body, int(time.time())
            return Response(status_code=201)
        if request.method == "DELETE":
            server.objects.pop(name, None)
            return Response(status_code=204)
        if not name:
            return JSONResponse(
                [
                    {"name": name, "size": len(data), "modified": modified}
                    for name, (data, modified) in server.objects.items()
                ]
            )
        if name not in server.objects:
            return Response(status_code=404)
        return Response(server.objects[name][0])

    methods = ["PUT", "GET", "DELETE", "POST"]
    app = Starlette(routes=[Route("/{name:path}", answer, methods=methods)])
    stopping = trio.Event()

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        await serve_asgi(app, [listener], stopping=stopping, task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        yield server
        nursery.cancel_scope.cancel()
    listener.close()
