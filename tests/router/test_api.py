"""The table of the REST: complete, documented, and what it does not know is refused."""

import inspect
from pathlib import Path

from relay.people.roles import Role
from relay.router.api import control_operations
from relay.router.peer_routes import PeerRoutes
from relay.router.routes import Routes
from tests.router.fakes import hospital
from tests.router.queue.parts import parts_of
from tests.router.rest import client


async def test_every_route_is_an_operation(tmp_path: Path) -> None:
    async def enrol(invitation: object) -> bool:
        return True

    async with hospital(tmp_path) as node:
        operations = control_operations(node, enrol, await parts_of(node))
        used = {operation.route.name for operation in operations}
    routes = {
        name
        for handlers in (Routes, PeerRoutes)
        for name, _ in inspect.getmembers(handlers, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert routes <= used


async def test_the_document_shows_every_operation(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        document = await call("GET", "/openapi.json")
        assert "/v1/devices/{ae_title}/test" in document["paths"]


async def test_what_is_unknown_is_refused_in_json(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        assert "error" in await call("GET", "/nothing", status=404)
        assert "error" in await call("PUT", "/devices", status=405)


async def test_operators_settle_the_queue_and_test_and_search_and_change_nothing_else(
    tmp_path: Path,
) -> None:
    async with hospital(tmp_path) as node:
        operations = control_operations(node, lambda _: None, await parts_of(node))  # type: ignore[arg-type,return-value]
    needs = {(op.method, op.path): op.needs for op in operations}
    assert {path for (_, path), role in needs.items() if role is Role.OPERATOR} == {
        "/v1/devices/{ae_title:path}/test",
        "/v1/directory/{ae_title:path}/echo",
        "/v1/queue/patients",
        "/v1/queue/retry",
        "/v1/queue/discard",
        "/v1/queue/pause",
        "/v1/queue/resume",
    }
    assert {role for (method, _), role in needs.items() if method == "GET"} == {Role.VIEWER}
