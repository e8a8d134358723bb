"""A consignment: the objects of one delivery session, from the near Router to a device of ours.

    Item, C-STORE-RQ, data set -> guard -> device -> C-STORE-RSP -> receipt -> Result

The device gets the objects one after the other, as they come, and never one whole that is not what
its item says: the end of each data set is held back until length and digest are known to hold. An
object that has its receipt is answered from that, and the device sees nothing of it.

Whatever ends the session, what the device has answered by then is told first.
"""

from collections import deque
from math import inf
from typing import Protocol

import structlog
import trio

from relay.association import ABORT_LIMIT, Association, Gathering
from relay.dicom.commandset import CommandSet, Tag
from relay.dicom.dimse import CommandField, CommandReader
from relay.dicom.pdu import PDV, AAbort, AReleaseRP, AReleaseRQ, Atom
from relay.digest import begin_like
from relay.errors import (
    AbortReason,
    AbortSource,
    AssociationAborted,
    DatabaseError,
    RemoteProtocolError,
)
from relay.router.direction import Verdict, command_pdv
from relay.router.node import unix_time
from relay.router.passthrough import DIMSEGuard
from relay.router.queue.operations import Operation, Operations
from relay.router.queue.results import Due, Ending, How, Results, known
from relay.router.traffic import Traffic
from relay.scu import STORE_DEADLINE
from relay.spool.receipts import Receipt, Recorder, needs_receipt
from relay.tunnel import notes
from relay.tunnel.notes import (
    MAXIMUM_COMMENT,
    Answer,
    Answers,
    Forget,
    Item,
    Outcome,
    Question,
    Result,
)
from relay.tunnel.records import Note, Record
from relay.tunnel.session import TunnelAssociation

log = structlog.get_logger()

# When no more objects come, a device that has some whole may still answer them: each answer spares
# it seeing that object again. Longer would keep its place from others.
LAST_ANSWERS = 30.0

# Between two records of the near Router. One that has nothing to send releases after two minutes;
# one whose bandwidth is limited may need some for its next chunk, since all of its sessions share
# that. Longer than this it keeps a device's place for nothing.
NEAR_SILENCE = 1800.0

NO_ROOM = "this hospital keeps too many receipts of the sender's: does it never say what it has?"
NOT_WRITTEN = "receipts cannot be written; the log there says why"


class Device(Association, Gathering, Protocol):
    """The association with the device: it takes in one call what came in one piece."""


class _OverError(Exception):
    """Nothing more is taken from the near Router."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.words)
        self.ending = ending


class Consignment:
    """One session's objects, from `near` to `device`; `origin` is the near Router's identity.

    `window` is how many operations the device lets us invoke. Three tasks: one takes what the near
    Router says, one what the device says, one tells the results. Closing both associations is the
    caller's.
    """

    def __init__(
        self,
        near: TunnelAssociation,
        device: Device,
        guard: DIMSEGuard,
        recorder: Recorder,
        *,
        origin: bytes,
        window: int,
    ) -> None:
        self.results = Results(near, recorder, origin)
        self.traffic = Traffic()
        self._near = near
        self._device = device
        self._guard = guard
        self._recorder = recorder
        self._origin = origin
        self._operations = Operations(window)
        self._reader = CommandReader()
        self._ending: Ending | None = None
        self._waits_since = inf  # for a record of the near Router
        self._records: deque[Record] = deque()  # that have come and are not looked at
        self._hearing, self._listening = trio.CancelScope(), trio.CancelScope()
        self._device_over = False

    @property
    def idle(self) -> bool:
        """The device is there, and was sent nothing that it has not answered."""
        return self._operations.idle and not self._device_over

    async def run(self) -> Ending:
        """Until nothing more is to be handed on, and what was answered is told."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.results.run, self._failed)
                async with trio.open_nursery() as talking:
                    talking.start_soon(self._listen)
                    talking.start_soon(self._hear)
                self.results.end()
        finally:
            # Cancelled, the device may have answered behind the last that was written.
            await self.results.write(self._failed)
            self.results.close()
        assert self._ending is not None, "both tasks ended, and neither said why"
        return self._ending

    def _over(self, ending: Ending) -> None:
        """Note why it ends: the first cause is the cause."""
        self._ending = self._ending or ending

    def _failed(self, error: DatabaseError) -> None:
        log.error("receipts cannot be written", why=str(error))
        self._over(Ending(How.ROUTER, NOT_WRITTEN))
        self._hearing.cancel()
        self._listening.cancel()

    # --- what the near Router says ----------------------------------------------------------------

    async def _hear(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            await self._hear_all()
            nursery.cancel_scope.cancel()

    async def _watch(self) -> None:
        """End it where nothing comes, unless the device owes an answer: then that is waited for.

        One task that looks now and then, and not a deadline for each record: a scope with one costs
        as much as the turn of the event loop in which the record comes.
        """
        due = trio.current_time() + NEAR_SILENCE
        while True:
            await trio.sleep_until(due)
            due = min(self._waits_since, trio.current_time()) + NEAR_SILENCE
            if due <= trio.current_time():
                if not self._operations.owed:
                    words = f"the near Router brought nothing for {NEAR_SILENCE:g} s"
                    self._over(Ending(How.ROUTER, words))
                    self._hearing.cancel()
                due = trio.current_time() + NEAR_SILENCE

    async def _hear_all(self) -> None:
        with self._hearing:
            try:
                while True:
                    await self._take(await self._record())
            except _OverError as over:
                self._over(over.ending)
            except RemoteProtocolError as error:
                self._over(Ending(How.ROUTER, f"near Router: {error}", reason=error.abort_reason))
            except DatabaseError as error:
                self._failed(error)
            except AssociationAborted as error:
                # The device takes nothing more. What it said last may be unread, and says why.
                await trio.sleep(ABORT_LIMIT)
                self._over(Ending(How.DEVICE, str(error), error.source, error.reason))
        with trio.move_on_after(LAST_ANSWERS):
            await self._operations.settled()
        self._listening.cancel()

    async def _record(self) -> Record:
        """What the near Router says next."""
        if not self._records:
            self._waits_since = trio.current_time()
            self._records.extend(await self._near.receive_records())
            self._waits_since = inf
        return self._records.popleft()

    async def _take(self, record: Record) -> None:
        match record:
            case Note():
                await self._take_note(notes.decode(record))
            case AReleaseRQ():
                await self._operations.settled()
                await self._recorder.flush(unix_time())
                raise _OverError(Ending(How.RELEASED))
            case AAbort():
                raise self._left()
            case PDV():
                raise RemoteProtocolError("a message without an item", AbortReason.UNEXPECTED_PDU)
            case _:
                raise _out_of_turn(record)

    async def _take_note(self, note: notes.Message) -> None:
        match note:
            case Item():
                await self._take_item(note)
            case Question():
                await self._answer(note)
            case Forget():
                await self._recorder.forget(self._origin, note.ids, unix_time())
            case _:
                raise _out_of_turn(note)

    async def _answer(self, question: Question) -> None:
        """Which of these have a receipt, once no other session has one of them in hand."""
        await self._recorder.wait_free(self._origin, [row.id for row in question.rows])
        receipts = await self._recorder.table.find(self._origin, question.rows)
        results = [known(item, receipt).result for item, receipt in receipts.items()]
        rows = tuple(Answer(r.id, r.outcome, r.status, r.comment) for r in results)
        await self.results.say(notes.encode(Answers(rows)))

    def _left(self) -> _OverError:
        return _OverError(Ending(How.LEFT, self._near.cause))

    # --- objects ----------------------------------------------------------------------------------

    async def _take_item(self, item: Item) -> None:
        """One object, to the device or, where it has a receipt, to nobody."""
        if not self._recorder.table.has_room(self._origin):
            raise _OverError(Ending(How.ROUTER, NO_ROOM))
        await self.results.take(item.id)
        asked = [(item.id, item.digest)]
        receipt = (await self._recorder.table.find(self._origin, asked)).get(item.id)
        command, context_id = await self._command()
        if receipt is None:
            await self._pass_on(item, command, context_id)
            return
        while self._reader.message_open:
            await self._data(item)
        await self.results.add(known(item.id, receipt))

    async def _command(self) -> tuple[CommandSet, int]:
        """The C-STORE-RQ of an item, and its presentation context."""
        command = None
        while command is None:
            pdv = await self._pdv()
            command = self._reader.feed(pdv)
        if command.command_field != CommandField.C_STORE_RQ or not command.has_data_set:
            raise RemoteProtocolError(
                f"command field {command.command_field:04X}H, or no data set, where a C-STORE-RQ"
                " is to be",
                AbortReason.UNEXPECTED_PDU,
            )
        return command, pdv.context_id

    async def _data(self, item: Item) -> PDV:
        """The next fragment of an item's data set."""
        pdv = await self._pdv()
        self._reader.feed(pdv)
        if self._reader.data_set_length > item.length:
            raise RemoteProtocolError(
                "a data set longer than its item says", AbortReason.UNEXPECTED_PDU
            )
        return pdv

    async def _pdv(self) -> PDV:
        match await self._record():
            case PDV() as pdv:
                return pdv
            case AAbort():
                raise self._left()
            case record:
                raise _out_of_turn(record)

    async def _pass_on(self, item: Item, command: CommandSet, context_id: int) -> None:
        """Hand an object on to the device as it comes, if the guard lets its command pass."""
        operation = await self._operations.begin(item, command.sop_instance_uid)
        command = command.evolve({Tag.MESSAGE_ID: operation.message_id})
        verdict = await self._judge(command_pdv(context_id, command))
        passing = list(verdict.forward)
        passes = bool(passing)
        digest = begin_like(item.digest)
        while self._reader.message_open:
            pdv = await self._data(item)
            self.traffic.count(len(pdv.fragment))
            digest.update(pdv.fragment)
            if pdv.is_last and passes and not self._holds(item, digest.digest()):
                await self.results.add(Due(Result(item.id, Outcome.CHANGED, 0, "")))
                raise _OverError(Ending(How.ROUTER, "an object is not what its item says"))
            verdict = await self._judge(pdv)
            passing += verdict.forward
            if passing and not (self._records and self._reader.message_open):
                # In one write what has come in one piece.
                await self._device.send_all(passing)
                passing = []
        if passes:
            self._operations.sent(operation)
            await self._tell_if_over(operation)
            return
        assert verdict.reply is not None, "a refused C-STORE-RQ is answered once it is drained"
        self._operations.withdraw(operation)
        refusal = CommandSet.decode(verdict.reply.fragment)
        await self.results.add(Due(Result(item.id, Outcome.REFUSED, refusal.status, "")))

    def _holds(self, item: Item, digest: bytes) -> bool:
        return (self._reader.data_set_length, digest) == (item.length, item.digest)

    async def _judge(self, pdv: PDV) -> Verdict:
        verdict = self._guard.outward(pdv)
        if verdict.before is not None:
            await verdict.before()
        return verdict

    # --- what the device says ---------------------------------------------------------------------

    async def _listen(self) -> None:
        with self._listening:
            try:
                with self._operations.silence:
                    while not self._device_over:
                        await self._heard(await self._device.receive())
                if not self._device_over:
                    words = f"the device gave no C-STORE-RSP for {STORE_DEADLINE:g} s"
                    self._over(Ending(How.ROUTER, words))
            except RemoteProtocolError as error:
                self._over(Ending(How.ROUTER, f"device: {error}", reason=error.abort_reason))
                # What it sent cannot be: it is the one to be told what was wrong (PS3.8 §9.3.8).
                await self._device.abort(AbortSource.SERVICE_PROVIDER, error.abort_reason)
            except AssociationAborted as error:
                self._over(Ending(How.DEVICE, str(error), error.source, error.reason))
        self._operations.close()
        self._hearing.cancel()

    async def _heard(self, atom: Atom) -> None:
        match atom:
            case PDV():
                await self._answered(atom)
            case AReleaseRQ():
                words = "the device released the association"
                self._over(Ending(How.DEVICE, words, AbortSource.SERVICE_USER))
                await self._device.send(AReleaseRP())
                self._device_over = True
            case AAbort():
                self._over(Ending(How.DEVICE, self._device.cause, atom.source, atom.reason))
                self._device_over = True
            case _:
                raise _out_of_turn(atom)

    async def _answered(self, pdv: PDV) -> None:
        verdict = self._guard.inward(pdv)
        if verdict.reply is not None:
            raise RemoteProtocolError("a request where only a C-STORE-RSP may come")
        response = verdict.command
        if response is not None:  # a C-STORE-RSP has no data set (PS3.7 §9.3.1.2)
            if response.command_field != CommandField.C_STORE_RSP:
                raise RemoteProtocolError(
                    f"command field {response.command_field:04X}H out of turn"
                )
            operation = self._operations.answered(response)
            if operation is not None:
                await self._tell_if_over(operation)

    async def _tell_if_over(self, operation: Operation) -> None:
        response, item = operation.response, operation.item
        if not operation.sent or response is None:
            return
        comment = notes.plain(response.text(Tag.ERROR_COMMENT) or "", MAXIMUM_COMMENT)
        result = Result(item.id, Outcome.ANSWERED, response.status, comment)
        receipt = None
        if needs_receipt(response.status):
            receipt = Receipt(self._origin, item.id, item.digest, response.status, comment)
        await self.results.add(Due(result, receipt))


def _out_of_turn(said: object) -> RemoteProtocolError:
    return RemoteProtocolError(f"{type(said).__name__} out of turn", AbortReason.UNEXPECTED_PDU)
