"""A Router's pages without a mouse, and without JavaScript: all can be done."""

from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import walking
from tests.browser.browser import chromium, needs_chromium
from tests.browser.test_first_start import Place
from tests.interop.peers import free_port
from tests.network import LOOPBACK, network

pytestmark = [pytest.mark.interop, needs_chromium, pytest.mark.timeout(300)]

# Keys until something has the focus: no page has so many links before what it is about.
MOST_TABS = 80


async def test_a_router_by_keyboard_and_without_script(tmp_path: Path) -> None:
    async with network(tmp_path / "net", "A", tls=True) as net, chromium() as running:
        site = net.routers["A"]
        with site.configuration.open("a") as file:
            file.write(f'\n[router.pages]\nlisten = "{LOOPBACK}:{free_port()}"\n')
        await site.stop()
        await site.start()
        person = await running.person()
        link = await Place(site, person).first_link()
        await person.do(partial(_come_in, link=link))
        await person.do(_add_a_device)
        await person.do(_remove_it)
        assert person.complaints == []
        # The same without script: forms are forms, and what asks first opens by itself.
        code = (
            await site.relay("person", "add", "Quinn", "--role", "administrator", "--link")
        ).split()
        plain = await running.person(script=False)
        await plain.do(partial(_choose_a_password, link=next(w for w in code if "/first" in w)))
        await plain.do(partial(walking.add_device, ae_title="MR_1", port=104))
        await plain.do(_remove_without_script)


# --- by keyboard ----------------------------------------------------------------------------------


def _go_to(page: Page, name: str) -> None:
    """Press Tab until this has the focus; whatever has it on the way is seen to have it."""
    names = []
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
                const here = document.activeElement, style = getComputedStyle(here);
                const label = here.labels && here.labels.length ? here.labels[0].innerText : "";
                const box = here.getBoundingClientRect();
                return {
                    name: here.getAttribute("aria-label") || label || here.innerText || "",
                    nowhere: here === document.body,
                    seen: style.outlineStyle !== "none" || style.boxShadow !== "none",
                    there: box.width > 0 && box.height > 0,
                };
            }"""
        )
        if found["nowhere"]:  # behind the last, before the first
            continue
        names.append(found["name"].strip())
        assert found["seen"], f"{page.url}: nothing shows that {found['name']!r} has the focus"
        assert found["there"], f"{page.url}: {found['name']!r} has the focus and is not shown"
        if names[-1] == name:
            return
    raise AssertionError(f"{page.url}: Tab does not come to {name!r}, but to {names}")


def _type(page: Page, name: str, text: str) -> None:
    _go_to(page, name)
    page.keyboard.type(text)


def _come_in(page: Page, link: str) -> None:
    page.goto(link)
    page.keyboard.type("Robin")  # the first field has the focus already
    _type(page, "Password", walking.PASSWORD)
    _type(page, "The same again", walking.PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("navigation", name="Sections")).to_be_visible()


def _add_a_device(page: Page) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the skip link
    assert page.evaluate("document.activeElement.id") == "main"
    page.goto(page.url)
    _go_to(page, "Devices")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Devices")
    _go_to(page, "Add a device")
    page.keyboard.press("Enter")
    expect(page.get_by_label("AE title", exact=True)).to_be_focused()
    page.keyboard.type("CT_1")
    _type(page, "Host", LOOPBACK)
    _type(page, "Port", "104")
    _go_to(page, "Echo")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_contain_text("CT_1")


def _remove_it(page: Page) -> None:
    page.goto(page.url)
    _go_to(page, "Remove")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Remove CT_1?")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Remove CT_1?")).not_to_be_visible()
    expect(page.get_by_role("main").locator("summary", has_text="Remove")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Remove CT_1?")).to_be_visible()
    _go_to(page, "Remove it")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="CT_1")).to_be_visible()


# --- without script -------------------------------------------------------------------------------


def _choose_a_password(page: Page, link: str) -> None:
    page.goto(link)
    walking.fill(page, Password=walking.PASSWORD, The_same_again=walking.PASSWORD)
    page.get_by_role("main").get_by_role("button").first.click()
    expect(page.get_by_role("navigation", name="Sections")).to_be_visible()


def _remove_without_script(page: Page) -> None:
    page.get_by_role("main").locator("summary", has_text="Remove").last.click()
    walking.press(page, "Remove it")
    expect(page.get_by_role("status").filter(has_text="MR_1")).to_be_visible()
