"""A document of devices and grants, applied once and again."""

from pathlib import Path
from typing import Any

import pytest

from relay.errors import Refused
from relay.router.apply import apply
from relay.router.node import Node
from tests.router.fakes import hospital, listing


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
