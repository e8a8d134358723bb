"""All of the Bridge's pages: for every role, with nothing there, and with the worst of names."""

from pathlib import Path

import pytest
import trio

from relay import __version__
from relay.bridge.pages.app import NAVIGATION
from relay.pages.settings import PagesSettings
from relay.people.roles import Role
from tests.bridge.conftest import PATIENCE, connected, data_dir, running

from .conftest import EVIL, NOW, Bridge
from .reading import Page

__all__ = ["data_dir"]

PATHS = [entry.path for entry in NAVIGATION]


@pytest.mark.parametrize("role", Role)
async def test_every_page_of_an_empty_bridge(bridge: Bridge, role: Role) -> None:
    browser = await bridge.browser(role)
    for path in PATHS:
        page = await browser.get(path)
        assert page.html.count("<h1>") == 1, path
        assert 'aria-current="page"' in page.html


@pytest.mark.parametrize("role", Role)
async def test_texts_of_others_are_texts_on_every_page(bridge: Bridge, role: Role) -> None:
    north, south = await bridge.granting()
    await bridge.session(north, south)
    await bridge.rooms.enrolment.invite("West")
    await bridge.rename("invitation", "name", EVIL)
    await bridge.rename("router", "name", EVIL)
    await bridge.rename("publication", "ae_title", EVIL)
    await bridge.rename("publication", "services", '["<b>x</b>"]')
    await bridge.rename("grant", "ae_title", EVIL)
    for session in bridge.sessions.all():
        session.called = EVIL
    health = bridge.stores.find("disk").health
    health.failing, health.last_failure, health.failed_at = True, EVIL, NOW
    browser = await bridge.browser(role)
    for path in [*PATHS, f"/routers/{north.identity.fingerprint}"]:
        page = await browser.get(path)
        assert "<b onmouseover" not in page.html, path
        assert "\u202e" not in page.html, path
        if path != "/audit":
            assert "<script>alert(2)</script>" in page.text, path
    for path in ("/live/overview", "/live/routers", "/live/sessions"):
        for name, block in (await browser.stream(path)).items():
            assert f'id="{name}"' in block.html.split(">")[0], name
            assert "<b onmouseover" not in block.html, name


async def test_pages_are_for_whoever_is_signed_in(bridge: Bridge) -> None:
    browser = await bridge.browser()
    browser.client.cookies.clear()
    for path in PATHS:
        answer = await browser.client.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in")


async def test_a_whole_bridge_shows_what_is_there(data_dir: Path) -> None:
    settings = PagesSettings(on_network_port=True)
    async with running(data_dir, pages=settings) as whole:
        north, south = await whole.enrol("North"), await whole.enrol("South")
        publish, grants = (south.publication("PACS"),), ((north.id, "PACS", ("store",)),)
        made = await whole.control.post("/v1/api-tokens", json={"name": "test", "role": "viewer"})
        headers = {"authorization": f"Bearer {made.json()['token']}"}

        async def page(path: str) -> Page:
            answer = await whole.web.get(path, headers=headers)
            assert answer.status_code == 200, answer.text
            return Page(answer.text)

        async with (
            connected(whole, south, publish=publish, grants=grants),
            connected(whole, north) as caller,
        ):
            await caller.client.send(north.opening(south, "PACS"))
            with trio.fail_after(PATIENCE):
                while not (await whole.get("/v1/sessions")):
                    await trio.sleep(0.01)  # nobody is told of a session that is only open
            for entry in NAVIGATION:
                assert f'href="{entry.path}" aria-current' in (await page(entry.path)).html
            assert "2 of 2" in (await page("/")).text
            assert f"South connected now {__version__} PACS" in (await page("/routers")).text
            assert "PACS South connected" in (await page("/devices")).text
            assert "PACS South North store in force" in (await page("/grants")).text
            assert "PACS North South not answered yet" in (await page("/sessions")).text
