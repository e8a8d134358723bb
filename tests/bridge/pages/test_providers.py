"""Object stores: their state and order, a check in words, and the end of one."""

import pytest

from relay.errors import ProviderError
from relay.people.roles import Role
from relay.providers import Finding

from .conftest import NOW, Bridge


async def with_clouds(bridge: Bridge) -> None:
    """disk in use, then the clouds one and two; three is set up only."""
    for name in ("one", "two", "three"):
        await bridge.stores.add(name, "fake", {"called": name})
    await bridge.stores.use(["disk", "one", "two"])


def order(bridge: Bridge) -> list[str]:
    stores = [bridge.stores.find(name) for name in ("disk", "one", "two", "three")]
    return [store.name for store in sorted(stores, key=lambda s: s.place) if store.place]


async def test_the_list_says_how_each_is_doing(bridge: Bridge) -> None:
    await with_clouds(bridge)
    health = bridge.stores.find("two").health
    health.failing, health.last_failure, health.failed_at = True, "the store answered 403", NOW
    page = await (await bridge.browser()).get("/providers")
    assert "the store answered 403" in page.text
    assert "three" in page.text
    assert "not in use" in page.text
    assert "https://store.example" in page.text
    assert "0 bytes of 1.00 MiB" in page.text
    assert "/providers/add" in page.links


@pytest.mark.parametrize(
    ("name", "move", "expected"),
    [
        ("one", "up", ["one", "disk", "two"]),
        ("disk", "up", ["disk", "one", "two"]),
        ("disk", "down", ["one", "disk", "two"]),
        ("two", "down", ["disk", "one", "two"]),
        ("one", "stop", ["disk", "two"]),
        ("three", "use", ["disk", "one", "two", "three"]),
    ],
)
async def test_their_order_changes(
    bridge: Bridge, name: str, move: str, expected: list[str]
) -> None:
    await with_clouds(bridge)
    page = await (await bridge.browser()).post(
        "/providers/order", name=name, move=move, seen="disk one two"
    )
    assert order(bridge) == expected
    first, *others = expected
    assert f"New sessions use {first}; if it fails, {', then '.join(others)}." in page.text


@pytest.mark.parametrize(
    ("name", "move", "seen", "words"),
    [
        ("one", "up", "one disk two", "order was changed meanwhile"),
        ("one", "sideways", "disk one two", "is not up, down, use or stop"),
        ("four", "use", "disk one two", "object store 'four'"),
    ],
)
async def test_an_order_that_is_refused(
    bridge: Bridge, name: str, move: str, seen: str, words: str
) -> None:
    await with_clouds(bridge)
    browser = await bridge.browser()
    page = await browser.post("/providers/order", name=name, move=move, seen=seen)
    assert words in page.alert
    assert order(bridge) == ["disk", "one", "two"]


async def test_the_only_one_stays_in_use(bridge: Bridge) -> None:
    browser = await bridge.browser()
    page = await browser.get("/providers")
    assert "Stop using" not in page.text
    page = await browser.post("/providers/order", name="disk", move="stop", seen="disk")
    assert "is the only object store in use" in page.alert
    page = await browser.post("/providers/disk/remove")
    assert "is the only object store in use" in page.alert


async def test_one_that_fails_its_check_is_not_put_in_use(bridge: Bridge) -> None:
    await with_clouds(bridge)
    bridge.fake.opened["three"].findings.append(Finding("PUT", False, "the store answered 403"))
    browser = await bridge.browser()
    page = await browser.post("/providers/order", name="three", move="use", seen="disk one two")
    assert "does not pass its check: PUT: the store answered 403" in page.alert


async def test_a_check_in_words(bridge: Bridge) -> None:
    await with_clouds(bridge)
    browser = await bridge.browser(Role.OPERATOR)
    assert "/providers/one/check" in (await browser.get("/providers")).actions()
    page = await browser.post("/providers/one/check")
    assert "It does all that Relay needs." in page.text
    found = bridge.fake.opened["one"].findings
    found.append(Finding("PUT of a new object", True))
    found.append(Finding("a clock that is right", False, "set the clock: it is 40 s off"))
    page = await browser.post("/providers/one/check")
    assert "Fails a clock that is right" in page.text
    assert "set the clock: it is 40 s off" in page.text
    assert "Works PUT of a new object" in page.text
    assert "Something does not work" in page.alert


async def test_a_check_that_cannot_be_made(bridge: Bridge) -> None:
    await with_clouds(bridge)
    browser = await bridge.browser()
    assert "object store 'four'" in (await browser.post("/providers/four/check")).alert
    bridge.fake.opened["one"].error = ProviderError("no answer in 10 s")
    assert "answer in 10 s" in (await browser.post("/providers/one/check")).alert


async def test_removing(bridge: Bridge) -> None:
    await with_clouds(bridge)
    north, south = await bridge.granting()
    await bridge.stores.use(["two"])
    await bridge.session(north, south)
    await bridge.stores.use(["disk"])
    browser = await bridge.browser()
    page = await browser.post("/providers/three/remove")
    assert "Object store three is removed." in page.text
    page = await browser.post("/providers/two/remove")
    assert "goes when the session that rests on it is over and swept" in page.text
    page = await browser.get("/providers")
    assert "leaving" in page.text
    assert "/providers/two/remove" not in page.actions()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
async def test_others_change_nothing(bridge: Bridge, role: Role) -> None:
    await with_clouds(bridge)
    browser = await bridge.browser(role)
    page = await browser.get("/providers")
    assert "/providers/order" not in page.actions()
    assert "/providers/add" not in page.links
    page = await browser.post("/providers/order", name="one", move="up", seen="disk one two")
    assert "needs the role administrator" in page.alert
    assert "needs the role administrator" in (await browser.post("/providers/two/remove")).alert
    assert order(bridge) == ["disk", "one", "two"]


async def test_a_viewer_checks_nothing(bridge: Bridge) -> None:
    browser = await bridge.browser(Role.VIEWER)
    assert "/providers/disk/check" not in (await browser.get("/providers")).actions()
    assert "needs the role operator" in (await browser.post("/providers/disk/check")).alert
