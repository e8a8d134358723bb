"""Local names and what is queued, on their page."""

from pathlib import Path

import pytest

from relay.router.aliases import Alias
from relay.router.devices import Device
from relay.router.queue.acceptance import Acceptance
from relay.router.queue.destinations import Destination, Mixed, Mode
from relay.router.routes import Routes
from relay.spool.items import Priority
from tests.router.fakes import hospital
from tests.router.pages.site import browser, text, value_of
from tests.router.pages.test_network import meet


async def test_a_local_name_is_given_and_taken(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "echo")
        page = await visitor.post("/network/names/alias", local="PACS", published="PACS_S")
        assert "Devices here call PACS_S as PACS now." in text(page)
        assert list(visitor.node.aliases) == [Alias("PACS", "PACS_S")]
        assert "PACS PACS_S Hospital SOUTH" in text(page)
        page = await visitor.post("/network/names/alias/remove", local="PACS")
        assert "The local name PACS is gone." in text(page)
        assert not list(visitor.node.aliases)


async def test_a_name_that_is_taken_is_refused_and_stays_typed(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        await visitor.node.put_device(Device("PACS", "192.0.2.1"))
        page = await visitor.post("/network/names/alias", 409, local="PACS", published="PACS_S")
        assert "PACS" in text(page)
        assert (value_of(page, "local"), value_of(page, "published")) == ("PACS", "PACS_S")


async def test_what_is_sent_to_a_device_is_queued_and_not_any_more(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "store")
        await visitor.node.put_device(Device("CT", "192.0.2.1", published="CT_N"))
        page = await visitor.post(
            "/network/names/destination",
            called="PACS_S",
            calling="CT",
            mode="queued",
            mixed="confirmed",
            priority="high",
        )
        assert "What is sent to PACS_S is queued now." in text(page)
        row = Destination("PACS_S", "CT_N", Mode.QUEUED, Mixed.CONFIRMED, Priority.HIGH)
        assert list(visitor.queue.destinations) == [row]
        assert "Ask for store of it" in text(page), "nothing is accepted before it is granted"
        page = await visitor.post(
            "/network/names/destination/remove", called="PACS_S", calling="CT_N"
        )
        assert "is confirmed by the far device again" in text(page)
        assert not list(visitor.queue.destinations)


@pytest.mark.parametrize(
    ("called", "status", "words"),
    [("CT", 409, "is the device CT of this hospital"), ("A\\B", 400, "AE title")],
)
async def test_a_destination_that_is_none_is_refused_and_stays_typed(
    tmp_path: Path, called: str, status: int, words: str
) -> None:
    async with browser(tmp_path) as visitor:
        await visitor.node.put_device(Device("CT", "192.0.2.1"))
        fields = {"called": called, "mode": "queued", "mixed": "refuse", "priority": "low"}
        page = await visitor.post("/network/names/destination", status, **fields)
        assert words in text(page)
        assert value_of(page, "called") == called
        assert '<option value="low" selected>' in page


async def test_what_is_known_of_a_destination_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with browser(tmp_path) as visitor, hospital(tmp_path / "south", "SOUTH") as south:
        await meet(visitor, south, "store")
        await visitor.queue.destinations.put(Destination("PACS_S"))
        monkeypatch.setattr(Routes, "_granted", lambda self, published: frozenset({"store"}))
        assert "being asked" in text(await visitor.get("/network/names"))
        with monkeypatch.context() as known:
            known.setattr(Acceptance, "callers", lambda *_: ["CT<1>", "MR"])
            known.setattr(Acceptance, "transfer_syntaxes", lambda *_: frozenset())
            known.setattr(Routes, "_refused", lambda *_: {"CT<1>": ["CT, JPEG"]})
            shown = text(await visitor.get("/network/names"))
            assert "what it takes of CT<1> , MR" in shown
            assert "from CT<1> : CT, JPEG" in shown
        monkeypatch.setattr(Acceptance, "unknown", lambda *_: {"CT<1>": "ask `relay doctor`"})
        page = await visitor.get("/network/names")
        assert "CT<1> : ask relay doctor" in text(page)
        assert "<code>relay doctor</code>" in page
