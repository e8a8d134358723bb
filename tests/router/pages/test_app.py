"""All pages of a Router, with nasty texts in every field, for each role."""

from pathlib import Path
from urllib.parse import urlencode

import pytest

from relay.people.roles import Role
from relay.spool.items import State
from tests.router.fakes import hospital
from tests.router.pages.site import NASTY, browser, text
from tests.router.pages.world import FAR, OWN, STUDY, fill

PAGES = (
    "/",
    "/devices",
    f"/devices/device?{urlencode({'ae_title': OWN})}",
    "/network",
    "/network/grants",
    "/network/peers",
    "/network/names",
    "/transfers",
    f"/transfers?{urlencode({'called': FAR})}",
    "/transfers/items",
    "/transfers/items?state=failed",
    f"/transfers/items?study={STUDY}",
    "/settings",
)
FORMS = (
    "/devices/new",
    f"/devices/edit?{urlencode({'ae_title': OWN})}",
    "/network/grants/new",
    "/network/ask",
)
RAW = ("<b>", "<i>", '<u>"', '<s>"', '<q>"', "<call>", "<calling>", "<id>", "<x>", "<c>", "<H>")


@pytest.mark.parametrize("role", Role)
async def test_nasty_texts_are_texts_on_every_page(tmp_path: Path, role: Role) -> None:
    async with browser(tmp_path) as administrator, hospital(tmp_path / "far", "FAR") as far:
        world = await fill(administrator, far)
        visitor = await administrator.sign_in(role)
        items = [f"/transfers/item?number={item.number}" for item in world.items.values()]
        for path in (*PAGES, *FORMS, *items):
            page = await visitor.get(path)
            for raw in RAW:
                assert raw not in page, (path, raw)
            assert not any(c in page for c in "\u202e\u0000"), path
        assert "O'Hara" in text(await visitor.get("/network"))
        shown = text(
            await visitor.get(f"/transfers/item?number={world.items[State.FAILED].number}")
        )
    assert ("4711" in shown) == (role is not Role.VIEWER), "a viewer sees no patient"
    assert NASTY.split("\n")[0] in shown


async def test_a_router_of_which_nothing_is_known_yet_says_what_to_do(tmp_path: Path) -> None:
    async with browser(tmp_path, enrolled=False) as visitor:
        assert "Paste the invitation" in text(await visitor.get("/"))
        for path in ("/network", "/network/peers", "/settings"):
            assert "Join the network" in text(await visitor.get(path)), path
        for path in ("/devices", "/network/grants", "/network/names", "/transfers", *FORMS[2:]):
            await visitor.get(path)


async def test_every_post_needs_the_token_of_the_form(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        visitor.token = ""
        page = await visitor.http.post(
            "/devices/remove", data={"ae_title": "X"}, headers=visitor._headers
        )
        assert page.status_code == 403


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/devices/new", {"ae_title": "NEW", "host": "192.0.2.9"}),
        ("/devices/edit", {"ae_title": OWN, "host": "192.0.2.9"}),
        ("/devices/remove", {"ae_title": OWN}),
        ("/devices/test", {"ae_title": OWN}),
        ("/network/echo", {"ae_title": FAR}),
        ("/network/peers", {"contact": "relay-contact:x"}),
        ("/network/peers/accept", {"fingerprint": "abcd"}),
        ("/network/grants/new", {"ae_title": OWN}),
        ("/network/grants/remove", {"id": "1"}),
        ("/network/grants/accept", {"id": "1"}),
        ("/network/grants/decline", {"id": "1"}),
        ("/network/ask", {"ae_title": FAR, "services": "store"}),
        ("/network/names/alias", {"local": "L", "published": "P"}),
        ("/network/names/alias/remove", {"local": "L"}),
        ("/network/names/destination", {"called": FAR}),
        ("/network/names/destination/remove", {"called": FAR}),
        ("/transfers/search", {"patient_id": "4711"}),
        ("/enrol", {"invitation": "relay-invitation:x"}),
    ],
)
async def test_a_viewer_changes_nothing_and_searches_nobody(
    tmp_path: Path, path: str, fields: dict[str, str]
) -> None:
    async with browser(tmp_path) as administrator, hospital(tmp_path / "far", "FAR") as far:
        await fill(administrator, far)
        viewer = await administrator.sign_in(Role.VIEWER)
        before = list(administrator.node.devices), list(administrator.node.grants)
        response = await viewer.http.post(
            path, data={"token": viewer.token, **fields}, headers=viewer._headers
        )
        page = response.text
        if response.status_code == 303:
            page = await viewer.get(response.headers["location"])
        assert "needs the role" in text(page)
        assert (list(administrator.node.devices), list(administrator.node.grants)) == before
