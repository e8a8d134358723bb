"""The register of live associations."""

import pytest
import trio
import trio.testing

from relay.router import live
from relay.router.live import LiveAssociation, LiveRegister, Side, Work, log_ending
from relay.router.passthrough import Ending, How
from relay.tunnel.handshake import Purpose


def entry(
    device: str = "PACS", permitted: bool = True, side: Side = Side.CALLEE
) -> LiveAssociation:
    return LiveAssociation(
        number="abc",
        side=side,
        device=device,
        calling="WS",
        called=device,
        peer="peer",
        still_permitted=lambda: permitted,
    )


async def test_what_is_no_longer_permitted_is_cancelled_and_the_rest_is_not() -> None:
    register = LiveRegister(5)
    went_on = []
    with register.hold(entry()):
        with register.hold(entry()) as revoked:
            revoked.still_permitted = lambda: False
            assert register.recheck() == 1
            assert register.recheck() == 0
            await trio.lowlevel.checkpoint()
            went_on.append("the revoked one")
        went_on.append("the other")
    assert went_on == ["the other"]


async def test_what_was_taken_away_before_it_began_never_begins() -> None:
    """Its device was removed while the call waited, say: no later change would ask for it again."""
    register = LiveRegister(5)
    went_on = []
    with register.hold(entry(permitted=False)) as held:
        assert held.revoked
        await trio.lowlevel.checkpoint()
        went_on.append("it")
    assert not went_on
    assert not len(register)


async def test_waiting_until_none_is_left() -> None:
    register = LiveRegister(5)
    await register.wait_empty()
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            with register.hold(entry()) as held:
                assert held.to_json()["side"] == "callee"
                nursery.start_soon(register.wait_empty)
                await trio.testing.wait_all_tasks_blocked()


async def test_what_is_over_is_kept_with_how_it_went(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAXIMUM_FINISHED", 2)
    register = LiveRegister(5)
    for device in ("A", "B", "C"):
        with register.hold(entry(device)) as held:
            held.traffic.count(10)
            if device == "B":
                log_ending(held, Ending(How.ABORTED, "router", "why"))
    newest, before = register.finished
    assert (newest["called"], newest["how"], newest["why"]) == ("C", None, "")
    assert (before["called"], before["how"], before["why"]) == ("B", "aborted", "why")
    assert before["bytes_outward"] == 10
    with register.hold(entry("D")) as held:
        held.still_permitted = lambda: False
        register.recheck()
    assert register.finished[0]["revoked"]


async def test_what_was_carried_counts_both_ways_and_only_over_the_line() -> None:
    register = LiveRegister(5)
    with register.hold(entry(side=Side.CALLER)) as calls, register.hold(entry()) as called:
        calls.traffic.count(100)
        called.traffic.count(7)
        assert register.carried() == (100, 7)
    assert register.carried() == (100, 7), "also once they are over"
    with register.hold(entry(side=Side.CALLER)) as queued:
        queued.work = Work.QUEUED
        queued.traffic.count(1000)
    assert register.carried() == (100, 7), "what is only taken in has not left"


def test_each_purpose_of_a_session_has_its_work() -> None:
    assert {Work.of(purpose) for purpose in Purpose} == {
        Work.RELAYED,
        Work.DELIVERY,
        Work.KNOWLEDGE,
    }
