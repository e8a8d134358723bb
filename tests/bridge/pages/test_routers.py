"""Routers: each with its state, and what shutting one out means."""

import pytest

from relay.people.roles import Role

from .conftest import Bridge


async def test_the_list_says_who_is_there(bridge: Bridge) -> None:
    north, south = await bridge.granting()
    gone = await bridge.rooms.router("West")
    await bridge.rooms.registry.revoke(gone.id)
    bridge.here.add(south.id)
    await bridge.administration.seen.look()
    bridge.here.clear()
    bridge.administration.meter.signed("a", north.id)
    bridge.administration.meter.charge("a", 3 * 2**20)
    page = await (await bridge.browser()).get("/routers")
    assert "North away never – none published 3.00 MiB" in page.text
    assert "South away" in page.text
    assert page.text.index("West") > page.text.index("South")
    assert "revoked" in page.text


async def test_an_empty_list_says_what_to_do(bridge: Bridge) -> None:
    page = await (await bridge.browser()).get("/routers")
    assert "No hospital is in the network yet." in page.text
    assert "/routers/invite" in page.links
    page = await (await bridge.browser(Role.VIEWER)).get("/routers")
    assert "An administrator can invite it." in page.text


async def test_an_empty_list_with_open_invitations_says_who_is_awaited(bridge: Bridge) -> None:
    await bridge.rooms.enrolment.invite("South")
    browser = await bridge.browser()
    page = await browser.get("/routers")
    assert "Invited, and not here yet: South." in page.text
    assert "Invite the first" not in page.text
    assert "South" in (await browser.stream("/live/routers"))["routers"].text


async def test_it_moves_by_itself(bridge: Bridge) -> None:
    await bridge.rooms.router("North")
    await bridge.rooms.enrolment.invite("South")
    browser = await bridge.browser()
    blocks = await browser.stream("/live/routers")
    assert set(blocks) == {"routers", "invitations"}
    page = await browser.get("/routers")
    for block in blocks.values():
        assert block.html.strip() in page.html


async def test_a_routers_own_page(bridge: Bridge) -> None:
    north, south = await bridge.granting()
    await bridge.session(north, south)
    browser = await bridge.browser()
    page = await browser.get(f"/routers/{south.identity.fingerprint}")
    assert page.headings == [
        "South",
        "Router",
        "Devices",
        "What it grants to others",
        "What others grant to it",
        "Sessions",
        "Shut it out",
    ]
    assert south.identity.fingerprint in page.text
    assert "PACS North store" in page.text
    assert "Nobody grants it anything." in page.text
    assert "At once its 1 device and 1 grant leave the network." in page.text
    assert "Its 1 session ends within 5 seconds. For good:" in page.text
    page = await browser.get(f"/routers/{north.identity.fingerprint}")
    assert "It publishes no device." in page.text
    assert "PACS South store" in page.text


async def test_one_that_is_not_there(bridge: Bridge) -> None:
    browser = await bridge.browser()
    assert "such Router is enrolled" in (await browser.get("/routers/aaaa-bbbb", 404)).text
    page = await browser.get("/routers")
    answer = await browser.send("/routers/aaaa-bbbb/revoke")
    assert answer.status_code == 303
    assert "such Router is enrolled" in (await browser.get("/routers")).alert
    assert page.headings[0] == "Routers"


async def test_a_grantee_that_the_bridge_does_not_know(bridge: Bridge) -> None:
    _, south = await bridge.granting()
    await bridge.rooms.registry.grants(south.id, [(bytes(32), "PACS", ("store",))])
    page = await (await bridge.browser()).get(f"/routers/{south.identity.fingerprint}")
    [grant] = await bridge.rooms.registry.list_grants()
    assert grant["grantee"] in page.text
    assert f"/routers/{grant['grantee']}" not in page.links


async def test_revoking(bridge: Bridge) -> None:
    _, south = await bridge.granting()
    path = f"/routers/{south.identity.fingerprint}/revoke"
    browser = await bridge.browser()
    assert path in (await browser.get(f"/routers/{south.identity.fingerprint}")).actions()
    page = await browser.post(path)
    assert "The Router of South is revoked." in page.text
    rows = {row["name"]: row["revoked"] for row in await bridge.rooms.registry.list_routers()}
    assert rows == {"North": False, "South": True}
    page = await browser.get(f"/routers/{south.identity.fingerprint}")
    assert "shut out of the network, for good" in page.text
    assert path not in page.actions()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
async def test_only_administrators_revoke(bridge: Bridge, role: Role) -> None:
    north = await bridge.rooms.router("North")
    path = f"/routers/{north.identity.fingerprint}"
    browser = await bridge.browser(role)
    assert f"{path}/revoke" not in (await browser.get(path)).actions()
    assert "needs the role administrator" in (await browser.post(f"{path}/revoke")).alert
    [row] = await bridge.rooms.registry.list_routers()
    assert not row["revoked"]
