"""Every cause and every state has words, and every link leads to a page of ours."""

from typing import Any

import pytest

from relay.router.causes import Cause
from relay.router.pages import explaining
from relay.router.queue.warnings import Kind
from relay.signalling.authentication import NOT_LET_IN
from relay.spool.items import Hold, State

PAGES = {
    "/",
    "/audit",
    "/devices/new",
    "/devices/edit",
    "/network",
    "/network/ask",
    "/network/names",
    "/network/peers",
    "/transfers",
    "/transfers/items",
}


def leads_to_a_page(remedy: explaining.Remedy) -> bool:
    return not remedy.href or remedy.href.partition("?")[0].partition("#")[0] in PAGES


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_has_its_remedy(cause: Cause) -> None:
    remedy = explaining.of_refusal({"calling": "A&B", "called": "C D", "cause": cause.value})
    assert len(remedy.words) > 20
    assert leads_to_a_page(remedy)
    assert bool(remedy.label) == bool(remedy.href)
    assert "A&B" not in remedy.href, "an AE title in a link is escaped"


def item(**fields: Any) -> dict[str, Any]:
    blank = {"state": "failed", "hold": None, "status": None, "reason": ""}
    return blank | {"paused": None, "trouble": None} | fields


@pytest.mark.parametrize("state", State)
def test_each_state_has_its_remedy(state: State) -> None:
    words = explaining.of_item(item(state=state.word)).words
    assert bool(words) == (state not in (State.DELIVERED, State.DISCARDED))


@pytest.mark.parametrize("hold", [hold for hold in Hold if hold])
def test_each_hold_has_a_remedy_of_its_own(hold: Hold) -> None:
    held = explaining.of_item(item(state="held", hold=hold.name.lower()))
    assert held.words != explaining.of_item(item(state="held", hold="another")).words
    assert leads_to_a_page(held)


def test_failures_differ_by_the_status_of_the_far_device() -> None:
    words = {
        status: explaining.of_item(item(status=status)).words
        for status in ("A900", "0122", "0117", "0111", "C123", "0110", None)
    }
    assert words["C123"] == words["0110"]
    assert len(set(words.values())) == len(words) - 1
    lost = explaining.of_item(item(reason="its file is not there: the disk has lost it"))
    assert "Send it again from the modality" in lost.words


def test_what_waits_says_why() -> None:
    by = {who: item(state="waiting", paused={"by": who}) for who in ("person", "device")}
    assert "resumes" in explaining.of_item(by["person"]).words
    assert "mended at the far hospital first" in explaining.of_item(by["device"]).words
    assert "again by itself" in explaining.of_item(item(state="waiting", trouble="away")).words


@pytest.mark.parametrize("kind", Kind)
def test_each_warning_leads_to_a_page(kind: Kind) -> None:
    remedy = explaining.of_warning({"warning": kind.value, "destination": "A B&C"})
    assert remedy.href
    assert leads_to_a_page(remedy)


def test_a_lost_bridge_is_explained_and_a_revoked_router_otherwise() -> None:
    lost = {"enrolled": True, "connected": False, "last_failure": "no route to host"}
    assert "relay doctor" in explaining.of_connection(lost)
    assert explaining.NOT_LET_IN == NOT_LET_IN
    revoked = explaining.of_connection(lost | {"last_failure": f"{NOT_LET_IN}: revoked"})
    assert "new invitation" in revoked
    assert explaining.of_connection(lost | {"connected": True}) == ""
    assert explaining.of_connection(lost | {"enrolled": False}) == ""
