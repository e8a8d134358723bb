"""API tokens: told once, kept as a digest, and found by whole ones only."""

from pathlib import Path

import pytest

from relay.database import Database
from relay.errors import Refused
from relay.people import tokens as module
from relay.people.roles import Role
from relay.people.tokens import PREFIX, APITokens
from tests.people.conftest import NOW, Clock


@pytest.fixture
async def tokens(database: Database, clock: Clock) -> APITokens:
    return await APITokens.load(database, clock)


async def test_a_token_is_found_by_itself_alone(
    database: Database, tokens: APITokens, clock: Clock, tmp_path: Path
) -> None:
    secret = await tokens.add("prometheus", Role.VIEWER)
    assert secret.startswith(PREFIX)
    found = await tokens.find(f"bearer  {secret} ")
    assert found is not None
    assert (found.name, found.role) == ("prometheus", Role.VIEWER)
    for wrong in ("", secret, f"Basic {secret}", f"Bearer {secret}x", f"Bearer {secret[:-1]}"):
        assert await tokens.find(wrong) is None
    again = await APITokens.load(database, clock)
    assert await again.find(f"Bearer {secret}") is not None
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.removeprefix(PREFIX).encode() not in kept
    assert secret not in repr(list(tokens))


async def test_its_last_use_is_told(tokens: APITokens, database: Database, clock: Clock) -> None:
    secret = await tokens.add("a", Role.OPERATOR)
    [shown] = [token.to_json() for token in tokens]
    assert shown == {"name": "a", "role": "operator", "created": NOW, "used": None}
    clock.now += 100
    await tokens.find(f"Bearer {secret}")
    [kept] = await APITokens.load(database, clock)
    assert kept.used == NOW + 100


async def test_one_that_is_removed_is_none(
    tokens: APITokens, database: Database, clock: Clock
) -> None:
    secret = await tokens.add("a", Role.OPERATOR)
    await tokens.remove("a")
    assert await tokens.find(f"Bearer {secret}") is None
    assert list(await APITokens.load(database, clock)) == []
    with pytest.raises(Refused, match="no API token 'a'"):
        await tokens.remove("a")


async def test_what_cannot_be_added(tokens: APITokens, monkeypatch: pytest.MonkeyPatch) -> None:
    await tokens.add("a", Role.VIEWER)
    for name, status in (("a", 409), ("", 400), ("a\u202e", 400)):
        with pytest.raises(Refused) as refused:
            await tokens.add(name, Role.VIEWER)
        assert refused.value.status == status
    monkeypatch.setattr(module, "MAXIMUM_TOKENS", 1)
    with pytest.raises(Refused, match="remove one first"):
        await tokens.add("b", Role.VIEWER)
