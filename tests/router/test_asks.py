"""What peers ask for, kept until a person answers."""

from pathlib import Path

import pytest

from relay.database import open_database
from relay.errors import Refused
from relay.router.asks import MAXIMUM_WAITING, Ask, AskTable
from relay.router.schema import MIGRATIONS
from relay.tunnel.ask import GrantRequest

NORTH, SOUTH = b"n" * 32, b"s" * 32
REQUEST = GrantRequest("PACS", ("store", "echo"), ("CT 1", "CT 2"), "for the trial\x1b[2J\n")


def test_a_request_becomes_an_ask_and_back() -> None:
    ask = Ask.from_request(NORTH, REQUEST)
    assert ask.services == {"store", "echo"}
    assert ask.note == "for the trial[2J"
    assert ask.to_request().calling == ("CT 1", "CT 2")


def test_what_no_grant_could_give_is_refused() -> None:
    with pytest.raises(Refused, match="no such service"):
        Ask.from_request(NORTH, GrantRequest("PACS", ("everything",), (), ""))


async def test_asks_wait_for_a_person(tmp_path: Path) -> None:
    ask = Ask.from_request(NORTH, REQUEST)
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        await AskTable(database).keep(ask, b"sealed", 1000)
        await AskTable(database).keep(ask, b"sealed", 2000)  # a replay is the same question
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = AskTable(database)
        (kept,) = await table.all()
        assert (kept.asker, kept.calling, kept.received) == (NORTH, {"CT 1", "CT 2"}, 1000)
        assert await table.get(kept.id) == kept
        await table.remove(kept.id)
        with pytest.raises(Refused, match="no ask"):
            await table.remove(kept.id)


async def test_one_peer_cannot_fill_the_disk(tmp_path: Path) -> None:
    ask = Ask.from_request(NORTH, REQUEST)
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = AskTable(database)
        for n in range(MAXIMUM_WAITING):
            await table.keep(ask, bytes([n]), 1000)
        with pytest.raises(Refused, match="wait already"):
            await table.keep(ask, b"one more", 1000)
        await table.keep(Ask.from_request(SOUTH, REQUEST), b"another's", 1000)
