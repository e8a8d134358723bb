"""Tokens: told once, kept as a hash, and found by whole ones only."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.database import Database, open_database
from relay.errors import Refused, RelayError
from relay.router.dicomweb import tokens
from relay.router.dicomweb.tokens import TokenTable
from relay.router.schema import MIGRATIONS


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "router.db", MIGRATIONS) as opened:
        yield opened


async def test_a_token_is_found_by_itself_alone(database: Database) -> None:
    table = await TokenTable.load(database)
    secret = await table.add("viewer", "WS", 7)
    other = await table.add("script", "", 8)
    assert len(secret) >= len("relay_") + 22  # 128 bits
    assert secret != other
    found = table.find(f"Bearer {secret}")
    assert found is not None
    assert found.to_json() == {"name": "viewer", "device": "WS", "created": 7}
    assert table.find(f"bearer  {other}") is not None
    for wrong in ("", secret, f"Basic {secret}", f"Bearer {secret}x", f"Bearer {secret[:-1]}"):
        assert table.find(wrong) is None


async def test_it_is_kept_as_a_hash(database: Database, tmp_path: Path) -> None:
    table = await TokenTable.load(database)
    secret = await table.add("viewer", "WS", 7)
    again = await TokenTable.load(database)
    assert again.find(f"Bearer {secret}") == table.find(f"Bearer {secret}")
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"viewer" in kept
    assert secret.removeprefix("relay_").encode() not in kept
    assert secret not in repr(list(again))


async def test_one_that_is_removed_is_none(database: Database) -> None:
    table = await TokenTable.load(database)
    secret = await table.add("viewer", "", 7)
    await table.remove("viewer")
    assert table.find(f"Bearer {secret}") is None
    assert list(await TokenTable.load(database)) == []
    with pytest.raises(Refused, match="no token 'viewer'"):
        await table.remove("viewer")


@pytest.mark.parametrize("name", ["", " a", "a ", "ä", "a\n", "x" * 65])
async def test_what_is_no_name_is_refused(database: Database, name: str) -> None:
    with pytest.raises(Refused) as refused:
        await (await TokenTable.load(database)).add(name, "", 0)
    assert refused.value.status == 400


async def test_each_name_is_there_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    table = await TokenTable.load(database)
    await table.add("viewer", "", 0)
    with pytest.raises(Refused, match="there is a token 'viewer'"):
        await table.add("viewer", "", 0)
    monkeypatch.setattr(tokens, "MAXIMUM_TOKENS", 1)
    with pytest.raises(Refused, match="there are 1 tokens"):
        await table.add("another", "", 0)


async def test_one_that_could_not_be_removed_can_be_removed_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would come back with the next start, and nobody could take it away before."""
    table = await TokenTable.load(database)
    await table.add("viewer", "", 7)

    async def full(*_: object) -> None:
        raise RelayError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "run", full)
        with pytest.raises(RelayError, match="full"):
            await table.remove("viewer")
    await table.remove("viewer")
    assert list(await TokenTable.load(database)) == []
