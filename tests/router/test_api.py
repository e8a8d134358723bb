"""The table of the REST: complete, documented, and what it does not know is refused."""

import inspect
from pathlib import Path

from relay.router.api import control_operations
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
        for name, _ in inspect.getmembers(Routes, inspect.iscoroutinefunction)
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
