"""Sessions that are open, and the end of one."""

from relay.bridge.pages import sessions as module
from relay.people.roles import Role

from .conftest import Bridge


async def test_none_are_open(bridge: Bridge) -> None:
    assert "No session is open." in (await (await bridge.browser()).get("/sessions")).text


async def test_who_speaks_with_whom(bridge: Bridge) -> None:
    north, south = await bridge.granting()
    session = await bridge.session(north, south)
    browser = await bridge.browser()
    page = await browser.get("/sessions")
    assert "PACS North South not answered yet 0 out, 0 back by disk" in page.text
    await bridge.sessions.answered(bytes.fromhex(session), b"answer")
    blocks = await browser.stream("/live/sessions")
    assert "PACS North South open 0 out, 0 back by disk" in blocks["sessions"].text
    assert blocks["sessions"].html.strip() in (await browser.get("/sessions")).html


async def test_a_long_list_is_cut_and_says_so(bridge: Bridge, monkeypatch) -> None:
    north, south = await bridge.granting()
    for _ in range(3):
        await bridge.session(north, south)
    monkeypatch.setattr(module, "MAXIMUM_SHOWN", 2)
    page = await (await bridge.browser()).get("/sessions")
    assert "1 more session is open" in page.text


async def test_an_operator_ends_one(bridge: Bridge) -> None:
    north, south = await bridge.granting()
    session = await bridge.session(north, south)
    path = f"/sessions/{session}/end"
    browser = await bridge.browser(Role.OPERATOR)
    assert path in (await browser.get("/sessions")).actions()
    assert "The session is ended" in (await browser.post(path)).text
    assert bridge.sessions.all() == []
    assert "it may be over by now" in (await browser.post(path)).alert


async def test_a_viewer_does_not(bridge: Bridge) -> None:
    north, south = await bridge.granting()
    session = await bridge.session(north, south)
    browser = await bridge.browser(Role.VIEWER)
    assert f"/sessions/{session}/end" not in (await browser.get("/sessions")).actions()
    page = await browser.post(f"/sessions/{session}/end")
    assert "needs the role operator" in page.alert
    assert len(bridge.sessions.all()) == 1
