"""The SCP of queued delivery: what one association brings, and what it is answered."""

import os
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import apsw
import attrs
import pytest
import trio
import trio.testing

from relay.association import TCPAssociation
from relay.dicom import dimse, uids
from relay.dicom.commandset import CommandSet, Tag
from relay.dicom.dimse import CommandField
from relay.dicom.negotiation import AsynchronousOperationsWindow, find
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AReleaseRP,
    AReleaseRQ,
)
from relay.dicom.upperlayer import Role
from relay.errors import DatabaseError
from relay.router.aliases import Alias
from relay.router.calling import serve_device
from relay.router.queue.admission import WINDOW
from relay.router.queue.destinations import Destination
from relay.router.queue.taking import Taking
from relay.router.queue.warnings import Kind
from relay.spool.custody import Custody
from relay.spool.files import File
from relay.spool.items import Priority, State
from relay.spool.segments import SEGMENT
from tests.router.fakes import CT, IMPLICIT, MR, command, data, echo_rq, proposal, read
from tests.router.queue.calls import asked, calling, files, stored, taking, without
from tests.router.queue.sending import Archive
from tests.waiting import until

# --- objects --------------------------------------------------------------------------------------


async def test_an_object_is_answered_once_it_is_kept(tmp_path: Path) -> None:
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        await sender.store(1)
        assert await sender.status() == (1, 0)
        (item,) = await it.items()
        assert (item.state, item.called, item.pair) == (State.WAITING, "PACS", (CT, IMPLICIT))
        assert item.sop_instance == "1.2.3.1"
        batches = await it.queue.spool.items.batches([item.batch])
        batch = batches[item.batch]
        assert (batch.calling, batch.device, batch.closed) == ("WS", "WS", None)
        assert batch.peer == it.both.b.identity.public
        await sender.release()
        await sender.over.wait()
        batch = (await it.queue.spool.items.batches([item.batch]))[item.batch]
        assert batch.closed is not None
        assert it.queue.statistics.accepted == 1


async def test_and_is_delivered_while_more_comes(tmp_path: Path) -> None:
    async with taking(tmp_path) as it, calling(it) as (sender, _):
        for number in (1, 2, 3):
            await sender.store(number, b"object %d" % number)
            assert await sender.status() == (number, 0)
            await it.becomes(delivered=number)
        assert it.archive.released == 0
        await sender.release()
        await until(lambda: it.archive.released == 1)
        assert it.archive.associations == [[b"object 1", b"object 2", b"object 3"]]


@pytest.mark.parametrize("fragments", [1, 2, 7, 4000])
async def test_fragments_of_all_shapes(tmp_path: Path, fragments: int) -> None:
    content = random.Random(fragments).randbytes(8000)
    request = asked(1).encode()
    async with taking(tmp_path) as it, calling(it) as (sender, _):
        for at in range(0, len(request), 30):  # the command too
            last = at + 30 >= len(request)
            await sender.say(PDV(1, True, last, request[at : at + 30]))
        for pdv in stored(1, content, fragments=fragments)[1:]:
            await sender.say(attrs.evolve(pdv, is_last=False))
        await sender.say(data(1, b""))  # the last one empty
        assert await sender.status() == (1, 0)
        await sender.release()
        await it.becomes(delivered=1)
        assert it.archive.seen == [content]


async def test_a_huge_object_is_never_whole_in_memory(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(SEGMENT)
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        writers = []
        begin = it.queue.spool.objects.begin

        async def noted() -> object:
            writers.append(await begin())
            return writers[0]

        it.queue.spool.objects.begin = noted  # type: ignore[method-assign, assignment]
        await sender.say(command(1, asked(1)))
        for _ in range(40):
            await sender.say(data(1, content, last=False))
            assert not writers or len(writers[0]._gathered) <= 2 * SEGMENT
        await sender.say(data(1, content))
        assert await sender.status() == (1, 0)
        (item,) = await it.items()
        assert item.length == 41 * SEGMENT
        await sender.release()


async def test_a_large_object_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its last part goes to the disk, another sender's is committed and answered."""
    begun, go_on = threading.Event(), threading.Event()
    sync = File.sync

    def slow(file: File) -> None:
        if os.fstat(file._descriptor).st_size > SEGMENT:
            begun.set()
            assert go_on.wait(20)
        sync(file)

    monkeypatch.setattr(File, "sync", slow)
    async with (
        taking(tmp_path, couriers=False) as it,
        calling(it) as (large, _),
        calling(it) as (small, _),
    ):
        try:
            await large.say(command(1, asked(1)), data(1, bytes(SEGMENT), last=False), data(1))
            await until(begun.is_set)
            await small.store(2)
            assert await small.status() == (2, 0)
        finally:
            go_on.set()
        assert await large.status() == (1, 0)
        await large.release()
        await small.release()


async def test_what_is_kept_stays_where_nobody_could_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):

        def fails(*_: object) -> None:
            raise ZeroDivisionError("a fault")

        monkeypatch.setattr(it.queue.waiting, "kept", fails)
        await sender.store(1)
        assert await sender.status() == (1, 0)
        await sender.association.abort()
        await sender.over.wait()
        assert files(it) == len(await it.items()) == 1


async def no_rows(custody: Custody) -> None:
    """Rows are written in front of others' transactions only."""
    await trio.sleep_forever()


@pytest.mark.parametrize("moved", [True, False])
async def test_only_what_somebody_waits_for_has_its_row_before_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    """Before its holder can say that it has sent all that was to be moved."""
    monkeypatch.setattr(Custody, "run", no_rows)
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        known: list[tuple[Sequence[str], int]] = []
        moves = ["a move"] if moved else []
        monkeypatch.setattr(it.both.a.moves, "stored_for", lambda *_: moves)
        monkeypatch.setattr(
            it.queue.waiting, "kept", lambda moves, item: known.append((moves, item.number))
        )
        custody = it.queue.spool.custody
        for number in (1, 2):
            await sender.store(number)
            assert await sender.status() == (number, 0)
            assert custody.waits is not moved
            assert known == [(moves, n) for n in range(1, number + 1) if moved]
        await sender.release()
        await sender.over.wait()
        assert known == [(moves, 1), (moves, 2)]
        assert custody.groups == (2 if moved else 1)


async def test_what_is_moved_is_not_answered_for_without_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who moves it would not wait for its delivery. It is kept, and delivered, all the same."""
    monkeypatch.setattr(Custody, "run", no_rows)
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        monkeypatch.setattr(it.both.a.moves, "stored_for", lambda *_: ["a move"])
        monkeypatch.setattr(it.queue.waiting, "kept", lambda *_: None)
        custody = it.queue.spool.custody
        with monkeypatch.context() as full:
            full.setattr("relay.spool.custody.insert_item", _full)
            await sender.store(1)
            assert await sender.status() == (1, dimse.Status.OUT_OF_RESOURCES)
        await custody.flush()
        assert custody.kept == 1
        await sender.release()
        await sender.over.wait()


def _full(*_: object) -> int:
    raise apsw.FullError("database or disk is full")


async def test_its_batch_is_closed_with_rows_that_come_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Custody, "run", no_rows)
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        await sender.store(1)
        assert await sender.status() == (1, 0)
        assert it.queue.spool.custody.waits
        await sender.association.abort()
        await sender.over.wait()
        assert not it.queue.spool.custody.waits
        (item,) = await it.items()
        batch = (await it.queue.spool.items.batches([item.batch]))[item.batch]
        assert batch.closed is not None


async def test_several_operations_share_a_sync_and_keep_their_order(tmp_path: Path) -> None:
    window = AsynchronousOperationsWindow(0, 0).encode()  # without a limit
    request = attrs.evolve(proposal(CT), user_items=(window,))
    async with taking(tmp_path, couriers=False) as it, calling(it, request) as (sender, answer):
        assert isinstance(answer, AAssociateAC)
        (granted,) = find(answer.user_items, AsynchronousOperationsWindow)
        assert granted.invoked == WINDOW
        groups = it.queue.spool.custody.groups
        for number in range(1, WINDOW + 1):
            await sender.store(number)
        answered = [await sender.status() for _ in range(WINDOW)]
        assert sorted(answered) == [(number, 0) for number in range(1, WINDOW + 1)]
        assert it.queue.spool.custody.groups - groups < WINDOW
        instances = [item.sop_instance for item in await it.items()]
        assert instances == [f"1.2.3.{number}" for number in range(1, WINDOW + 1)]
        await sender.release()


async def test_a_release_is_answered_after_the_last_object_is_kept(tmp_path: Path) -> None:
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        for number in range(1, 9):
            await sender.store(number)
        await sender.say(AReleaseRQ())
        assert [await sender.status() for _ in range(8)]
        assert isinstance(await sender.association.receive(), AReleaseRP)
        assert len(await it.items()) == 8


async def test_a_sender_without_a_window_is_granted_none(tmp_path: Path) -> None:
    async with taking(tmp_path) as it, calling(it) as (sender, answer):
        assert isinstance(answer, AAssociateAC)
        assert not find(answer.user_items, AsynchronousOperationsWindow)
        await sender.release()


async def test_the_priority_is_the_destinations(tmp_path: Path) -> None:
    destination = Destination("PACS", priority=Priority.HIGH)
    async with (
        taking(tmp_path, destination=destination, couriers=False) as it,
        calling(it) as (sender, _),
    ):
        await sender.store(1)
        assert await sender.status() == (1, 0)
        (batch,) = (await it.queue.spool.items.batches([1])).values()
        assert batch.priority is Priority.HIGH
        await sender.release()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "context", "status"),
    [
        (asked(1, MR), 1, 0x0122),
        (asked(1, instance="9" * 63), 1, 0x0117),
        (without(asked(1), Tag.AFFECTED_SOP_INSTANCE_UID), 1, 0x0117),
        (dimse.request(CommandField.C_FIND_RQ, 1, CT), 1, 0x0211),
        (dimse.request(CommandField.C_ECHO_RQ, 1, CT), 1, 0x0211),
    ],
)
async def test_what_is_wrong_is_drained_and_answered(
    tmp_path: Path, request_: CommandSet, context: int, status: int
) -> None:
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        await sender.say(command(context, request_))
        if request_.has_data_set:
            await sender.say(data(context, last=False), data(context))
        assert await sender.status() == (1, status)
        await sender.store(2)
        assert await sender.status() == (2, 0)
        await sender.release()
        assert files(it) == 1


async def test_what_is_refused_at_a_delivery_is_accepted_no_more(tmp_path: Path) -> None:
    """Also on an association that was accepted before."""
    async with taking(tmp_path) as it, calling(it) as (sender, answer):
        await sender.store(1)
        assert await sender.status() == (1, dimse.Status.SUCCESS)
        assert isinstance(answer, AAssociateAC)
        (syntax, *_) = [result.transfer_syntax for result in answer.contexts if result.id == 1]
        await it.queue.acceptance.refuse("PACS", "WS", (CT, syntax))
        await sender.store(2)
        assert await sender.status() == (2, dimse.Status.SOP_CLASS_NOT_SUPPORTED)
        await sender.release()


async def test_a_store_without_a_data_set_is_no_object(tmp_path: Path) -> None:
    empty = asked(1).evolve({Tag.COMMAND_DATA_SET_TYPE: 0x0101})
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        await sender.say(command(1, empty))
        assert await sender.status() == (1, 0xC000)
        assert await it.items() == []
        await sender.release()


async def test_a_request_without_message_id_ends_the_association(tmp_path: Path) -> None:
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        await sender.say(command(1, without(asked(1), Tag.MESSAGE_ID)))
        assert isinstance(await sender.association.receive(), AAbort)
        await sender.over.wait()
        assert files(it) == 0


async def test_a_response_and_a_cancel_are_passed_over(tmp_path: Path) -> None:
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        await sender.say(command(1, dimse.response_to(asked(9), 0)))
        await sender.say(command(1, dimse.request(CommandField.C_CANCEL_RQ, 9)))
        await sender.store(1)
        assert await sender.status() == (1, 0)
        await sender.release()


async def test_the_move_originator_is_said_as_the_network_knows_it(tmp_path: Path) -> None:
    async with taking(tmp_path) as it:
        await it.both.a.aliases.put(Alias("LOCAL_PACS", "PACS"))
        request = asked(1).evolve(
            {
                Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: "LOCAL_PACS",
                Tag.MOVE_ORIGINATOR_MESSAGE_ID: 3,
            }
        )
        async with calling(it) as (sender, _):
            await sender.store(1, request=request)
            assert await sender.status() == (1, 0)
            await sender.release()
        await it.becomes(delivered=1)
    (got,) = it.archive.commands
    assert got.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE) == "PACS"
    assert got.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID) == 3


# --- no room --------------------------------------------------------------------------------------


async def test_full_in_the_middle_of_an_object(tmp_path: Path) -> None:
    async with (
        taking(tmp_path, couriers=False, space=3 * SEGMENT) as it,
        calling(it) as (sender, _),
    ):
        content = bytes(SEGMENT)
        await sender.say(command(1, asked(1)))
        for number in range(6):
            await sender.say(data(1, content, last=number == 5))
        assert await sender.status() == (1, 0xA700)
        assert it.queue.warnings.standing(Kind.SPOOL_FULL) == {""}
        assert it.queue.spool.objects.space.used == 0
        await sender.store(2)
        assert await sender.status() == (2, 0)
        await sender.release()
        assert files(it) == 1


async def test_a_broken_disk_takes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        await sender.store(1)
        assert await sender.status() == (1, 0)
        it.queue.spool.objects.space.break_off("the disk does not sync")
        for number in (2, 3):
            await sender.store(number)
            assert await sender.status() == (number, 0xA700)
        assert it.queue.warnings.standing(Kind.SPOOL_BROKEN) == {""}
        await sender.release()
        async with calling(it) as (_, answer):
            assert answer == AAssociateRJ(2, 3, 2)


# --- senders that go ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["abort", "lost", "protocol"])
async def test_a_sender_that_goes_in_the_middle_of_an_object_leaves_nothing(
    tmp_path: Path, how: str
) -> None:
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        await sender.store(1)
        assert await sender.status() == (1, 0)
        await sender.say(command(1, asked(2)), data(1, bytes(3 * SEGMENT), last=False))
        if how == "abort":
            await sender.association.abort()
        elif how == "lost":
            await sender.association._stream.aclose()
        else:
            await sender.say(data(3))  # on the context of no message
            assert isinstance(await sender.association.receive(), AAbort)
            await sender.association.aclose()
        with trio.fail_after(10):
            await sender.over.wait()
        assert len(await it.items()) == 1
        assert files(it) == 1
        (batch,) = (await it.queue.spool.items.batches([1])).values()
        assert batch.closed is not None


async def test_a_sender_that_goes_before_the_answer_is_served_all_the_same(
    tmp_path: Path,
) -> None:
    async with taking(tmp_path) as it, calling(it) as (sender, _):
        await sender.store(1)
        await sender.store(2)
        await sender.association.abort()
        await sender.over.wait()
        await it.becomes(delivered=len(await it.items()))
        assert set(it.archive.seen) <= {b"content!"}
        await until(lambda: files(it) == 0)


async def test_an_association_that_ends_while_the_router_stops(tmp_path: Path) -> None:
    async with taking(tmp_path, couriers=False) as it:
        near, far = trio.testing.memory_stream_pair()
        sender = TCPAssociation(near, Role.REQUESTOR, host="127.0.0.1")
        router = TCPAssociation(far, Role.ACCEPTOR, host="127.0.0.1")
        with trio.CancelScope() as stopping:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def serve() -> None:
                    await serve_device(it.both.a, router, queue=it.queue)

                await sender.send(proposal(CT))
                await sender.receive()
                for pdv in stored(1):
                    await sender.send(pdv)
                assert read(await sender.receive()).status == 0
                await sender.send(command(1, asked(2)))
                await sender.send(data(1, last=False))
                await trio.testing.wait_all_tasks_blocked()
                stopping.cancel()
        assert files(it) == 1
        (batch,) = (await it.queue.spool.items.batches([1])).values()
        assert batch.closed is not None
        for stream in (near, far):
            await trio.aclose_forcefully(stream)


async def test_what_is_kept_stays_where_its_association_ends_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering = trio.Event()

    async def never(*_: object) -> None:
        answering.set()
        await trio.sleep_forever()

    monkeypatch.setattr(Taking, "_respond", never)
    async with taking(tmp_path, couriers=False) as it:
        near, far = trio.testing.memory_stream_pair()
        sender = TCPAssociation(near, Role.REQUESTOR, host="127.0.0.1")
        router = TCPAssociation(far, Role.ACCEPTOR, host="127.0.0.1")
        with trio.CancelScope() as stopping:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def serve() -> None:
                    await serve_device(it.both.a, router, queue=it.queue)

                await sender.send(proposal(CT))
                await sender.receive()
                for pdv in stored(1):
                    await sender.send(pdv)
                await answering.wait()
                stopping.cancel()
        assert files(it) == 1
        (item,) = await it.items()
        assert item.state is State.WAITING
        assert it.queue.spool.objects.space.used == item.size
        for stream in (near, far):
            await trio.aclose_forcefully(stream)


async def test_a_batch_whose_end_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(batch: object, now: float) -> None:
        batch.closed = now  # type: ignore[attr-defined]
        raise DatabaseError("disk I/O error")

    async with taking(tmp_path) as it, calling(it) as (sender, _):
        await sender.store(1)
        assert await sender.status() == (1, 0)
        monkeypatch.setattr(it.queue.spool.items, "close_batch", fails)
        await sender.release()
        await until(lambda: it.archive.released == 1)


# --- C-ECHO ---------------------------------------------------------------------------------------


async def test_an_echo_is_the_devices_own(tmp_path: Path) -> None:
    status = [0]
    archive = Archive(answer=lambda content: status[0])
    request = proposal(CT, uids.VERIFICATION)
    async with taking(tmp_path, archive, couriers=False) as it, calling(it, request) as (sender, _):
        await sender.say(command(3, echo_rq(1)))
        assert await sender.status() == (1, 0)
        status[0] = 0x0110
        await sender.say(command(3, echo_rq(2)))
        assert await sender.status() == (2, 0x0110)
        it.both.bridge.cut(it.both.bridge.caller)
        await sender.say(command(3, echo_rq(3)))
        assert await sender.status() == (3, 0x0110)
        await sender.store(4)
        assert await sender.status() == (4, 0)
        it.both.bridge.restore(it.both.bridge.caller)
        await sender.release()
    assert len(archive.requests) == 2


async def test_echoes_go_one_by_one_and_end_with_their_association(tmp_path: Path) -> None:
    async def never(content: bytes) -> None:
        await trio.sleep_forever()

    archive = Archive(before=never)
    request = proposal(CT, uids.VERIFICATION)
    async with taking(tmp_path, archive, couriers=False) as it, calling(it, request) as (sender, _):
        for number in range(5):
            await sender.say(command(3, echo_rq(number)))
        await until(lambda: archive.open == 1)
        await trio.sleep(0.05)
        assert archive.most == 1
        await sender.association.abort()
        with trio.fail_after(5):
            await sender.over.wait()
