"""Names of commands that cross, and what is let across because it was asked for."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from relay.database import open_database
from relay.dicom import dimse
from relay.dicom.dimse import CommandField, CommandSet, Status, Tag
from relay.router import commitments as commitments_module
from relay.router.aliases import Alias, AliasTable
from relay.router.border import Arrival, Crossing, Departure, Knowledge
from relay.router.commitments import Commitment, CommitmentTable
from relay.router.devices import Device, DeviceTable, MoveVia
from relay.router.moves import ABANDONED_WAIT, MAXIMUM_DESTINATIONS, SETTLE_WAIT, MoveRegister
from relay.router.names import Names
from relay.router.schema import MIGRATIONS
from tests.router.fakes import move_rq, store_rq

OWN, PEER, THIRD = b"own" * 11, b"peer" * 8, b"third" * 7
NOW = 1_700_000_000
TRANSACTION = "1.2.3.4.5"
STORE = frozenset({"store"})

PACS = Device("PACS", "h", published="SOUTH_PACS", services=STORE)
WS = Device("WS1", "h", published="SOUTH_WS1", services=STORE)
SCANNER = Device("SCANNER", "h", services=frozenset({"echo"}))
ALIASES = (Alias("NORTH_PACS", "PACS"), Alias("NORTH_WS1", "WS1"))


@attrs.define
class FakeDirectory:
    """Who publishes what, and what of it is granted to this hospital."""

    owners: dict[str, bytes] = attrs.Factory(
        lambda: {
            "SOUTH_PACS": OWN,
            "SOUTH_WS1": OWN,
            "SCANNER": OWN,
            "LEFT_OVER": OWN,  # a device that was removed, and that the Bridge still shows
            "PACS": PEER,
            "WS1": PEER,
            "SCANNER_WS": PEER,
            "WS3": THIRD,
            "NORTH_PACS": THIRD,  # what is somebody else's name here
        }
    )
    grants: dict[str, frozenset[str]] = attrs.Factory(dict)

    def owner(self, title: str) -> bytes | None:
        return self.owners.get(title)

    def granted(self, title: str) -> frozenset[str]:
        return self.grants.get(title, frozenset())


@attrs.define
class World:
    knowledge: Knowledge
    moves: MoveRegister
    directory: FakeDirectory
    commitments: CommitmentTable
    refused: list[tuple[str, str, str]]

    def departure(self, device: Device | None = WS, called: str = "PACS") -> Departure:
        return Departure(self.knowledge, device, PEER, called)

    def arrival(
        self,
        device: Device = PACS,
        calling: str = "WS1",
        *,
        seen: str = "NORTH_WS1",
        stores_at: Collection[str] = (),
        peer: bytes = PEER,
    ) -> Arrival:
        return Arrival(
            self.knowledge,
            device,
            peer,
            calling,
            seen=device.present_as or seen,
            may_store=lambda own: own.ae_title in stores_at,
        )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


@asynccontextmanager
async def open_world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_database(tmp_path / "router.db", MIGRATIONS) as database:
        devices, aliases = await DeviceTable.load(database), await AliasTable.load(database)
        for device in (PACS, WS, SCANNER):
            await devices.put(device)
        for alias in ALIASES:
            await aliases.put(alias)
        moves, directory = MoveRegister(), FakeDirectory()
        commitments = await CommitmentTable.load(database)
        refused: list[tuple[str, str, str]] = []
        knowledge = Knowledge(
            names=Names("RELAY", devices, aliases),
            moves=moves,
            commitments=commitments,
            directory=directory,
            own=OWN,
            clock=lambda: NOW,
            refused=lambda *refusal: refused.append(refusal),
        )
        yield World(knowledge, moves, directory, commitments, refused)


def final(message_id: int, status: int = 0) -> CommandSet:
    return dimse.response_to(move_rq("X", message_id), status)


def pending(message_id: int) -> CommandSet:
    return final(message_id, Status.PENDING)


def moved_rq(originator: str | bytes, message_id: int | None = None) -> CommandSet:
    values: dict[int, int | str | bytes] = {
        Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: originator
    }
    if message_id is not None:
        values[Tag.MOVE_ORIGINATOR_MESSAGE_ID] = message_id
    return store_rq().evolve(values)


def originator(crossing: Crossing, asked: CommandSet) -> tuple[str | None, int | None]:
    assert crossing.status is None
    command = crossing.command or asked
    return (
        command.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE),
        command.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID),
    )


def passed_on(crossing: Crossing) -> tuple[str | None, int]:
    """The Move Destination and Message ID with which a C-MOVE goes on."""
    assert crossing.status is None
    assert crossing.command is not None
    return crossing.command.move_destination, crossing.command.message_id


async def finish(crossing: Crossing) -> None:
    assert crossing.before is not None
    await crossing.before()


# --- departure: a device of ours asks -------------------------------------------------------------


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
    "asked",
    [
        "",
        "RELAY",
        "NOBODY",
        "SCANNER",  # published without `store`
        "LEFT_OVER",
        "SOUTH_PACS\\X",
    ],
)
async def test_a_destination_that_cannot_be_is_unknown(world: World, asked: str) -> None:
    crossing = world.departure().move_asked(move_rq(asked))
    assert crossing.status == Status.MOVE_DESTINATION_UNKNOWN
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


async def test_retrieve_ae_titles_come_by_their_local_names(world: World) -> None:
    rename = world.departure().retrieve_title()
    assert rename is not None
    assert [rename(t) for t in ("PACS", "SOUTH_PACS", "WS3", "NORTH_PACS", "RELAY", "")] == [
        "NORTH_PACS",
        "PACS",
        "WS3",
        "NORTH_PACS",  # means something else here: what it is cannot be said
        "RELAY",
        "",
    ]
    outward = world.arrival().retrieve_title()
    assert outward is not None
    assert [outward(t) for t in ("PACS", "NORTH_PACS", "WS3", "RELAY", "")] == [
        "SOUTH_PACS",
        "PACS",
        "WS3",
        "RELAY",
        "",
    ]


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
            refused=lambda *refusal: None,
        )
        assert Departure(knowledge, WS, PEER, "PACS").retrieve_title() is None


# --- departure: our device stores for a C-MOVE of another hospital --------------------------------


async def test_a_stored_object_names_who_asked_for_it(world: World) -> None:
    arrival = world.arrival()
    arrival.move_asked(move_rq("WS1", 12))
    border = world.departure(PACS, "WS1")
    asked = moved_rq("NORTH_WS1", 12)
    assert originator(border.stores(asked, implied=False), asked) == ("WS1", 12)
    # What is of no move goes by its name all the same.
    asked = moved_rq("NORTH_WS1", 13)
    assert originator(border.stores(asked, implied=False), asked) == ("WS1", 13)
    asked = moved_rq("PACS", 13)
    assert originator(border.stores(asked, implied=False), asked) == ("SOUTH_PACS", 13)


@pytest.mark.parametrize(
    "strange", [b"RELAY ", b"Sch\xf6nes ", b"\0\0", b"", b"MUCH TOO LONG FOR AN AE TITLE "]
)
async def test_a_move_originator_that_means_nothing_is_left_alone(
    world: World, strange: bytes
) -> None:
    """PS3.7 §9.1.1 has a receiver ignore it; so it must not cost the association."""
    asked = moved_rq(strange, 1)
    for border in (world.departure(), world.arrival()):
        assert border.stores(asked, implied=False) == Crossing()


async def test_an_object_of_no_move_is_as_it_was(world: World) -> None:
    for border in (world.departure(), world.arrival()):
        assert border.stores(store_rq(), implied=False) == Crossing()


# --- arrival: a peer's device asks ours -----------------------------------------------------------


async def test_a_destination_arrives_by_its_local_name(world: World) -> None:
    border = world.arrival()
    assert passed_on(border.move_asked(move_rq("WS1", 3))) == ("NORTH_WS1", 3)
    assert passed_on(border.move_asked(move_rq("SCANNER_WS", 4))) == ("SCANNER_WS", 4)
    assert len(world.moves) == 2


@pytest.mark.parametrize("granted", [True, False])
async def test_our_own_device_is_a_destination_for_who_may_store_there(
    world: World, granted: bool
) -> None:
    border = world.arrival(stores_at=["WS1"] if granted else ["PACS"])
    crossing = border.move_asked(move_rq("SOUTH_WS1", 3))
    if granted:
        assert passed_on(crossing) == ("WS1", 3)
    else:
        assert crossing.status == Status.MOVE_DESTINATION_UNKNOWN


@pytest.mark.parametrize(
    ("granted", "allowed"), [({"store"}, True), ({"query", "retrieve"}, False), (set(), False)]
)
async def test_a_third_hospital_must_have_granted_store(
    world: World, granted: set[str], allowed: bool
) -> None:
    world.directory.grants["WS3"] = frozenset(granted)
    crossing = world.arrival().move_asked(move_rq("WS3", 3))
    if allowed:
        assert passed_on(crossing) == ("WS3", 3)
    else:
        assert crossing.status == Status.MOVE_DESTINATION_UNKNOWN
        assert len(world.moves) == 0
        ((calling, called, why),) = world.refused
        assert (calling, called) == ("WS1", "PACS")
        assert "relay grant ask WS3 --services store" in why


async def test_who_asked_for_a_destination_that_cannot_be_is_told_to_people(world: World) -> None:
    """By the titles of this hospital, with the command that helps."""
    world.departure().move_asked(move_rq("SCANNER"))
    world.departure(None).move_asked(move_rq("NOBODY"))
    world.arrival().move_asked(move_rq("SOUTH_WS1"))
    (scanner, nobody, other) = world.refused
    assert scanner[:2] == ("WS1", "NORTH_PACS")
    assert scanner[2].startswith("Move Destination SCANNER (A801H): ")
    assert "relay device add SCANNER … --publish store" in scanner[2]
    assert nobody[:2] == ("RELAY", "NORTH_PACS")
    assert "relay alias add LOCAL PUBLISHED" in nobody[2]
    assert other[:2] == ("WS1", "PACS")
    assert "relay grant add HOSPITAL SOUTH_WS1 --services store" in other[2]


@pytest.mark.parametrize("via", list(MoveVia))
@pytest.mark.parametrize("title", ["", "NOBODY", "RELAY", "LEFT_OVER", "SCANNER"])
async def test_what_nobody_publishes_is_no_destination(
    world: World, title: str, via: MoveVia
) -> None:
    border = world.arrival(attrs.evolve(PACS, move_via=via))
    assert border.move_asked(move_rq(title)).status == Status.MOVE_DESTINATION_UNKNOWN
    assert len(world.moves) == 0


async def test_a_name_that_means_another_device_here_is_no_destination(world: World) -> None:
    """Of the other hospital's NORTH_PACS the PACS here knows only its own."""
    world.directory.grants["NORTH_PACS"] = STORE
    border = world.arrival()
    assert border.move_asked(move_rq("NORTH_PACS")).status == Status.MOVE_DESTINATION_UNKNOWN
    assert "relay alias add LOCAL NORTH_PACS" in world.refused[-1][2]
    # One that goes by way of its Router needs no name for it.
    border = world.arrival(attrs.evolve(PACS, move_via=MoveVia.ROUTER))
    assert passed_on(border.move_asked(move_rq("NORTH_PACS")))[0] == "RELAY"


async def test_by_way_of_the_router_it_is_the_destination_and_message_ids_tell(
    world: World,
) -> None:
    device = attrs.evolve(PACS, move_via=MoveVia.ROUTER)
    first, second = world.arrival(device), world.arrival(device)
    router, one = passed_on(first.move_asked(move_rq("WS1", 1)))
    again, two = passed_on(second.move_asked(move_rq("SCANNER_WS", 1)))
    assert router == again == "RELAY"
    assert one != two
    assert world.moves.destinations("PACS") == ["WS1", "SCANNER_WS"]
    move = world.moves.find("PACS", "NORTH_WS1", two)
    assert move is not None
    assert (move.requestor, move.message_id, move.destination) == ("WS1", 1, "SCANNER_WS")


async def test_by_way_of_the_router_our_own_device_is_still_called_by_its_name(
    world: World,
) -> None:
    border = world.arrival(attrs.evolve(PACS, move_via=MoveVia.ROUTER), stores_at=["WS1"])
    assert passed_on(border.move_asked(move_rq("SOUTH_WS1", 3))) == ("WS1", 3)
    assert world.moves.destinations("PACS") == []


async def test_too_many_destinations_by_way_of_the_router(world: World) -> None:
    for number in range(MAXIMUM_DESTINATIONS + 1):
        world.directory.owners[f"WS1{number}"] = PEER
    border = world.arrival(attrs.evolve(PACS, move_via=MoveVia.ROUTER))
    for number in range(MAXIMUM_DESTINATIONS):
        assert border.move_asked(move_rq(f"WS1{number}", number)).status is None
    refused = border.move_asked(move_rq(f"WS1{MAXIMUM_DESTINATIONS}", 99))
    assert refused.status == Status.UNABLE_TO_PERFORM_SUBOPERATIONS
    assert len(world.moves) == MAXIMUM_DESTINATIONS


@pytest.mark.parametrize("title", ["OUTSIDE", "RELAY"])  # the Router's own title is one of both
async def test_under_one_name_for_all_message_ids_tell(world: World, title: str) -> None:
    device = attrs.evolve(PACS, present_as=title)
    first, second = world.arrival(device), world.arrival(device, "SCANNER_WS")
    _, one = passed_on(first.move_asked(move_rq("WS1", 7)))
    destination, two = passed_on(second.move_asked(move_rq("SCANNER_WS", 7)))
    assert destination == "SCANNER_WS"
    assert len({one, two, 7}) == 3
    border = world.departure(device, "SCANNER_WS")
    asked = moved_rq(title, two)
    assert originator(border.stores(asked, implied=False), asked) == ("SCANNER_WS", 7)
    asked = moved_rq(title, one)
    assert originator(border.stores(asked, implied=False), asked) == ("WS1", 7)


# --- arrival: answers and cancels -----------------------------------------------------------------


async def test_answers_and_cancels_have_the_message_id_of_the_other_side(world: World) -> None:
    border = world.arrival(attrs.evolve(PACS, move_via=MoveVia.ROUTER))
    _, one = passed_on(border.move_asked(move_rq("WS1", 1)))
    _, two = passed_on(border.move_asked(move_rq("SCANNER_WS", 2)))
    for seen, asked in ((one, 1), (two, 2)):
        answer = border.move_answered(pending(seen), final=False)
        assert answer.before is None
        assert answer.command is not None
        assert answer.command.message_id_responded_to == asked
        assert answer.command.status == Status.PENDING
        cancel = border.move_cancelled(dimse.request(CommandField.C_CANCEL_RQ, asked))
        assert cancel.message_id_responded_to == seen
    other = dimse.request(CommandField.C_CANCEL_RQ, 3)
    assert border.move_cancelled(other) == other
    answer = border.move_answered(final(two, Status.CANCEL), final=True)
    assert answer.command is not None
    assert answer.command.message_id_responded_to == 2
    await finish(answer)
    assert world.moves.destinations("PACS") == ["WS1"]


async def test_a_move_that_is_over_is_not_cancelled_any_more(world: World) -> None:
    """There are devices with one Message ID for all they ask: the next C-CANCEL is of a C-GET."""
    border = world.arrival(attrs.evolve(PACS, move_via=MoveVia.ROUTER))
    _, seen = passed_on(border.move_asked(move_rq("WS1", 1)))
    await finish(border.move_answered(final(seen), final=True))
    cancel = dimse.request(CommandField.C_CANCEL_RQ, 1)
    assert border.move_cancelled(cancel) == cancel
    assert len(world.moves) == 0


@pytest.mark.parametrize("outstanding", [1, 2])
async def test_an_answer_with_a_message_id_of_its_own_is_that_of_the_only_move(
    world: World, outstanding: int
) -> None:
    border = world.arrival(attrs.evolve(PACS, move_via=MoveVia.ROUTER))
    for number in range(outstanding):
        border.move_asked(move_rq("WS1", number + 1))
    answer = border.move_answered(final(77), final=True)
    if outstanding == 2:
        assert answer == Crossing()
        assert len(world.moves) == 2
        return
    assert answer.command is not None
    assert answer.command.message_id_responded_to == 1
    await finish(answer)
    assert len(world.moves) == 0


async def test_the_final_answer_waits_for_what_still_stores(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    border = world.arrival()
    border.move_asked(move_rq("WS1", 1))

    async def store() -> None:
        with world.moves.storing("PACS", "WS1"):
            await trio.sleep(4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store)
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await finish(border.move_answered(final(1), final=True))
        assert trio.current_time() - begin == pytest.approx(4)
    assert len(world.moves) == 0


async def test_who_stops_waiting_for_a_final_answer_leaves_no_move(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    for via in MoveVia:
        border = world.arrival(attrs.evolve(PACS, move_via=via))
        _, seen = passed_on(border.move_asked(move_rq("WS1", 1)))
        with world.moves.storing("PACS", "WS1"):
            with trio.move_on_after(SETTLE_WAIT / 2):
                await finish(border.move_answered(final(seen), final=True))
            border.close()
        await trio.sleep(ABANDONED_WAIT + 1)
        assert world.moves.destinations("PACS") == []
        assert world.moves.find("PACS", "NORTH_WS1", seen) is None
        assert len(world.moves) == 0


@pytest.mark.parametrize("via", list(MoveVia))
async def test_a_message_id_that_is_used_again_keeps_both_apart(world: World, via: MoveVia) -> None:
    border = world.arrival(attrs.evolve(PACS, move_via=via))
    _, one = passed_on(border.move_asked(move_rq("WS1", 1)))
    _, two = passed_on(border.move_asked(move_rq("SCANNER_WS", 1)))
    assert one != two
    if via is MoveVia.DEVICE:
        assert one == 1
    for seen, destination in ((one, "WS1"), (two, "SCANNER_WS")):
        move = world.moves.find("PACS", "NORTH_WS1", seen)
        assert move is not None
        assert move.destination == destination
    await finish(border.move_answered(final(one), final=True))
    await finish(border.move_answered(final(two), final=True))
    border.close()
    assert len(world.moves) == 0


async def test_the_end_of_the_association_ends_its_moves(world: World) -> None:
    border = world.arrival()
    border.move_asked(move_rq("WS1", 1))
    border.move_asked(move_rq("SCANNER_WS", 2))
    border.close()
    assert len(world.moves) == 0
    assert world.moves.find("PACS", "NORTH_WS1", 1) is None


# --- arrival: a peer's device stores at ours ------------------------------------------------------


async def test_what_no_grant_allows_is_stored_only_while_it_was_asked_for(world: World) -> None:
    arrival = world.arrival(WS, "PACS", seen="NORTH_PACS")
    elsewhere = world.arrival(WS, "WS3", seen="WS3", peer=THIRD)
    request = store_rq()
    assert arrival.stores(request, implied=True).status == Status.NOT_AUTHORIZED
    assert arrival.stores(request, implied=False) == Crossing()
    departure = world.departure()
    departure.move_asked(move_rq("PACS", 1))  # to another device of ours
    assert arrival.stores(request, implied=True).status == Status.NOT_AUTHORIZED
    departure.move_asked(move_rq("WS1", 2))
    assert arrival.stores(request, implied=True) == Crossing()
    assert elsewhere.stores(request, implied=True).status == Status.NOT_AUTHORIZED
    await finish(departure.move_answered(final(2), final=True))
    assert arrival.stores(request, implied=True).status == Status.NOT_AUTHORIZED


async def test_the_move_originator_arrives_by_its_local_name(world: World) -> None:
    border = world.arrival(WS, "PACS", seen="NORTH_PACS")
    for published, local in (
        ("SOUTH_WS1", "WS1"),
        ("WS1", "NORTH_WS1"),
        ("WS3", "WS3"),
        ("NORTH_PACS", "NORTH_PACS"),
    ):
        asked = moved_rq(published, 5)
        assert originator(border.stores(asked, implied=False), asked) == (local, 5)


# --- storage commitment ---------------------------------------------------------------------------


async def test_a_report_is_let_in_for_what_was_asked(world: World) -> None:
    departure = world.departure()
    arrival = world.arrival(WS, "PACS", seen="NORTH_PACS")
    assert departure.report_received(TRANSACTION).status == Status.NOT_AUTHORIZED
    assert arrival.report_sent(TRANSACTION).status == Status.NOT_AUTHORIZED
    asked = departure.commitment_asked(TRANSACTION)
    # Not before it is on the disk.
    assert arrival.report_sent(TRANSACTION).status == Status.NOT_AUTHORIZED
    await finish(asked)
    await finish(departure.report_received(TRANSACTION))
    await finish(arrival.report_sent(TRANSACTION))
    for border, transaction in (
        (departure, "1.2.3.4.6"),
        (departure, None),
        (arrival, "1.2.3.4.6"),
        (arrival, None),
        (world.departure(PACS), TRANSACTION),
        (world.departure(WS, "WS3"), TRANSACTION),
    ):
        refused = (
            border.report_received(transaction)
            if isinstance(border, Departure)
            else border.report_sent(transaction)
        )
        assert refused.status == Status.NOT_AUTHORIZED
    for other in (
        world.arrival(WS, "WS3", seen="WS3", peer=THIRD),
        world.arrival(WS, "PACS", seen="NORTH_PACS", peer=THIRD),
        world.arrival(WS, "WS1", seen="NORTH_WS1"),
        world.arrival(PACS, "PACS", seen="NORTH_PACS"),
    ):
        assert other.report_sent(TRANSACTION).status == Status.NOT_AUTHORIZED


async def test_the_owner_lets_its_own_reports_out(world: World) -> None:
    assert world.departure().report_sent(TRANSACTION) == Crossing()
    assert world.arrival().report_received(TRANSACTION) == Crossing()


async def test_without_a_transaction_nothing_can_be_awaited(world: World) -> None:
    assert world.departure().commitment_asked(None).status == Status.PROCESSING_FAILURE
    shared = attrs.evolve(PACS, present_as="OUTSIDE")
    assert world.arrival(shared).commitment_asked(None).status == Status.PROCESSING_FAILURE
    assert world.arrival().commitment_asked(None) == Crossing()  # the device's own answer


async def test_a_device_with_one_name_for_all_has_its_requests_remembered(world: World) -> None:
    assert world.arrival().commitment_asked(TRANSACTION) == Crossing()
    assert len(world.commitments) == 0
    shared = attrs.evolve(PACS, present_as="OUTSIDE")
    await finish(world.arrival(shared).commitment_asked(TRANSACTION))
    assert world.commitments.origin("PACS", TRANSACTION) == Commitment(
        TRANSACTION, False, "PACS", PEER, "WS1"
    )
    await finish(world.arrival(shared).commitment_asked(TRANSACTION))  # once more
    # Another requestor's would be reported to the wrong one.
    other = world.arrival(shared, "WS3", seen="WS3", peer=THIRD).commitment_asked(TRANSACTION)
    assert other.status == Status.PROCESSING_FAILURE
    origin = world.commitments.origin("PACS", TRANSACTION)
    assert origin is not None
    assert origin.peer == PEER


async def test_a_full_table_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await finish(world.departure().commitment_asked(TRANSACTION))
    monkeypatch.setattr(commitments_module, "MAXIMUM_COMMITMENTS", 1)
    refused = world.departure().commitment_asked("1.2.9")
    assert refused.status == Status.RESOURCE_LIMITATION
