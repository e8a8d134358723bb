"""Storage commitment by way of the queue (PS3.4 Annex J).

    N-ACTION-RQ -> durable, 0000 -> its objects are delivered -> forwarded -> the device reports
                                 \\-> not within DEADLINE, or refused -> the queue reports that

What the device says of it goes the way that it goes without a queue. The queue itself never says
that anything is committed to: only that the device could not be asked, and that nothing is. Objects
that were given up are no reason not to ask: the device says of each whether it has it.
"""

from functools import partial
from math import inf

import attrs
import structlog
import trio

from relay.dicom import elements
from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import Status
from relay.dicom.elements import TRANSACTION_UID, Element, encoding_of
from relay.dicom.references import read_request
from relay.dicom.status import is_warning
from relay.errors import (
    DatabaseError,
    ObjectDamaged,
    RelayError,
    RemoteProtocolError,
    SpoolError,
    SpoolFull,
    leaves,
)
from relay.router.border import Border
from relay.router.commitments import Commitment
from relay.router.node import unix_time
from relay.router.queue.forwarding import forward
from relay.router.queue.pauses import Pauses
from relay.router.queue.reporting import Reporter, Reports, Told, failure
from relay.router.queue.state import Queue
from relay.router.queue.warnings import Kind
from relay.spool.items import Batch
from relay.spool.transactions import PAGE, Stage, Transaction

log = structlog.get_logger()

# From the request to the queue's own report that it failed: whoever looks the next morning at what
# is not committed finds it, and no modality erases its images within a day.
DEADLINE = 24 * 3600.0

# How long a device that asked is called to be told of a failure: a weekend.
REPORTING = 72 * 3600.0

# Between two attempts, to forward as to report.
PAUSES = Pauses(first=2.0)

# Requests in hand at once: one of each destination, so that one's trouble stays its own, and in
# turns where there are more destinations.
AT_ONCE = 8

# What ends is told; what a person discards, or lets go on, is found by looking.
LOOK = 30.0

# Between two looks, however much ends.
PAUSE = 0.5

# The device may answer otherwise the next time (PS3.7 §C.5.16, §C.5.23).
_TRANSIENT = (Status.PROCESSING_FAILURE, Status.RESOURCE_LIMITATION)


@attrs.frozen(slots=True, kw_only=True)
class Asked:
    """An N-ACTION-RQ for storage commitment, of an association that is described by `batch`."""

    batch: Batch
    command: CommandSet
    data_set: bytes = attrs.field(repr=False)
    transfer_syntax: str
    reporter: Reporter


class Commitments:
    """All requests of this Router's devices. `run` is their task, in the Router's nursery."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._node = queue.node
        self._table = queue.spool.transactions
        self._reports = Reports(queue.node)
        self._news = trio.Event()
        self._busy: set[tuple[Stage, str]] = set()  # destinations, and devices that are told
        self._begun: dict[tuple[Stage, str], float] = {}  # when each was last, by trio's clock
        self._ended: set[tuple[Stage, str]] = set()  # since the rows were read

    # --- the device that asks ---------------------------------------------------------------------

    async def accept(self, asked: Asked, border: Border) -> tuple[int, Told | None]:
        """Take a request into custody: the status to answer it with, and for `closed` who is told.

        PS3.4 §J.3.2.1.2: 0000 once it is durable.
        """
        batch = asked.batch
        encoding = encoding_of(asked.transfer_syntax)
        assert encoding is not None, "no other was accepted"
        try:
            wanted = await trio.to_thread.run_sync(read_request, asked.data_set, encoding)
            crossing = border.commitment_asked(wanted.transaction)
            if crossing.status is not None:
                return crossing.status, None
            if crossing.before is not None:
                await crossing.before()
            transaction = Transaction(
                peer=batch.peer,
                called=batch.called,
                calling=batch.calling,
                device=batch.device,
                uid=wanted.transaction,
                transfer_syntax=asked.transfer_syntax,
                command=asked.command.encode(),
                accepted=self._now,
            )
            await self._queue.spool.custody.noted()  # or it would not wait for what has no row
            instances = [reference.sop_instance for reference in wanted.references]
            kept = await self._table.keep(transaction, asked.data_set, instances)
        except (RemoteProtocolError, SpoolError, DatabaseError) as error:
            log.warning("commitment refused", device=batch.device, why=str(error))
            full = isinstance(error, SpoolFull)
            return Status.RESOURCE_LIMITATION if full else Status.PROCESSING_FAILURE, None
        if not kept:
            why = "another one of this Transaction UID is open"
            log.warning("commitment refused", device=batch.device, why=why)
            return Status.PROCESSING_FAILURE, None
        told = Told.of(transaction)
        self._reports.opened(told.key, asked.reporter)
        log.info(
            "commitment queued",
            device=batch.device,
            called=batch.called,
            references=len(wanted.references),
        )
        self.wake()
        return Status.SUCCESS, told

    def closed(self, told: Told, reporter: Reporter) -> None:
        """The association on which was asked is over."""
        self._reports.closed(told.key, reporter)

    def wake(self) -> None:
        """Objects have come to their end."""
        self._news.set()

    # --- their task -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Forward and report, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                wait = LOOK
                now = self._now  # of both reads: what falls due between them is in one of them
                try:
                    await self._begin(nursery, now)
                    due = await self._table.next_due(now)
                    if due is not None:
                        wait = max(0.0, min(LOOK, due - self._now))  # the clock goes on
                except DatabaseError as error:
                    log.error("commitments cannot be looked at", why=str(error))
                await trio.sleep(PAUSE)
                with trio.move_on_after(wait):
                    await self._news.wait()

    async def _begin(self, nursery: trio.Nursery, now: float) -> None:
        while await self._table.expire(now) == PAGE:
            pass
        self._ended.clear()
        due = await self._table.due(now, now - DEADLINE, PAGE)
        for transaction in sorted(due, key=lambda one: self._begun.get(_lane(one), -inf)):
            lane = _lane(transaction)
            # Of one that has ended meanwhile the row may be older than its end: it was carried, and
            # is looked at again, since its end is news.
            free = lane not in self._busy and lane not in self._ended
            if free and len(self._busy) < AT_ONCE:
                self._busy.add(lane)
                self._begun[lane] = trio.current_time()
                nursery.start_soon(self._carry, transaction)

    async def _carry(self, transaction: Transaction) -> None:
        try:
            await self._attempt(transaction)
        except DatabaseError as error:
            await self._not_noted(transaction, error)
        except Exception:
            log.exception("commitment failed", called=transaction.called)
            await self._postpone(transaction)
        finally:
            self._busy.discard(_lane(transaction))
            self._ended.add(_lane(transaction))
            self._news.set()

    async def _postpone(self, transaction: Transaction) -> None:
        try:
            await self._again(transaction, "a fault of Relay's own: the log has it")
        except DatabaseError as error:
            await self._not_noted(transaction, error)

    async def _not_noted(self, transaction: Transaction, error: DatabaseError) -> None:
        """It is due still, as the row has it: not at once, though."""
        log.error("commitment not noted", called=transaction.called, why=str(error))
        await trio.sleep(LOOK)

    async def _attempt(self, transaction: Transaction) -> None:
        try:
            data_set = await self._table.content(transaction)
        except ObjectDamaged as error:
            await self._give_up(transaction, str(error))
            return
        if transaction.stage is Stage.REPORT:
            await self._report(transaction, data_set)
        elif self._now - transaction.accepted >= DEADLINE:
            why = transaction.reason or "its objects are not delivered"
            await self._fail(transaction, f"not asked within {DEADLINE / 3600:g} hours: {why}")
        else:
            await self._forward(transaction, data_set)

    async def _forward(self, transaction: Transaction, data_set: bytes) -> None:
        status, why = None, ""
        try:
            status = await forward(
                self._node, transaction, data_set, partial(self._hand_on, transaction)
            )
        except* RelayError as group:
            why = str(next(leaves(group)))
        if status is None:
            await self._again(transaction, why)
            return
        if status == Status.SUCCESS or is_warning(status):
            log.info("commitment asked for", device=transaction.device, called=transaction.called)
            await self._become(transaction, Stage.ASKED)
        elif status in _TRANSIENT:
            await self._again(transaction, f"the device answers {status:04X}H")
        else:
            await self._fail(transaction, f"the device answers {status:04X}H")

    async def _hand_on(self, transaction: Transaction, event: CommandSet, data_set: bytes) -> int:
        """The device reports over the association on which it was asked, maybe of another one."""
        encoding = encoding_of(transaction.transfer_syntax)
        assert encoding is not None, "no other was accepted"
        found = elements.find(data_set, TRANSACTION_UID, encoding, whole=True)
        uid = found.text(data_set) if isinstance(found, Element) else ""
        awaited = attrs.evolve(_awaited(transaction), transaction_uid=uid)
        if not self._node.commitments.known(awaited):
            log.warning("report refused", device=transaction.device, why="nobody asked for it")
            return Status.NOT_AUTHORIZED
        told = attrs.evolve(Told.of(transaction), uid=uid)
        try:
            status = await self._reports.tell(told, event, data_set)
            if status == Status.SUCCESS:
                await self._node.commitments.reported(awaited, unix_time())
        except* RelayError as group:
            log.warning("report not delivered", device=told.device, why=str(next(leaves(group))))
            status = Status.PROCESSING_FAILURE
        return status

    async def _report(self, transaction: Transaction, data_set: bytes) -> None:
        why = ""
        try:
            event, report = failure(transaction, data_set)
            status = await self._reports.tell(Told.of(transaction), event, report)
            if status != Status.SUCCESS:
                why = f"it answers {status:04X}H"
        except* RelayError as group:
            why = str(next(leaves(group)))
        if not why:
            await self._node.commitments.reported(_awaited(transaction), unix_time())
            await self._become(transaction, Stage.REPORTED, transaction.reason)
            self._queue.warnings.over(Kind.UNREPORTED, transaction.device)
        else:
            await self._again(transaction, why)

    # --- what becomes of them ---------------------------------------------------------------------

    async def _become(self, transaction: Transaction, stage: Stage, reason: str = "") -> None:
        await self._table.settle(
            attrs.evolve(
                transaction, stage=stage, since=self._now, due=0.0, attempts=0, reason=reason
            )
        )

    async def _again(self, transaction: Transaction, why: str) -> None:
        """It came to nothing: once more after a pause, unless that is over."""
        reports = transaction.stage is Stage.REPORT
        if reports and self._now - transaction.since >= REPORTING:
            await self._give_up(transaction, why)
            return
        attempts = transaction.attempts + 1
        pause = PAUSES.next(attempts)
        log.info(
            "commitment waits",
            device=transaction.device,
            called=transaction.called,
            stage=transaction.stage.name.lower(),
            attempts=attempts,
            why=why,
        )
        reason = transaction.reason if reports else why  # why it failed is not why it is not told
        await self._table.settle(
            attrs.evolve(transaction, due=self._now + pause, attempts=attempts, reason=reason)
        )

    async def _fail(self, transaction: Transaction, reason: str) -> None:
        log.warning(
            "commitment failed", device=transaction.device, called=transaction.called, why=reason
        )
        await self._become(transaction, Stage.REPORT, reason)

    async def _give_up(self, transaction: Transaction, why: str) -> None:
        self._queue.warnings.begin(
            Kind.UNREPORTED,
            transaction.device,
            f"{transaction.device} waits for a storage commitment of {transaction.called} that"
            f" failed, and cannot be told: {why}",
            destination=transaction.called,
            device=transaction.device,
        )
        await self._become(transaction, Stage.UNREPORTED, transaction.reason or why)

    @property
    def _now(self) -> float:
        return self._queue.spool.clock()


def _lane(transaction: Transaction) -> tuple[Stage, str]:
    reports = transaction.stage is Stage.REPORT
    return transaction.stage, transaction.device if reports else transaction.called


def _awaited(transaction: Transaction) -> Commitment:
    return Commitment(
        transaction.uid, True, transaction.device, transaction.peer, transaction.called
    )
