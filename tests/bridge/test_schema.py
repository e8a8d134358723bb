"""The network is drawn once, and belongs to one identity."""

from pathlib import Path

import pytest

from relay.bridge.schema import MIGRATIONS, load_network
from relay.database import open_database
from relay.errors import IdentityError


async def test_drawn_once(tmp_path: Path) -> None:
    drawn = []
    for _ in range(2):
        async with open_database(tmp_path / "bridge.db", MIGRATIONS) as database:
            drawn.append(await load_network(database, tmp_path))
    (first, network), (second, again) = drawn
    assert network == again
    assert first.public == second.public == network.bridge
    assert (len(network.network), len(network.secret)) == (16, 32)
    assert network.secret.hex() not in repr(network)


async def test_networks_differ(tmp_path: Path) -> None:
    networks = set()
    for name in ("one", "two"):
        folder = tmp_path / name
        make(folder)
        async with open_database(folder / "bridge.db", MIGRATIONS) as database:
            _, network = await load_network(database, folder)
            networks.add(network.network)
    assert len(networks) == 2


def make(folder: Path) -> None:
    folder.mkdir()


async def test_every_foreign_key_is_enforced(tmp_path: Path) -> None:
    async with open_database(tmp_path / "bridge.db", MIGRATIONS) as database:
        assert await database.run(lambda db: db.pragma("foreign_keys")) == 1
        assert await database.run(lambda db: db.pragma("integrity_check")) == "ok"


async def test_database_without_its_identity(tmp_path: Path) -> None:
    make(tmp_path / "restored")
    async with open_database(tmp_path / "bridge.db", MIGRATIONS) as database:
        await load_network(database, tmp_path)
        with pytest.raises(IdentityError, match="missing"):
            await load_network(database, tmp_path / "restored")


async def test_routers_that_named_themselves_are_called_what_they_were_invited_as(
    tmp_path: Path,
) -> None:
    async with open_database(tmp_path / "bridge.db", MIGRATIONS[:1]) as database:
        await database.run(
            lambda db: db.execute("INSERT INTO router VALUES (x'01', 'B', 'C', x'02', 3, NULL)")
        )
    async with open_database(tmp_path / "bridge.db", MIGRATIONS) as database:
        rows = await database.run(lambda db: list(db.execute("SELECT * FROM router")))
    assert rows == [(b"\x01", "C", b"\x02", 3, None, None)]


async def test_stores_of_before_keep_their_turn(tmp_path: Path) -> None:
    async with open_database(tmp_path / "bridge.db", MIGRATIONS[:2]):
        pass
    async with open_database(tmp_path / "bridge.db", MIGRATIONS) as database:
        rows = await database.run(lambda db: list(db.execute("SELECT * FROM provider")))
    assert rows == [("disk", "disk", "{}", 1, 0)]
