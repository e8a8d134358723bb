"""Both modes' databases have the tables of people."""

from pathlib import Path

import pytest

from relay.bridge.schema import MIGRATIONS as BRIDGE
from relay.database import open_database
from relay.router.schema import MIGRATIONS as ROUTER

TABLES = {"person", "sign_in", "one_time_link", "api_token"}


@pytest.mark.parametrize("migrations", [BRIDGE, ROUTER], ids=["bridge", "router"])
async def test_tables(tmp_path: Path, migrations: tuple[str, ...]) -> None:
    async with open_database(tmp_path / "d.db", migrations) as database:
        names = await database.run(
            lambda db: {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
        )
    assert names >= TABLES
