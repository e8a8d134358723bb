"""Storage commitment by way of the queue: durable, forwarded in time, or said to have failed."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import attrs
import pytest
import trio
from pydicom.filereader import read_dataset

from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import CommandField, Status, Tag
from relay.errors import DatabaseError
from relay.router.commitments import Commitment
from relay.router.departure import Departure
from relay.router.queue import commitment as module
from relay.router.queue import forwarding
from relay.router.queue.commitment import DEADLINE, REPORTING, Asked, Commitments
from relay.router.queue.pauses import CAP, Pauses
from relay.router.queue.reporting import Told
from relay.router.queue.warnings import Kind
from relay.spool import custody, transactions
from relay.spool.items import Batch, Selection, State
from relay.spool.transactions import Stage, Transaction
from tests.router.fakes import IMPLICIT
from tests.router.queue.committing import (
    TRANSACTION,
    World,
    action,
    event,
    open_world,
    request_for,
)
from tests.router.queue.queues import NOW, batch_of, becomes, keep
from tests.spool import stock
from tests.spool.requests import open_of, requests_of
from tests.waiting import until

ONE = "1.2.1"


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Trio's clock is the real one, since there are sockets: waits are made short instead."""
    monkeypatch.setattr(forwarding, "REPORT_HERE", 0.05)
    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.setattr(module, "LOOK", 0.05)
    monkeypatch.setattr(module, "PAUSES", Pauses(first=0.01, cap=0.02))
    async with open_world(tmp_path) as world:
        world.queue.commitments = Commitments(world.queue)
        yield world


async def gone(event: CommandSet, data_set: bytes) -> int:
    raise AssertionError("it was not to be told here")


def asked(
    world: World,
    *instances: str,
    data_set: bytes | None = None,
    reporter: Callable[[CommandSet, bytes], Awaitable[int]] = gone,
) -> Asked:
    return Asked(
        batch=batch(world),
        command=action(),
        data_set=request_for(*instances) if data_set is None else data_set,
        transfer_syntax=IMPLICIT,
        reporter=reporter,
    )


def batch(world: World) -> Batch:
    return batch_of("PACS", "WS", "WS", world.pair.b.identity.public)


def commitments_of(world: World) -> Commitments:
    assert world.queue.commitments is not None
    return world.queue.commitments


async def accept(world: World, request: Asked) -> int:
    """WS asks, and releases at once."""
    node = world.pair.a
    border = Departure(node.knowledge(), node.devices.get("WS"), request.batch.peer, "PACS")
    status, told = await commitments_of(world).accept(request, border)
    if told is not None:
        commitments_of(world).closed(told, request.reporter)
    return status


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commitments_of(world).run)
        yield
        nursery.cancel_scope.cancel()


async def the(world: World) -> Transaction:
    """The one there is."""
    (found,) = await requests_of(world.queue.spool.transactions)
    return found


async def reaches(world: World, stage: Stage) -> Transaction:
    """It, once it is there."""
    with trio.fail_after(10):
        while (found := await the(world)).stage is not stage:
            await trio.sleep(0.01)
    return found


def awaited(world: World) -> Commitment:
    return Commitment(TRANSACTION, True, "WS", world.pair.b.identity.public, "PACS")


# --- accepted -------------------------------------------------------------------------------------


async def test_it_is_durable_before_it_is_answered(world: World) -> None:
    world.stands = True
    assert await accept(world, asked(world, ONE)) == Status.SUCCESS
    found = await the(world)
    assert (found.device, found.called, found.calling) == ("WS", "PACS", "WS")
    assert (found.uid, found.stage, found.accepted) == (TRANSACTION, Stage.OBJECTS, NOW)
    assert found.peer == world.pair.b.identity.public
    assert await world.queue.spool.transactions.content(found) == request_for(ONE)
    # Its report will be let in, as one of a confirmed request is.
    assert world.pair.a.commitments.known(awaited(world))
    # Whoever has not heard the answer asks again.
    assert await accept(world, asked(world, ONE)) == Status.SUCCESS
    assert await accept(world, asked(world, "1.2.2")) == Status.PROCESSING_FAILURE
    assert len(await requests_of(world.queue.spool.transactions)) == 1


@pytest.mark.parametrize("data_set", [b"", b"\x08\x00", request_for(), request_for("what")])
async def test_what_cannot_be_read_is_refused(world: World, data_set: bytes) -> None:
    assert await accept(world, asked(world, data_set=data_set)) == Status.PROCESSING_FAILURE
    assert await requests_of(world.queue.spool.transactions) == []


async def test_too_many_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "MAXIMUM_OPEN", 0)
    assert await accept(world, asked(world, ONE)) == Status.RESOURCE_LIMITATION


async def test_what_the_disk_does_not_take_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def keep(*arguments: object) -> bool:
        raise DatabaseError("queue.db: disk I/O error")

    monkeypatch.setattr(transactions.TransactionTable, "keep", keep)
    assert await accept(world, asked(world, ONE)) == Status.PROCESSING_FAILURE


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (apsw.FullError("full"), Status.RESOURCE_LIMITATION),
        (apsw.IOError("disk I/O error"), Status.PROCESSING_FAILURE),
    ],
)
async def test_while_an_object_that_it_names_may_be_missed_it_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: Exception, status: int
) -> None:
    """One that was answered for and has no row yet: it would go on without waiting for that."""

    def failing(*_: object) -> int:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(custody, "insert_item", failing)
        await stock.accept(world.queue.spool, batch(world), b"content", sop_instance=ONE)
        assert await accept(world, asked(world, ONE)) == status
        assert await requests_of(world.queue.spool.transactions) == []
    again = await accept(world, asked(world, ONE))
    if isinstance(fault, apsw.IOError):  # until the next start
        assert again == status
        return
    assert again == Status.SUCCESS
    async with running(world):
        await trio.sleep(0.2)
        assert (await the(world)).stage is Stage.OBJECTS


# --- forwarded ------------------------------------------------------------------------------------


async def test_it_goes_on_once_its_objects_are_delivered(world: World) -> None:
    item = await keep(world.queue, batch(world), instance=ONE)
    await keep(world.queue, batch(world), instance="1.2.9")  # which it does not name
    await accept(world, asked(world, ONE, "1.2.7"))  # the queue never had the second
    async with running(world):
        await trio.sleep(0.2)
        assert world.pacs.heard == []
        await becomes(world.queue, item, State.DELIVERED)
        world.queue.settled(batch(world), [])
        await reaches(world, Stage.ASKED)
    ((command, data_set),) = world.pacs.heard
    assert command.command_field == CommandField.N_ACTION_RQ
    assert data_set == request_for(ONE, "1.2.7")
    assert world.ws.calls == []
    # The device's report comes by an association of its own, and is let in.
    assert world.pair.a.commitments.known(awaited(world))


async def test_what_a_person_has_discarded_is_the_devices_to_judge(world: World) -> None:
    await keep(world.queue, batch(world), instance=ONE)
    await accept(world, asked(world, ONE))
    async with running(world):
        await world.queue.spool.items.discard(Selection(), "by a person", NOW)
        await reaches(world, Stage.ASKED)
    assert len(world.pacs.heard) == 1
    assert world.ws.calls == []


async def test_it_survives_a_restart(world: World) -> None:
    await accept(world, asked(world, ONE))
    world.queue.commitments = Commitments(world.queue)
    async with running(world):
        await reaches(world, Stage.ASKED)


@pytest.mark.parametrize("status", [Status.PROCESSING_FAILURE, Status.RESOURCE_LIMITATION])
async def test_what_passes_is_tried_again(world: World, status: int) -> None:
    answers = [status, status, Status.SUCCESS]
    world.pacs.status = lambda command: answers.pop(0)
    await accept(world, asked(world, ONE))
    async with running(world):
        await reaches(world, Stage.ASKED)
    assert len(world.pacs.heard) == 3


async def test_a_device_that_is_away_is_called_until_it_is_there(world: World) -> None:
    world.pacs.accepts = False
    await accept(world, asked(world, ONE))
    async with running(world):
        await until(lambda: len(world.pacs.calls) >= 3)
        world.pacs.accepts = True
        await reaches(world, Stage.ASKED)
    assert world.ws.calls == []


async def test_pauses_grow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", Pauses(first=2.0))
    world.stands = True
    world.pacs.accepts = False
    await accept(world, asked(world, ONE))
    dues: list[float] = []
    async with running(world):
        for attempts in range(1, 4):
            await until(lambda count=attempts: len(world.pacs.calls) == count)
            with trio.fail_after(10):
                while (found := await the(world)).attempts < attempts:
                    await trio.sleep(0.01)
            assert found.reason == "storage commitment is not accepted there"
            dues.append(found.due - world.now)
            world.now = found.due
    assert 1.0 <= dues[0] <= 2.0 <= dues[1] <= 4.0 <= dues[2] <= 8.0 < CAP


async def test_a_fault_of_our_own_is_no_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    async def forward(*arguments: object) -> int:
        calls.append(arguments)
        if len(calls) == 1:
            raise ZeroDivisionError
        return 0

    monkeypatch.setattr(module, "forward", forward)
    await accept(world, asked(world, ONE))
    async with running(world):
        await reaches(world, Stage.ASKED)
    assert len(calls) == 2


# --- the device reports where it was asked --------------------------------------------------------


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_report_over_the_same_association_reaches_who_asked(
    world: World, at_once: bool
) -> None:
    report = [(event(1), request_for(ONE))]
    world.pacs.before, world.pacs.after = (report, ()) if at_once else ((), report)
    await accept(world, asked(world, ONE))
    async with running(world):
        await reaches(world, Stage.ASKED)
    ((said, data_set),) = world.ws.heard
    assert said.number(Tag.EVENT_TYPE_ID) == 1
    assert data_set == request_for(ONE)
    answers = [command for command, _ in world.pacs.heard if command.is_response]
    assert [answer.status for answer in answers] == [0]


async def test_a_report_of_what_nobody_asked_for_is_refused(world: World) -> None:
    world.pacs.before = [(event(1), request_for(ONE, transaction="1.2.3.9"))]
    await accept(world, asked(world, ONE))
    async with running(world):
        await reaches(world, Stage.ASKED)
    assert world.ws.calls == []
    answers = [command for command, _ in world.pacs.heard if command.is_response]
    assert [answer.status for answer in answers] == [Status.NOT_AUTHORIZED]


async def test_a_report_that_could_not_be_handed_on_comes_again(world: World) -> None:
    """The device hears that, and has its own ways then (PS3.4 §J.3.3.1.2)."""
    world.ws.accepts = False
    world.pacs.before = [(event(1), request_for(ONE))]
    await accept(world, asked(world, ONE))
    async with running(world):
        await reaches(world, Stage.ASKED)
    answers = [command for command, _ in world.pacs.heard if command.is_response]
    assert [answer.status for answer in answers] == [Status.PROCESSING_FAILURE]
    assert world.pair.a.commitments.known(awaited(world))


# --- the queue reports ----------------------------------------------------------------------------


def failed(data_set: bytes) -> list[tuple[str, int]]:
    """What a report says has failed, and why; and that it says no more."""
    report = read_dataset(io.BytesIO(data_set), True, True)
    assert report.TransactionUID == TRANSACTION
    assert "ReferencedSOPSequence" not in report
    return [
        (item.ReferencedSOPInstanceUID, item.FailureReason) for item in report.FailedSOPSequence
    ]


async def test_at_the_deadline_the_queue_says_that_it_failed(world: World) -> None:
    delivered = await keep(world.queue, batch(world), instance=ONE)
    await keep(world.queue, batch(world), instance="1.2.2")
    await becomes(world.queue, delivered, State.DELIVERED)
    await accept(world, asked(world, ONE, "1.2.2"))
    world.stands = True
    async with running(world):
        world.now += DEADLINE - 1
        await trio.sleep(0.2)
        assert world.ws.calls == []
        world.now += 1
        world.stands = False
        found = await reaches(world, Stage.REPORTED)
    ((said, data_set),) = world.ws.heard
    assert said.number(Tag.EVENT_TYPE_ID) == 2
    assert failed(data_set) == [(ONE, 0x0110), ("1.2.2", 0x0110)]
    assert world.pacs.calls == []
    assert "24 hours" in found.reason
    # The object is delivered all the same.
    assert await world.queue.spool.items.count(Selection(state=State.WAITING))


@pytest.mark.parametrize("status", [Status.NOT_AUTHORIZED, 0x0112, Status.UNRECOGNIZED_OPERATION])
async def test_what_the_device_refuses_for_good_is_reported(world: World, status: int) -> None:
    world.pacs.status = lambda command: status
    await accept(world, asked(world, ONE))
    async with running(world):
        found = await reaches(world, Stage.REPORTED)
    assert len(world.pacs.heard) == 1
    assert failed(world.ws.heard[0][1]) == [(ONE, 0x0110)]
    assert f"{status:04X}H" in found.reason


async def test_who_has_not_gone_is_told_where_it_asked(world: World) -> None:
    told: list[tuple[CommandSet, bytes]] = []

    async def reporter(said: CommandSet, data_set: bytes) -> int:
        told.append((said, data_set))
        return 0

    world.pacs.status = lambda command: Status.NOT_AUTHORIZED
    request = asked(world, ONE, reporter=reporter)
    node = world.pair.a
    border = Departure(node.knowledge(), node.devices.get("WS"), request.batch.peer, "PACS")
    status, whom = await commitments_of(world).accept(request, border)
    assert status == 0
    assert whom == Told.of(await the(world))
    async with running(world):
        await reaches(world, Stage.REPORTED)
    assert len(told) == 1
    assert world.ws.calls == []


async def test_a_device_that_is_away_is_told_later(world: World) -> None:
    world.pacs.status = lambda command: Status.NOT_AUTHORIZED
    world.ws.status = lambda command: Status.PROCESSING_FAILURE
    await accept(world, asked(world, ONE))
    async with running(world):
        await until(lambda: len(world.ws.heard) >= 3)
        world.ws.accepts = False
        calls = len(world.ws.calls)
        await until(lambda: len(world.ws.calls) > calls + 1)
        world.ws.accepts, world.ws.status = True, lambda command: 0
        await reaches(world, Stage.REPORTED)
    assert world.queue.warnings.standing(Kind.UNREPORTED) == frozenset()
    assert len(world.pacs.heard) == 1


async def test_who_could_not_be_told_in_time_is_a_persons_matter(world: World) -> None:
    world.pacs.status = lambda command: Status.NOT_AUTHORIZED
    world.ws.accepts = False
    await accept(world, asked(world, ONE))
    async with running(world):
        await until(lambda: world.ws.calls)
        assert (await the(world)).stage is Stage.REPORT
        world.now += REPORTING
        await reaches(world, Stage.UNREPORTED)
        assert world.queue.warnings.standing(Kind.UNREPORTED) == {"WS"}
        # The next one that is told ends that.
        world.ws.accepts = True
        await accept(world, asked(world, data_set=request_for(ONE, transaction="1.2.3.6")))
        with trio.fail_after(10):
            while await open_of(world.queue.spool.transactions):
                await trio.sleep(0.01)
    assert world.queue.warnings.standing(Kind.UNREPORTED) == frozenset()


async def test_what_cannot_be_opened_any_more_is_a_persons_matter(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await accept(world, asked(world, ONE))
    spool = world.queue.spool
    table = transactions.TransactionTable(
        spool.transactions._database, transactions.SpoolKey(bytes(32))
    )
    world.queue.spool = attrs.evolve(spool, transactions=table)
    world.queue.commitments = Commitments(world.queue)
    async with running(world):
        found = await reaches(world, Stage.UNREPORTED)
    assert "spool key" in found.reason
    assert world.queue.warnings.standing(Kind.UNREPORTED) == {"WS"}


async def test_one_destinations_trouble_is_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    async def forward(node: object, transaction: Transaction, *others: object) -> int:
        begun.append(transaction.uid)
        if transaction.called == "PACS":
            await trio.sleep_forever()
        return 0

    monkeypatch.setattr(module, "forward", forward)
    for number in range(3):
        data_set = request_for(ONE, transaction=f"1.2.{number}")
        await accept(world, asked(world, data_set=data_set))
    other = attrs.evolve(world.transaction(), called="PACS2", uid="1.3", id=bytes(16))
    await world.queue.spool.transactions.keep(other, request_for(ONE), [])
    async with running(world):
        with trio.fail_after(10):
            while "1.3" not in begun:
                await trio.sleep(0.01)
        await trio.sleep(0.1)
    assert sorted(begun) == ["1.2.0", "1.3"]


async def test_destinations_take_turns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    async def forward(node: object, transaction: Transaction, *others: object) -> int:
        begun.append(transaction.called)
        return Status.PROCESSING_FAILURE

    monkeypatch.setattr(module, "forward", forward)
    monkeypatch.setattr(module, "AT_ONCE", 1)
    monkeypatch.setattr(module, "PAUSES", Pauses(first=1e-6, cap=1e-6))
    for number in range(3):
        other = attrs.evolve(world.transaction(), called=f"PACS{number}", id=bytes([number] * 16))
        await world.queue.spool.transactions.keep(other, request_for(ONE), [])
    async with running(world):
        await until(lambda: len(begun) >= 6)
    assert set(begun[:3]) == set(begun[3:6]) == {"PACS0", "PACS1", "PACS2"}


async def test_what_cannot_be_noted_is_not_done_over_and_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    settle = transactions.TransactionTable.settle

    async def forward(node: object, transaction: Transaction, *others: object) -> int:
        begun.append(transaction.called)
        return Status.PROCESSING_FAILURE

    async def failing(table: transactions.TransactionTable, transaction: Transaction) -> None:
        if transaction.called == "PACS":
            raise DatabaseError("queue.db: disk I/O error")
        await settle(table, transaction)

    monkeypatch.setattr(module, "forward", forward)
    monkeypatch.setattr(module, "LOOK", 1000)
    monkeypatch.setattr(transactions.TransactionTable, "settle", failing)
    await accept(world, asked(world, ONE))
    other = attrs.evolve(world.transaction(), called="PACS2", id=bytes(16))
    async with running(world):
        await until(lambda: begun.count("PACS") == 1)
        await world.queue.spool.transactions.keep(other, request_for(ONE), [])
        commitments_of(world).wake()
        await until(lambda: begun.count("PACS2") >= 4)
    assert begun.count("PACS") == 1


async def test_what_falls_due_while_it_is_looked_for_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes on between the look for what is due, and that for when the next one is."""
    begun: list[str] = []
    due = transactions.TransactionTable.due

    async def forward(node: object, transaction: Transaction, *others: object) -> int:
        begun.append(transaction.called)
        return Status.PROCESSING_FAILURE

    async def slow(
        table: transactions.TransactionTable, now: float, overdue: float, limit: int
    ) -> list[Transaction]:
        found = await due(table, now, overdue, limit)
        if begun and not found:
            world.now += 10
        return found

    monkeypatch.setattr(module, "forward", forward)
    monkeypatch.setattr(module, "LOOK", 1000)
    monkeypatch.setattr(module, "PAUSES", Pauses(first=5, cap=5))
    monkeypatch.setattr(transactions.TransactionTable, "due", slow)
    world.stands = True
    await accept(world, asked(world, ONE))
    async with running(world):
        await until(lambda: len(begun) >= 3)


async def test_rows_that_were_read_before_it_ended_do_not_begin_it_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends while the rows are read is in them as it was before: the device is asked once."""
    commitments = commitments_of(world)
    due = transactions.TransactionTable.due
    reads = 0

    async def stale(
        table: transactions.TransactionTable, now: float, overdue: float, limit: int
    ) -> list[Transaction]:
        nonlocal reads
        reads += 1
        found = await due(table, now, overdue, limit)
        if reads == 2:
            assert [one.uid for one in found] == [TRANSACTION]
            await until(lambda: not commitments._busy)
        return found

    monkeypatch.setattr(transactions.TransactionTable, "due", stale)
    world.pacs.status = lambda command: Status.NOT_AUTHORIZED
    world.stands = True
    await accept(world, asked(world, ONE))
    async with trio.open_nursery() as nursery:
        await commitments._begin(nursery, NOW)
        await commitments._begin(nursery, NOW)
    assert len(world.pacs.heard) == 1
