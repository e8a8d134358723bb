"""AE titles between hospital and network."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.database import open_database
from relay.router import names
from relay.router.aliases import Alias, AliasTable
from relay.router.devices import Device, DeviceTable
from relay.router.names import Names
from relay.router.schema import MIGRATIONS
from tests.router.fakes import CT, proposal

# This hospital and another one own a PACS and a WS1 each. Here the other's are NORTH_PACS and
# NORTH_WS1, and ours are known to the network as SOUTH_PACS and, unchanged, SCANNER.
DEVICES = (
    Device("PACS", "h", published="SOUTH_PACS", services=frozenset({"store"})),
    Device("WS1", "h", published="SOUTH_WS1", present_as="OUTSIDE"),
    Device("SCANNER", "h", services=frozenset({"echo"})),
)
ALIASES = (Alias("NORTH_PACS", "PACS"), Alias("NORTH_WS1", "WS1"))


@asynccontextmanager
async def hospital(
    tmp_path: Path,
    devices: tuple[Device, ...] = DEVICES,
    aliases: tuple[Alias, ...] = ALIASES,
) -> AsyncIterator[Names]:
    tmp_path.mkdir(exist_ok=True)
    async with open_database(tmp_path / "router.db", MIGRATIONS) as database:
        table, known = await DeviceTable.load(database), await AliasTable.load(database)
        for device in devices:
            await table.put(device)
        for alias in aliases:
            await known.put(alias)
        yield Names("RELAY", table, known)


async def test_both_ways(tmp_path: Path) -> None:
    async with hospital(tmp_path) as known:
        for local, published in (
            ("PACS", "SOUTH_PACS"),
            ("WS1", "SOUTH_WS1"),
            ("SCANNER", "SCANNER"),
            ("NORTH_PACS", "PACS"),
            ("NORTH_WS1", "WS1"),
            ("ELSEWHERE", "ELSEWHERE"),
        ):
            assert known.published(local) == published
            assert known.local(published) == local


@pytest.mark.parametrize("title", ["RELAY", ""])
async def test_what_the_network_cannot_mean(tmp_path: Path, title: str) -> None:
    async with hospital(tmp_path) as known:
        assert known.published(title) is None
        assert known.local(title) is None


@pytest.mark.parametrize("title", ["NORTH_PACS", "OUTSIDE"])
async def test_a_published_title_that_means_something_else_here_has_no_name(
    tmp_path: Path, title: str
) -> None:
    """It never falls through to the local device of the same name."""
    async with hospital(tmp_path) as known:
        assert known.local(title) is None
    async with hospital(tmp_path / "again", DEVICES, ()) as known:
        assert known.local("PACS") is None
        assert known.local("WS1") is None


async def test_a_title_never_leads_to_two_places(tmp_path: Path) -> None:
    """What a local title becomes and comes back as is that title, or nothing."""
    titles = ["PACS", "WS1", "SCANNER", "NORTH_PACS", "SOUTH_PACS", "OUTSIDE", "RELAY", "X"]
    async with hospital(tmp_path) as known:
        for title in titles:
            published = known.published(title)
            if published is not None and known.devices.get(title) is not None:
                assert known.local(published) == title
            local = known.local(title)
            if local is not None:
                assert known.published(local) == title


async def test_own_is_a_device_by_its_published_title(tmp_path: Path) -> None:
    async with hospital(tmp_path) as known:
        own = known.own("SOUTH_PACS")
        assert own is not None
        assert own.ae_title == "PACS"
        assert known.own("PACS") is None


async def test_whether_any_name_differs(tmp_path: Path) -> None:
    plain = (Device("PACS", "h"), Device("WS1", "h"))
    async with hospital(tmp_path, plain, ()) as known:
        assert not known.differ
        await known.devices.put(Device("CT", "h", published="SOUTH_CT"))
        assert known.differ
    async with hospital(tmp_path / "again", plain[:1], (Alias("NORTH_WS1", "WS1"),)) as known:
        assert known.differ


async def test_what_a_called_device_is_shown(tmp_path: Path) -> None:
    pacs, workstation, _ = DEVICES
    async with hospital(tmp_path) as known:
        assert known.shown_to(pacs, "WS1") == "NORTH_WS1"
        assert known.shown_to(pacs, "ELSEWHERE") == "ELSEWHERE"
        assert known.shown_to(pacs, "NORTH_WS1") is None
        assert known.shown_to(workstation, "WS1") == "OUTSIDE"
        assert known.shown_to(workstation, "NORTH_WS1") == "OUTSIDE"


async def test_two_routers_of_one_name_still_call_each_other(tmp_path: Path) -> None:
    """RELAY is what every Router is called unless told otherwise; so are their command lines."""
    pacs, workstation, _ = DEVICES
    async with hospital(tmp_path) as known:
        assert known.shown_to(pacs, "RELAY") == "RELAY"
        assert known.shown_to(workstation, "RELAY") == "OUTSIDE"


def test_advice_names_the_command() -> None:
    assert "`relay alias add LOCAL WS1`" in names.why_ambiguous("WS1")
    assert "`relay alias add LOCAL WS1`" in names.another_of_that_name("WS1")


def test_a_callers_local_title_becomes_its_published_one() -> None:
    request = proposal(CT, calling="WS", called="SOUTH_PACS")
    device = Device("WS", "h", published="NORTH_WS")
    changed = names.to_network(request, device, "PACS")
    assert (changed.calling, changed.called) == ("NORTH_WS", "PACS")
    assert changed.contexts == request.contexts
    assert names.to_network(request, None, "PACS").calling == "WS"


def test_a_called_published_title_becomes_the_devices_own() -> None:
    request = proposal(CT, called="NORTH_PACS")
    changed = names.to_device(request, Device("PACS", "h", published="NORTH_PACS"), "SOUTH_WS")
    assert (changed.called, changed.calling) == ("PACS", "SOUTH_WS")
    assert changed.contexts == request.contexts
