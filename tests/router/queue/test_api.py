"""The queue's table of operations: complete, documented, and served with the Router's others."""

import inspect
from pathlib import Path

from relay.router.queue.api import queue_operations
from relay.router.queue.routes import QueueRoutes
from tests.router.fakes import hospital
from tests.router.queue.queues import batch_of, keep, still_queue
from tests.router.rest import client


async def test_every_route_is_an_operation(tmp_path: Path) -> None:
    async with hospital(tmp_path) as node, still_queue(node, tmp_path) as queue:
        used = {operation.route.name for operation in queue_operations(queue)}
    routes = {
        name
        for name, _ in inspect.getmembers(QueueRoutes, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert routes <= used


async def test_the_routers_document_has_them(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        paths = (await call("GET", "/openapi.json"))["paths"]
    assert "/v1/queue/items/{number}" in paths
    retry = paths["/v1/queue/retry"]["post"]
    body = retry["requestBody"]["content"]["application/json"]["schema"]
    assert {"called", "study", "numbers", "all"} <= body["properties"].keys()
    assert {"200", "400", "404"} <= retry["responses"].keys()


async def test_the_control_socket_serves_the_metrics(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        await keep(call.queue, batch_of("PACS"))
        response = await call.http.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain; version=")
        assert 'relay_queue_items{destination="PACS",state="waiting"} 1.0' in response.text
        document = await call("GET", "/openapi.json")
    content = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert list(content) == ["text/plain"]
