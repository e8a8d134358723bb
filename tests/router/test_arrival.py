"""What a peer's device asks of one of ours, in its names."""

from itertools import pairwise

import attrs
import pytest
import trio
import trio.testing

from relay.dicom import dimse
from relay.dicom.dimse import CommandField, CommandSet, Status, Tag
from relay.dicom.elements import Encoding
from relay.router.arrival import DELIVERY_WAIT, PENDING_PAUSE, Arrival
from relay.router.border import Crossing
from relay.router.commitments import Commitment
from relay.router.devices import MoveVia
from relay.router.moves import ABANDONED_WAIT, MAXIMUM_DESTINATIONS, SETTLE_WAIT, HeldMove
from tests.router.borders import (
    PACS,
    PEER,
    STORE,
    THIRD,
    TRANSACTION,
    WS,
    World,
    final,
    finish,
    moved_rq,
    originator,
    passed_on,
    pending,
)
from tests.router.fakes import move_rq


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
        ((*who, why),) = world.refused
        assert who == ["WS1", "PACS", "WS3"]
        assert crossing.comment == "RELAY: WS3 is not known or not granted"
        assert "relay grant ask WS3 --services store" in why


async def test_a_destination_that_is_only_listed_as_the_callers_is_none(world: World) -> None:
    assert world.arrival().move_asked(move_rq("WS1", 3)).status is None
    world.directory.only_listed.add("WS1")
    crossing = world.arrival().move_asked(move_rq("WS1", 3))
    assert crossing.status == Status.MOVE_DESTINATION_UNKNOWN
    assert "has not signed" in world.refused[0][3]


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
    assert "relay alias add LOCAL NORTH_PACS" in world.refused[-1][3]
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


# --- what a queue has taken -----------------------------------------------------------------------


@attrs.define
class Requestor:
    """Who waits for the answer to a C-MOVE: what it got, and when."""

    begun: float = attrs.Factory(trio.current_time)
    heard: list[tuple[float, CommandSet, bytes]] = attrs.Factory(list)

    async def send(self, command: CommandSet, data_set: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append((trio.current_time() - self.begun, command, data_set))

    @property
    def statuses(self) -> list[int]:
        return [command.status for _, command, _ in self.heard]


def move_of(world: World, border: Arrival, objects: int) -> HeldMove:
    """A move, of whose objects a queue has so many."""
    border.move_asked(move_rq("WS1", 1))
    move = world.moves.find("PACS", "NORTH_WS1", 1)
    assert move is not None
    for number in range(objects):
        world.moves.keep([move], number, f"1.2.{number}")
    return move


def holder_says(status: int = 0, completed: int = 0) -> CommandSet:
    return final(1, status).evolve({Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS: completed})


async def answer(border: Arrival, said: CommandSet, requestor: Requestor) -> None:
    crossing = border.move_answered(said, final=True)
    assert crossing.later is not None
    await crossing.later(b"", Encoding(), requestor.send)


async def test_the_final_answer_waits_for_what_the_queue_has_and_says_how_far_it_is(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    border, requestor = world.arrival(), Requestor()
    move = move_of(world, border, 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, border, holder_says(completed=3), requestor)
        await trio.sleep(PENDING_PAUSE / 2)
        assert world.moves.find("PACS", "NORTH_WS1", 1) is None  # it brings no more
        move.kept.end(0, delivered=True)
        await trio.sleep(PENDING_PAUSE)
        move.kept.end(1, delivered=True)
        move.kept.end(2, delivered=True)
    assert [when for when, _, _ in requestor.heard] == pytest.approx(
        [PENDING_PAUSE, 1.5 * PENDING_PAUSE]
    )
    (_, pending, _), (_, last, data_set) = requestor.heard
    assert pending.status == Status.PENDING
    assert pending.number(Tag.NUMBER_OF_REMAINING_SUBOPERATIONS) == 2
    assert pending.message_id_responded_to == last.message_id_responded_to == 1
    assert (last, data_set) == (holder_says(completed=3), b"")
    assert len(world.moves) == 0
    border.close()


async def test_past_the_limit_what_is_left_counts_as_failed(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    border, requestor = world.arrival(), Requestor()
    move = move_of(world, border, 2)
    move.kept.end(0, delivered=True)
    await answer(border, holder_says(completed=2), requestor)
    when, last, data_set = requestor.heard[-1]
    assert when == pytest.approx(DELIVERY_WAIT)
    assert last.status == 0xB000
    assert last.number(Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS) == 1
    assert last.number(Tag.NUMBER_OF_FAILED_SUBOPERATIONS) == 1
    assert b"1.2.1" in data_set
    # Never a silence that a workstation would take for the end, nor a word beside the last.
    times = [0.0, *(when for when, _, _ in requestor.heard)]
    assert max(b - a for a, b in pairwise(times)) == pytest.approx(PENDING_PAUSE)
    assert set(requestor.statuses[:-1]) == {Status.PENDING}
    assert times[-2] < DELIVERY_WAIT


async def test_who_cancels_is_answered_at_once(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    border, requestor = world.arrival(), Requestor()
    move_of(world, border, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, border, holder_says(completed=2), requestor)
        await trio.sleep(3)
        border.move_cancelled(dimse.request(CommandField.C_CANCEL_RQ, 1))
    assert [when for when, _, _ in requestor.heard] == pytest.approx([3])
    assert requestor.statuses == [Status.CANCEL]


async def test_a_move_that_its_holder_says_is_cancelled_waits_for_nothing(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    border, requestor = world.arrival(), Requestor()
    move_of(world, border, 1)
    await answer(border, holder_says(Status.CANCEL, completed=1), requestor)
    assert [when for when, _, _ in requestor.heard] == pytest.approx([0])
    assert requestor.statuses == [Status.CANCEL]


async def test_an_answer_too_long_to_be_read_still_ends_the_move(world: World) -> None:
    border = world.arrival()
    move_of(world, border, 1)
    await finish(border.move_answered(holder_says(completed=1), final=True))
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
