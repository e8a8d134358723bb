"""What a device of ours asks, in the network's names."""

from pathlib import Path

import pytest

from relay.database import open_database
from relay.dicom import dimse
from relay.dicom.dimse import CommandField, Status
from relay.router import commitments as commitments_module
from relay.router.aliases import AliasTable
from relay.router.border import Crossing, Knowledge
from relay.router.commitments import CommitmentTable
from relay.router.departure import Departure
from relay.router.devices import Device, DeviceTable
from relay.router.moves import MoveRegister
from relay.router.names import Names
from relay.router.refusals import Refusals
from relay.router.schema import MIGRATIONS
from tests.router.borders import (
    NOW,
    OWN,
    PEER,
    THIRD,
    TRANSACTION,
    WS,
    FakeDirectory,
    World,
    final,
    finish,
    passed_on,
    pending,
)
from tests.router.fakes import move_rq, store_rq


@pytest.mark.parametrize(
    ("asked", "goes_on"),
    [
        ("WS1", "SOUTH_WS1"),  # itself, never the other hospital's WS1
        ("SOUTH_WS1", "SOUTH_WS1"),
        ("NORTH_WS1", "WS1"),
        ("NORTH_PACS", "PACS"),
        ("WS3", "WS3"),
        ("PACS", "SOUTH_PACS"),
    ],
)
async def test_a_destination_leaves_by_its_published_name(
    world: World, asked: str, goes_on: str
) -> None:
    crossing = world.departure().move_asked(move_rq(asked, 9))
    assert passed_on(crossing) == (goes_on, 9)


@pytest.mark.parametrize(
    ("asked", "comment"),
    [
        ("", "RELAY: '' is unknown; see relay doctor"),
        ("RELAY", "RELAY: RELAY is unknown; see relay doctor"),
        ("NOBODY", "RELAY: NOBODY is unknown; see relay doctor"),
        ("SCANNER", "RELAY: refuses SCANNER; publish with store"),
        ("LEFT_OVER", "RELAY: LEFT_OVER is unknown; see relay doctor"),
        ("SOUTH_PACS\\X", "RELAY: SOUTH_PACS?X is unknown; see relay doctor"),
        ("L\x07", "RELAY: L? is unknown; see relay doctor"),
        ("X" * 40, f"RELAY: {'X' * 16} is unknown; see relay doctor"),
    ],
)
async def test_a_destination_that_cannot_be_is_unknown_and_who_says_so_is_told(
    world: World, asked: str, comment: str
) -> None:
    crossing = world.departure().move_asked(move_rq(asked))
    assert crossing.status == Status.MOVE_DESTINATION_UNKNOWN
    assert crossing.comment == comment
    assert len(world.moves) == 0


async def test_what_was_asked_for_our_device_is_let_in_until_the_final_response(
    world: World,
) -> None:
    border = world.departure()
    border.move_asked(move_rq("WS1", 4))
    assert world.moves.expects(PEER, "WS1")
    assert not world.moves.expects(THIRD, "WS1")
    assert border.move_answered(pending(4), final=False) == Crossing()
    other = border.move_answered(final(5), final=True)
    await finish(other)
    assert world.moves.expects(PEER, "WS1")
    await finish(border.move_answered(final(4), final=True))
    assert not world.moves.expects(PEER, "WS1")
    assert len(world.moves) == 0


async def test_a_move_to_another_hospital_lets_nothing_in(world: World) -> None:
    world.departure().move_asked(move_rq("WS3"))
    assert len(world.moves) == 0


async def test_the_end_of_the_association_ends_what_it_asked_for(world: World) -> None:
    border = world.departure()
    border.move_asked(move_rq("WS1", 1))
    border.move_asked(move_rq("PACS", 2))
    border.move_asked(move_rq("PACS", 2))  # there are devices that count nothing
    assert len(world.moves) == 3
    await finish(border.move_answered(final(2), final=True))
    assert world.moves.expects(PEER, "PACS")
    await finish(border.move_answered(final(2), final=True))
    assert not world.moves.expects(PEER, "PACS")
    border.close()
    border.close()
    assert len(world.moves) == 0


async def test_the_command_line_moves_as_well(world: World) -> None:
    border = world.departure(None)
    assert passed_on(border.move_asked(move_rq("WS1", 1))) == ("SOUTH_WS1", 1)
    assert border.stores(store_rq(), implied=False) == Crossing()
    assert border.commitment_asked(TRANSACTION).status == Status.PROCESSING_FAILURE
    assert border.report_received(TRANSACTION).status == Status.NOT_AUTHORIZED


async def test_a_cancel_leaves_as_it_is(world: World) -> None:
    cancel = dimse.request(CommandField.C_CANCEL_RQ, 3)
    border = world.departure()
    border.move_asked(move_rq("WS1", 3))
    assert border.move_cancelled(cancel) == cancel


async def test_without_other_names_no_answer_is_looked_into(tmp_path: Path) -> None:
    async with open_database(tmp_path / "plain.db", MIGRATIONS) as database:
        devices, aliases = await DeviceTable.load(database), await AliasTable.load(database)
        await devices.put(Device("PACS", "h"))
        knowledge = Knowledge(
            names=Names("RELAY", devices, aliases),
            moves=MoveRegister(),
            commitments=await CommitmentTable.load(database),
            directory=FakeDirectory(),
            own=OWN,
            clock=lambda: NOW,
            refusals=Refusals(),
        )
        assert Departure(knowledge, WS, PEER, "PACS").retrieve_title() is None


async def test_a_full_table_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await finish(world.departure().commitment_asked(TRANSACTION))
    monkeypatch.setattr(commitments_module, "MAXIMUM_COMMITMENTS", 1)
    refused = world.departure().commitment_asked("1.2.9")
    assert refused.status == Status.RESOURCE_LIMITATION
