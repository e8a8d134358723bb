"""Tokens for DICOMweb on their page: made, shown once, removed."""

from pathlib import Path

from relay.people.roles import Role
from relay.router.devices import Device
from relay.router.dicomweb.api import token_operations
from relay.router.dicomweb.tokens import TokenTable
from tests.router.pages.site import Browser, browser, text, value_of


async def tokens(visitor: Browser) -> TokenTable:
    """As the Router's database has them by now."""
    return await TokenTable.load(visitor.node.database)


async def test_a_token_is_made_shown_once_and_removed(tmp_path: Path) -> None:
    async with browser(tmp_path, more=token_operations) as visitor:
        assert "DICOMweb is off" in text(await visitor.get("/settings/dicomweb"))
        await visitor.node.put_device(Device("WS", "192.0.2.1"))
        page = await visitor.post("/settings/dicomweb", 200, name="<b>viewer</b>", device="WS")
        assert "<b>" not in page
        assert "relay_" in text(page)
        (token,) = await tokens(visitor)
        assert (token.name, token.device) == ("<b>viewer</b>", "WS")
        page = await visitor.get("/settings/dicomweb")
        assert "relay_" not in text(page)
        assert "<b>viewer</b> WS" in text(page)
        page = await visitor.post("/settings/dicomweb/remove", name="<b>viewer</b>")
        assert "opens nothing any more" in text(page)
        assert not list(await tokens(visitor))


async def test_what_is_refused_stays_typed(tmp_path: Path) -> None:
    async with browser(tmp_path, more=token_operations) as visitor:
        page = await visitor.post("/settings/dicomweb", 404, name="viewer", device="NOBODY")
        assert "no device" in text(page)
        assert value_of(page, "name") == "viewer"
        page = await visitor.post("/settings/dicomweb", 400, name=" ", device="")
        assert "name" in text(page)


async def test_a_viewer_makes_none(tmp_path: Path) -> None:
    async with browser(tmp_path, more=token_operations) as administrator:
        viewer = await administrator.sign_in(Role.VIEWER)
        assert 'name="device"' not in await viewer.get("/settings/dicomweb")
        page = await viewer.post("/settings/dicomweb", 403, name="mine", device="")
        assert "needs the role" in text(page)
        assert not list(await tokens(administrator))
