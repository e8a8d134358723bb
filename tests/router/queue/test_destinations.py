"""Destinations: which row holds, what a person may enter, and what follows a device."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from relay.database import open_database
from relay.errors import Refused
from relay.router.aliases import Alias
from relay.router.devices import Device
from relay.router.node import unix_time
from relay.router.pairs import Pairs
from relay.router.queue import destinations
from relay.router.queue.acceptance import Acceptance
from relay.router.queue.destinations import (
    MAXIMUM_DESTINATIONS,
    Destination,
    DestinationTable,
    Mixed,
    Mode,
)
from relay.router.queue.held import Held, write
from relay.router.queue.state import Queue
from relay.router.schema import MIGRATIONS
from relay.spool.items import Priority
from tests.router.fakes import hospital, listing, publication
from tests.router.queue.parts import parts_of


@asynccontextmanager
async def queue_of_a_hospital(folder: Path) -> AsyncIterator[Queue]:
    """Ours has CT (CT_B in the network) and PACS; another's PACS is PACS_A here."""
    async with hospital(folder) as node:
        await node.put_device(Device("CT", "h", published="CT_B"))
        await node.put_device(Device("PACS", "h", published="PACS_B"))
        await node.put_alias(Alias("PACS_A", "PACS"))
        yield await parts_of(node)


def test_a_destination_as_a_person_describes_it() -> None:
    row = Destination.from_json({"called": " PACS "})
    assert row == Destination("PACS", "", Mode.QUEUED, Mixed.REFUSE, Priority.NORMAL)
    assert row.to_json() == {
        "called": "PACS",
        "calling": "",
        "mode": "queued",
        "mixed": "refuse",
        "priority": "normal",
    }
    other = Destination("A", "B", Mode.CONFIRMED, Mixed.CONFIRMED, Priority.LOW)
    assert Destination.from_json(other.to_json()) == other


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, "called is missing"),
        ({"called": "A\\B"}, "AE title"),
        ({"called": "A", "calling": "x" * 17}, "AE title"),
        ({"called": "A", "mode": "later"}, "mode is queued or confirmed"),
        ({"called": "A", "mixed": True}, "mixed is refuse or confirmed"),
        ({"called": "A", "priority": 1}, "priority is high or normal or low"),
        ({"called": "A", "prio": "low"}, "unknown field 'prio'; did you mean priority"),
    ],
)
def test_what_does_not_hold_is_named(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        Destination.from_json(entry)
    assert caught.value.status == 400


async def test_the_row_for_one_caller_wins(tmp_path: Path) -> None:
    general, exception = Destination("PACS"), Destination("PACS", "CT", Mode.CONFIRMED)
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await DestinationTable.load(database)
        assert table.for_call("PACS", "CT") is None
        for row in (general, exception, Destination("MR", "CT", priority=Priority.HIGH)):
            assert await table.put(row)
            assert not await table.put(row)
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await DestinationTable.load(database)
        assert [row.key for row in table] == [("MR", "CT"), ("PACS", ""), ("PACS", "CT")]
        assert table.for_call("PACS", "CT") == exception
        assert table.for_call("PACS", "US") == general
        assert table.for_call("MR", "CT") is not None
        assert table.for_call("MR", "US") is None
        assert await table.remove("PACS", "CT") == exception
        assert table.for_call("PACS", "CT") == general
        with pytest.raises(Refused, match="no destination 'PACS' from 'CT'"):
            await table.remove("PACS", "CT")
        assert len(list(await DestinationTable.load(database))) == 2


async def test_a_change_is_told_once(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await DestinationTable.load(database)
        for step in (
            lambda: table.put(Destination("PACS", "CT")),
            lambda: table.rename("CT", "CT_B"),
            lambda: table.remove("PACS", "CT_B"),
        ):
            changed = table.changed
            assert not changed.is_set()
            await step()
            with trio.fail_after(5):
                await changed.wait()


async def test_the_table_has_an_end(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        rows = [Destination(f"D{number}") for number in range(MAXIMUM_DESTINATIONS)]
        full = DestinationTable(database, rows)
        with pytest.raises(Refused, match="already has"):
            await full.put(Destination("ONE_MORE"))
        assert await full.put(Destination("D1", mode=Mode.CONFIRMED))


@pytest.mark.parametrize(
    ("called", "calling", "published"),
    [
        ("PACS_A", "CT", ("PACS", "CT_B")),
        ("PACS_A", "", ("PACS", "")),
        ("FAR", "CT_B", ("FAR", "CT_B")),
        ("FAR", "RELAY", ("FAR", "RELAY")),  # the command line calls so
    ],
)
async def test_titles_are_those_of_the_network(
    tmp_path: Path, called: str, calling: str, published: tuple[str, str]
) -> None:
    async with queue_of_a_hospital(tmp_path) as queue:
        row, changed = await destinations.put(queue, Destination(called, calling))
        assert (row.key, changed) == (published, True)
        assert await destinations.put(queue, Destination(called, calling)) == (row, False)
        assert await destinations.remove(queue, called, calling) == row


@pytest.mark.parametrize(
    ("called", "calling", "words"),
    [
        ("RELAY", "", "this Router's own"),
        ("PACS", "", "'PACS' is the device PACS of this hospital"),
        ("PACS_B", "", "'PACS_B' is the device PACS of this hospital"),
        ("PACS_A", "US", "'US' is no device of this Router"),
        ("PACS_A", "PACS_A", "no device of this Router"),
    ],
)
async def test_only_from_here_to_elsewhere(
    tmp_path: Path, called: str, calling: str, words: str
) -> None:
    async with queue_of_a_hospital(tmp_path) as queue:
        with pytest.raises(Refused, match=words) as caught:
            await destinations.put(queue, Destination(called, calling))
        assert caught.value.status == 409
        assert not list(queue.destinations)


async def test_what_is_known_goes_with_its_destination(tmp_path: Path) -> None:
    held = Held(b"n" * 32, 1, unix_time() + 60, 1, 1, False, Pairs())
    async with queue_of_a_hospital(tmp_path / "me") as queue, hospital(tmp_path / "n") as north:
        node = queue.node
        directory = node.joined().directory
        await directory.take(listing(north, publications=[publication(north, "PACS", "store")]))
        held = Held(north.identity.public, 1, unix_time() + 60, 1, 1, False, Pairs())
        for key in (("PACS", "CT_B"), ("PACS", "MR"), ("OTHER", "CT_B")):
            await node.database.run(lambda c, key=key: write(c, key, held))
        queue = await parts_of(node)
        await destinations.put(queue, Destination("PACS_A"))
        await destinations.put(queue, Destination("PACS_A", "CT"))
        assert queue.acceptance.callers(node, "PACS", unix_time()) == ["CT_B", "MR"]
        await destinations.remove(queue, "PACS_A", "CT")
        assert queue.acceptance.callers(node, "PACS", unix_time()) == ["MR"]
        await destinations.remove(queue, "PACS_A", "")
        again = await Acceptance.load(node.database)
        assert again.callers(node, "PACS", unix_time()) == []


async def test_destinations_follow_their_device(tmp_path: Path) -> None:
    async with queue_of_a_hospital(tmp_path) as queue:
        await destinations.put(queue, Destination("FAR", "CT"))
        await destinations.put(queue, Destination("FAR"))
        assert await destinations.put_device(queue, Device("CT", "h", published="CT_C"))
        assert not await destinations.put_device(queue, Device("CT", "h", published="CT_C"))
        for table in (queue.destinations, await DestinationTable.load(queue.node.database)):
            assert [row.key for row in table] == [("FAR", ""), ("FAR", "CT_C")]
        await destinations.remove_device(queue, "CT")
        for table in (queue.destinations, await DestinationTable.load(queue.node.database)):
            assert [row.key for row in table] == [("FAR", "")]
        with pytest.raises(Refused, match="no device"):
            await destinations.remove_device(queue, "CT")
