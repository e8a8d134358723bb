"""Network: others' devices, an echo through it, hospitals and their verification."""

from pathlib import Path
from typing import Any

import pytest

from relay.invitation import Contact
from relay.people.roles import Role
from relay.router import routes
from relay.router.devices import Device
from relay.router.far_echo import Echo
from relay.router.node import Node
from relay.router.probe import Finding
from tests.router.fakes import hospital, listing, publication
from tests.router.pages.site import Browser, browser, text, value_of


async def meet(visitor: Browser, south: Node, *services: str) -> None:
    shown = listing(south, publications=[publication(south, "PACS_S", *services)])
    await visitor.node.joined().directory.take(shown)


async def test_others_devices_show_with_what_may_be_done(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo", "query")
        await visitor.node.put_device(Device("PACS", "h", services=frozenset({"store"})))
        page = await visitor.get("/network")
        assert "PACS_S Hospital SOUTH nothing yet echo, query" in text(page)
        assert 'href="/network/ask?ae_title=PACS_S"' in page
        viewer = await visitor.sign_in(Role.VIEWER)
        looked = await viewer.get("/network")
        assert "PACS_S" in looked
        assert "/network/echo" not in looked
        assert "/network/ask?" not in looked


async def test_a_title_that_is_taken_here_asks_for_a_local_name(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await visitor.node.put_device(Device("PACS_S", "h"))
        await meet(visitor, south, "echo")
        page = await visitor.get("/network")
        assert 'href="/network/names?published=PACS_S"' in page
        names = await visitor.get("/network/names?published=PACS_S")
        assert value_of(names, "published") == "PACS_S"


@pytest.mark.parametrize("advice", ["", "South has granted this Router nothing of <b>PACS_S</b>"])
async def test_an_echo_says_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advice: str
) -> None:
    asked = []

    async def echo(node: Node, title: str) -> Echo:
        asked.append(title)
        finding = Finding(f"{title} answers a C-ECHO through the network", not advice, advice)
        return Echo(finding, None if advice else 42.5)

    monkeypatch.setattr(routes, "echo_far", echo)
    async with browser(tmp_path) as administrator:
        operator = await administrator.sign_in(Role.OPERATOR)
        page = await operator.post("/network/echo", 200, ae_title="PACS_S")
    assert asked == ["PACS_S"]
    shown = text(page)
    assert ("Fails" if advice else "Works") in shown
    assert ("42.5 ms" in shown) == (not advice)
    assert advice in shown
    assert "<b>PACS_S" not in page


async def test_a_hospital_is_verified_by_its_contact_string(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo")
        assert "Not verified" in text(await visitor.get("/network/peers"))
        contact = Contact(south.identity.public, "Hospital South").to_string()
        page = text(await visitor.post("/network/peers", contact=f"{contact[:30]}\n{contact[30:]}"))
        assert "Hospital South is verified." in page
        assert "Not verified" not in page


async def test_a_hospital_is_verified_by_telephone(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo")
        fingerprint = south.identity.fingerprint
        path = f"/network/peers/compare?fingerprint={fingerprint}"
        assert f'href="{path}"' in await visitor.get("/network/peers")
        page = text(await visitor.get(path))
        for shown in (fingerprint, visitor.node.identity.fingerprint):
            assert " ".join(shown.split("-")) in page, "theirs, and one's own to be read out"
        typed = {"fingerprint": fingerprint, "name": "Hospital SOUTH", "back": "/network/grants"}
        page = await visitor.post("/network/peers/compare", 400, **typed)
        assert "tick that you have" in text(page)
        assert value_of(page, "back") == "/network/grants"
        assert "Not verified" in text(await visitor.get("/network/peers"))
        page = await visitor.post("/network/peers/compare", **typed, compared="1")
        assert "Hospital SOUTH is verified." in text(page)
        assert "<h1>Grants</h1>" in page, "back to where the grant is decided"
        page = await visitor.get(path)
        assert "Somebody here has compared it already." in text(page)
        assert 'name="compared"' not in page


async def test_a_hospital_is_verified_by_the_name_that_it_was_compared_by(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo")
        fingerprint = south.identity.fingerprint
        page = await visitor.get(f"/network/peers/compare?fingerprint={fingerprint}")
        typed = {name: value_of(page, name) for name in ("fingerprint", "name")}
        peers = visitor.node.joined().peers
        await peers.meet(south.identity.public, "Hospital NORTH")  # while two people telephone
        page = await visitor.post("/network/peers/compare", 409, **typed, compared="1")
        assert "called Hospital NORTH by now: compare it anew" in text(page)
        assert value_of(page, "name") == "Hospital NORTH"
        assert not any(peer.verified for peer in peers)


async def test_a_comparison_leads_to_no_other_page(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo")
        typed = {"fingerprint": south.identity.fingerprint, "compared": "1"}
        typed["name"] = "Hospital SOUTH"
        page = await visitor.post("/network/peers/compare", **typed, back="//evil.example/")
        assert "<h1>Other hospitals</h1>" in page
        await visitor.get("/network/peers/compare?fingerprint=none", 404)
        viewer = await visitor.sign_in(Role.VIEWER)
        assert 'name="compared"' not in await viewer.get(
            f"/network/peers/compare?fingerprint={south.identity.fingerprint}"
        )
        await viewer.post("/network/peers/compare", 403, **typed)


async def test_a_contact_that_is_none_is_refused_and_stays_typed(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        for typed, words in (("", "paste the contact string"), ("relay-contact:x", "contact")):
            page = await visitor.post("/network/peers", 400, contact=typed)
            assert words in text(page)
            assert value_of(page, "contact") == typed
        own = visitor.node.contact.to_string()
        assert own in await visitor.get("/network/peers"), "one's own, to be given to others"
        page = await visitor.post("/network/peers", 400, contact=own)
        assert "this hospital's own contact" in text(page)


async def test_a_claim_is_accepted_after_a_question(tmp_path: Path) -> None:
    async with (
        browser(tmp_path) as visitor,
        hospital(tmp_path / "south", "SOUTH") as south,
        hospital(tmp_path / "east", "EAST") as east,
    ):
        await meet(visitor, south, "echo")
        claims: Any = [publication(south, "PACS_S", "echo"), publication(east, "PACS_S", "echo")]
        await visitor.node.joined().directory.take(listing(south, east, publications=claims))
        page = await visitor.get("/network/peers")
        assert "It publishes what another hospital published before: PACS_S" in text(page)
        assert "Are these titles Hospital EAST's now?" in text(page)
        fingerprint = east.identity.fingerprint
        page = await visitor.post("/network/peers/accept", fingerprint=fingerprint)
        assert "PACS_S is taken for Hospital EAST's now." in text(page)
        assert visitor.node.joined().directory.owner("PACS_S") == east.identity.public
