"""Whoever asked for storage commitment is told: where it asked, or by a call of its own."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
from pydicom.filereader import read_dataset

from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import CommandField, Tag
from relay.dicom.negotiation import RoleSelection, find
from relay.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL as COMMIT
from relay.errors import AssociationAborted, AssociationRejected, RelayError, RemoteProtocolError
from relay.router.aliases import Alias
from relay.router.queue.reporting import Reports, Told, failure
from tests.router.fakes import IMPLICIT
from tests.router.queue.committing import CT, TRANSACTION, World, event, open_world, request_for

REPORT = request_for("1.2.1")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as world:
        yield world


async def tell(world: World, reports: Reports | None = None) -> int:
    reports = reports or Reports(world.pair.a)
    return await reports.tell(Told.of(world.transaction()), event(2), REPORT)


async def test_a_device_is_called_as_by_the_provider_of_storage_commitment(world: World) -> None:
    """PS3.7 §D.3.3.4: whoever reports over an association of its own proposes to be the SCP."""
    assert await tell(world) == 0
    (call,) = world.ws.calls
    assert (call.called, call.calling) == ("WS", "PACS")
    assert [(c.abstract_syntax, c.transfer_syntaxes) for c in call.contexts] == [
        (COMMIT, (IMPLICIT,))
    ]
    assert find(call.user_items, RoleSelection) == (RoleSelection(COMMIT, scu=False, scp=True),)
    ((said, data_set),) = world.ws.heard
    assert said.command_field == CommandField.N_EVENT_REPORT_RQ
    assert said.number(Tag.EVENT_TYPE_ID) == 2
    assert data_set == REPORT
    assert len(world.pair.a.places) == 0


async def test_its_answer_is_what_it_says(world: World) -> None:
    world.ws.status = lambda command: 0x0110
    assert await tell(world) == 0x0110


async def test_it_is_called_by_the_name_that_it_has_for_the_other(world: World) -> None:
    await world.pair.a.put_alias(Alias("ARCHIVE", "PACS"))
    await tell(world)
    assert world.ws.calls[0].calling == "ARCHIVE"
    ws = world.pair.a.devices.get("WS")
    assert ws is not None
    await world.pair.a.put_device(attrs.evolve(ws, present_as="OUTSIDE"))
    await tell(world)
    assert world.ws.calls[1].calling == "OUTSIDE"


async def test_where_it_asked_comes_first_as_long_as_that_is_open(world: World) -> None:
    reports = Reports(world.pair.a)
    key = Told.of(world.transaction()).key
    told: list[tuple[CommandSet, bytes]] = []

    async def reporter(said: CommandSet, data_set: bytes) -> int:
        told.append((said, data_set))
        return 0x0110

    async def another(said: CommandSet, data_set: bytes) -> int:
        raise AssociationAborted(0, 0, "gone")

    reports.opened(key, reporter)
    assert await tell(world, reports) == 0x0110
    assert told == [(event(2), REPORT)]
    assert world.ws.calls == []
    reports.closed(key, another)  # an older one
    assert await tell(world, reports) == 0x0110
    reports.closed(key, reporter)
    assert await tell(world, reports) == 0
    assert len(world.ws.calls) == 1
    # It was open a moment ago.
    reports.opened(key, another)
    assert await tell(world, reports) == 0
    assert len(world.ws.calls) == 2


async def test_a_device_that_does_not_accept_reports_was_not_told(world: World) -> None:
    world.ws.accepts = False
    with pytest.raises(RelayError, match="does not accept"):
        await tell(world)
    assert len(world.pair.a.places) == 0


async def test_a_device_that_is_gone_or_away_was_not_told(world: World) -> None:
    ws = world.pair.a.devices.get("WS")
    assert ws is not None
    await world.pair.a.put_device(attrs.evolve(ws, port=1))
    with pytest.raises(AssociationAborted):
        await tell(world)
    await world.pair.a.remove_device("WS")
    with pytest.raises(AssociationRejected, match="no device"):
        await tell(world)


async def test_a_name_that_means_another_device_here_is_not_used(world: World) -> None:
    ws = world.pair.a.devices.get("WS")
    assert ws is not None
    other = attrs.evolve(ws, ae_title="X", published="X", present_as="PACS")
    await world.pair.a.devices.put(other)
    with pytest.raises(AssociationRejected):
        await tell(world)
    assert world.ws.calls == []


async def test_a_failure_names_all_that_was_asked_for(world: World) -> None:
    """Delivered or not: only the device commits itself (PS3.4 §J.3.3.1.2)."""
    said, data_set = failure(world.transaction(), request_for("1.2.1", "1.2.2"))
    assert said.number(Tag.EVENT_TYPE_ID) == 2
    assert said.sop_class_uid == COMMIT
    assert said.sop_instance_uid == "1.2.840.10008.1.20.1.1"
    report = read_dataset(io.BytesIO(data_set), True, True)
    assert report.TransactionUID == TRANSACTION
    assert "ReferencedSOPSequence" not in report
    assert [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, item.FailureReason)
        for item in report.FailedSOPSequence
    ] == [(CT, "1.2.1", 0x0110), (CT, "1.2.2", 0x0110)]


async def test_what_cannot_be_read_cannot_be_reported(world: World) -> None:
    with pytest.raises(RemoteProtocolError):
        failure(world.transaction(), b"")
