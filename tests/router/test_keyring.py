"""The identity file and the HPKE keys."""

import stat
from pathlib import Path

import pytest

from relay.database import open_database
from relay.errors import IdentityError
from relay.identity import Identity, KeyStatement
from relay.router.keyring import (
    IDENTITY_FILE,
    LIFETIME,
    MAXIMUM_KEYS,
    ROTATION,
    Keyring,
    load_identity,
)
from relay.router.schema import MIGRATIONS

NETWORK = bytes(16)
IDENTITY = Identity.from_seed(bytes(32))


def test_the_identity_is_made_once_and_private(tmp_path: Path) -> None:
    first = load_identity(tmp_path)
    assert load_identity(tmp_path).public == first.public
    assert stat.S_IMODE((tmp_path / IDENTITY_FILE).stat().st_mode) == 0o600


def test_an_identity_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_identity(tmp_path)
    (tmp_path / IDENTITY_FILE).chmod(0o644)
    with pytest.raises(IdentityError, match="chmod 600"):
        load_identity(tmp_path)


@pytest.mark.parametrize("content", ["", "zz" * 32, "00" * 31])
def test_a_damaged_identity_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / IDENTITY_FILE
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match="backup"):
        load_identity(tmp_path)


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
