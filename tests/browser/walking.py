"""What a person does on the pages, step by step, as they see them: by labels, headings and buttons.

Each function is for the browser's own thread (tests.browser.browser).
"""

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

PASSWORD = "correct horse battery staple"

# Read once: it is half a megabyte of script. Of rules that hold no places are gathered.
_AXE = Axe()
_VIOLATIONS = {"resultTypes": ["violations"]}

# What axe-core calls serious, or worse.
SERIOUS = ("serious", "critical")


def heading(page: Page) -> str:
    """What the page is about."""
    return page.get_by_role("heading", level=1).inner_text()


def press(page: Page, name: str | re.Pattern[str]) -> None:
    """The one button of this name."""
    page.get_by_role("button", name=name, exact=isinstance(name, str)).click()


def follow(page: Page, name: str) -> None:
    """The first link of this name in what the page is about."""
    page.get_by_role("main").get_by_role("link", name=name, exact=True).first.click()


def section(page: Page, name: str) -> None:
    """Go to a section of the navigation."""
    page.get_by_role("navigation", name="Sections").get_by_role(
        "link", name=name, exact=True
    ).click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def tab(page: Page, name: str) -> None:
    """Go to a page within a section."""
    page.get_by_role("navigation", name="Network").get_by_role("link", name=name).click()


def fill(page: Page, **fields: str) -> None:
    """Fields by their labels, in which `_` stands for a blank."""
    for label, value in fields.items():
        page.get_by_label(label.replace("_", " "), exact=True).fill(value)


def tick(page: Page, *labels: str) -> None:
    """Boxes by their labels."""
    for label in labels:
        page.get_by_label(label, exact=True).check()


def begin(page: Page, link: str, name: str) -> None:
    """The one-time link: become the first administrator."""
    page.goto(link)
    fill(page, Name=name, Password=PASSWORD, The_same_again=PASSWORD)
    press(page, "Sign in")
    expect(page.get_by_role("navigation", name="Sections")).to_be_visible()


def invite(page: Page, hospital: str) -> str:
    """Make an invitation; its string."""
    section(page, "Routers")
    follow(page, "Invite a hospital")
    page.get_by_label("Hospital's name").fill(hospital)
    press(page, "Make the invitation")
    return page.locator("[data-copy]").first.get_attribute("data-copy") or ""


def join(page: Page, invitation: str) -> None:
    """Paste the invitation into a new Router's first page."""
    section(page, "Overview")
    fill(page, Invitation=invitation)
    press(page, "Join the network")
    expect(page.get_by_role("status").filter(has_text="has joined")).to_be_visible()


def add_device(page: Page, ae_title: str, port: int, *services: str) -> None:
    """A device of this hospital on this host; `services` as the form has them."""
    section(page, "Devices")
    page.get_by_role("main").get_by_role("link", name="Add a device").first.click()
    fill(page, AE_title=ae_title, Host="127.0.0.1", Port=str(port))
    tick(page, *services)
    press(page, "Add device")
    expect(page.get_by_text(ae_title).first).to_be_visible()


def row(page: Page, text: str) -> Locator:
    """The rows of a table in which this stands."""
    return page.get_by_role("row").filter(has_text=text)


def faults(page: Page) -> list[str]:
    """What axe-core finds serious, or worse, on the page as it is."""
    return [
        f"{page.url}: {violation['id']}: {violation['help']}: {node['html'][:200]}"
        for violation in _AXE.run(page, options=_VIOLATIONS).response["violations"]
        if violation["impact"] in SERIOUS
        for node in violation["nodes"][:3]
    ]
