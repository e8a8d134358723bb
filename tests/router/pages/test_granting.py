"""Grants on their pages: given and taken back, asked for and answered."""

import html
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from relay.people.roles import Role
from relay.router.asks import Ask
from relay.router.devices import Device
from relay.router.grants import Grant
from relay.router.node import Node
from relay.signalling import messages
from relay.tunnel.ask import GrantRequest
from tests.router.fakes import BridgeClient, hospital, listing, publication
from tests.router.pages.site import Browser, browser, text, value_of
from tests.router.pages.test_network import meet

PACS = Device("PACS", "192.0.2.1", services=frozenset({"echo", "query"}), published="NORTH_PACS")


async def test_services_are_granted_and_taken_back(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo")
        await visitor.node.put_device(PACS)
        form = await visitor.get("/network/grants/new?ae_title=NORTH_PACS")
        assert "Device PACS In the network NORTH_PACS" in text(form)
        assert re.findall(r'name="services" value="(\w+)"', form) == ["echo", "query"]
        assert ticked(form) == [], "what is given is for people to say"
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
        ({"services": "private:x"}, 400, "no such service"),
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


async def test_a_grant_is_asked_for_and_shown_until_it_comes(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo", "query", "private:1.2.3")
        form = await visitor.get("/network/ask?ae_title=PACS_S")
        assert ticked(form) == ["echo", "query", "private:1.2.3"], "all that it publishes, no more"
        assert "Storage commitment" not in text(form)
        asked: dict[str, Any] = {"ae_title": "PACS_S", "note": "<b>please</b>"}
        page = await visitor.post("/network/ask", 400, **asked)
        assert "tick what you want" in text(page)
        assert ticked(page) == []
        assert value_of(page, "note") == "<b>please</b>"
        page = await visitor.post("/network/ask", 409, **asked, services="store")
        assert "does not publish store" in text(page)
        page = await visitor.post("/network/ask", **asked, services=["query", "echo"])
        assert "The hospital of PACS_S has your request." in text(page)
        client = visitor.node.joined().client
        assert isinstance(client, BridgeClient)
        assert [type(told) for told in client.told if isinstance(told, messages.Ask)]
        assert "PACS_S Hospital SOUTH echo, query Asked, waiting for them asked" in text(page)
        viewer = await visitor.sign_in(Role.VIEWER)
        looked = await viewer.get("/network")
        assert "Asked, waiting for them" in text(looked)
        assert "/network/asked/remove" not in looked
        await granted(visitor, south, "echo")
        page = await visitor.get("/network")
        assert "PACS_S Hospital SOUTH query Asked, waiting for them asked" in text(page)
        await granted(visitor, south, "echo", "query")
        assert "waiting for them" not in text(await visitor.get("/network"))


async def test_what_was_asked_is_waited_for_no_more(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo")
        await visitor.post("/network/ask", ae_title="PACS_S", services="echo")
        page = await visitor.post("/network/asked/remove", ae_title="PACS_S")
        assert "Nothing waits for PACS_S here any more." in text(page)
        assert "waiting for them" not in text(page)


async def test_of_several_devices_one_is_chosen_first(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        assert "No other hospital publishes a device." in text(await visitor.get("/network/ask"))
        both: Any = [publication(south, title, "echo") for title in ("PACS_S", "CT_S")]
        await visitor.node.joined().directory.take(listing(south, publications=both[:1]))
        assert ticked(await visitor.get("/network/ask")) == ["echo"], "there is only one"
        await visitor.node.joined().directory.take(listing(south, publications=both))
        page = await visitor.get("/network/ask")
        assert re.findall(r'<option value="(\w+)"', page) == ["CT_S", "PACS_S"]
        assert 'name="services"' not in page
        page = await visitor.get("/network/ask?ae_title=GONE")
        assert 'name="services"' not in page, "it may have gone meanwhile"


async def test_whoever_decides_sees_who_is_not_verified(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo")
        await visitor.node.put_device(PACS)
        fingerprint = south.identity.fingerprint
        request = GrantRequest("NORTH_PACS", ("echo",), (), "")
        await visitor.node.asks.keep(Ask.from_request(south.identity.public, request), b"s", 1)
        await visitor.node.add_grant(
            Grant(south.identity.public, "NORTH_PACS", frozenset({"echo"}))
        )
        compare = f"/network/peers/compare?fingerprint={fingerprint}"
        pages = ("/network/grants", "/devices/device?ae_title=PACS", "/network/grants/new")
        for path in pages:
            page = html.unescape(await visitor.get(path))
            assert compare in page, path
            assert "Not verified" in text(page), path
        asked, given = text(await visitor.get("/network/grants")).split("Granted by you", 1)
        assert "Hospital SOUTH Not verified" in asked
        assert "Hospital SOUTH Not verified" in given
        await visitor.node.confirm_peer(fingerprint)
        for path in pages:
            assert "verified" not in text(await visitor.get(path)).lower(), path


def ticked(page: str) -> list[str]:
    """The services that are ticked in a form."""
    boxes = re.findall(
        r'<input type="checkbox"[^>]* name="services" value="([^"]+)"( checked)?', page
    )
    return [value for value, checked in boxes if checked]


async def granted(visitor: Browser, owner: Node, *services: str) -> None:
    """The Bridge says that `owner` grants these services of its PACS_S."""
    rows = ((owner.identity.public, "PACS_S", services),)
    await visitor.node.joined().directory.take(messages.Granted(rows, 0))
