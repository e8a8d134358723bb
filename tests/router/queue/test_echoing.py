"""C-ECHO on an association for the queue."""

from pathlib import Path

import pytest
import trio

from relay.dicom.pdu import AAssociateRJ
from relay.router.queue import echoing
from relay.router.queue.admission import Intake
from relay.router.queue.echoing import live_echo
from relay.spool.items import Priority
from tests.router.fakes import CT, proposal
from tests.router.queue.sending import Archive, Instead, Sending, sending


def intake_of(it: Sending) -> Intake:
    held = it.queue.acceptance.known(it.both.a, "PACS", "WS", int(it.clock()))
    assert held is not None
    return Intake(
        queue=it.queue,
        device=it.both.a.devices.get("WS"),
        request=proposal(CT),
        held=held,
        priority=Priority.NORMAL,
    )


@pytest.mark.parametrize("status", [0, 0x0110, 0x0122])
async def test_the_devices_own_answer(tmp_path: Path, status: int) -> None:
    archive = Archive(answer=lambda content: status)
    async with sending(tmp_path, archive, couriers=False) as it:
        assert await live_echo(intake_of(it)) == status
    assert archive.released == 1
    assert [request.calling for request in archive.requests] == ["WS"]


@pytest.mark.parametrize(
    "archive",
    [
        Archive(on_request=lambda request: AAssociateRJ(1, 1, 3)),
        Archive(takes=()),
        Archive(answer=lambda content: Instead.ABORT),
    ],
)
async def test_no_answer_is_a_failure(tmp_path: Path, archive: Archive) -> None:
    async with sending(tmp_path, archive, couriers=False) as it:
        assert await live_echo(intake_of(it)) == 0x0110


async def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echoing, "ECHO_WAIT", 0.1)
    archive = Archive(answer=lambda content: Instead.SILENCE)
    async with sending(tmp_path, archive, couriers=False) as it:
        with trio.fail_after(5):
            assert await live_echo(intake_of(it)) == 0x0110


async def test_without_a_network(tmp_path: Path) -> None:
    async with sending(tmp_path, couriers=False) as it:
        intake = intake_of(it)
        it.both.bridge.cut(it.both.bridge.caller)
        assert await live_echo(intake) == 0x0110
        it.both.bridge.restore(it.both.bridge.caller)
