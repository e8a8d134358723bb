"""What the federation's associations rest on: its caller, and whom it asks."""

from pathlib import Path

import attrs
import pytest

from relay.router.devices import Device
from relay.router.federation.registering import caller_entry, source_entry
from relay.router.live import Side
from tests.router.fakes import hospital

WS = Device("WS", "192.0.2.1", published="NORTH_WS")
PACS = Device("PACS", "192.0.2.2", published="NORTH_PACS", federation=True)


async def test_what_people_are_shown(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        caller, source = caller_entry(me, WS, "FEDERATION"), source_entry(me, WS, PACS)
        assert (caller.side, caller.device) == (Side.CALLER, "WS")
        assert (caller.calling, caller.called) == ("NORTH_WS", "FEDERATION")
        assert (source.side, source.device) == (Side.CALLEE, "PACS")
        assert (source.calling, source.called) == ("WS", "NORTH_PACS")
        assert caller.peer == source.peer == me.identity.fingerprint
        assert len(caller.number) == 12
        assert caller.number != source.number
        assert caller_entry(me, None, "FEDERATION").calling == "RELAY"


@pytest.mark.parametrize(
    ("changed", "caller", "source"),
    [
        (attrs.evolve(WS, place_wait=1.0), True, True),
        (attrs.evolve(WS, published="OTHER"), False, False),
        (attrs.evolve(PACS, issuer="NORTH"), True, True),
        (attrs.evolve(PACS, host="192.0.2.3"), True, False),
        (attrs.evolve(PACS, federation=False), True, False),
    ],
)
async def test_it_ends_with_what_it_rests_on(
    tmp_path: Path, changed: Device, caller: bool, source: bool
) -> None:
    async with hospital(tmp_path / "me") as me:
        await me.put_device(WS)
        await me.put_device(PACS)
        entries = [caller_entry(me, WS, "FEDERATION"), source_entry(me, WS, PACS)]
        assert all(entry.still_permitted() for entry in entries)
        await me.put_device(changed)
        assert [entry.still_permitted() for entry in entries] == [caller, source]


async def test_it_ends_with_a_device_that_is_removed(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        await me.put_device(PACS)
        ours = source_entry(me, None, PACS)
        assert caller_entry(me, None, "FEDERATION").still_permitted()
        assert not caller_entry(me, WS, "FEDERATION").still_permitted()
        await me.remove_device("PACS")
        assert not ours.still_permitted()
