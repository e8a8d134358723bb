"""Devices and Grants: all of them, searched, with why one does nothing now."""

from .conftest import Bridge


async def test_empty_lists_say_what_to_do(bridge: Bridge) -> None:
    browser = await bridge.browser()
    page = await browser.get("/devices")
    assert "No device is published yet." in page.text
    assert "/routers" in page.links
    assert "Nobody grants anybody anything yet." in (await browser.get("/grants")).text


async def test_devices_are_found_by_title_hospital_and_service(bridge: Bridge) -> None:
    north = await bridge.publishing("North", "PACS_A", "CT_1")
    await bridge.publishing("South", "PACS_B")
    worklist = (north.publication("PACS_A"), north.publication("CT_1", 2, ("worklist",)))
    await bridge.rooms.registry.publish(north.id, worklist)
    browser = await bridge.browser()

    async def found(words: str) -> list[str]:
        page = await browser.get(f"/devices?q={words}")
        assert page.fields["q"] == words.replace("+", " ")
        return [title for title in ("CT_1", "PACS_A", "PACS_B") if title in page.text]

    assert await found("") == ["CT_1", "PACS_A", "PACS_B"]
    assert await found("pacs") == ["PACS_A", "PACS_B"]
    assert await found("north") == ["CT_1", "PACS_A"]
    assert await found("north+pacs") == ["PACS_A"]
    assert await found("WORKLIST") == ["CT_1"]
    page = await browser.get("/devices?q=nothing")
    assert "No device matches." in page.text
    assert "Show all 3" in page.text


async def test_grants_are_found_by_owner_and_grantee(bridge: Bridge) -> None:
    north, south = await bridge.granting()
    west = await bridge.publishing("West", "W_PACS")
    await bridge.rooms.registry.grants(west.id, [(south.id, "W_PACS", ("echo", "store"))])
    browser = await bridge.browser()

    async def found(query: str) -> list[str]:
        page = await browser.get(f"/grants?{query}")
        cells = page.html.split("<tbody>")
        return [title for title in ("W_PACS", ">PACS<") if len(cells) > 1 and title in cells[1]]

    assert await found("") == ["W_PACS", ">PACS<"]
    assert await found(f"owner={west.identity.fingerprint}") == ["W_PACS"]
    assert await found(f"grantee={north.identity.fingerprint}") == [">PACS<"]
    assert await found("q=west+echo") == ["W_PACS"]
    assert await found(f"q=west&grantee={north.identity.fingerprint}") == []
    page = await browser.get(f"/grants?owner={west.identity.fingerprint}")
    assert page.fields["owner"] == west.identity.fingerprint


async def test_a_grant_that_does_nothing_says_why(bridge: Bridge) -> None:
    north, south = await bridge.granting()
    rows = [(north.id, "PACS", ("store", "query")), (north.id, "GONE", ("store",))]
    await bridge.rooms.registry.grants(south.id, rows)
    page = await (await bridge.browser()).get("/grants")
    assert "not published: query" in page.text
    assert "the owner's device is not in the network now" in page.text
    await bridge.rooms.registry.grants(south.id, [(north.id, "PACS", ("store",))])
    assert "in force" in (await (await bridge.browser()).get("/grants")).text
