"""A document of devices, aliases, destinations and grants, applied once and again."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from relay.errors import Refused
from relay.router import apply as applying
from relay.router.aliases import Alias
from relay.router.apply import put_grant
from relay.router.devices import Device, MoveVia
from relay.router.grants import Grant
from relay.router.node import Node
from relay.router.queue.destinations import Destination, Mixed
from relay.spool.items import Priority
from tests.router.fakes import hospital, listing
from tests.router.queue.parts import parts_of


async def apply(node: Node, document: dict[str, Any]) -> list[str]:
    """With the queue as the database has it."""
    return await applying.apply(await parts_of(node), document)


def document(peer: Node, **more: Any) -> dict[str, Any]:
    return {
        "devices": [
            {"ae_title": "PACS", "host": "192.0.2.1", "services": ["store", "echo"]},
            {"ae_title": "WS", "host": "192.0.2.2"},
        ],
        "grants": [{"peer": peer.identity.fingerprint, "ae_title": "PACS", "services": ["store"]}],
    } | more


async def test_the_second_time_changes_nothing(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await me.joined().directory.take(listing(north))
        changes = await apply(me, document(north))
        assert [line.split()[:2] for line in changes] == [
            ["device", "PACS"],
            ["device", "WS"],
            ["grant", "PACS"],
        ]
        assert await apply(me, document(north)) == []


async def test_what_a_file_does_not_name_of_a_device_stays(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        before = Device("PACS", "192.0.2.1", 4242, move_via=MoveVia.ROUTER, tls=True)
        await me.put_device(before)
        named = {"ae_title": "PACS", "host": "192.0.2.9"}
        assert await apply(me, {"devices": [named]}) == [
            "device PACS changed: host: 192.0.2.1 -> 192.0.2.9"
        ]
        assert me.devices.get("PACS") == attrs.evolve(before, host="192.0.2.9")
        (line,) = await apply(me, {"devices": [named | {"move_via": "device", "tls": False}]})
        assert line == "device PACS changed: tls: yes -> no; move via: router -> device"


async def test_the_bridge_is_told_once(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await me.joined().directory.take(listing(north))
        await apply(me, document(north))
        assert len(me.joined().client.told) == 3  # key, publications, grants


async def test_a_changed_grant_replaces_the_old_one(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await me.joined().directory.take(listing(north))
        await apply(me, document(north))
        wider = document(north)
        wider["grants"][0]["services"] = ["store", "echo"]
        (line,) = await apply(me, wider)
        assert line.endswith("changed")
        (grant,) = me.grants
        assert grant.services == {"store", "echo"}


async def test_a_grant_takes_the_place_of_one_for_the_same_callers(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await me.joined().directory.take(listing(north))
        await apply(me, document(north))
        (first,) = me.grants
        store, echo = frozenset({"store"}), frozenset({"echo"})
        one = Grant(north.identity.public, "PACS", store, frozenset({"CT1"}))
        assert (await put_grant(me, one))[1] == []  # for another caller
        kept, replaced = await put_grant(me, Grant(north.identity.public, "PACS", echo))
        assert [grant.id for grant in replaced] == [first.id]
        assert list(me.grants) == [one, kept]
        assert await put_grant(me, kept) == (kept, [])


async def test_only_prune_removes(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await me.joined().directory.take(listing(north))
        await apply(me, document(north))
        assert await apply(me, {"devices": [], "grants": []}) == []
        assert await apply(me, {"prune": True}) == []  # says nothing of either
        changes = await apply(me, {"devices": [], "grants": [], "prune": True})
        assert [line.split()[-1] for line in changes] == ["removed"] * 3
        assert not list(me.devices)
        assert not list(me.grants)


async def test_aliases_are_applied(tmp_path: Path) -> None:
    def aliases(**titles: str) -> dict[str, Any]:
        return {"aliases": [{"local": a, "published": b} for a, b in titles.items()]}

    async with hospital(tmp_path / "me") as me:
        assert await apply(me, aliases(PACS_A="PACS", CT_A="CT")) == [
            "alias PACS_A for PACS added",
            "alias CT_A for CT added",
        ]
        assert await apply(me, aliases(PACS_A="PACS")) == []
        # One to one: what has a title of a wanted alias gives way, others stay.
        assert await apply(me, aliases(PACS_A="PACS2", PACS_B="PACS")) == [
            "alias PACS_A for PACS2 changed",
            "alias PACS_B for PACS added",
        ]
        assert await apply(me, aliases(NORTH="PACS")) == [
            "alias PACS_B for PACS removed",
            "alias NORTH for PACS added",
        ]
        assert await apply(me, {"prune": True}) == []  # says nothing of them
        assert await apply(me, aliases(NORTH="PACS") | {"prune": True}) == [
            "alias CT_A for CT removed",
            "alias PACS_A for PACS2 removed",
        ]
        assert list(me.aliases) == [Alias("NORTH", "PACS")]


async def test_a_removed_alias_makes_room_for_a_device(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        await apply(me, {"aliases": [{"local": "PACS", "published": "NORTH"}]})
        wanted = {"devices": [{"ae_title": "PACS", "host": "192.0.2.1"}], "aliases": []}
        with pytest.raises(Refused, match="relay alias remove PACS"):
            await apply(me, wanted)
        assert await apply(me, wanted | {"prune": True}) == [
            "alias PACS for NORTH removed",
            "device PACS added",
        ]


async def test_a_grant_by_the_local_title_is_the_same_the_second_time(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await me.joined().directory.take(listing(north))
        wanted = document(north)
        wanted["devices"][0]["published_as"] = "PACS_B"
        assert len(await apply(me, wanted)) == 3
        assert [grant.ae_title for grant in me.grants] == ["PACS_B"]
        assert await apply(me, wanted | {"prune": True}) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"device": []}, "unknown field 'device'"),
        ({"prune": "yes"}, "prune"),
        (
            {"devices": [{"ae_title": "A", "host": "h"}, {"aet": "B"}]},
            r"^devices\[1\]: unknown field 'aet'; did you mean ae_title\?",
        ),
        ({"devices": {}}, "devices is no list"),
        ({"devices": [1]}, "devices is no list"),
        ({"devices": [{"ae_title": "A", "host": "h"}] * 2}, "named twice"),
        ({"aliases": [{"local": "A"}]}, r"^aliases\[0\]: published is missing"),
        ({"aliases": [{"local": "A", "published": "B"}] * 2}, "alias 'A' is named twice"),
        (
            {"aliases": [{"local": name, "published": "P"} for name in "AB"]},
            "alias of 'P' is named twice",
        ),
        ({"destinations": [{}]}, r"^destinations\[0\]: called is missing"),
        (
            {"destinations": [{"called": "A"}, {"called": "A", "mode": "later"}]},
            r"^destinations\[1\]: mode is queued or confirmed",
        ),
        ({"destinations": [{"called": "A"}] * 2}, "destination 'A' is named twice"),
        ({"grants": [{"peer": "x"}]}, "ae_title is missing"),
        ({"grants": [{"peer": "x" * 32, "ae_title": "P", "color": 1}]}, "unknown field 'color'"),
        ({"grants": [{"peer": "x" * 32, "ae_title": "P"}]}, "no peer has that fingerprint"),
    ],
)
async def test_what_is_wrong_changes_nothing(
    tmp_path: Path, wrong: dict[str, Any], words: str
) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await me.joined().directory.take(listing(north))
        with pytest.raises(Refused, match=words):
            await apply(me, document(north) | wrong)
        assert not list(me.devices)


async def test_destinations_are_applied(tmp_path: Path) -> None:
    wanted: dict[str, Any] = {
        "devices": [{"ae_title": "CT", "host": "192.0.2.1", "published_as": "CT_B"}],
        "aliases": [{"local": "PACS_A", "published": "PACS"}],
        "destinations": [
            {"called": "PACS_A", "priority": "high"},
            {"called": "PACS", "calling": "CT", "mode": "confirmed"},
        ],
    }
    async with hospital(tmp_path / "me") as me:
        assert (await apply(me, wanted))[2:] == [
            "destination PACS added",
            "destination PACS from CT_B added",
        ]
        assert await apply(me, wanted) == []
        # What is not named of it stays; what is not named at all goes with `prune` only.
        changed = {"destinations": [{"called": "PACS", "mixed": "confirmed"}]}
        assert await apply(me, changed) == ["destination PACS changed: mixed: refuse -> confirmed"]
        assert await apply(me, {"prune": True}) == []
        assert await apply(me, changed | {"prune": True}) == ["destination PACS from CT_B removed"]
        (row,) = (await parts_of(me)).destinations
        assert row == Destination("PACS", mixed=Mixed.CONFIRMED, priority=Priority.HIGH)
        moved = {"devices": [{"ae_title": "CT", "host": "192.0.2.1", "published_as": "CT_C"}]}
        await apply(me, wanted)
        await apply(me, moved)
        assert [row.key for row in (await parts_of(me)).destinations] == [
            ("PACS", ""),
            ("PACS", "CT_C"),
        ]
        with pytest.raises(Refused, match="'CT' is the device CT of this hospital"):
            await apply(me, {"destinations": [{"called": "CT"}]})
