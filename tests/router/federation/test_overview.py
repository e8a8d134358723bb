"""What people see of all devices: whose they are, whether they are asked, and how they fared."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from relay.errors import Refused
from relay.router.aliases import Alias
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.overview import overview
from relay.router.federation.settings import FederationSettings
from relay.router.node import Node
from relay.router.pairs import Pairs
from relay.router.queue.state import Queue
from relay.signalling import messages
from tests.router.fakes import CT, IMPLICIT, JPEG, hospital, listing, publication
from tests.router.queue.parts import parts_of

PACS = Device("PACS", "192.0.2.2", published="NORTH_PACS", federation=True)


@attrs.define
class World:
    me: Node
    south: Node
    queue: Queue
    federation: Federation

    async def rows(self) -> dict[str, dict[str, Any]]:
        rows = await overview(self.me, self.queue, self.federation)
        assert [row["ae_title"] for row in rows] == sorted(row["ae_title"] for row in rows)
        return {row["ae_title"]: row for row in rows}

    async def row(self, title: str) -> dict[str, Any]:
        return (await self.rows())[title]


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[World]:
    """South publishes three devices, of which it grants something of two."""
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "south") as south:
        published = [publication(south, title, "echo", "query") for title in ("CT", "MR", "VNA")]
        directory = me.joined().directory
        await directory.take(listing(south, publications=published))
        granted = ((south, "VNA", ("query",)), (south, "MR", ("echo",)))
        await directory.take(
            messages.Granted(
                tuple((owner.identity.public, title, words) for owner, title, words in granted), 0
            )
        )
        me.name_federation("FEDERATION")
        yield World(me, south, await parts_of(me), Federation(me, FederationSettings()))


async def test_whom_the_federation_asks_and_by_which_name(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.me.put_device(PACS)
        await world.me.put_device(Device("WS", "192.0.2.3"))
        await world.me.put_alias(Alias("SOUTH_VNA", "VNA"))
        rows = await world.rows()
        assert set(rows) == {"CT", "MR", "NORTH_PACS", "VNA"}
        assert {title for title, row in rows.items() if row["federation"]} == {"NORTH_PACS", "VNA"}
        vna, pacs = rows["VNA"], rows["NORTH_PACS"]
        name = world.south.contact.name
        assert (vna["local"], vna["hospital"], vna["granted"]) == ("SOUTH_VNA", name, ["query"])
        assert vna["services"] == ["echo", "query"]
        assert (pacs["local"], pacs["own"], pacs["services"]) == ("PACS", True, [])
        assert (pacs["hospital"], pacs["peer"]) == (
            "Hospital RELAY",
            world.me.identity.fingerprint,
        )
        # Turned off, it asks nobody.
        off = await overview(world.me, world.queue, None)
        assert [row["ae_title"] for row in off if row["federation"]] == []
        assert {row["state"] for row in off} == {"unknown"}


async def test_a_name_that_means_another_device_here_is_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.me.put_device(attrs.evolve(PACS, ae_title="VNA"))
        row = await world.row("VNA")
        assert (row["local"], row["federation"]) == (None, False)


async def test_what_is_granted_is_shown_before_its_owner_has_been_heard(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        directory = world.me.joined().directory
        await directory.take(
            messages.Granted(((world.south.identity.public, "NEW", ("query", "retrieve")),), 0)
        )
        row = await world.row("NEW")
        assert (row["services"], row["granted"]) == ([], ["query", "retrieve"])
        assert (row["federation"], row["signed"], row["state"]) == (True, False, "away")


async def test_how_a_device_has_fared(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        states = world.federation.states

        async def shown(title: str = "VNA") -> tuple[str, bool, str | None]:
            row = await world.row(title)
            assert (row["last_error"] is None) == (row["last_error_at"] is None)
            return row["state"], row["last_seen"] is not None, row["last_error"]

        assert await shown() == ("unknown", False, None)
        states.seen("VNA")
        assert await shown() == ("reachable", True, None)
        states.failed("VNA", "no answer within 30 s")
        assert await shown() == ("away", True, "no answer within 30 s")
        states.seen("VNA")
        away = messages.Directory(
            False, ((world.south.identity.public, "South", b"", False),), (), (), ()
        )
        await world.me.joined().directory.take(away)
        assert await shown() == ("away", True, None)
        # Ours are known by the network's name there too.
        await world.me.put_device(PACS)
        states.seen("NORTH_PACS")
        assert await shown("NORTH_PACS") == ("reachable", True, None)


async def test_transfer_syntaxes_that_a_device_takes(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        declares = Pairs.of([(CT, JPEG), (CT, IMPLICIT)])
        await world.me.put_device(attrs.evolve(PACS, declares=declares))
        rows = await world.rows()
        assert rows["NORTH_PACS"]["transfer_syntaxes"] == sorted({JPEG, IMPLICIT})
        assert rows["VNA"]["transfer_syntaxes"] == []


async def test_there_is_none_before_the_enrolment(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me", enrolled=False) as me:
        with pytest.raises(Refused, match="relay enroll"):
            await overview(me, await parts_of(me), None)
