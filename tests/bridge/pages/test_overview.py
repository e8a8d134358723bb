"""Overview says what is wrong, what moves, and what to do next."""

import pytest

from relay.bridge.pages import overview as module
from relay.bridge.pages.overview import MAXIMUM_WARNINGS
from relay.bridge.restored import Restoration, Restored, note
from relay.bridge.warnings import AWAY_AFTER
from relay.people.roles import Role

from .conftest import NOW, Bridge


async def test_an_empty_network_begins_with_an_invitation(bridge: Bridge) -> None:
    page = await (await bridge.browser()).get("/")
    assert "Invite the first hospital" in page.text
    assert "/routers/invite" in page.links
    assert "0 of 0" in page.text
    page = await (await bridge.browser(Role.VIEWER)).get("/")
    assert "Invite the first hospital" in page.text
    assert "/routers/invite" not in page.links


async def test_each_step_leads_to_the_next(bridge: Bridge) -> None:
    browser = await bridge.browser()

    async def now() -> str:
        return (await browser.get("/")).html.partition('aria-current="step"')[2].split("</li>")[0]

    await bridge.rooms.enrolment.invite("North")
    page = await browser.get("/")
    assert "Its Router joins" in await now()
    assert "The invitation for North is open." in page.text
    north = await bridge.publishing("North Hospital", "PACS_A")
    assert "Both publish a device" in await now()  # the second one is invited
    south = await bridge.publishing("South", "PACS")
    assert "One grants the other its use" in await now()
    await bridge.rooms.registry.grants(south.id, [(north.id, "PACS", ("store",))])
    page = await browser.get("/")
    assert "Set the network up" not in page.text
    assert page.headings == ["Overview", "The last five minutes", "Hospitals"]


async def test_what_moves_is_drawn(bridge: Bridge) -> None:
    rates = bridge.administration.rates
    assert "only just started" in (await (await bridge.browser()).get("/")).text
    counted = [0, 0]
    rates._read = lambda: (counted[0], counted[1])
    for step in (0, 4 * 2**20, 2 * 2**20):
        counted[0] += 10
        counted[1] += step
        rates.look()
    page = await (await bridge.browser()).get("/")
    assert "Moving 1.00 MiB/s 5 messages/s" in page.text
    assert "at most 2.00 MiB/s" in page.text
    assert page.html.count("<polyline") == 2
    assert "now 1.00 MiB/s, at most 2.00 MiB/s." in page.html


async def test_warnings_lead_to_where_something_can_be_done(bridge: Bridge) -> None:
    router = await bridge.rooms.router("North")
    await bridge.rooms.database.run(
        lambda db: db.execute("UPDATE router SET enrolled = ?", (NOW - 10 * AWAY_AFTER,)).fetchall()
    )
    health = bridge.stores.find("disk").health
    health.failing, health.last_failure, health.failed_at = True, "disk is nearly full", NOW
    page = await (await bridge.browser()).get("/")
    assert "no other works: disk is nearly full" in page.alert
    assert "/providers" in page.links
    assert f"/routers/{router.identity.fingerprint}" in page.links


@pytest.mark.parametrize("ended", [False, True])
async def test_routers_that_are_away(bridge: Bridge, monkeypatch, ended: bool) -> None:
    for number in range(MAXIMUM_WARNINGS + 2):
        router = await bridge.rooms.router(f"Hospital {number}")
        if ended:
            await bridge.rooms.registry.revoke(router.id)
    monkeypatch.setattr("relay.bridge.control.time.time", lambda: NOW + 2 * AWAY_AFTER)
    page = await (await bridge.browser()).get("/")
    assert ("2 more warnings" in page.text) is not ended
    assert page.text.count("was never connected") == (0 if ended else MAXIMUM_WARNINGS)


async def test_it_moves_by_itself(bridge: Bridge) -> None:
    await bridge.rooms.router("North")
    browser = await bridge.browser()
    blocks = await browser.stream("/live/overview")
    assert set(blocks) == {"warnings", "steps", "figures", "routers"}
    assert "0 of 1" in blocks["figures"].text
    assert "North" in blocks["routers"].text
    page = await browser.get("/")
    for name, block in blocks.items():
        assert f'id="{name}"' in page.html
        assert block.html.strip() in page.html, name


async def test_what_is_done_is_not_asked_for_again(bridge: Bridge) -> None:
    await bridge.granting()
    assert "steps" not in await (await bridge.browser()).stream("/live/overview")


async def test_of_many_hospitals_those_that_are_away_are_shown(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_HOSPITALS", 2)
    for name in ("Away", "Here", "There"):
        router = await bridge.rooms.router(name)
        if name != "Away":
            bridge.here.add(router.id)
    monkeypatch.setattr(bridge.administration.hub, "connected", lambda: frozenset(bridge.here))
    page = await (await bridge.browser()).get("/")
    assert page.text.index("Away") < page.text.index("Here")
    assert "There" not in page.text
    assert "1 more hospital: see all Routers" in page.text


async def test_a_restored_bridge_asks_until_it_is_set_right(bridge: Bridge) -> None:
    restoration = Restoration(NOW - 86400, NOW)
    await bridge.rooms.database.run(lambda db: note(db, restoration))
    bridge.administration.restored.unconfirmed = restoration
    viewer, browser = await bridge.browser(Role.OPERATOR), await bridge.browser()
    page = await viewer.get("/")
    assert "restored from the backup of 2027-01-14 08:00 UTC" in page.alert
    assert "/restoration/confirm" not in page.actions()
    assert "needs the role administrator" in (await viewer.post("/restoration/confirm")).alert
    page = await browser.get("/")
    assert "/restoration/confirm" in page.actions()
    assert "/restoration/confirm" in (await browser.stream("/live/overview"))["warnings"].actions()
    page = await browser.post("/restoration/confirm")
    assert "The restoration is confirmed." in page.text
    assert "restored from" not in page.text
    assert (await Restored.load(bridge.rooms.database)).unconfirmed is None
