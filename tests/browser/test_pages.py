"""Every page, at a desk and on a telephone, light and dark: all can be read, and reached.

Pages are found by their links, as a person finds them. With RELAY_SCREENSHOTS=FOLDER in the
environment each one is drawn there.
"""

import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
import trio
from playwright.sync_api import Page, ViewportSize

from tests import images
from tests.browser import walking
from tests.browser.browser import (
    DESKTOP,
    TELEPHONE,
    Chromium,
    Person,
    chromium,
    needs_chromium,
    screenshot,
)
from tests.browser.test_first_start import Place
from tests.hospitals import EVERYTHING
from tests.interop import peers
from tests.interop.peers import free_port
from tests.network import LOOPBACK, Network, Site, network

SCREENSHOTS = os.environ.get("RELAY_SCREENSHOTS")

pytestmark = [
    pytest.mark.interop,
    needs_chromium,
    pytest.mark.skipif(shutil.which("storescp") is None, reason="needs DCMTK"),
    # To draw each page in every view takes its time, on a busy machine.
    pytest.mark.timeout(1200 if SCREENSHOTS else 300),
]

# A page for each kind of thing is enough: two devices look alike.
_ONE_OF_MANY = re.compile(
    r"/(?:[0-9a-f]{8,}|[0-9]+|[a-z2-7]{4}(?:-[a-z2-7]{4}){3,}|[^/]*%[^/]*)(?=/|$)"
)

# No page has so many others beside it: a crawl that finds more goes round.
MOST_PAGES = 60

VIEWS: dict[str, tuple[ViewportSize, bool]] = {
    "1280-light": (DESKTOP, False),
    "1280-dark": (DESKTOP, True),
    "390-light": (TELEPHONE, False),
    "390-dark": (TELEPHONE, True),
}

# What a person reads, hears or clicks is all within the window: nothing has to be pulled sideways.
_SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@asynccontextmanager
async def a_network_in_use(directory: Path) -> AsyncIterator[Network]:
    """Two hospitals that know each other; a study has come, another waits, something has failed."""
    async with AsyncExitStack() as stack:
        pages = f'\n[router.pages]\nlisten = "{LOOPBACK}:%d"\n'
        net = await stack.enter_async_context(network(directory, "A", "B", tls=True))
        for site in net.routers.values():
            with site.configuration.open("a") as file:
                file.write(pages % free_port())
            await site.stop()
            await site.start()
        archive = await stack.enter_async_context(
            peers.storescp(directory / "archive", ae_title="PACS_B")
        )
        await net.device("A", "CT_A", "--issuer", "Hospital A")
        await net.publish("B", "PACS_B", archive.port, EVERYTHING, "--federation")
        await net.publish("B", "NIGHT_B", free_port(), "store,echo")
        for title, services in (("PACS_B", EVERYTHING), ("NIGHT_B", "store,echo")):
            await net.grant(owner="B", grantee="A", ae_title=title, services=services)
        await net.publish("A", "PACS_A", free_port(), "echo,query")
        await net.publish("B", "CT_B", free_port(), "echo,store")
        # What each has asked of the other, and nobody has answered.
        for here, title, services in (("A", "CT_B", "echo,store"), ("B", "PACS_A", "query")):
            await net.seen(here, title)
            note = ("--note", "For the tumour board on Thursdays")
            await net.routers[here].relay("grant", "ask", title, "--services", services, *note)
        await net.routers["A"].relay("destination", "add", "PACS_B")
        await _known(net)
        folder = directory / "images"
        folder.mkdir()
        images.make_series(folder, 3, size=256, seed=1)
        sent = await peers.storescu(net.address("A", "PACS_B"), folder, calling="CT_A")
        assert sent.status == 0, sent.output
        yield net


async def _known(net: Network) -> None:
    """Wait until A knows what the archive takes."""
    with trio.fail_after(30):
        while (
            "PACS_B" not in await net.routers["A"].relay("destination", "list", "--json")
            or not (await net.routers["A"].ask("destination", "list"))[0]["known"]
        ):
            await trio.sleep(0.2)


async def somebody(running: Chromium, site: Site) -> Person:
    """An administrator of this process, signed in."""
    person = await running.person()
    link = await Place(site, person).first_link()
    await person.do(partial(walking.begin, link=link, name="Alex Morgan"))
    return person


def addresses(page: Page, look: Callable[[str, str], None] | None = None) -> list[str]:
    """Each page that can be reached, one of a kind; found by following every link.

    `look` is told of each one's kind and address while the page is there.
    """
    start = urljoin(page.url, "/")
    found: dict[str, str] = {}
    waiting = [start]
    while waiting:
        url = waiting.pop(0)
        kind = _ONE_OF_MANY.sub("/one", urlsplit(url).path)
        if kind in found or kind.startswith("/v1/"):  # what is to be saved, not shown
            continue
        answer = page.goto(url)
        assert answer is not None
        assert answer.status == 200, f"{url}: {answer.status}"
        found[kind] = url
        assert len(found) < MOST_PAGES, sorted(found)
        for link in page.locator("a[href]").all():
            address = urljoin(url, link.get_attribute("href") or "").partition("#")[0]
            if urlsplit(address)[:2] == urlsplit(start)[:2]:
                waiting.append(address)
        if look is not None:
            look(kind, url)
    page.goto(start)
    return list(found.values())


def look_at_all(page: Page, where: str, views: tuple[str, ...]) -> list[str]:
    """Each page in these views, loaded once; what is wrong with any of them."""
    faults: list[str] = []

    def look(kind: str, url: str) -> None:
        for name in views:
            size, dark = VIEWS[name]
            page.set_viewport_size(size)
            page.emulate_media(color_scheme="dark" if dark else "light")
            faults.extend(f"{name}: {fault}" for fault in walking.faults(page))
            if (sideways := page.evaluate(_SIDEWAYS)) > 0:
                faults.append(f"{name}: {url} is {sideways} pixels wider than the window")
            if SCREENSHOTS:
                path = kind.strip("/").replace("/", "-") or "overview"
                screenshot(page, Path(SCREENSHOTS), f"{where}-{path}-{name}")

    assert len(addresses(page, look)) > 8
    return faults


async def test_each_page_can_be_read_and_reached_by_everybody(
    tmp_path: Path, full_size: bool
) -> None:
    views = tuple(VIEWS) if full_size or SCREENSHOTS else ("1280-light", "390-dark")
    async with a_network_in_use(tmp_path / "net") as net, chromium() as running:
        for site, where in ((net.routers["A"], "router"), (net.bridge, "bridge")):
            person = await somebody(running, site)
            faults = await person.do(partial(look_at_all, where=where, views=views))
            assert not faults, "\n".join(faults)
            assert person.strangers == []
            assert person.complaints == []
