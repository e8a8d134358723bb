"""A request for storage commitment goes to the device, and its answer comes back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import attrs
import pytest

from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import CommandField, Status, Tag
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import AReleaseRQ, Atom
from relay.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL as COMMIT
from relay.errors import AssociationRejected, RelayError, RemoteProtocolError, leaves
from relay.router.queue import forwarding as module
from relay.router.queue.forwarding import _Asking, forward
from relay.tunnel.session import TunnelAssociation
from tests.router.fakes import IMPLICIT, FakeAssociation, command, data
from tests.router.queue.committing import World, event, open_world, request_for

ASKED = request_for("1.2.1", "1.2.2")
BYE = AReleaseRQ()


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "REPORT_HERE", 0.5)
    async with open_world(tmp_path) as world:
        yield world


@attrs.define
class Handed:
    """What was handed on, and what it is answered with."""

    status: int = Status.SUCCESS
    reports: list[tuple[CommandSet, bytes]] = attrs.Factory(list)

    async def __call__(self, event: CommandSet, data_set: bytes) -> int:
        self.reports.append((event, data_set))
        return self.status


async def test_the_device_is_asked_as_it_was_meant(world: World) -> None:
    handed = Handed()
    status = await forward(world.pair.a, world.transaction(), ASKED, handed)
    assert status == Status.SUCCESS
    ((command, data_set),) = world.pacs.heard
    assert command.command_field == CommandField.N_ACTION_RQ
    assert command.number(Tag.ACTION_TYPE_ID) == 1
    assert command.sop_instance_uid == "1.2.840.10008.1.20.1.1"
    assert data_set == ASKED
    assert [(call.called, call.calling) for call in world.pacs.calls] == [("PACS", "WS")]
    assert handed.reports == []


async def test_the_devices_answer_is_what_it_says(world: World) -> None:
    world.pacs.status = lambda command: 0x0213
    assert await forward(world.pair.a, world.transaction(), ASKED, Handed()) == 0x0213


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("status", [0, 0x0110])
async def test_a_report_over_the_same_association_is_handed_on(
    world: World, when: str, status: int
) -> None:
    handed = Handed(status)
    report = (event(1, 9), ASKED)
    setattr(world.pacs, when, [report])
    assert await forward(world.pair.a, world.transaction(), ASKED, handed) == Status.SUCCESS
    ((said, data_set),) = handed.reports
    assert said.number(Tag.EVENT_TYPE_ID) == 1
    assert data_set == ASKED
    _, (answer, _) = world.pacs.heard
    assert answer.command_field == CommandField.N_EVENT_REPORT_RSP
    assert (answer.status, answer.message_id_responded_to) == (status, 9)


@pytest.mark.parametrize("atom", [command(1, event(1).evolve({Tag.COMMAND_FIELD: 0x0777})), BYE])
async def test_what_is_out_of_turn_is_no_answer(world: World, atom: Atom) -> None:
    """From a Router that does not guard its device."""
    far = FakeAssociation()
    asking = _Asking(cast(TunnelAssociation, far), AcceptedContext(1, COMMIT, IMPLICIT), Handed())
    far.say(atom, data(1))
    with pytest.raises(RemoteProtocolError, match="out of turn"):
        await asking.ask(world.transaction(), ASKED)


async def test_what_is_out_of_turn_after_the_answer_does_not_take_it_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hear(asking: _Asking) -> None:
        raise RemoteProtocolError("out of turn")

    monkeypatch.setattr(_Asking, "hear", hear)
    assert await forward(world.pair.a, world.transaction(), ASKED, Handed()) == Status.SUCCESS


async def test_who_does_not_accept_it_says_so(world: World) -> None:
    world.pacs.accepts = False
    with pytest.raises((RelayError, ExceptionGroup)) as raised:
        await forward(world.pair.a, world.transaction(), ASKED, Handed())
    assert "not accepted there" in str(next(leaves(raised.value)))


async def test_another_hospitals_title_is_not_asked(world: World) -> None:
    elsewhere = attrs.evolve(world.transaction(), peer=bytes(32))
    with pytest.raises(AssociationRejected, match="another hospital"):
        await forward(world.pair.a, elsewhere, ASKED, Handed())
    assert world.pacs.calls == []


async def test_a_device_that_has_nothing_granted_is_not_asked(tmp_path: Path) -> None:
    async with open_world(tmp_path, "echo") as world:
        with pytest.raises((RelayError, ExceptionGroup)):
            await forward(world.pair.a, world.transaction(), ASKED, Handed())
        assert world.pacs.calls == []


async def test_a_report_has_a_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAXIMUM_REPORT", 10)
    world.pacs.before = [(event(1), bytes(11))]
    with pytest.raises((RemoteProtocolError, ExceptionGroup)):
        await forward(world.pair.a, world.transaction(), ASKED, Handed())
