"""Grants on their pages: given and taken back, asked for and answered."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from relay.router.asks import Ask
from relay.router.devices import Device
from relay.router.grants import Grant
from relay.signalling import messages
from relay.tunnel.ask import GrantRequest
from tests.router.fakes import BridgeClient, hospital
from tests.router.pages.site import browser, text, value_of
from tests.router.pages.test_network import meet

PACS = Device("PACS", "192.0.2.1", services=frozenset({"echo", "query"}), published="NORTH_PACS")


async def test_services_are_granted_and_taken_back(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo")
        await visitor.node.put_device(PACS)
        form = await visitor.get("/network/grants/new?ae_title=NORTH_PACS")
        assert "PACS (NORTH_PACS in the network): echo, query" in text(form)
        page = await visitor.post(
            "/network/grants/new",
            peer=south.identity.fingerprint,
            ae_title="NORTH_PACS",
            services=["echo", "query"],
            calling="WS 1\r\nWS2, WS3",
        )
        assert "Hospital SOUTH may use NORTH_PACS now." in text(page)
        (grant,) = visitor.node.grants
        assert grant == Grant(
            south.identity.public,
            "NORTH_PACS",
            frozenset({"echo", "query"}),
            frozenset({"WS 1", "WS2", "WS3"}),
        )
        assert "WS 1 , WS2 , WS3" in text(page)
        page = await visitor.post("/network/grants/remove", id=str(grant.id))
        assert "taken back" in text(page)
        assert not list(visitor.node.grants)


@pytest.mark.parametrize(
    ("wrong", "status", "words"),
    [
        ({"services": ""}, 400, "at least one service"),
        ({"services": "store"}, 409, "does not publish store"),
        ({"calling": "A\\B"}, 400, "AE title"),
        ({"private": "x"}, 400, "no such service"),
    ],
)
async def test_a_grant_that_is_refused_keeps_what_was_typed(
    tmp_path: Path, wrong: dict[str, str], status: int, words: str
) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo")
        await visitor.node.put_device(PACS)
        typed = {
            "peer": south.identity.fingerprint,
            "ae_title": "NORTH_PACS",
            "services": "echo",
            "calling": "<b>WS</b>",
        } | wrong
        fields = {name: value for name, value in typed.items() if value}
        page = await visitor.post("/network/grants/new", status, **fields)
        assert words in text(page)
        assert value_of(page, "calling") == typed["calling"]
        assert value_of(page, "private") == typed.get("private", "")
        assert not list(visitor.node.grants)


async def test_what_others_ask_is_granted_or_declined(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo")
        await visitor.node.put_device(PACS)
        request = GrantRequest("NORTH_PACS", ("echo",), (), "for the tumour board")
        ask = Ask.from_request(south.identity.public, request)
        for number in (1, 2, 3):
            await visitor.node.asks.keep(ask, bytes([number]), number)
        assert "3 requests" in text(await visitor.get("/"))
        assert "for the tumour board" in text(await visitor.get("/network/grants"))
        page = await visitor.post("/network/grants/accept", id="1")
        assert "Hospital SOUTH may use NORTH_PACS now." in text(page)
        page = await visitor.post("/network/grants/decline", id="2")
        assert "Declined." in text(page)
        assert len(list(visitor.node.grants)) == 1
        await visitor.node.put_device(attrs.evolve(PACS, services=frozenset({"query"})))
        page = await visitor.post("/network/grants/accept", id="3")
        assert "Not granted: 'NORTH_PACS' does not publish echo" in text(page)


async def test_a_grant_is_asked_for(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo", "query")
        assert "PACS_S of Hospital SOUTH: echo, query" in text(await visitor.get("/network/ask"))
        asked: dict[str, Any] = {"ae_title": "PACS_S", "note": "<b>please</b>"}
        page = await visitor.post("/network/ask", 400, **asked)
        assert "tick what you want" in text(page)
        assert value_of(page, "note") == "<b>please</b>"
        page = await visitor.post("/network/ask", 409, **asked, services="store")
        assert "does not publish store" in text(page)
        page = await visitor.post("/network/ask", **asked, services="query")
        assert "The hospital of PACS_S has your request." in text(page)
        client = visitor.node.joined().client
        assert isinstance(client, BridgeClient)
        assert [type(told) for told in client.told if isinstance(told, messages.Ask)]
