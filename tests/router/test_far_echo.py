"""C-ECHO of another hospital's device, from end to end and for whatever goes wrong."""

from pathlib import Path

import pytest
import trio

from relay.association import TCPAssociation
from relay.dicom.pdu import AAssociateRQ
from relay.dicom.rejection import LOCAL_LIMIT_EXCEEDED
from relay.router import far_echo
from relay.router.aliases import Alias
from relay.router.devices import Device
from relay.router.far_echo import echo_far
from tests.router.fakes import hospital, two_hospitals, yes_to_all


async def test_it_goes_through_the_network_and_back(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "echo") as both:
        echoed = await echo_far(both.a, "PACS")
        assert echoed.finding.ok, echoed.finding.advice
        assert echoed.milliseconds is not None
        await both.a.put_alias(Alias("LOCAL", "PACS"))
        assert (await echo_far(both.a, "LOCAL")).finding.ok
    assert both.a.live.finished[0]["called"] == "PACS"


async def test_what_is_not_granted_says_how_to_ask(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, published=["echo"]) as both:
        echoed = await echo_far(both.a, "PACS")
    assert not echoed.finding.ok
    assert echoed.milliseconds is None
    assert "relay grant ask PACS" in echoed.finding.advice


async def test_where_only_others_services_are_granted(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store", published=["echo", "store"]) as both:
        echoed = await echo_far(both.a, "PACS")
    assert not echoed.finding.ok
    assert "grant" in echoed.finding.advice


async def test_a_device_that_is_full_says_so(tmp_path: Path) -> None:
    async def full(association: TCPAssociation) -> None:
        assert isinstance(await association.receive(), AAssociateRQ)
        await association.send(LOCAL_LIMIT_EXCEEDED)

    async with two_hospitals(tmp_path, full, "echo") as both:
        echoed = await echo_far(both.a, "PACS")
    assert "PACS" in echoed.finding.advice
    assert not echoed.finding.ok


async def test_a_device_that_answers_too_late_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_echo, "ECHO_WAIT", 0.2)

    async def silent(association: TCPAssociation) -> None:
        await association.receive()
        await trio.sleep_forever()

    async with two_hospitals(tmp_path, silent, "echo") as both:
        echoed = await echo_far(both.a, "PACS")
    assert not echoed.finding.ok
    assert "no answer within 0.2 s" in echoed.finding.advice


async def test_what_is_no_other_hospitals_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "new", enrolled=False) as new:
        await me.put_device(Device("PACS", "192.0.2.1"))
        assert "relay device test PACS" in (await echo_far(me, "PACS")).finding.advice
        assert "not published" in (await echo_far(me, "NOBODY")).finding.advice
        assert "not enrolled" in (await echo_far(new, "PACS")).finding.advice
