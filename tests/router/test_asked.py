"""What this hospital has asked of others: shown until it is granted, or forgotten."""

from pathlib import Path

import pytest

from relay.database import open_database
from relay.errors import Refused
from relay.router.asked import Asked, AskedTable
from relay.router.schema import MIGRATIONS

SOUTH = b"s" * 32
ASKED = Asked(SOUTH, "PACS", frozenset({"echo", "query"}), 1000)


def nothing(title: str) -> frozenset[str]:
    return frozenset()


def a_part(title: str) -> frozenset[str]:
    return frozenset({"echo"})


def all_of_it(title: str) -> frozenset[str]:
    return frozenset({"echo", "query", "store"}) if title == "PACS" else frozenset()


async def test_what_was_asked_waits_until_all_of_it_is_granted(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        await AskedTable(database).put(ASKED)
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = AskedTable(database)
        assert await table.waiting(nothing) == [ASKED]
        await table.settle(a_part)
        assert await table.waiting(a_part) == [ASKED]
        assert ASKED.to_json(a_part)["waiting"] == ["query"]
        assert await table.waiting(all_of_it) == []
        await table.settle(all_of_it)
        assert await table.waiting(nothing) == [], "taken back later, it does not wait anew"


async def test_the_last_ask_for_a_device_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    later = Asked(SOUTH, "PACS", frozenset({"store"}), 2000)
    other = Asked(SOUTH, "OTHER", frozenset({"store"}), 1500)
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = AskedTable(database)
        for asked in (ASKED, other, later):
            await table.put(asked)
        assert await table.waiting(nothing) == [later, other]


async def test_a_person_waits_no_more(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = AskedTable(database)
        await table.put(ASKED)
        with pytest.raises(Refused, match="nothing that was asked of 'OTHER' waits"):
            await table.remove("OTHER")
        await table.remove("PACS")
        assert await table.waiting(nothing) == []
