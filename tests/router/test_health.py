"""Whether a Router can do its work."""

from pathlib import Path

import httpx
import pytest

from relay.router.health import router_health
from relay.router.node import Node
from relay.web.operations import rest_app
from tests.router.fakes import hospital
from tests.router.queue.queues import batch_of, keep, still_queue

SPACE = 10_000


async def ask(node: Node, folder: Path, path: str, *, full: bool = False) -> httpx.Response:
    async with still_queue(node, folder, space=SPACE) as queue:
        if full:
            await keep(queue, batch_of("PACS"), data=bytes(1000))
            queue.spool.objects.space.maximum = 900  # as after a change of the configuration
        transport = httpx.ASGITransport(rest_app(router_health(queue)))
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
            return await client.get(path)


async def test_a_router_that_listens_and_is_connected_is_ready(tmp_path: Path) -> None:
    async with hospital(tmp_path) as node:
        node.listening = [("127.0.0.1", 104)]
        answer = await ask(node, tmp_path, "/readyz")
    assert answer.status_code == 200
    parts = dict.fromkeys(("database", "listening", "spool", "bridge"), "ok")
    assert answer.json() == {"status": "ok", "parts": parts}


@pytest.mark.parametrize(("enrolled", "state"), [(True, "not connected"), (False, "not enrolled")])
async def test_without_a_bridge_it_is_well_and_not_ready(
    tmp_path: Path, enrolled: bool, state: str
) -> None:
    async with hospital(tmp_path, enrolled=enrolled) as node:
        if node.network is not None:
            node.network.client.connected = False  # type: ignore[misc]
        ready, alive = (
            await ask(node, tmp_path, "/readyz"),
            await ask(node, tmp_path, "/healthz"),
        )
    assert ready.status_code == 503
    assert ready.json()["parts"]["bridge"] == state
    assert ready.json()["parts"]["listening"].startswith("listens for no device")
    assert (alive.status_code, alive.json()["parts"]) == (200, {"database": "ok"})


async def test_a_full_spool_is_said(tmp_path: Path) -> None:
    async with hospital(tmp_path) as node:
        answer = await ask(node, tmp_path, "/readyz", full=True)
    assert answer.status_code == 503
    assert answer.json()["parts"]["spool"] == "full: nothing more is accepted"
