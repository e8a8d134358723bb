"""Grants: what they cover, what is kept, and the copy without calling AE titles."""

from pathlib import Path

import pytest

from relay.database import open_database
from relay.errors import Refused
from relay.router.grants import Grant, GrantTable, Permission, parse_calling
from relay.router.schema import MIGRATIONS

NORTH, SOUTH = b"n" * 32, b"s" * 32


def services(*words: str) -> frozenset[str]:
    return frozenset(words)


async def test_nothing_is_granted_by_default(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await GrantTable.load(database)
        assert table.permission(NORTH, "PACS", "WS") == Permission()


async def test_grants_add_up_for_whom_they_cover(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await GrantTable.load(database)
        await table.add(Grant(NORTH, "PACS", services("echo")))
        await table.add(
            Grant(NORTH, "PACS", services("store"), services("CT 1"), user_identity=True)
        )
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await GrantTable.load(database)
        assert table.permission(NORTH, "PACS", "CT 1") == Permission(
            services("echo", "store"), True
        )
        assert table.permission(NORTH, "PACS", "WS") == Permission(services("echo"))
        assert table.permission(SOUTH, "PACS", "CT 1") == Permission()
        assert table.permission(NORTH, "OTHER", "CT 1") == Permission()


async def test_the_same_grant_is_made_once(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await GrantTable.load(database)
        first = await table.add(Grant(NORTH, "PACS", services("echo")))
        assert (await table.add(Grant(NORTH, "PACS", services("echo")))).id == first.id
        await table.remove(first.id)
        with pytest.raises(Refused, match="no grant"):
            await table.remove(first.id)
        second = await table.add(Grant(NORTH, "PACS", services("echo")))
        assert second.id > first.id  # a number never names two grants


async def test_a_grant_names_a_service(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await GrantTable.load(database)
        with pytest.raises(Refused, match="at least one"):
            await table.add(Grant(NORTH, "PACS", services()))
        many = services(*(f"private:1.{n}.{'1' * 55}" for n in range(40)))
        full = GrantTable(
            database, [Grant(NORTH, "PACS", many, services(f"D{n}"), id=n) for n in range(73)]
        )
        with pytest.raises(Refused, match="longer than"):
            await full.add(Grant(NORTH, "PACS", many))


async def test_the_bridge_gets_no_calling_titles(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await GrantTable.load(database)
        await table.add(Grant(NORTH, "PACS", services("store"), services("SECRET")))
        await table.add(Grant(NORTH, "PACS", services("echo")))
        assert table.for_bridge() == ((NORTH, "PACS", ("echo", "store")),)


def test_calling_titles_as_a_person_writes_them() -> None:
    assert parse_calling([]) == parse_calling(["*"]) == parse_calling(["A", "*"]) == frozenset()
    assert parse_calling([" A ", "B"]) == {"A", "B"}
    with pytest.raises(Refused):
        parse_calling(["A\\B"])


def test_permissions_compare() -> None:
    assert Permission(services("a")).within(Permission(services("a", "b"), True))
    assert not Permission(services("a"), True).within(Permission(services("a", "b")))
