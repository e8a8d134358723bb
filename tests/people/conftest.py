"""People in a database of their own, with hashes that cost next to nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from relay.database import Database, open_database
from relay.people.passwords import Cost, Passwords
from relay.people.people import People
from relay.people.schema import PEOPLE

NOW = 1_800_000_000
# Enough to be argon2id, and no more: its worth is argon2's own business.
CHEAP = Cost(passes=1, memory=8, lanes=1)
PASSWORD = "correct horse battery"


@attrs.define
class Clock:
    """Unix seconds that a test moves."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "people.db", (PEOPLE,)) as opened:
        yield opened


@pytest.fixture
async def people(database: Database, clock: Clock) -> AsyncIterator[People]:
    loaded = await People.load(database, passwords=Passwords(CHEAP), clock=clock)
    yield loaded
    loaded.close()
