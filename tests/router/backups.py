"""A Router's data_dir as a process leaves it, for tests of backups."""

from pathlib import Path

from relay.database import open_database
from relay.identity import load_identity
from relay.router.keyring import Keyring
from relay.router.membership import Membership, save
from relay.router.schema import DATABASE_FILE, MIGRATIONS
from relay.spool.items import Item
from tests.spool.stock import opened, stock

MEMBERSHIP = Membership(bytes(16), bytes(32), "https://relay.example.org", "Hospital A")
NOW = 1_700_000_000


async def make_router(
    data_dir: Path, *, objects: int = 0, key: Path | None = None, enrolled: bool = True
) -> list[Item]:
    """Make it, with so many objects in its queue."""
    data_dir.mkdir(mode=0o700)
    identity = load_identity(data_dir)
    async with open_database(data_dir / DATABASE_FILE, MIGRATIONS) as database:
        await Keyring.load(database, identity, NOW)
        if enrolled:
            await save(database, MEMBERSHIP)
    async with opened(data_dir, key=key) as spool:
        return await stock(spool, objects)
