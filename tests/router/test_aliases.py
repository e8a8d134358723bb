"""Aliases: what a person may enter, what is kept, and one to one."""

from pathlib import Path
from typing import Any

import pytest

from relay.database import open_database
from relay.errors import Refused
from relay.router.aliases import MAXIMUM_ALIASES, Alias, AliasTable
from relay.router.schema import MIGRATIONS


def test_an_alias_as_a_person_describes_it() -> None:
    alias = Alias.from_json({"local": " PACS_A ", "published": "PACS"})
    assert alias == Alias("PACS_A", "PACS")
    assert Alias.from_json(alias.to_json()) == alias


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"local": None}, "alias: local is missing"),
        ({"published": ""}, "alias: published is missing"),
        ({"local": "A\\B"}, "an AE title is 1 to 16"),
        ({"published": "x" * 17}, "an AE title is 1 to 16"),
        ({"publish": "PACS"}, "unknown field 'publish'; did you mean published"),
    ],
)
def test_what_does_not_hold_is_named(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        Alias.from_json({"local": "PACS_A", "published": "PACS"} | entry)
    assert caught.value.status == 400


async def test_aliases_are_kept_and_lead_both_ways(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await AliasTable.load(database)
        assert await table.put(Alias("PACS_A", "PACS"))
        assert not await table.put(Alias("PACS_A", "PACS"))
        assert await table.put(Alias("CT", "CT_NORTH"))
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await AliasTable.load(database)
        assert list(table) == [Alias("CT", "CT_NORTH"), Alias("PACS_A", "PACS")]
        assert (table.local_of("PACS"), table.published_of("PACS_A")) == ("PACS_A", "PACS")
        assert (table.local_of("PACS_A"), table.published_of("PACS")) == (None, None)
        assert await table.remove("PACS_A") == Alias("PACS_A", "PACS")
        assert (table.local_of("PACS"), table.published_of("PACS_A")) == (None, None)
        with pytest.raises(Refused, match="relay alias list") as caught:
            await table.remove("PACS_A")
        assert caught.value.status == 404
        assert list(await AliasTable.load(database)) == [Alias("CT", "CT_NORTH")]


@pytest.mark.parametrize("other", [Alias("PACS_A", "PACS_NORTH"), Alias("NORTH", "PACS")])
async def test_either_title_is_taken_once(tmp_path: Path, other: Alias) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await AliasTable.load(database)
        await table.put(Alias("PACS_A", "PACS"))
        with pytest.raises(Refused, match="`relay alias remove PACS_A` first") as caught:
            await table.put(other)
        assert caught.value.status == 409
        assert list(table) == [Alias("PACS_A", "PACS")]


async def test_the_table_has_an_end(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        rows = [Alias(f"L{number}", f"P{number}") for number in range(MAXIMUM_ALIASES)]
        with pytest.raises(Refused, match="already has 1024 aliases"):
            await AliasTable(database, rows).put(Alias("ONE", "MORE"))
