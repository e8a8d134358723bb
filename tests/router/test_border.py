"""What both borders do together: names out and in, moves, and the reports that are awaited."""

from collections.abc import Callable

import attrs
import pytest

from relay.dicom.dimse import Status, Tag
from relay.router.border import (
    Crossing,
    comment_on_own_refusal,
    comment_on_refusal,
)
from relay.router.departure import Departure
from relay.router.devices import MoveVia
from relay.router.federation.totals import MAXIMUM_COMMENT
from relay.router.names import Names
from tests.router.borders import (
    PACS,
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
from tests.router.fakes import move_rq, store_rq


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


async def test_who_asked_for_a_destination_that_cannot_be_is_told_to_people(world: World) -> None:
    """By the titles of this hospital, with the command that helps."""
    world.departure().move_asked(move_rq("SCANNER"))
    world.departure(None).move_asked(move_rq("NOBODY"))
    world.arrival().move_asked(move_rq("SOUTH_WS1"))
    (scanner, nobody, other) = world.refused
    assert scanner[:3] == ("WS1", "NORTH_PACS", "SCANNER")
    assert "relay device add SCANNER … --publish store" in scanner[3]
    assert nobody[:3] == ("RELAY", "NORTH_PACS", "NOBODY")
    assert "relay alias add LOCAL PUBLISHED" in nobody[3]
    assert other[:3] == ("WS1", "PACS", "SOUTH_WS1")
    assert "relay grant add HOSPITAL SOUTH_WS1 --services store" in other[3]


async def test_a_destination_that_the_far_side_refuses_is_told_until_it_does_not(
    world: World,
) -> None:
    border = world.departure()
    for message_id in (1, 2):
        border.move_asked(move_rq("WS1", message_id))
        border.move_answered(pending(message_id), final=False)
        border.move_answered(final(message_id, Status.MOVE_DESTINATION_UNKNOWN), final=True)
    first, second = world.refused
    assert first == second
    assert first[:3] == ("WS1", "NORTH_PACS", "WS1")
    assert "their `relay doctor` says which" in first[3]
    border.move_asked(move_rq("WS1", 3))
    assert len(world.refused) == 2  # it may be refused again
    border.move_answered(final(3), final=True)
    assert world.refused == []


async def test_a_destination_that_the_device_does_not_know_is_told_here(world: World) -> None:
    """As the device was given it, with whose host and port it needs there."""
    refused = final(1, Status.MOVE_DESTINATION_UNKNOWN)
    via_router = attrs.evolve(PACS, move_via=MoveVia.ROUTER)
    for device, title, stores_at, seen, whose in (
        (PACS, "WS1", (), "NORTH_WS1", "this Router's"),
        (PACS, "SOUTH_WS1", ("WS1",), "WS1", "its"),
        (via_router, "WS1", (), "RELAY", "this Router's"),
    ):
        border = world.arrival(device, stores_at=stores_at)
        passed_on(border.move_asked(move_rq(title, 1)))
        (held,) = border._held
        border.move_answered(refused.evolve({Tag.MESSAGE_ID_BEING_RESPONDED_TO: held}), final=True)
        assert world.refused[-1] == (
            "WS1",
            "PACS",
            seen,
            f"PACS does not know it: enter it there, with {whose} host and port",
        )
    world.arrival().move_asked(move_rq("SOUTH_WS1"))  # which this Router refuses, by its own name
    assert len(world.refused) == 4
    border = world.arrival(stores_at=("WS1",))
    for message_id, title in ((2, "WS1"), (3, "SOUTH_WS1")):
        border.move_asked(move_rq(title, message_id))
        border.move_answered(final(message_id), final=True)
    assert [row[2] for row in world.refused] == ["RELAY"]


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


@pytest.mark.parametrize("comment", [comment_on_own_refusal, comment_on_refusal])
@pytest.mark.parametrize("destination", ["X" * 16, "SCANNER", "PAC\xcb", ""])
async def test_what_is_said_of_a_destination_fits_an_error_comment(
    world: World, comment: Callable[[Names, str], str], destination: str
) -> None:
    names = attrs.evolve(world.knowledge.names, router="R" * 16)
    said = comment(names, destination)
    assert said.isascii()
    assert len(said) <= MAXIMUM_COMMENT
