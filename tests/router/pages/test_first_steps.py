"""The first steps: the invitation, the first device, its test."""

from pathlib import Path

import pytest

from relay.identity import Identity
from relay.invitation import Invitation
from relay.people.roles import Role
from relay.router.pages.first_steps import FirstSteps, Step
from tests.router.pages.site import NASTY, browser, text, value_of

BRIDGE = Identity.from_seed(bytes(32)).public
INVITATION = Invitation("https://b.example", bytes(16), bytes(16), BRIDGE, bytes(16), 1)


@pytest.mark.parametrize(
    ("enrolled", "devices", "step"),
    [(False, 0, Step.ENROL), (False, 3, Step.ENROL), (True, 0, Step.DEVICE), (True, 1, Step.DONE)],
)
def test_which_step_is_next(enrolled: bool, devices: int, step: Step) -> None:
    assert FirstSteps.next({"enrolled": enrolled, "devices": devices}) is step


async def test_an_invitation_is_taken_however_it_was_broken_into_lines(tmp_path: Path) -> None:
    pasted = INVITATION.to_string()
    async with browser(tmp_path) as visitor:
        page = await visitor.post("/enrol", invitation=f"  {pasted[:40]}\r\n {pasted[40:]}\n")
        assert visitor.invitations == [INVITATION]
        assert "has joined as Hospital RELAY" in text(page)
        again = await visitor.post("/enrol", invitation=pasted)
        assert "is Hospital RELAY already" in text(again)


async def test_what_is_no_invitation_is_refused_and_stays_typed(tmp_path: Path) -> None:
    async with browser(tmp_path, enrolled=False) as visitor:
        for typed, words in (("", "paste the invitation"), ("relay-invitation:x", "invitation")):
            page = await visitor.post("/enrol", 400, invitation=typed)
            assert words in text(page)
            assert value_of(page, "invitation") == typed
        page = await visitor.post("/enrol", 400, invitation=NASTY.replace("\u202e", ""))
        assert "<b>" not in page


async def test_then_the_overview_asks_for_the_first_device_and_its_page_for_the_test(
    tmp_path: Path,
) -> None:
    async with browser(tmp_path) as visitor:
        assert "Add the first device" in text(await visitor.get("/"))
        typed = {"ae_title": "PACS", "host": "192.0.2.1", "port": "104", "services": "echo"}
        page = await visitor.post("/devices/new", **typed)
        assert "PACS was added. Test it now." in text(page)
        assert "Press Test" in text(page)
        assert "Add the first device" not in text(await visitor.get("/"))


async def test_who_may_not_join_is_told_who_may(tmp_path: Path) -> None:
    async with browser(tmp_path, enrolled=False) as administrator:
        operator = await administrator.sign_in(Role.OPERATOR)
        page = await operator.get("/")
    assert "Only an administrator" in text(page)
    assert 'name="invitation"' not in page
