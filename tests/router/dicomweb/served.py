"""DICOMweb on a real port, over archives of a test's making, and a client for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import httpx
import trio

from relay.router.dicomweb.app import load_tls, run_dicomweb
from relay.router.dicomweb.asked import Service
from relay.router.dicomweb.media import parse_type
from relay.router.dicomweb.multipart import PartBegun, Reader
from relay.router.dicomweb.settings import DicomwebSettings
from relay.router.dicomweb.tokens import TokenTable
from relay.router.federation.federation import Federation
from relay.router.queue.state import Queue
from relay.web.server import listen_tcp

# Everything here is on the loopback: what takes longer hangs.
PATIENCE = 20.0


@attrs.define
class Served:
    """`http` has a token that calls as the Router; its paths begin below /aets."""

    service: Service
    tokens: TokenTable
    http: httpx.AsyncClient
    port: int

    async def get(self, path: str, accept: str = "", **headers: str) -> httpx.Response:
        if accept:
            headers["accept"] = accept
        return await self.http.get(path, headers=headers)

    async def client(self, token: str) -> httpx.AsyncClient:
        """Another client, who has this token."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(base_url=self.http.base_url, headers=headers, timeout=PATIENCE)


@asynccontextmanager
async def served(
    federation: Federation, queue: Queue | None = None, **settings: Any
) -> AsyncIterator[Served]:
    """Serve `federation` until the block is left."""
    service = Service(federation, queue)
    tokens = await TokenTable.load(federation.node.database)
    secret = await tokens.add("test", "", 0)
    sockets = await listen_tcp([("127.0.0.1", 0)])
    port = int(sockets[0].getsockname()[1])
    chosen = DicomwebSettings(listen=[("127.0.0.1", port)], **settings)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                run_dicomweb,
                service,
                tokens,
                chosen,
                sockets,
                ssl_context=load_tls(chosen),
                stopping=stopping,
            )
        )
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}/aets",
            headers={"authorization": f"Bearer {secret}"},
            timeout=PATIENCE,
        ) as http:
            with trio.fail_after(PATIENCE):
                yield Served(service, tokens, http, port)
        nursery.cancel_scope.cancel()


def parts(response: httpx.Response) -> list[tuple[str, bytes]]:
    """The parts of a whole answer: their types and their data."""
    kind, parameters = parse_type(response.headers["content-type"])
    assert kind == "multipart/related"
    reader = Reader(parameters["boundary"])
    found: list[tuple[str, bytes]] = []
    for event in reader.feed(response.content):
        if isinstance(event, PartBegun):
            found.append((event.content_type, b""))
        elif isinstance(event, bytes):
            found[-1] = (found[-1][0], found[-1][1] + event)
    assert reader.whole
    return found
