"""From nothing to images across two hospitals, by page alone: what the guide promises.

A Bridge and two Routers that know nothing, each with a person at a browser; DCMTK as the devices.
"""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trustme
from playwright.sync_api import Page, expect

from tests import images
from tests.browser import walking
from tests.browser.browser import Person, chromium, needs_chromium
from tests.interop import peers
from tests.interop.peers import Address, free_port
from tests.network import LOOPBACK, Site, write_configuration

pytestmark = [
    pytest.mark.interop,
    needs_chromium,
    pytest.mark.skipif(shutil.which("storescp") is None, reason="needs DCMTK"),
    pytest.mark.timeout(300),
]

IMAGES = 12

FIRST_LINK = re.compile(r"https?://[^\s\"']+/first[^\s\"']*")

# In which a process writes its first line, on a busy machine.
START = 30.0


@attrs.define(slots=True)
class Place:
    """One process, its pages, and who sits before them."""

    site: Site
    person: Person

    async def first_link(self) -> str:
        """The one-time link that stands on the console."""
        with trio.fail_after(START):
            while not (
                found := re.search(r"https?://[^\s\"']+/first[^\s\"']*", self.site.output())
            ):
                await trio.sleep(0.1)
        return found.group(0)


@asynccontextmanager
async def three_places(directory: Path) -> AsyncIterator[tuple[Place, Place, Place]]:
    """A Bridge and the Routers of North and South, as `relay init` leaves them."""
    authority = trustme.CA()
    certificate = authority.issue_cert(LOOPBACK)
    directory.mkdir()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    bridge = Site("Bridge", "bridge", directory / "bridge", free_port())
    write_configuration(
        bridge,
        "bridge",
        {
            "url": f"https://{LOOPBACK}:{bridge.port}",
            "listen": f"{LOOPBACK}:{bridge.port}",
            "data_dir": "data",
            "certificate": str(directory / "certificate.pem"),
            "private_key": str(directory / "key.pem"),
        },
    )
    sites = [bridge]
    for name in ("North", "South"):
        router = Site(name, "router", directory / name, free_port())
        write_configuration(
            router,
            "router",
            {
                "ae_title": f"RELAY_{name.upper()}",
                "listen": f"{LOOPBACK}:{router.port}",
                "data_dir": "data",
                "ca_file": str(directory / "ca.pem"),
            },
        )
        with router.configuration.open("a") as file:
            file.write(f'\n[router.pages]\nlisten = "{LOOPBACK}:{free_port()}"\n')
        sites.append(router)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(chromium())
        places = []
        for site in sites:
            stack.push_async_callback(site.stop)
            await site.start()
            places.append(Place(site, await running.person()))
        yield (places[0], places[1], places[2])
        for place in places:
            assert place.person.strangers == []
            assert place.person.complaints == []


@asynccontextmanager
async def archive(folder: Path, port: int) -> AsyncIterator[None]:
    """DCMTK storescp at this port, until the end of the block."""
    folder.mkdir(exist_ok=True)
    process = await trio.lowlevel.open_process(
        ["storescp", "-aet", "PACS_S", "+B", "+xa", "-od", str(folder), str(port)],
        env=peers.ENVIRONMENT,
        start_new_session=True,
    )
    try:
        with trio.fail_after(START):
            while True:
                try:
                    stream = await trio.open_tcp_stream(LOOPBACK, port)
                    break
                except OSError:
                    await trio.sleep(0.05)
            await stream.aclose()
        yield
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            await process.wait()


async def test_from_nothing_to_images_across_two_hospitals(tmp_path: Path) -> None:
    port = free_port()
    arrived = tmp_path / "arrived"
    async with three_places(tmp_path / "net") as (bridge, north, south):
        for place, name in ((bridge, "Bea"), (north, "Nora"), (south, "Sam")):
            await place.person.do(partial(walking.begin, link=await place.first_link(), name=name))
        for place, hospital in ((north, "North Hospital"), (south, "South Hospital")):
            invitation = await bridge.person.do(partial(walking.invite, hospital=hospital))
            assert invitation.startswith("relay-invitation:")
            await place.person.do(partial(walking.join, invitation=invitation))
        async with archive(arrived, port):
            await south.person.do(partial(_publish, port=port))
            await north.person.do(partial(walking.add_device, ae_title="CT_N", port=104))
            await north.person.do(_ask)
            await south.person.do(partial(_verify, fingerprint=await _fingerprint(north)))
            await south.person.do(_grant)
            await north.person.do(_see_granted)
            await north.person.do(_echo)
            await north.person.do(_queue)
            images.make_series(_made(tmp_path / "first"), IMAGES, seed=1)
            await north.person.do(partial(walking.section, name="Overview"))
            sent = await _send(north, tmp_path / "first")
            assert sent.status == 0, sent.output
            await north.person.do(partial(_see_arrived, count=IMAGES))
        _same(arrived, tmp_path / "first")
        # The archive is gone; what is sent meanwhile is safe, and the page says what is wrong.
        images.make_series(_made(tmp_path / "second"), IMAGES, seed=2)
        sent = await _send(north, tmp_path / "second")
        assert sent.status == 0, sent.output
        await north.person.do(_see_trouble)
        async with archive(arrived, port):
            await north.person.do(_retry)
            await north.person.do(partial(_see_arrived, count=2 * IMAGES))
        _same(arrived, tmp_path / "first", tmp_path / "second")
        await bridge.person.do(_see_network)


# --- what each of them does ---------------------------------------------------------------------


def _publish(page: Page, port: int) -> None:
    walking.add_device(page, "PACS_S", port, "Echo", "Store")
    walking.press(page, "Test")
    report = page.get_by_role("region", name="What the test found")
    expect(report).to_contain_text("The device answers.")
    expect(report).not_to_contain_text("Fails")


def _ask(page: Page) -> None:
    walking.section(page, "Network")
    expect(walking.row(page, "PACS_S").first).to_contain_text("nothing yet")
    page.get_by_role("link", name="Ask for PACS_S").click()
    for service in ("Echo", "Store"):  # what it publishes
        expect(page.get_by_label(service, exact=True)).to_be_checked()
    expect(page.get_by_label("Query", exact=True)).to_have_count(0)
    walking.fill(page, Note="Our CT sends its studies to you")
    walking.press(page, "Ask")
    expect(page.get_by_role("region", name="Asked by you")).to_contain_text("waiting for them")


async def _fingerprint(place: Place) -> str:
    """What the person there reads out by telephone."""

    def read(page: Page) -> str:
        walking.section(page, "Settings")
        card = page.get_by_role("region", name="Fingerprint", exact=True)
        return card.locator("code").first.inner_text()

    return await place.person.do(read)


def _verify(page: Page, fingerprint: str) -> None:
    walking.section(page, "Network")
    walking.tab(page, "Grants")
    asked = walking.row(page, "Our CT sends its studies to you")
    asked.get_by_role("link", name="Not verified: compare the fingerprint of").click()
    theirs = page.get_by_role("region", name="Theirs, as this Router has it")
    assert theirs.locator("code").inner_text().split() == fingerprint.split()
    walking.press(page, "Verify")
    expect(page.get_by_role("alert")).to_contain_text("tick that you have")
    walking.tick(page, "I compared these by telephone: all eight groups are the same")
    walking.press(page, "Verify")
    expect(page.get_by_role("heading", level=1)).to_have_text("Grants")
    expect(page.get_by_role("main")).not_to_contain_text("Not verified")


def _see_granted(page: Page) -> None:
    for _ in range(40):  # the grant is on its way by the Bridge
        walking.section(page, "Network")
        if "waiting for them" not in page.get_by_role("main").inner_text():
            break
        page.wait_for_timeout(250)
    expect(page.get_by_role("main")).not_to_contain_text("waiting for them")


def _grant(page: Page) -> None:
    walking.section(page, "Network")
    walking.tab(page, "Grants")
    asked = walking.row(page, "Our CT sends its studies to you")
    expect(asked).to_contain_text("North Hospital")
    walking.press(page, "Grant PACS_S to North Hospital")
    expect(page.get_by_role("region", name="Granted by you")).to_contain_text("PACS_S")


def _echo(page: Page) -> None:
    walking.section(page, "Network")
    found = page.get_by_role("region", name="Echo through the network")
    for _ in range(20):  # the grant is on its way by the Bridge
        walking.press(page, "Echo PACS_S")
        expect(found).to_be_visible()
        if "Works" in found.inner_text():
            break
        page.wait_for_timeout(250)
    expect(found).to_contain_text("Works")


def _queue(page: Page) -> None:
    page.get_by_role("link", name="Queue what goes to PACS_S").click()
    walking.press(page, "Save")
    queued = page.get_by_role("region", name="What is queued")
    for _ in range(40):  # the far Router probes its device, and says what that takes
        if "what it takes of CT_N" in queued.inner_text():
            break
        page.wait_for_timeout(250)
        page.reload()
    expect(queued).to_contain_text("what it takes of CT_N")


def _see_arrived(page: Page, count: int) -> None:
    """Without a reload: the page itself shows how it goes on."""
    walking.section(page, "Transfers")
    expect(walking.row(page, "PACS_S").first.locator("[data-label=Delivered]")).to_have_text(
        str(count)
    )


def _see_trouble(page: Page) -> None:
    walking.section(page, "Transfers")
    waiting = walking.row(page, "PACS_S").first
    expect(waiting.locator("[data-label=State]")).to_contain_text("Trying again")
    waiting.locator("[data-label=Waiting]").get_by_role("link").click()
    expect(page.get_by_role("table")).to_contain_text("does not answer")
    page.get_by_role("table").get_by_role("row").nth(1).get_by_role("link").first.click()
    expect(page.get_by_role("region", name="How it stands")).to_contain_text("Waiting")
    walking.section(page, "Transfers")


def _retry(page: Page) -> None:
    walking.press(page, "Try PACS_S now")


def _see_network(page: Page) -> None:
    walking.section(page, "Overview")
    hospitals = page.get_by_role("region", name="Hospitals")
    expect(hospitals).to_contain_text("North Hospital")
    expect(hospitals).to_contain_text("PACS_S")


# --- devices --------------------------------------------------------------------------------------


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def _send(place: Place, folder: Path) -> peers.Result:
    return await peers.storescu(Address(place.site.port, "PACS_S"), folder, calling="CT_N")


def _same(arrived: Path, *sent: Path) -> None:
    """What arrived is what was sent, byte for byte but for the padding that storescu leaves out."""
    there = [peers.data_set_of(path) for path in sorted(arrived.iterdir())]
    files = [file for folder in sent for file in folder.iterdir()]
    assert len(there) == len(files)
    for data_set in map(_without_padding, files):
        assert data_set in there


def _without_padding(file: Path) -> bytes:
    """The data set as storescu sends it: without Data Set Trailing Padding (FFFC,FFFC)."""
    data_set = peers.data_set_of(file)
    return data_set[: data_set.rindex(b"\xfc\xff\xfc\xff")]
