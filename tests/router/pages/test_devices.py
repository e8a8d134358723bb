"""Devices on their pages: listed, added, changed, tested, removed; what is refused stays typed."""

import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trio

from relay import listener
from relay.people.roles import Role
from relay.router.devices import Device
from relay.router.grants import Grant
from relay.router.pairs import Pairs
from tests.router.fakes import yes_to_all
from tests.router.pages.site import browser, text, value_of


async def test_an_empty_list_says_what_to_do(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        page = await visitor.get("/devices")
        assert 'href="/devices/new"' in page
        assert "Add your PACS" in text(page)
        viewer = await visitor.sign_in(Role.VIEWER)
        assert 'href="/devices/new"' not in await viewer.get("/devices")


async def test_a_device_is_added_listed_and_changed(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        await visitor.post(
            "/devices/new",
            ae_title="A/B C",
            host="192.0.2.1",
            port="11112",
            services=["echo", "store"],
            check_address="1",
        )
        device = visitor.node.devices.get("A/B C")
        assert device == Device("A/B C", "192.0.2.1", 11112, services=frozenset({"echo", "store"}))
        page = text(await visitor.get("/devices"))
        assert "192.0.2.1 port 11112" in page
        assert "Granted to nobody" in page
        edit = f"/devices/edit?{urlencode({'ae_title': 'A/B C'})}"
        assert value_of(await visitor.get(edit), "port") == "11112"
        await visitor.post("/devices/edit", ae_title="A/B C", host="192.0.2.2", services="query")
        changed = visitor.node.devices.get("A/B C")
        assert changed is not None
        assert (changed.host, changed.services) == ("192.0.2.2", frozenset({"query"}))
        assert not changed.check_address, "a box that is not ticked is no"


async def test_what_was_declared_outlives_the_form(tmp_path: Path) -> None:
    declares = Pairs.from_json({"1.2.840.10008.5.1.4.1.1.2": ["1.2.840.10008.1.2"]})
    async with browser(tmp_path) as visitor:
        await visitor.node.put_device(Device("PACS", "192.0.2.1", declares=declares))
        await visitor.post("/devices/edit", ae_title="PACS", host="192.0.2.2")
        device = visitor.node.devices.get("PACS")
        assert device is not None
        assert device.declares == declares


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ae_title": "A\\B"}, "AE title"),
        ({"host": "not a host"}, "host"),
        ({"port": "many"}, "port is a whole number"),
        ({"services": "fly"}, "no such service"),
        ({"character_set": "LATIN"}, "no defined term"),
        ({"answer_wait": "-1"}, "answer_wait"),
    ],
)
async def test_a_form_that_is_refused_keeps_what_was_typed(
    tmp_path: Path, wrong: dict[str, str], words: str
) -> None:
    typed = {"ae_title": "PACS", "host": "192.0.2.1", "port": "104", "issuer": "<b>Ours</b>"}
    async with browser(tmp_path) as visitor:
        page = await visitor.post("/devices/new", 400, **(typed | wrong))
        assert words in text(page)
        assert 'role="alert"' in page
        for name, value in (typed | wrong).items():
            if name != "services":
                assert value_of(page, name) == value, name
        assert not list(visitor.node.devices)


async def test_a_device_that_is_there_is_not_overwritten_by_adding_another(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        await visitor.node.put_device(Device("PACS", "192.0.2.1"))
        page = await visitor.post("/devices/new", 409, ae_title="PACS", host="192.0.2.9")
        assert "is a device already" in text(page)
        assert [device.host for device in visitor.node.devices] == ["192.0.2.1"]


async def test_a_device_goes_with_its_grants(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        await visitor.node.put_device(Device("PACS", "192.0.2.1", services=frozenset({"echo"})))
        await visitor.node.add_grant(Grant(bytes(32), "PACS", frozenset({"echo"})))
        assert "1 grant of it" in text(await visitor.get("/devices/device?ae_title=PACS"))
        page = await visitor.post("/devices/remove", ae_title="PACS")
        assert "PACS was removed, and 1 grant of it." in text(page)
        assert not list(visitor.node.devices)
        await visitor.post("/devices/remove", 404, ae_title="PACS")
        assert "No device" in text(await visitor.get("/devices/device?ae_title=PACS", 404))


async def test_a_test_shows_in_words_what_it_found(tmp_path: Path) -> None:
    async with browser(tmp_path) as administrator, trio.open_nursery() as nursery:
        visitor = await administrator.sign_in(Role.OPERATOR)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(listener.serve, listeners, yes_to_all)
        port = listeners[0].socket.getsockname()[1]
        await visitor.node.put_device(Device("PACS", "127.0.0.1", port))
        with trio.fail_after(20):
            page = text(await visitor.post("/devices/test", 200, ae_title="PACS"))
        assert f"Works PACS at 127.0.0.1:{port} answers C-ECHO" in page
        assert "storage classes" in page
        assert "All that it takes" in page
        nursery.cancel_scope.cancel()
    async with browser(tmp_path) as visitor:
        page = text(await visitor.post("/devices/test", 200, ae_title="PACS"))
        assert "Fails" in page
        assert "nothing listens on port" in page, "as `relay doctor` says it"
        assert "RELAY" in page, "what to enter at the device"


async def test_a_device_that_only_calls_has_words_and_no_test(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        typed = {"ae_title": "CT1", "host": "192.0.2.1"}
        page = await visitor.post("/devices/new", **typed)
        assert "CT1 was added." in text(page)
        assert "Test it now" not in text(page)
        assert "It only calls." in text(page)
        assert "have it send a C-ECHO to AE title RELAY at this machine's address, port" in text(
            page
        )
        for path in ("/devices", "/devices/device?ae_title=CT1"):
            assert 'action="/devices/test"' not in await visitor.get(path)
        viewer = await visitor.sign_in(Role.VIEWER)
        shown = await viewer.get("/devices/device?ae_title=CT1")
        assert "/devices/edit" not in shown
        assert "have an administrator tick its services" in text(shown)
        for changed in ({"services": "echo"}, {"federation": "1"}):
            await visitor.post("/devices/edit", **typed, **changed)
            for path in ("/devices", "/devices/device?ae_title=CT1"):
                page = await visitor.get(path)
                assert 'action="/devices/test"' in page
                assert "It only calls." not in text(page)


async def test_what_most_devices_need_not_is_folded(tmp_path: Path) -> None:
    def folds(page: str) -> list[bool]:
        found = re.findall(r'<details class="more fold"( open)?>', page)
        return [bool(opened) for opened in found]

    async with browser(tmp_path) as visitor:
        assert folds(await visitor.get("/devices/new")) == [False, False]
        await visitor.node.put_device(Device("A", "192.0.2.1", services=frozenset({"echo"})))
        assert folds(await visitor.get("/devices/edit?ae_title=A")) == [False, False]
        await visitor.node.put_device(Device("A", "192.0.2.1", issuer="North"))
        assert folds(await visitor.get("/devices/edit?ae_title=A")) == [True, False]
        await visitor.node.put_device(Device("A", "192.0.2.1", published="B"))
        assert folds(await visitor.get("/devices/edit?ae_title=A")) == [False, True]
        refused = await visitor.post("/devices/new", 400, ae_title="X", host="h", linger="-1")
        assert folds(refused) == [True, True], "what is wrong may be in one of them"
