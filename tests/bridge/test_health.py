"""Whether a Bridge can do its work."""

from collections.abc import Callable
from typing import cast

import attrs
import httpx
import pytest

from relay.bridge.health import bridge_health
from relay.bridge.stores import Stores
from relay.database import Database
from relay.errors import DatabaseError
from relay.web.operations import rest_app

from .conftest import Rooms


@attrs.frozen
class Standing:
    """What there is of stores."""

    in_use: list[str]
    fails: tuple[str, ...] = ()

    def failing(self) -> list[str]:
        return list(self.fails)


async def ask(rooms: Rooms, stores: Standing, path: str) -> httpx.Response:
    app = rest_app(bridge_health(rooms.database, cast(Stores, stores)))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://bridge") as client:
        return await client.get(path)


@pytest.mark.parametrize(
    ("stores", "state"),
    [
        (Standing(["disk"]), "ok"),
        (Standing(["s3", "disk"], ("s3",)), "ok"),
        (Standing(["disk"], ("disk",)), "none of those in use works"),
        (Standing([]), "none is in use"),
    ],
)
async def test_it_is_ready_while_one_store_in_use_works(
    rooms: Rooms, stores: Standing, state: str
) -> None:
    ready = await ask(rooms, stores, "/readyz")
    assert ready.json()["parts"] == {"database": "ok", "object store": state}
    assert ready.status_code == (200 if state == "ok" else 503)
    assert (await ask(rooms, stores, "/healthz")).status_code == 200


class Broken:
    """A database whose disk fails."""

    async def run(self, work: Callable[..., object]) -> object:
        raise DatabaseError("/srv/bridge.db: disk I/O error")


async def test_a_database_that_fails_is_no_health(rooms: Rooms) -> None:
    broken = attrs.evolve(rooms, database=cast(Database, Broken()))
    answer = await ask(broken, Standing(["disk"]), "/healthz")
    assert answer.status_code == 503
    assert answer.json()["parts"] == {"database": "fails: the log says why"}
