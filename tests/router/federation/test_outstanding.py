"""What a device of ours is asked for a C-MOVE, and when that is answered."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from relay.dicom import dimse
from relay.dicom.dimse import CommandField, CommandSet, Status, Tag
from relay.dicom.elements import Encoding
from relay.errors import Outcome, SourceFailed
from relay.router.arrival import DELIVERY_WAIT, PENDING_PAUSE
from relay.router.devices import Device, MoveVia
from relay.router.federation.conversing import Cancelling
from relay.router.federation.outstanding import outstanding
from relay.router.federation.retrieving import retrieve_move
from relay.router.federation.sources import Source
from relay.router.moves import MAXIMUM_DESTINATIONS, HeldMove
from relay.router.node import Node
from relay.signalling import messages
from tests.router.fakes import hospital, move_rq
from tests.router.federation.archives import Archive, Stored, numbers, series_of, site
from tests.router.federation.test_moving import STUDY

WS = Device("WS", "192.0.2.1", published="NORTH_WS")
CONSOLE = Device("CONSOLE", "192.0.2.3", published="NORTH_CONSOLE")
PACS = Device("PACS", "192.0.2.2", federation=True)
VIA_ROUTER = attrs.evolve(PACS, move_via=MoveVia.ROUTER)
SOUTH = Source("SOUTH_PACS", "SOUTH_PACS", "South", None, True)


def source(device: Device) -> Source:
    return Source(device.ae_title, device.published, "North", device, True)


def held(node: Node) -> list[HeldMove]:
    return list(node.moves._held)


@pytest.mark.parametrize(
    ("asked", "destination", "enrolled"),
    [
        (SOUTH, "WS", True),
        (source(PACS), "CONSOLE", True),
        (source(VIA_ROUTER), "PACS", True),  # itself
        (source(VIA_ROUTER), "CONSOLE", False),
    ],
)
async def test_who_sends_there_by_itself_is_asked_as_the_caller_asks(
    tmp_path: Path, asked: Source, destination: str, enrolled: bool
) -> None:
    async with hospital(tmp_path / "me", enrolled=enrolled) as me:
        for device in (WS, CONSOLE, VIA_ROUTER):
            await me.put_device(device)
        with outstanding(me, WS, asked, destination, 7) as it:
            assert (it.destination, it.message_id) == (destination, 7)
            assert held(me) == []


@pytest.mark.parametrize(
    ("device", "caller", "destination", "seen", "move"),
    [
        (VIA_ROUTER, WS, "CONSOLE", "RELAY", ("WS", "NORTH_CONSOLE", "WS", True)),
        (VIA_ROUTER, WS, "SOUTH_WS", "RELAY", ("NORTH_WS", "SOUTH_WS", "WS", True)),
        (VIA_ROUTER, None, "SOUTH_WS", "RELAY", ("RELAY", "SOUTH_WS", "RELAY", True)),
        (PACS, WS, "SOUTH_WS", "SOUTH_WS", ("NORTH_WS", "SOUTH_WS", "WS", False)),
    ],
)
async def test_what_goes_by_way_of_the_router_is_registered_meanwhile(
    tmp_path: Path,
    device: Device,
    caller: Device | None,
    destination: str,
    seen: str,
    move: tuple[str, str, str, bool],
) -> None:
    async with hospital(tmp_path / "me") as me:
        for known in (WS, CONSOLE, device):
            await me.put_device(known)
        with outstanding(me, caller, source(device), destination, 7) as it:
            [one] = held(me)
            assert it.destination == seen
            assert it.message_id == one.seen_message_id >= 0x8000
            assert (one.holder, one.message_id) == ("PACS", 7)
            told = one.requestor, one.destination, one.seen_requestor, one.via_router
            assert told == move
            it.over = True
        assert held(me) == []
        with outstanding(me, caller, source(device), destination, 7) as it:
            pass
        # Of one that is given up the archive may go on to store.
        assert len(held(me)) == device.move_via.value.count("router")


async def test_a_device_has_so_many_destinations_at_once(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        await me.put_device(VIA_ROUTER)
        for number in range(MAXIMUM_DESTINATIONS):
            with outstanding(me, WS, source(VIA_ROUTER), f"WS{number}", 1):
                pass  # given up
        with (
            pytest.raises(SourceFailed, match="too many destinations") as caught,
            outstanding(me, WS, source(VIA_ROUTER), "ANOTHER", 1),
        ):
            raise AssertionError("it is asked")
        assert caught.value.outcome is Outcome.SLOW


async def test_by_way_of_the_router_an_archive_sends_what_is_asked(tmp_path: Path) -> None:
    archive = Archive(series_of("1.2", 1, 3), destinations=frozenset({"RELAY"}))
    moves: list[list[str]] = []
    with trio.fail_after(20):
        async with hospital(tmp_path / "me") as me, site(tmp_path, {"PACS": archive}) as here:
            node = here.federation.node
            node.network = me.network
            await me.joined().directory.take(messages.Granted((), 0))

            def note(where: str, one: Stored) -> None:
                moves.append([where, *node.moves.destinations("PACS")])
                assert list(here.federation.transfer_lines._busy) == ["PACS"]
                assert not here.federation.lines._busy

            archive.sends_to = note
            device = node.devices.get("PACS")
            assert device is not None
            await node.put_device(attrs.evolve(device, move_via=MoveVia.ROUTER))
            totals = await retrieve_move(here.federation, here.caller, STUDY, "WS", message_id=77)
            assert not len(node.moves)
    assert numbers(totals) == (0, 3, 0, 0)
    assert moves == [["RELAY", "WS"]] * 3
    request = next(r for r in archive.requests if r.command_field == CommandField.C_MOVE_RQ)
    assert request.message_id >= 0x8000
    assert archive.callings[-1] == "WS"


# --- what a queue has taken -----------------------------------------------------------------------


@attrs.define
class Answered:
    """The archive's final response, of `count` objects that the queue has taken as numbers."""

    node: Node
    count: int = 3
    status: int = 0
    cancelling: Cancelling = attrs.Factory(Cancelling)
    shown: list[CommandSet] = attrs.Factory(list)

    async def run(self, deliver: Callable[[HeldMove], Awaitable[None]]) -> CommandSet:
        """The response in its time, while `deliver` does what becomes of them."""
        response = dimse.response_to(
            move_rq("RELAY", 0x9000),
            self.status,
            extra={Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS: self.count},
        )
        with outstanding(self.node, WS, source(VIA_ROUTER), "SOUTH_WS", 7) as asked:
            [move] = held(self.node)
            for number in range(self.count):
                self.node.moves.keep([move], number, f"1.2.{number}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(deliver, move)
                command, _ = await asked.settled(
                    response, b"", Encoding(), self.cancelling, self._show
                )
                nursery.cancel_scope.cancel()
        assert held(self.node) == []
        return command

    async def _show(self, pending: CommandSet) -> None:
        self.shown.append(pending)


def counts(command: CommandSet) -> tuple[int | None, ...]:
    """Remaining, completed, failed, warning."""
    return tuple(
        command.number(tag)
        for tag in (
            Tag.NUMBER_OF_REMAINING_SUBOPERATIONS,
            Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS,
            Tag.NUMBER_OF_FAILED_SUBOPERATIONS,
            Tag.NUMBER_OF_WARNING_SUBOPERATIONS,
        )
    )


async def test_the_answer_waits_until_the_queue_has_delivered(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def deliver(move: HeldMove) -> None:
        for number in range(3):
            await trio.sleep(PENDING_PAUSE * 0.6)
            move.kept.end(number, delivered=number != 1)

    async with hospital(tmp_path / "me") as me:
        it = Answered(me)
        command = await it.run(deliver)
        assert (command.status, counts(command)) == (0xB000, (None, 2, 1, 0))
        assert [counts(pending) for pending in it.shown] == [(2, 1, 0, 0)]


async def test_it_does_not_wait_for_ever(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def deliver(move: HeldMove) -> None:
        await trio.sleep_forever()

    async with hospital(tmp_path / "me") as me:
        it, start = Answered(me), trio.current_time()
        command = await it.run(deliver)
        assert command.status == Status.UNABLE_TO_PERFORM_SUBOPERATIONS
        assert counts(command) == (None, 0, 3, 0)
        assert trio.current_time() - start == pytest.approx(DELIVERY_WAIT)


@pytest.mark.parametrize("status", [0, Status.CANCEL])
async def test_a_cancel_ends_the_wait(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, status: int
) -> None:
    async with hospital(tmp_path / "me") as me:
        it, start = Answered(me, status=status), trio.current_time()

        async def deliver(move: HeldMove) -> None:
            await trio.sleep(1)
            it.cancelling.cancel()
            await trio.sleep_forever()

        command = await it.run(deliver)
        assert command.status == Status.CANCEL
        assert counts(command)[:3] == (3, 0, 0)
        assert trio.current_time() - start <= 1
