"""Awaited reports: what is let in, for how long, and over a restart."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import attrs
import pytest

from relay.database import Database, open_database
from relay.errors import DatabaseError
from relay.router import commitments as module
from relay.router.commitments import (
    LIFETIME,
    LIFETIME_REPORTED,
    Commitment,
    CommitmentTable,
)
from relay.router.schema import MIGRATIONS

PEER, OTHER = b"p" * 32, b"o" * 32
NOW = 1_700_000_000
ASKED = Commitment("1.2.3", True, "WS", PEER, "PACS")
ASKED_OF_US = Commitment("1.2.3", False, "PACS", PEER, "WS")


@asynccontextmanager
async def table(tmp_path: Path) -> AsyncIterator[CommitmentTable]:
    async with open_database(tmp_path / "router.db", MIGRATIONS) as database:
        yield await CommitmentTable.load(database)


async def test_what_our_device_asked_for_is_awaited_of_who_was_asked(tmp_path: Path) -> None:
    async with table(tmp_path) as commitments:
        assert not commitments.awaited(PEER, "WS")
        await commitments.keep(ASKED, NOW)
        assert commitments.awaited(PEER, "WS")
        assert not commitments.awaited(OTHER, "WS")
        assert not commitments.awaited(PEER, "WS2")
        assert commitments.known(ASKED)
        for other in (
            Commitment("1.2.4", True, "WS", PEER, "PACS"),
            Commitment("1.2.3", False, "WS", PEER, "PACS"),
            Commitment("1.2.3", True, "WS2", PEER, "PACS"),
            Commitment("1.2.3", True, "WS", OTHER, "PACS"),
            Commitment("1.2.3", True, "WS", PEER, "PACS2"),
        ):
            assert not commitments.known(other)
        assert commitments.origin("WS", "1.2.3") is None


async def test_what_our_device_was_asked_for_has_an_origin(tmp_path: Path) -> None:
    async with table(tmp_path) as commitments:
        await commitments.keep(ASKED_OF_US, NOW)
        assert commitments.origin("PACS", "1.2.3") == ASKED_OF_US
        assert commitments.origin("PACS", "1.2.4") is None
        assert commitments.origin("PACS2", "1.2.3") is None
        assert not commitments.awaited(PEER, "PACS")


async def test_of_two_that_use_one_transaction_the_first_is_its_origin(tmp_path: Path) -> None:
    second = attrs.evolve(ASKED_OF_US, peer=OTHER)
    async with table(tmp_path) as commitments:
        await commitments.keep(ASKED_OF_US, NOW)
        await commitments.keep(second, NOW + 1)
        assert commitments.origin("PACS", "1.2.3") == ASKED_OF_US
        await commitments.reported(second, NOW + 2)
        await commitments.keep(ASKED, NOW + 2 + LIFETIME_REPORTED)  # the second is over
        assert commitments.origin("PACS", "1.2.3") == ASKED_OF_US


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    async with table(tmp_path) as commitments:
        await commitments.keep(ASKED, NOW)
        await commitments.keep(ASKED_OF_US, NOW)
    async with table(tmp_path) as commitments:
        assert len(commitments) == 2
        assert commitments.awaited(PEER, "WS")
        assert commitments.known(ASKED)
        assert commitments.origin("PACS", "1.2.3") == ASKED_OF_US


async def test_the_same_twice_is_one(tmp_path: Path) -> None:
    async with table(tmp_path) as commitments:
        await commitments.keep(ASKED, NOW)
        await commitments.keep(ASKED, NOW + 5)
        assert len(commitments) == 1
        await commitments.keep(ASKED_OF_US, NOW + 5 + LIFETIME)  # by then it is over
        assert not commitments.awaited(PEER, "WS")
        assert not commitments.known(ASKED)


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_is_over_goes_with_the_next_that_comes(tmp_path: Path, restarted: bool) -> None:
    async with table(tmp_path) as commitments:
        await commitments.keep(ASKED, NOW)
        await commitments.keep(ASKED_OF_US, NOW)
        await commitments.keep(Commitment("1.2.9", True, "WS", PEER, "PACS"), NOW + LIFETIME - 1)
        assert len(commitments) == 3
        if not restarted:
            await commitments.keep(Commitment("7", True, "WS", PEER, "PACS"), NOW + LIFETIME)
            assert len(commitments) == 2
            assert commitments.awaited(PEER, "WS")
            assert commitments.origin("PACS", "1.2.3") is None
    async with table(tmp_path) as commitments:
        await commitments.keep(Commitment("8", True, "WS", OTHER, "PACS"), NOW + LIFETIME)
        assert len(commitments) == (2 if restarted else 3)


async def test_a_report_may_come_again_for_a_while(tmp_path: Path) -> None:
    async with table(tmp_path) as commitments:
        await commitments.keep(ASKED, NOW)
        await commitments.reported(ASKED, NOW + 10)
        await commitments.reported(ASKED, NOW + 1000)  # does not count anew
        assert commitments.known(ASKED)
    async with table(tmp_path) as commitments:
        assert commitments.known(ASKED)
        await commitments.keep(ASKED_OF_US, NOW + 10 + LIFETIME_REPORTED)
        assert not commitments.known(ASKED)


async def test_a_report_that_nobody_awaits_leaves_no_row(tmp_path: Path) -> None:
    async with table(tmp_path) as commitments:
        await commitments.reported(ASKED, NOW)
        assert len(commitments) == 0


def asked(number: int, device: str = "WS") -> Commitment:
    return Commitment(f"1.2.{number}", True, device, PEER, "PACS")


async def test_a_full_table_has_room_again_when_what_is_in_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_COMMITMENTS", 2)
    async with table(tmp_path) as commitments:
        assert commitments.has_room(asked(1), NOW)
        await commitments.keep(ASKED, NOW)
        assert commitments.has_room(asked(1), NOW)
        await commitments.keep(ASKED_OF_US, NOW + 100)
        assert not commitments.has_room(asked(1), NOW + LIFETIME - 1)
        assert commitments.has_room(asked(1), NOW + LIFETIME)
        await commitments.keep(asked(1), NOW + LIFETIME)
        assert len(commitments) == 2


@pytest.mark.parametrize("restarted", [False, True])
async def test_nobody_can_fill_the_table_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_SHARE", 2)
    of_us = [Commitment(f"1.3.{n}", False, "PACS", PEER, "WS") for n in range(3)]
    async with table(tmp_path) as commitments:
        for number in range(2):
            await commitments.keep(asked(number), NOW)
            await commitments.keep(of_us[number], NOW)
        if restarted:
            commitments = await CommitmentTable.load(commitments._database)
        assert not commitments.has_room(asked(2), NOW)
        assert not commitments.has_room(of_us[2], NOW)
        assert commitments.has_room(asked(2, "WS2"), NOW)
        assert commitments.has_room(attrs.evolve(of_us[2], peer=OTHER), NOW)
        assert commitments.has_room(asked(2), NOW + LIFETIME)
        await commitments.keep(asked(2), NOW + LIFETIME)
        assert commitments.has_room(of_us[2], NOW + LIFETIME)


class FullDisk(Database):
    """A database whose every change fails."""

    def __init__(self) -> None:
        pass

    async def run(self, fn: Callable[[apsw.Connection], object]) -> object:  # type: ignore[override]
        raise DatabaseError("disk full")


async def test_what_is_not_on_the_disk_is_not_awaited() -> None:
    commitments = CommitmentTable(FullDisk(), [])
    with pytest.raises(DatabaseError):
        await commitments.keep(ASKED, NOW)
    assert not commitments.awaited(PEER, "WS")
    assert not commitments.known(ASKED)


async def test_what_cannot_be_forgotten_stays_whole() -> None:
    commitments = CommitmentTable(FullDisk(), [(ASKED, NOW)])
    with pytest.raises(DatabaseError):
        await commitments.keep(ASKED_OF_US, NOW)
    assert commitments.known(ASKED)
    assert commitments.awaited(PEER, "WS")
    assert commitments.origin("PACS", "1.2.3") is None
