"""An invitation is shown once, on the page that answers the form, and can be taken back."""

import pytest

from relay.errors import Refused
from relay.invitation import Invitation
from relay.people.roles import Role

from .conftest import EVIL, NOW, Bridge


async def test_the_string_is_shown_once_to_be_copied(bridge: Bridge, logs) -> None:
    browser = await bridge.browser()
    page = await browser.get("/routers/invite")
    assert page.fields["lifetime"] == str(3 * 24 * 3600)
    page = await browser.post("/routers/invite", name="Nord & Süd", lifetime="86400")
    [string] = {word for word in page.text.split() if word.startswith("relay-invitation:")}
    invitation = Invitation.parse(string)
    assert invitation.expires == NOW + 86400
    assert "Invitation for Nord & Süd" in page.text
    await bridge.rooms.enrolment.enrol(
        (await router_of(bridge, "Nord & Süd")).enrolment(invitation)
    )
    for path in ("/", "/routers"):
        assert string not in (await browser.get(path)).html
    assert invitation.code.hex() not in str(logs)
    assert string not in str(logs)


async def router_of(bridge: Bridge, name: str):
    from tests.bridge.conftest import Router

    return Router(bridge.rooms.network.network, name)


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"name": "", "lifetime": "86400"}, 400, "printable characters"),
        ({"name": EVIL, "lifetime": "86400"}, 400, "printable characters"),
        ({"name": "North", "lifetime": "1"}, 400, "lifetime: expected"),
        ({"name": "North", "lifetime": "soon"}, 400, "lifetime is a whole number"),
        ({"name": "south", "lifetime": "86400"}, 409, "open still"),
    ],
)
async def test_what_is_refused_stands_in_the_form_still(
    bridge: Bridge, fields: dict[str, str], status: int, words: str
) -> None:
    await bridge.rooms.enrolment.invite("South")
    page = await (await bridge.browser()).post("/routers/invite", status, **fields)
    assert words in page.alert
    # A browser makes one line of what stands in a field of one line.
    assert page.fields["name"].split() == fields["name"].split()
    assert "/routers/invite" in page.actions()


async def test_only_administrators_invite(bridge: Bridge) -> None:
    for role in (Role.VIEWER, Role.OPERATOR):
        browser = await bridge.browser(role)
        assert "/routers/invite" not in (await browser.get("/routers")).links
        page = await browser.get("/routers/invite", 403)
        assert "needs the role administrator" in page.text
        page = await browser.post("/routers/invite", 403, name="North", lifetime="86400")
        assert "this needs the role administrator" in page.alert
    assert await bridge.rooms.enrolment.list_invitations() == []


async def test_taken_back_it_lets_nobody_in(bridge: Bridge) -> None:
    invitation = await bridge.rooms.enrolment.invite("North")
    browser = await bridge.browser()
    page = await browser.get("/routers")
    path = f"/invitations/{invitation.invitation_id.hex()}/withdraw"
    assert path in page.actions()
    page = await browser.post(path, name="North")
    assert "The invitation for North is taken back" in page.text
    router = await router_of(bridge, "North")
    with pytest.raises(Refused, match="unknown, expired or used"):
        await bridge.rooms.enrolment.enrol(router.enrolment(invitation))
    page = await browser.post(path, name="North")
    assert "such invitation" in page.alert


async def test_one_that_has_expired_is_forgotten(bridge: Bridge) -> None:
    invitation = await bridge.rooms.enrolment.invite("North", 60)
    bridge.rooms.clock.now += 61
    browser = await bridge.browser()
    page = await browser.get("/routers")
    assert "expired" in page.text
    assert "Forget" in page.text
    await browser.post(f"/invitations/{invitation.invitation_id.hex()}/withdraw", name="North")
    assert "Open invitations" not in (await browser.get("/routers")).text


async def test_others_take_none_back(bridge: Bridge) -> None:
    invitation = await bridge.rooms.enrolment.invite("North")
    browser = await bridge.browser(Role.OPERATOR)
    path = f"/invitations/{invitation.invitation_id.hex()}/withdraw"
    assert path not in (await browser.get("/routers")).actions()
    page = await browser.post(path, name="North")
    assert "needs the role administrator" in page.alert
    assert len(await bridge.rooms.enrolment.list_invitations()) == 1
