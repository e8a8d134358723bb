"""Openings are remembered, also across a restart, and forgotten in the end."""

from pathlib import Path

from relay.database import open_database
from relay.router import replay
from relay.router.schema import MIGRATIONS
from relay.tunnel.handshake import REPLAY_MEMORY


async def test_an_opening_is_new_once(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        assert await replay.remember(database, b"a" * 32, 1000)
        assert await replay.remember(database, b"b" * 32, 1000)
        assert not await replay.remember(database, b"a" * 32, 1001)
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        assert not await replay.remember(database, b"a" * 32, 1000 + REPLAY_MEMORY)
        assert await replay.remember(database, b"a" * 32, 1001 + REPLAY_MEMORY)
