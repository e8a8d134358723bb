"""The identity file and the HPKE keys."""

from pathlib import Path

from relay.database import open_database
from relay.identity import Identity, KeyStatement
from relay.router.keyring import (
    LIFETIME,
    MAXIMUM_KEYS,
    ROTATION,
    Keyring,
)
from relay.router.schema import MIGRATIONS

NETWORK = bytes(16)
IDENTITY = Identity.from_seed(bytes(32))


async def test_each_start_makes_a_key_and_keeps_the_old(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        first = await Keyring.load(database, IDENTITY, 1000)
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        second = await Keyring.load(database, IDENTITY, 1000)
        assert len(second.pairs) == 2
        assert first.pairs.keys() < second.pairs.keys()
        owner, key = KeyStatement.open(second.statement(NETWORK), NETWORK)
        assert owner == IDENTITY.public
        assert key.key_id in second.pairs.keys() - first.pairs.keys()
        assert (key.serial, key.expires) == (1001, 1000 + LIFETIME)


async def test_keys_are_renewed_and_expire(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        keyring = await Keyring.load(database, IDENTITY, 0)
        assert not keyring.due(ROTATION - 1)
        assert keyring.due(ROTATION)
        assert keyring.due(-1)  # the clock that dated it was ahead
        await keyring.renew(ROTATION)
        assert len(keyring.pairs) == 2
        await keyring.renew(LIFETIME)
        assert len(keyring.pairs) == 2  # the first is over


async def test_a_router_that_starts_all_the_time_keeps_a_bounded_number(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        keyring = await Keyring.load(database, IDENTITY, 0)
        for now in range(MAXIMUM_KEYS + 5):
            await keyring.renew(now)
        assert len(keyring.pairs) == MAXIMUM_KEYS
        count = await database.run(lambda c: c.execute("SELECT count(*) FROM hpke_key").get)
        assert count == MAXIMUM_KEYS
