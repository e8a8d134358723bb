"""A Router's REST over ASGI, without a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx

from relay.invitation import Invitation
from relay.router.api import make_app
from relay.router.node import Node
from relay.router.queue.state import Queue
from tests.router.fakes import hospital
from tests.router.queue.queues import still_queue

PACS = {"ae_title": "PACS", "host": "192.0.2.1", "port": 104, "services": ["store"]}


@attrs.define
class Client:
    node: Node
    queue: Queue
    http: httpx.AsyncClient
    invitations: list[Invitation]

    async def __call__(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        response = await self.http.request(method, f"/v1{path}", json=body)
        assert response.status_code == status, response.text
        return response.json()


@asynccontextmanager
async def client(tmp_path: Path, *, enrolled: bool = True) -> AsyncIterator[Client]:
    invitations: list[Invitation] = []

    async def enrol(invitation: Invitation) -> bool:
        invitations.append(invitation)
        return len(invitations) == 1

    async with (
        hospital(tmp_path / "me", enrolled=enrolled) as node,
        still_queue(node, tmp_path / "me") as queue,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(make_app(node, enrol, queue)), base_url="http://relay"
        ) as http,
    ):
        yield Client(node, queue, http, invitations)
