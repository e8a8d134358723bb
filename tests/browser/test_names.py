"""Names that somebody chose to do harm, or that just are so, in every field that can hold them.

They are text, on every page, in every log line, in the audit and in what is saved from it.
"""

import csv
import io
import json
import shutil
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Page, expect

from tests.browser import walking
from tests.browser.browser import chromium, needs_chromium
from tests.browser.test_pages import addresses, somebody
from tests.interop.peers import free_port
from tests.network import LOOPBACK, network

pytestmark = [
    pytest.mark.interop,
    needs_chromium,
    pytest.mark.skipif(shutil.which("storescp") is None, reason="needs DCMTK"),
    pytest.mark.timeout(300),
]

# A hospital's name: markup, quotes, an entity, a template's braces, Arabic, and a formula.
HOSPITAL = '=<b onclick="x()">O\'Brien</b> &amp; {{7*7}} مستشفى'
# An AE title has sixteen characters of ISO 646 (PS3.5 §6.2), and those may be these.
DEVICE = "<u id='x'>\"&</u>"
NOTE = "</td><script>document.title='taken'</script> =1+1 \N{RIGHT-TO-LEFT MARK}שלום"
PERSON = '<s>Žofie</s> "O\'N"'

# Nothing of ours is of these elements, or has a handler.
_TAKEN = "main b, main u, main s, [onclick], script:not([src])"


def _untouched(page: Page, urls: list[str]) -> str:
    """That no name has become markup on any of these pages; all their text."""
    seen = []
    for url in urls:
        page.goto(url)
        assert page.locator(_TAKEN).count() == 0, url
        assert page.title() != "taken", url
        seen.append(page.inner_text("body"))
    return "\n".join(seen)


async def test_odd_names_are_text_everywhere(tmp_path: Path) -> None:
    async with network(tmp_path / "net", "A", "B", tls=True) as net, chromium() as running:
        odd, plain = net.routers["A"], net.routers["B"]
        for site in (odd, plain):
            with site.configuration.open("a") as file:
                file.write(f'\n[router.pages]\nlisten = "{LOOPBACK}:{free_port()}"\n')
            await site.stop()
            await site.start()
        bridge = await somebody(running, net.bridge)
        invitation = await bridge.do(partial(walking.invite, hospital=HOSPITAL))
        assert invitation
        device = ("device", "add", DEVICE, LOOPBACK, str(free_port()), "--publish", "echo,store")
        await odd.relay(*device, "--issuer", "<s>1</s>\"'")
        await net.publish("B", "PACS_B", free_port(), "echo,store")
        await net.seen("B", "&</u>")  # as JSON has it
        await plain.relay("grant", "ask", DEVICE, "--services", "echo,store", "--note", NOTE)
        first = await somebody(running, odd)
        await first.do(partial(_another, name=PERSON))
        text = ""
        for person, site in ((first, odd), (bridge, net.bridge)):
            urls = await person.do(addresses)
            text += await person.do(partial(_untouched, urls=urls))
            assert person.strangers == []
            assert person.complaints == []
            saved = await person.do(_audit_of)
            for cells in csv.reader(io.StringIO(saved)):
                assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
            for line in site.output().splitlines():
                assert isinstance(json.loads(line), dict)
        for name in (HOSPITAL, DEVICE, PERSON, "</td><script>document.title='taken'</script>"):
            assert name in text


def _another(page: Page, name: str) -> None:
    walking.section(page, "People")
    page.get_by_label("Name", exact=True).first.fill(name)
    page.get_by_role("button", name="Add", exact=False).first.click()
    expect(page.get_by_role("main")).to_contain_text(name)


def _audit_of(page: Page) -> str:
    """The audit as it is saved."""
    answer = page.request.get(urljoin(page.url, "/v1/audit.csv"))
    assert answer.status == 200
    return answer.text()
