"""Objects of a C-MOVE by way of the holder's own Router: which destination they go to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.association import TCPAssociation
from relay.dicom import dimse, uids
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Status, Tag
from relay.dicom.negotiation import AsynchronousOperationsWindow, SOPClassExtended
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
    ContextResult,
    PresentationContextResult,
)
from relay.errors import AssociationAborted, AssociationRejected
from relay.router import moved
from relay.router import moves as moves_module
from relay.router.border import Knowledge
from relay.router.devices import Device, MoveVia
from relay.router.moved import MovedDeparture, Only, Switch
from relay.router.moves import ABANDONED_WAIT, SETTLE_WAIT, HeldMove, MoveRegister
from relay.router.own_destination import OwnCall
from relay.router.refusals import Refusals
from relay.scu import release
from tests.router.fakes import (
    CT,
    IMPLICIT,
    JPEG,
    MR,
    FakeAssociation,
    TwoHospitals,
    acceptance,
    command,
    data,
    hospital,
    move_rq,
    proposal,
    read,
    store_rq,
    two_hospitals,
)

REQUEST = proposal(CT, MR, transfer_syntaxes=[JPEG, IMPLICIT])


# --- one association with one of several destinations ---------------------------------------------


@attrs.define
class Switched:
    """A switch over fake tunnels, and which of them were dropped."""

    tunnels: dict[str, FakeAssociation]
    dropped: list[str] = attrs.Factory(list)

    def __attrs_post_init__(self) -> None:
        self.switch = Switch(self.tunnels, self.dropped.append)

    switch: Switch = attrs.field(init=False)


def switched(*titles: str) -> Switched:
    return Switched({title: FakeAssociation() for title in titles})


def results(*rows: tuple[int, str | None]) -> AAssociateAC:
    """An answer: by context the transfer syntax, None for a context that is not accepted."""
    return AAssociateAC(
        "X",
        "Y",
        tuple(
            PresentationContextResult(
                number,
                ContextResult.ACCEPTANCE if syntax else ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED,
                syntax or "",
            )
            for number, syntax in rows
        ),
    )


def accepted(answer: Atom) -> dict[int, str]:
    assert isinstance(answer, AAssociateAC)
    return {r.id: r.transfer_syntax for r in answer.contexts if r.accepted}


async def test_one_destination_is_the_one() -> None:
    pair = switched("WS")
    answer = acceptance(REQUEST)
    echo = command(1, dimse.response_to(move_rq("X"), 0))
    pair.tunnels["WS"].say(answer, echo)
    assert await pair.switch.receive() == answer
    assert await pair.switch.receive() == echo
    await pair.switch.send(echo)
    assert pair.tunnels["WS"].sent == [echo]
    assert pair.switch.choose("WS")
    assert not pair.switch.choose("WS2")
    assert not pair.dropped


def test_the_only_destination_is_no_other() -> None:
    assert Only("WS").choose("WS")
    assert not Only("WS").choose("WS2")


async def test_nothing_is_chosen_before_there_is_an_answer() -> None:
    pair = switched("WS", "WS2")
    assert not pair.switch.choose("WS")


async def test_what_all_destinations_accept_is_accepted() -> None:
    pair = switched("WS", "WS2", "WS3")
    pair.tunnels["WS"].say(results((1, JPEG), (3, IMPLICIT), (5, JPEG), (7, None), (9, JPEG)))
    pair.tunnels["WS2"].say(results((1, JPEG), (3, JPEG), (5, None), (7, JPEG), (9, JPEG)))
    pair.tunnels["WS3"].say(results((9, JPEG), (7, JPEG), (5, JPEG), (3, IMPLICIT), (1, JPEG)))
    answer = await pair.switch.receive()
    assert accepted(answer) == {1: JPEG, 9: JPEG}
    assert isinstance(answer, AAssociateAC)
    assert [r.id for r in answer.contexts] == [1, 3, 5, 7, 9]


async def test_what_was_agreed_with_one_of_several_is_not_passed_on() -> None:
    window = AsynchronousOperationsWindow(0, 0).encode()
    extended = SOPClassExtended(CT, b"\1").encode()
    answer = attrs.evolve(acceptance(REQUEST), user_items=(window, extended))
    for titles, items in ((("WS",), (window, extended)), (("WS", "WS2"), ())):
        pair = switched(*titles)
        for far in pair.tunnels.values():
            far.say(answer)
        said = await pair.switch.receive()
        assert isinstance(said, AAssociateAC)
        assert said.user_items == items


async def test_the_first_choice_holds_and_the_others_are_dropped() -> None:
    pair = switched("WS", "WS2", "WS3")
    for far in pair.tunnels.values():
        far.say(acceptance(REQUEST))
    await pair.switch.receive()
    assert pair.switch.choose("WS2")
    assert pair.dropped == ["WS", "WS3"]
    assert not pair.switch.choose("WS")
    assert not pair.switch.choose("NOBODY")
    assert pair.switch.choose("WS2")
    assert pair.dropped == ["WS", "WS3"]
    await pair.switch.send(data(1))
    assert [bool(far.sent) for far in pair.tunnels.values()] == [False, True, False]


async def test_nothing_is_received_before_it_is_known_from_whom() -> None:
    pair = switched("WS", "WS2")
    for far in pair.tunnels.values():
        far.say(acceptance(REQUEST))
    await pair.switch.receive()
    heard: list[Atom] = []

    async def hear() -> None:
        heard.append(await pair.switch.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        pair.tunnels["WS"].say(AAbort(2, 0))
        await trio.testing.wait_all_tasks_blocked()
        assert not heard
        pair.switch.choose("WS2")
        pair.tunnels["WS2"].say(AReleaseRP())
    assert heard == [AReleaseRP()]


async def test_a_release_before_any_object_is_for_whichever() -> None:
    pair = switched("WS", "WS2")
    for far in pair.tunnels.values():
        far.say(acceptance(REQUEST))
    await pair.switch.receive()
    await pair.switch.send(AReleaseRQ())
    assert pair.tunnels["WS"].sent == [AReleaseRQ()]
    assert pair.dropped == ["WS2"]


@pytest.mark.parametrize("no", [AAssociateRJ(1, 1, 3), AAbort(2, 0), AReleaseRP()])
async def test_one_that_says_no_is_not_there(no: Atom) -> None:
    pair = switched("WS", "WS2")
    pair.tunnels["WS"].say(no)
    pair.tunnels["WS2"].say(acceptance(REQUEST))
    assert accepted(await pair.switch.receive()) == {1: JPEG, 3: JPEG}
    assert not pair.switch.choose("WS")
    assert pair.switch.choose("WS2")
    assert not pair.dropped  # it is over by itself


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (AAssociateRJ(1, 1, 3), AAssociateRJ(2, 3, 1), AAssociateRJ(1, 1, 3)),
        (AAbort(2, 0), AAssociateRJ(2, 3, 1), AAssociateRJ(2, 3, 1)),
        (AAbort(2, 0), AAbort(2, 6), AAbort(2, 0)),
        (data(1), AReleaseRP(), data(1)),  # what no Router of ours says
    ],
)
async def test_if_all_say_no_one_of_them_is_heard(first: Atom, second: Atom, said: Atom) -> None:
    pair = switched("WS", "WS2")
    pair.tunnels["WS"].say(first)
    pair.tunnels["WS2"].say(second)
    assert await pair.switch.receive() == said
    assert not pair.switch.choose("WS")


async def test_an_abort_reaches_all_that_may_be_meant() -> None:
    pair = switched("WS", "WS2")
    await pair.switch.abort(2, 6)
    assert all(far.aborts == [(2, 6)] for far in pair.tunnels.values())
    pair = switched("WS", "WS2")
    for far in pair.tunnels.values():
        far.say(acceptance(REQUEST))
    await pair.switch.receive()
    pair.switch.choose("WS2")
    await pair.switch.abort(2, 1)
    assert not pair.tunnels["WS"].aborts  # it is being released
    assert pair.tunnels["WS2"].aborts == [(2, 1)]
    await pair.switch.aclose()


async def test_the_cause_is_that_of_the_one_that_counts() -> None:
    pair = switched("WS", "WS2")
    pair.tunnels["WS"].cause, pair.tunnels["WS2"].cause = "away", "revoked"
    assert pair.switch.cause == "away; revoked"
    for far in pair.tunnels.values():
        far.say(acceptance(REQUEST))
    await pair.switch.receive()
    pair.switch.choose("WS2")
    assert pair.switch.cause == "revoked"


# --- which destination an object is for -----------------------------------------------------------


@attrs.define
class Holding:
    """The border of an association of the PACS, and the moves that are outstanding."""

    border: MovedDeparture
    moves: MoveRegister
    pair: Switched

    def hold(self, destination: str, number: int, *, via_router: bool = True) -> HeldMove:
        move = HeldMove(
            holder="PACS",
            requestor="NORTH_WS",
            message_id=5,
            destination=destination,
            seen_requestor="WS",
            seen_message_id=number,
            via_router=via_router,
        )
        assert self.moves.hold(move)
        return move

    def store(self, originator: str | None, number: int | None) -> tuple[int | None, list[str]]:
        """The status of a refusal; and where the object goes."""
        values: dict[int, int | str | bytes] = {}
        if originator is not None:
            values[Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE] = originator
        if number is not None:
            values[Tag.MOVE_ORIGINATOR_MESSAGE_ID] = number
        crossing = self.border.stores(store_rq().evolve(values), implied=False)
        if crossing.status is not None:
            return crossing.status, []
        return None, [title for title in self.pair.tunnels if self.pair.switch.choose(title)]


@asynccontextmanager
async def holding(tmp_path: Path, *titles: str) -> AsyncIterator[Holding]:
    """The PACS has called; its Router has an association with each of `titles`."""
    pair = switched(*titles)
    for far in pair.tunnels.values():
        far.say(acceptance(REQUEST))
    await pair.switch.receive()
    async with hospital(tmp_path) as node:
        border = MovedDeparture(node, Device("PACS", "h", move_via=MoveVia.ROUTER), pair.switch)
        yield Holding(border, node.moves, pair)


REFUSED = (Status.OUT_OF_RESOURCES, list[str]())


async def test_the_move_that_is_named_says_where(tmp_path: Path) -> None:
    async with holding(tmp_path, "WS", "WS2") as holder:
        holder.hold("WS", 0x8001)
        holder.hold("WS2", 0x8002)
        assert holder.store("WS", 0x8002) == (None, ["WS2"])
        assert holder.store("WS", 0x8002) == (None, ["WS2"])
        assert holder.store("WS", 0x8001) == REFUSED  # it is not the one of this association
        assert holder.pair.dropped == ["WS"]


@pytest.mark.parametrize("named", [(None, None), ("SOMEBODY", 3), ("WS", None), ("WS", 3)])
async def test_what_names_no_move_goes_where_only_one_can_be_meant(
    tmp_path: Path, named: tuple[str | None, int | None]
) -> None:
    async with holding(tmp_path, "WS", "WS2") as holder:
        assert holder.store(*named) == REFUSED
        holder.hold("WS", 0x8001)
        other = holder.hold("WS2", 0x8002)
        assert holder.store(*named) == REFUSED
        holder.moves.end(other)
        assert holder.store(*named) == (None, ["WS"])


async def test_what_names_a_move_that_is_over_is_not_for_the_one_that_is_left(
    tmp_path: Path,
) -> None:
    async with holding(tmp_path, "WS", "WS2") as holder:
        over = holder.hold("WS", 0x8001)
        holder.hold("WS2", 0x8002)
        holder.moves.end(over)
        assert holder.store("WS", 0x8001) == REFUSED
        assert not holder.pair.dropped


@pytest.mark.parametrize("number", [3, None, 0x8001])
async def test_what_a_device_of_this_hospital_has_asked_for_stays_in_it(
    tmp_path: Path, number: int | None
) -> None:
    """Its C-MOVE named the Router by mistake: no other hospital has asked for those objects."""
    async with holding(tmp_path, "WS") as holder:
        holder.hold("WS", 0x8001)
        await holder.border._names.devices.put(Device("CONSOLE", "h"))
        await holder.border._names.devices.put(Device("PACS", "h"))
        assert holder.store("CONSOLE", number) == REFUSED
        assert holder.store("PACS", number) == (None, ["WS"])  # itself, as some holders do


async def test_what_our_own_federation_has_asked_for_in_a_devices_name(tmp_path: Path) -> None:
    async with holding(tmp_path, "WS", "WS2") as holder:
        for title in ("WS", "CONSOLE", "PACS"):
            await holder.border._names.devices.put(Device(title, "h"))
        holder.hold("WS2", 0x8001)  # as WS
        assert holder.store("CONSOLE", 0x8001) == REFUSED
        assert holder.store("WS", 3) == REFUSED  # a move of its own, by mistake
        assert holder.store("WS", 0x8001) == (None, ["WS2"])


async def test_a_destination_in_the_hospital_itself_is_called_by_its_router(tmp_path: Path) -> None:
    async with hospital(tmp_path) as node:
        pacs = Device("PACS", "h", move_via=MoveVia.ROUTER)
        await node.put_device(pacs)
        await node.put_device(Device("CONSOLE", "h", published="NORTH_CONSOLE"))
        move = HeldMove(
            holder="PACS",
            requestor="WS",
            message_id=5,
            destination="NORTH_CONSOLE",
            seen_requestor="WS",
            seen_message_id=0x8001,
            via_router=True,
        )
        assert node.moves.hold(move)
        [(title, call)] = moved._prepare(node, pacs, proposal(CT)).items()
        assert title == "NORTH_CONSOLE"
        assert isinstance(call, OwnCall)
        assert (call.holder.ae_title, call.device.ae_title) == ("PACS", "CONSOLE")


async def test_what_names_a_move_by_another_way_is_not_for_this_association(
    tmp_path: Path,
) -> None:
    async with holding(tmp_path, "WS", "WS2") as holder:
        holder.hold("WS", 3, via_router=False)
        holder.hold("WS2", 0x8002)
        assert holder.store("WS", 3) == REFUSED


async def test_a_destination_that_was_asked_for_later_has_no_association(tmp_path: Path) -> None:
    async with holding(tmp_path, "WS") as holder:
        holder.hold("WS2", 0x8002)
        assert holder.store("WS", 0x8002) == REFUSED
        assert holder.store(None, None) == REFUSED


async def test_a_restored_move_originator_is_the_networks(tmp_path: Path) -> None:
    async with holding(tmp_path, "WS") as holder:
        holder.hold("WS", 0x8001)
        asked = store_rq(9).evolve(
            {
                Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: "WS",
                Tag.MOVE_ORIGINATOR_MESSAGE_ID: 0x8001,
            }
        )
        crossing = holder.border.stores(asked, implied=False)
        assert crossing.command is not None
        assert crossing.command.message_id == 9
        assert crossing.command.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID) == 5
        originator = crossing.command.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE)
        assert originator == "NORTH_WS"


class Going(Enum):
    """What happens to a move, or to what the holder stores for one."""

    ASKED = "asked"
    ANSWERED = "answered"  # its final response: the holder stores no more for it
    GONE = "gone"  # its requestor has aborted, and the holder may go on
    LATER = "later"
    STORED = "stored"


HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from([*Going, Going.ASKED, Going.STORED]),
        st.integers(0, 3),
        st.sampled_from(["WS", "WS2"]),
    ),
    min_size=10,
    max_size=30,
)


@settings(max_examples=200)
@given(HAPPENINGS, st.booleans())
def test_whatever_happens_no_object_goes_to_another_destination(
    happenings: list[tuple[Going, int, str]], names: bool
) -> None:
    """Of moves by way of the Router that come, end and are left in any order."""
    trio.run(_happen, happenings, names, clock=trio.testing.MockClock(autojump_threshold=0))


async def _happen(happenings: list[tuple[Going, int, str]], names: bool) -> None:
    moves = MoveRegister()
    knowledge = Knowledge(
        names=cast(Any, SimpleNamespace(devices={})),
        moves=moves,
        commitments=cast(Any, None),
        directory=cast(Any, None),
        own=b"",
        clock=lambda: 0,
        refusals=Refusals(),
    )
    node = cast(Any, SimpleNamespace(knowledge=lambda: knowledge))
    stored_for: list[HeldMove] = []  # what the holder may still be storing for
    for what, which, destination in happenings:
        move = stored_for[which % len(stored_for)] if stored_for else None
        match what:
            case Going.ASKED:
                asked = HeldMove(
                    holder="PACS",
                    requestor=destination,
                    message_id=1,
                    destination=destination,
                    seen_requestor=destination,
                    seen_message_id=moves.message_id("PACS"),
                    via_router=True,
                )
                if moves.hold(asked):
                    stored_for.append(asked)
            case Going.ANSWERED if move is not None:
                moves.end(move)
                stored_for.remove(move)
            case Going.GONE if move is not None:
                moves.abandon(move)
            case Going.LATER:
                # In all less than a holder goes on storing without an association.
                await trio.sleep(ABANDONED_WAIT * 0.9 / len(happenings))
            case Going.STORED if move is not None:
                pair = switched(*moves.destinations("PACS"))
                for far in pair.tunnels.values():
                    far.say(acceptance(REQUEST))
                await pair.switch.receive()
                border = MovedDeparture(node, Device("PACS", "h"), pair.switch)
                request = store_rq()
                if names:
                    request = request.evolve(
                        {
                            Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: move.seen_requestor,
                            Tag.MOVE_ORIGINATOR_MESSAGE_ID: move.seen_message_id,
                        }
                    )
                crossing = border.stores(request, implied=False)
                if crossing.status is None:
                    assert pair.switch.choose(move.destination)
                else:
                    assert not names, "what is named is known"


async def test_without_a_network_there_is_nowhere_to_move_to(tmp_path: Path) -> None:
    async with hospital(tmp_path, enrolled=False) as node:
        with pytest.raises(AssociationRejected, match="not enrolled"):
            await moved.serve(node, cast(Any, None), Device("PACS", "h"), proposal(CT))


# --- a whole move ---------------------------------------------------------------------------------


@attrs.define
class Archive:
    """A device that answers C-MOVE and has its Router send what it stores.

    `names`: whether it names the Move Originator. `hold` keeps it from storing.
    """

    objects: int = 2
    names: bool = True
    both: TwoHospitals | None = None
    hold: trio.Event | None = None
    statuses: list[int] = attrs.Factory(list)
    rejected: list[Atom] = attrs.Factory(list)
    asked: list[CommandSet] = attrs.Factory(list)

    def stop(self) -> None:
        """Store nothing any more, and hear what has happened meanwhile."""
        self.objects = 0
        assert self.hold is not None
        self.hold.set()

    async def serve(self, association: TCPAssociation) -> None:
        with suppress(AssociationAborted):
            await self._serve(association)

    async def _serve(self, association: TCPAssociation) -> None:
        request = await association.receive()
        assert isinstance(request, AAssociateRQ)
        await association.send(acceptance(request))
        reader = CommandReader()
        asked: CommandSet | None = None
        while True:
            match await association.receive():
                case PDV() as pdv:
                    asked = reader.feed(pdv) or asked
                    if asked is not None and not reader.message_open:
                        if asked.command_field == CommandField.C_MOVE_RQ:
                            await self._move(association, pdv.context_id, asked)
                        asked = None
                case AReleaseRQ():
                    await association.send(AReleaseRP())
                    return
                case _:
                    return

    async def _move(self, requestor: TCPAssociation, context_id: int, asked: CommandSet) -> None:
        self.asked.append(asked)
        if self.hold is not None:
            await self.hold.wait()
        statuses = await self.store(asked)
        self.statuses += statuses
        stored = statuses.count(0)
        counts: dict[int, int | str | bytes] = {
            Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS: stored,
            Tag.NUMBER_OF_FAILED_SUBOPERATIONS: self.objects - stored,
        }
        status = 0 if stored == self.objects else Status.UNABLE_TO_PERFORM_SUBOPERATIONS
        response = dimse.response_to(asked, status, extra=counts)
        await requestor.send(command(context_id, response))

    async def store(self, asked: CommandSet) -> list[int]:
        """One association with the Move Destination; the status of each object."""
        assert self.both is not None
        called = asked.move_destination or ""
        rq = proposal(CT, called=called, calling="PACS")
        device, answer = await self.both.call(rq, at=self.both.b)
        if not isinstance(answer, AAssociateAC) or not answer.contexts[0].accepted:
            self.rejected.append(answer)
            if isinstance(answer, AAssociateAC):
                await release(device)
            await device.aclose()
            return []
        statuses = [await self._store_one(device, asked, n + 1) for n in range(self.objects)]
        await release(device)
        await device.aclose()
        return statuses

    async def _store_one(self, device: TCPAssociation, asked: CommandSet, number: int) -> int:
        values: dict[int, int | str | bytes] = {}
        if self.names:
            values = {
                Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: "WS",
                Tag.MOVE_ORIGINATOR_MESSAGE_ID: asked.message_id,
            }
        rq = dimse.request(CommandField.C_STORE_RQ, number, CT, f"1.2.{number}", extra=values)
        await device.send(command(1, rq))
        await device.send(data(1, bytes(1000)))
        response = read(await device.receive())
        assert response.message_id_responded_to == number
        return response.status


@attrs.define
class Workstation:
    """What one destination was sent."""

    stored: list[CommandSet] = attrs.Factory(list)
    released: int = 0
    open: int = 0

    async def serve(self, association: TCPAssociation) -> None:
        self.open += 1
        try:
            await self._serve(association)
        finally:
            self.open -= 1

    async def _serve(self, association: TCPAssociation) -> None:
        request = await association.receive()
        assert isinstance(request, AAssociateRQ)
        await association.send(acceptance(request))
        reader = CommandReader()
        asked = None
        while True:
            match await association.receive():
                case PDV() as pdv:
                    asked = reader.feed(pdv) or asked
                    if asked is not None and not reader.message_open:
                        self.stored.append(asked)
                        await association.send(command(1, dimse.response_to(asked, 0)))
                        asked = None
                case AReleaseRQ():
                    self.released += 1
                    await association.send(AReleaseRP())
                    return
                case _:
                    return

    @property
    def originators(self) -> set[tuple[str | None, int | None]]:
        return {
            (
                rq.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE),
                rq.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID),
            )
            for rq in self.stored
        }


@asynccontextmanager
async def hospitals(
    tmp_path: Path, archive: Archive
) -> AsyncIterator[tuple[TwoHospitals, Workstation, Workstation]]:
    """WS and WS2 of A may retrieve from the PACS of B, which knows its Router only."""
    first, second = Workstation(), Workstation()
    async with two_hospitals(tmp_path, archive.serve, "retrieve") as both:
        archive.both = both
        await both.b.put_device(attrs.evolve(both.pacs, move_via=MoveVia.ROUTER))
        services = frozenset({"store"})
        await both.publish(
            Device("WS", "127.0.0.1", await both.listen(first.serve), services=services),
            Device("WS2", "127.0.0.1", await both.listen(second.serve), services=services),
        )
        yield both, first, second


async def move(
    both: TwoHospitals, destination: str, message_id: int = 1, calling: str = "WS"
) -> CommandSet:
    """A C-MOVE, from its association's beginning to its end; the final response."""
    device, answer = await begin_move(both, destination, message_id, calling)
    assert isinstance(answer, AAssociateAC)
    response = read(await device.receive())
    await release(device)
    await device.aclose()
    return response


async def begin_move(
    both: TwoHospitals, destination: str, message_id: int = 1, calling: str = "WS"
) -> tuple[TCPAssociation, Atom]:
    device, answer = await both.call(proposal(uids.STUDY_ROOT_MOVE, calling=calling))
    await device.send(command(1, move_rq(destination, message_id)))
    await device.send(data(1))
    return device, answer


async def settled(both: TwoHospitals) -> None:
    for node in (both.a, both.b):
        await node.live.wait_empty()
        assert len(node.moves) == 0


async def test_a_move_by_way_of_the_holders_router(tmp_path: Path) -> None:
    archive = Archive()
    async with hospitals(tmp_path, archive) as (both, first, second):
        both.b.refusals.note("PACS", "RELAY_B", "mended by this call")
        response = await move(both, "WS", 77)
        assert (response.status, response.message_id_responded_to) == (0, 77)
        assert response.number(Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS) == 2
        assert first.originators == {("WS", 77)}
        assert (len(first.stored), first.released) == (2, 1)  # before the final response
        assert not second.stored
        assert archive.asked[0].move_destination == "RELAY_B"
        await settled(both)
        assert not list(both.b.refusals)


async def test_a_destination_that_cannot_be_is_told_to_the_people_there(tmp_path: Path) -> None:
    async with hospitals(tmp_path, Archive()) as (both, _, _):
        assert (await move(both, "NOBODY")).status == Status.MOVE_DESTINATION_UNKNOWN
        (refusal,) = both.a.refusals
        assert (refusal.calling, refusal.called) == ("WS", "PACS")
        assert refusal.destination == "NOBODY"
        await settled(both)


@pytest.mark.parametrize("names", [True, False])
async def test_two_moves_at_once_with_equal_message_ids(tmp_path: Path, names: bool) -> None:
    """Both workstations ask with Message ID 1, and the PACS stores for both at the same time."""
    archive = Archive(names=names, hold=trio.Event())
    async with hospitals(tmp_path, archive) as (both, first, second):
        found: dict[str, CommandSet] = {}

        async def ask(destination: str) -> None:
            found[destination] = await move(both, destination, 1, destination)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "WS")
            nursery.start_soon(ask, "WS2")
            while len(archive.asked) < 2:
                await trio.sleep(0.001)
            assert archive.hold is not None
            archive.hold.set()
        if names:
            assert [found[title].status for title in ("WS", "WS2")] == [0, 0]
            assert (first.originators, second.originators) == ({("WS", 1)}, {("WS2", 1)})
            assert (len(first.stored), len(second.stored)) == (2, 2)
        else:  # nothing tells them apart, so that nothing is sent anywhere
            assert set(archive.statuses) == {Status.OUT_OF_RESOURCES}
            assert not first.stored
            assert not second.stored
        await settled(both)


async def test_a_holder_without_a_move_originator(tmp_path: Path) -> None:
    archive = Archive(names=False)
    async with hospitals(tmp_path, archive) as (both, first, second):
        assert (await move(both, "WS", 5)).status == 0
        assert (await move(both, "WS2", 5)).status == 0
        assert (len(first.stored), len(second.stored)) == (2, 2)
        assert first.originators == {(None, None)}
        await settled(both)


@pytest.mark.parametrize("names", [True, False])
async def test_what_is_stored_for_who_has_gone_never_reaches_who_asks_next(
    tmp_path: Path, names: bool
) -> None:
    """WS aborts in the middle; the PACS does not notice, and WS2 asks for something else."""
    archive = Archive(names=names, hold=trio.Event())
    async with hospitals(tmp_path, archive) as (both, first, second):
        device, _ = await begin_move(both, "WS")
        while not archive.asked:
            await trio.sleep(0.001)
        await device.abort()
        await device.aclose()
        while len(both.b.moves):
            await trio.sleep(0.001)
        other, _ = await begin_move(both, "WS2", 1, "WS2")
        while len(archive.asked) < 2:
            await trio.sleep(0.001)
        statuses = await archive.store(archive.asked[0])
        assert Status.SUCCESS not in statuses
        assert not second.stored
        assert not first.stored  # it is not asked for any more, and nothing else allows it
        await other.abort()
        await other.aclose()
        archive.stop()
        await settled(both)


async def test_an_object_of_no_move_goes_nowhere(tmp_path: Path) -> None:
    archive = Archive()
    async with hospitals(tmp_path, archive) as (both, first, _):
        assert await archive.store(move_rq("RELAY_B", 1)) == []
        assert isinstance(archive.rejected[0], AAssociateAC)  # of C-ECHO only
        assert not first.stored
        await settled(both)


async def test_a_destination_that_is_away_does_not_stand_in_the_way(tmp_path: Path) -> None:
    """WS2 has been switched off; its move fails, and that to WS goes on."""
    archive = Archive(hold=trio.Event())
    async with hospitals(tmp_path, archive) as (both, first, _):
        await both.a.put_device(Device("WS2", "127.0.0.1", 1, services=frozenset({"store"})))
        found: dict[str, CommandSet] = {}

        async def ask(destination: str) -> None:
            found[destination] = await move(both, destination, 1, destination)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "WS2")
            nursery.start_soon(ask, "WS")
            while len(archive.asked) < 2:
                await trio.sleep(0.001)
            assert archive.hold is not None
            archive.hold.set()
        assert found["WS"].status == 0
        assert found["WS2"].status == Status.UNABLE_TO_PERFORM_SUBOPERATIONS
        assert len(first.stored) == 2
        await settled(both)


async def test_a_destination_that_does_not_answer_does_not_stand_in_the_way(
    tmp_path: Path,
) -> None:
    """The two Routers wait for it as long as they would anyway, and go on with the other."""

    async def silent(association: TCPAssociation) -> None:
        await association.receive()
        await association.receive()

    archive = Archive(hold=trio.Event())
    async with hospitals(tmp_path, archive) as (both, first, _):
        pacs = both.b.devices.get("PACS")
        assert pacs is not None
        await both.b.put_device(attrs.evolve(pacs, answer_wait=2))  # WS answers at once
        port = await both.listen(silent)
        await both.a.put_device(Device("WS2", "127.0.0.1", port, services=frozenset({"store"})))
        other, _ = await begin_move(both, "WS2")
        device, _ = await begin_move(both, "WS")
        while len(archive.asked) < 2:
            await trio.sleep(0.001)
        assert archive.hold is not None
        archive.hold.set()
        assert read(await device.receive()).status == 0
        assert len(first.stored) == 2
        for association in (device, other):
            await association.abort()
            await association.aclose()
        await settled(both)


async def test_a_destination_that_was_not_meant_holds_no_response_up(tmp_path: Path) -> None:
    """WS2 does not let go of an association that carried nothing; the move to WS is done."""
    heard, let_go = trio.Event(), trio.Event()

    async def clings(association: TCPAssociation) -> None:
        request = await association.receive()
        assert isinstance(request, AAssociateRQ)
        await association.send(acceptance(request))
        assert await association.receive() == AReleaseRQ()
        heard.set()
        await let_go.wait()
        await association.send(AReleaseRP())

    archive = Archive(hold=trio.Event())
    async with hospitals(tmp_path, archive) as (both, _, _):
        port = await both.listen(clings)
        await both.a.put_device(Device("WS2", "127.0.0.1", port, services=frozenset({"store"})))
        other, _ = await begin_move(both, "WS2")
        while not archive.asked:
            await trio.sleep(0.001)
        device, _ = await begin_move(both, "WS")
        while len(archive.asked) < 2:
            await trio.sleep(0.001)
        assert await archive.store(archive.asked[1]) == [0, 0]
        await heard.wait()
        meant = both.b.moves.find("PACS", "WS", archive.asked[1].message_id)
        assert meant is not None
        with trio.fail_after(SETTLE_WAIT / 2):
            await both.b.moves.settle(meant)
        let_go.set()
        for association in (device, other):
            await association.abort()
            await association.aclose()
        archive.stop()
        await settled(both)


@pytest.mark.parametrize("how", ["aborted by the holder", "revoked", "the Bridge is away"])
async def test_what_ends_it_ends_it_everywhere(tmp_path: Path, how: str) -> None:
    """Two moves are outstanding, and nothing was stored yet: both destinations have been called."""
    archive = Archive(hold=trio.Event())
    async with hospitals(tmp_path, archive) as (both, first, second):
        pacs = both.b.devices.get("PACS")
        assert pacs is not None
        await both.b.put_device(attrs.evolve(pacs, resume_window=0.2))
        asking = [(await begin_move(both, title, 1, title))[0] for title in ("WS", "WS2")]
        while len(archive.asked) < 2:
            await trio.sleep(0.001)
        device, answer = await both.call(proposal(CT, called="RELAY_B", calling="PACS"), at=both.b)
        assert isinstance(answer, AAssociateAC)
        while first.open + second.open < 2:
            await trio.sleep(0.001)
        if how == "aborted by the holder":
            await device.abort()
        elif how == "revoked":
            await both.b.remove_device("PACS")
            assert isinstance(await device.receive(), AAbort)
        else:
            both.bridge.cut(both.bridge.callee)
            await device.send(command(1, store_rq()))
            await device.send(data(1))
            refused = read(await device.receive())  # it names no move, and there are two
            assert refused.status == Status.OUT_OF_RESOURCES
            both.bridge.restore(both.bridge.callee)
            await release(device)
        await device.aclose()
        archive.stop()
        for association in asking:
            await association.abort()
            await association.aclose()
        while first.open + second.open:
            await trio.sleep(0.001)
        assert not first.stored
        assert not second.stored
        await settled(both)


async def test_the_associations_of_moves_have_the_devices_limit(tmp_path: Path) -> None:
    archive = Archive(hold=trio.Event())
    async with hospitals(tmp_path, archive) as (both, _, _):
        device, _ = await begin_move(both, "WS")
        while not archive.asked:
            await trio.sleep(0.001)
        pacs = both.b.devices.get("PACS")
        assert pacs is not None
        await both.b.put_device(attrs.evolve(pacs, maximum_associations=1, place_wait=0))
        rq = proposal(CT, called="RELAY_B", calling="PACS")
        one, answer = await both.call(rq, at=both.b)
        assert isinstance(answer, AAssociateAC)
        two, answer = await both.call(rq, at=both.b)
        assert answer == AAssociateRJ(2, 3, 2)
        for association in (one, two, device):
            await association.abort()
            await association.aclose()
        archive.stop()
        await settled(both)


async def test_without_a_connection_it_is_a_transient_rejection(tmp_path: Path) -> None:
    archive = Archive(hold=trio.Event())
    async with hospitals(tmp_path, archive) as (both, _, _):
        device, _ = await begin_move(both, "WS")
        while not archive.asked:
            await trio.sleep(0.001)
        both.bridge.cut(both.bridge.callee)
        near, answer = await both.call(proposal(CT, called="RELAY_B", calling="PACS"), at=both.b)
        assert answer == AAssociateRJ(2, 3, 1)
        both.bridge.restore(both.bridge.callee)
        for association in (near, device):
            await association.abort()
            await association.aclose()
        archive.stop()
        await settled(both)


# --- by the destination's own name ----------------------------------------------------------------


async def store_at(device: TCPAssociation, number: int) -> int:
    rq = dimse.request(CommandField.C_STORE_RQ, number, CT, f"1.2.{number}")
    await device.send(command(1, rq))
    await device.send(data(1, bytes(1000)))
    return read(await device.receive()).status


async def test_a_destination_is_stored_to_only_while_it_has_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, there is no association; after, one that is still open carries nothing."""
    archive = Archive(hold=trio.Event())
    async with hospitals(tmp_path, archive) as (both, first, second):
        pacs = both.b.devices.get("PACS")
        assert pacs is not None
        await both.b.put_device(attrs.evolve(pacs, move_via=MoveVia.DEVICE))

        async def call(called: str) -> tuple[TCPAssociation, Atom]:
            rq = proposal(CT, uids.STUDY_ROOT_FIND, called=called, calling="PACS")
            return await both.call(rq, at=both.b)

        async def refused(called: str) -> None:
            device, answer = await call(called)
            assert isinstance(answer, AAssociateRJ)
            await device.aclose()

        await refused("WS")
        requestor, _ = await begin_move(both, "WS")
        while not archive.asked:
            await trio.sleep(0.001)
        assert archive.asked[0].move_destination == "WS"
        await refused("WS2")
        device, answer = await call("WS")
        assert isinstance(answer, AAssociateAC)
        assert [result.accepted for result in answer.contexts] == [True, False]
        assert await store_at(device, 1) == 0
        monkeypatch.setattr(moves_module, "SETTLE_WAIT", 0.01)  # a holder that keeps it open
        archive.stop()
        assert read(await requestor.receive()).status == 0
        assert await store_at(device, 2) == Status.NOT_AUTHORIZED
        assert len(first.stored) == 1
        assert not second.stored
        for association in (device, requestor):
            await release(association)
            await association.aclose()
        await settled(both)
