"""What an association that is taken into the queue has to do with moves and storage commitment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from relay.dicom import dimse
from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import CommandField, Status, Tag
from relay.dicom.negotiation import AsynchronousOperationsWindow
from relay.dicom.pdu import PDV, AAssociateAC, AReleaseRP, AReleaseRQ
from relay.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL as COMMIT
from relay.router.moves import HeldMove
from relay.router.node import Node
from relay.router.pairs import Pairs
from relay.router.queue import intake, taking
from relay.router.queue.acceptance import Acceptance
from relay.router.queue.commitment import Commitments
from relay.router.queue.held import Held
from relay.router.queue.reporting import Told
from relay.spool.items import Selection
from relay.spool.segments import ObjectWriter
from tests.router.fakes import (
    CT,
    IMPLICIT,
    FakeAssociation,
    command,
    data,
    proposal,
    read,
    store_rq,
)
from tests.router.queue.committing import World, action, event, open_world, request_for
from tests.spool.requests import open_of

INSTANCE = "1.2.3"  # of store_rq
STORE, COMMITMENT = 1, 3  # presentation contexts


@attrs.define
class Known:
    """What is known of the destination, whoever asks."""

    held: Held

    async def wait(self, node: Node, called: str, calling: str, limit: float) -> Held:
        return self.held

    def known(self, node: Node, called: str, calling: str, now: int) -> Held:
        return self.held


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path, "store", "commit") as world:
        world.queue.commitments = Commitments(world.queue)
        knows(world, commitment=True)
        yield world


def knows(world: World, *, commitment: bool) -> None:
    held = Held(
        peer=world.pair.b.identity.public,
        serial=1,
        expires=2**40,
        split=1,
        window=1,
        commitment=commitment,
        pairs=Pairs.of([(CT, IMPLICIT)]),
    )
    world.queue.acceptance = cast(Acceptance, Known(held))


@asynccontextmanager
async def taken_in(
    world: World, *, command_line: bool = False, moved: bool = False
) -> AsyncIterator[tuple[FakeAssociation, dict[int, bool]]]:
    """An association of WS with PACS, and which presentation contexts were accepted."""
    near = FakeAssociation()
    request = proposal(CT, COMMIT, called="PACS")
    window = AsynchronousOperationsWindow(8, 1).encode()
    request = attrs.evolve(request, user_items=(window,))
    device = None if command_line else world.pair.a.devices.get("WS")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(intake.serve, world.queue, near, device, request, moved=moved)
            )
            (answer,) = await near.got(1)
            assert isinstance(answer, AAssociateAC)
            near.sent.clear()
            yield near, {result.id: result.accepted for result in answer.contexts}
            near.say(AReleaseRQ())
            while not isinstance((await near.got(1))[-1], AReleaseRP):
                await trio.testing.wait_all_tasks_blocked()


async def outstanding(world: World) -> int:
    """How many objects the requests wait for."""
    database = world.queue.spool.transactions._database
    rows = await database.run(lambda c: c.execute("SELECT item FROM commitment_item").fetchall())
    return len(rows)


def asks(*instances: str, message_id: int = 7) -> tuple[PDV, PDV]:
    return command(COMMITMENT, action(message_id)), data(COMMITMENT, request_for(*instances))


# --- storage commitment ---------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["", "the device has none", "command line", "not served"])
async def test_it_is_accepted_where_it_can_be_kept_and_reported(world: World, reason: str) -> None:
    knows(world, commitment=reason != "the device has none")
    if reason == "not served":
        world.queue.commitments = None
    async with taken_in(world, command_line=reason == "command line") as (_, accepted):
        assert accepted == {STORE: True, COMMITMENT: not reason}


async def test_a_request_is_answered_and_waits_for_what_came_before_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of an object that is on its way to the disk still (PS3.7 §D.3.3.3)."""
    finish = ObjectWriter.finish_with

    async def slowly(writer: ObjectWriter, *arguments: Any, **options: Any) -> Any:
        await trio.sleep(0.2)
        return await finish(writer, *arguments, **options)

    monkeypatch.setattr(ObjectWriter, "finish_with", slowly)
    async with taken_in(world) as (near, _):
        near.say(command(STORE, store_rq(6)), data(STORE), *asks(INSTANCE))
        stored, answer = map(read, await near.got(2))
        assert (stored.command_field, stored.status) == (CommandField.C_STORE_RSP, 0)
        assert (answer.command_field, answer.status) == (CommandField.N_ACTION_RSP, 0)
        assert answer.message_id_responded_to == 7
        assert answer.number(Tag.ACTION_TYPE_ID) == 1
        assert answer.sop_class_uid == COMMIT
    (transaction,) = await open_of(world.queue.spool.transactions)
    assert await world.queue.spool.transactions.content(transaction) == request_for(INSTANCE)
    assert await outstanding(world) == 1


async def test_what_is_too_long_is_drained_and_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "MAXIMUM_REPORT", 100)
    async with taken_in(world) as (near, _):
        near.say(command(COMMITMENT, action()))
        for last in (False, False, True):
            near.say(data(COMMITMENT, bytes(60), last=last))
        (answer,) = await near.got(1)
        assert read(answer).status == Status.RESOURCE_LIMITATION
        near.say(*asks("1.1"))  # and the association goes on
        _, answer = await near.got(2)
        assert read(answer).status == 0


async def test_objects_have_no_business_in_its_context(world: World) -> None:
    async with taken_in(world) as (near, _):
        near.say(command(COMMITMENT, store_rq()), data(COMMITMENT))
        (answer,) = await near.got(1)
        assert read(answer).status == Status.UNRECOGNIZED_OPERATION
        near.say(command(STORE, action()), data(STORE))
        _, answer = await near.got(2)
        assert read(answer).status == Status.UNRECOGNIZED_OPERATION


async def test_its_report_goes_over_the_same_association_while_that_is_open(world: World) -> None:
    commitments = world.queue.commitments
    assert commitments is not None
    statuses = []

    async def tell() -> None:
        told = Told.of(world.transaction())
        statuses.append(await commitments._reports.tell(told, event(1), b"report"))

    async with taken_in(world) as (near, _), trio.open_nursery() as nursery:
        near.say(*asks("1.1"))
        await near.got(1)
        nursery.start_soon(tell)
        _, said, content = await near.got(3)
        assert read(said).command_field == CommandField.N_EVENT_REPORT_RQ
        assert content == data(COMMITMENT, b"report")
        near.say(command(COMMITMENT, dimse.response_to(read(said), 0x0110)))
    assert statuses == [0x0110]
    assert world.ws.calls == []
    await tell()
    assert statuses == [0x0110, 0]
    assert len(world.ws.calls) == 1


# --- moves ----------------------------------------------------------------------------------------


def held(world: World, number: int, destination: str = "PACS", *, via: bool = False) -> HeldMove:
    """A C-MOVE of another hospital's device, for which WS is the holder."""
    move = HeldMove(
        holder="WS",
        requestor="FAR_WS",
        message_id=40,
        destination=destination,
        seen_requestor="FAR_WS",
        seen_message_id=number,
        via_router=via,
    )
    assert world.pair.a.moves.hold(move)
    return move


def moved_as(number: int) -> CommandSet:
    """A C-STORE-RQ that names a move by this number."""
    return store_rq(1).evolve(
        {
            Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: "FAR_WS",
            Tag.MOVE_ORIGINATOR_MESSAGE_ID: number,
        }
    )


async def test_what_a_holder_moves_is_waited_for_by_its_move(world: World) -> None:
    move = held(world, 4)
    async with taken_in(world) as (near, _):
        near.say(command(STORE, moved_as(4)), data(STORE))
        await near.got(1)
        assert list(move.kept.waiting.values()) == [INSTANCE]  # by the time that it is answered
        near.say(command(STORE, moved_as(5)), data(STORE))
        await near.got(2)
        assert len(move.kept.waiting) == 1
    (number,) = move.kept.waiting
    (item, _) = await world.queue.spool.items.select(Selection())
    assert item.number == number
    sent = CommandSet.decode(item.command)
    assert sent.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID) == 40


async def test_what_a_holder_moves_by_way_of_its_router_is_told_apart(world: World) -> None:
    """An object is never queued for where it may not be meant: A700, and the holder counts it."""
    move, elsewhere = held(world, 0x8001, via=True), held(world, 0x8002, "PACS2", via=True)
    async with taken_in(world, moved=True) as (near, _):
        for number, status in ((0x8001, 0), (0x8002, 0xA700), (0x8003, 0xA700)):
            near.sent.clear()
            near.say(command(STORE, moved_as(number)), data(STORE))
            (answer,) = await near.got(1)
            assert read(answer).status == status
    assert list(move.kept.waiting.values()) == [INSTANCE]
    assert elsewhere.kept.taken == 0
    (item,) = await world.queue.spool.items.select(Selection())
    assert (item.called, item.number) == ("PACS", next(iter(move.kept.waiting)))
    sent = CommandSet.decode(item.command)
    assert sent.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID) == 40
    assert sent.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE) == "FAR_WS"
