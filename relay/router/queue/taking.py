"""The SCP of queued delivery: one association, and what it brings.

    A-ASSOCIATE-AC
    C-STORE-RQ, data set -> spool -> custody -> C-STORE-RSP 0000 -> (the courier has it)

0000 is said once an object is kept. C-ECHO is answered by the far device itself.
"""

from collections.abc import Callable, Sequence
from functools import partial

import attrs
import structlog
import trio

from relay.association import Association
from relay.dicom import uids
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Status, Tag, response_to
from relay.dicom.negotiation import (
    AcceptedContext,
    AsynchronousOperationsWindow,
    accepted_contexts,
    find,
)
from relay.dicom.pdu import PDV, UID_LENGTH, AAbort, AReleaseRP, AReleaseRQ
from relay.errors import AssociationAborted, DatabaseError, RemoteProtocolError, SpoolError
from relay.router.moves import HeldMove
from relay.router.passthrough import Ending, How
from relay.router.queue.admission import WINDOW, Intake, answer_to, border_of
from relay.router.queue.commitment import Asked
from relay.router.queue.describing import study_in
from relay.router.queue.echoing import live_echo
from relay.router.queue.events import Events
from relay.router.queue.keeping import item_of
from relay.router.queue.reporting import Reporter, Told
from relay.router.reports import MAXIMUM_REPORT
from relay.router.traffic import Traffic
from relay.router.witness import Witness
from relay.spool.items import Batch, Item
from relay.spool.segments import ObjectWriter, StoredObject

log = structlog.get_logger()

_COMMITMENT = uids.STORAGE_COMMITMENT_PUSH_MODEL
_NO_OBJECTS = (uids.VERIFICATION, _COMMITMENT)


class Taking:
    """One association while it is taken in."""

    def __init__(
        self,
        intake: Intake,
        near: Association,
        traffic: Traffic,
        heard: Callable[[CommandSet], None] = lambda command: None,
    ) -> None:
        """What is kept is counted in `traffic`; `heard` is told each command, and each answer."""
        self.ending: Ending | None = None
        self.witness = Witness()
        self._heard = heard
        self._traffic = traffic
        self._intake = intake
        self._near = near
        self._queue = intake.queue
        self._spool = intake.queue.spool
        self._border = border_of(intake)
        self._batch = Batch(
            peer=intake.held.peer,
            called=intake.request.called,
            calling=intake.request.calling,
            device=intake.local,
            opened=self._spool.clock(),
            priority=intake.priority,
        )
        self._accepted: dict[int, AcceptedContext] = {}
        self._reader = CommandReader()
        self._overlapping = False  # the sender does not wait for an answer before it goes on
        self._window = trio.CapacityLimiter(WINDOW)
        self._echoing = trio.Lock()
        self._handed_in = trio.Event()  # the last object that came
        self._handed_in.set()
        self._open: _Message | None = None
        self._pairs: frozenset[tuple[str, str]] = frozenset()
        self._kept = 0
        self._coming = False  # the first object has begun to come
        self._events = Events(near)
        self._told: dict[Told, Reporter] = {}  # who asks for the same once more is told once

    async def run(self) -> None:
        ending = "aborted"
        fault: RemoteProtocolError | None = None
        try:
            await self._answer()
            async with trio.open_nursery() as nursery:
                try:
                    ending = await self._receive(nursery)
                except RemoteProtocolError as error:
                    fault = error  # raised again outside, where the nursery does not wrap it
                if ending == "aborted":
                    nursery.cancel_scope.cancel()  # nobody waits for an echo; custody is shielded
            if fault is not None:
                raise fault
            if ending == "released":
                await self._near.send(AReleaseRP())
        except AssociationAborted as error:
            log.info("sender gone", calling=self._batch.calling, why=str(error))
        finally:
            with trio.CancelScope(shield=True):
                await self._close(ending)

    async def _answer(self) -> None:
        answer = answer_to(self._intake)
        await self._near.send(answer)
        self._accepted = accepted_contexts(self._intake.request, answer)
        windows = find(answer.user_items, AsynchronousOperationsWindow)
        self._overlapping = any(window.invoked > 1 for window in windows)
        self._pairs = frozenset(
            (context.abstract_syntax, context.transfer_syntax)
            for context in self._accepted.values()
            if context.abstract_syntax not in _NO_OBJECTS
        )
        self._reader = CommandReader(self._accepted)
        log.info(
            "association queued",
            calling=self._batch.calling,
            called=self._batch.called,
            contexts=len(self._accepted),
        )

    async def _close(self, ending: str) -> None:
        self.ending = Ending(How(ending), "requestor")
        self._border.close()
        self._events.close()
        if self._queue.commitments is not None:
            for told, reporter in self._told.items():
                self._queue.commitments.closed(told, reporter)
        if self._open is not None and self._open.writer is not None:
            await self._open.writer.discard()
        try:
            await self._spool.custody.flush()  # it has its number then
            await self._spool.items.close_batch(self._batch, self._spool.clock())
        except DatabaseError as error:
            # The next start closes it; until then it is as good as closed.
            log.error("batch not closed", batch=self._batch.number, why=str(error))
        self._queue.couriers.closed(self._batch)
        log.info(
            "queued association ended",
            calling=self._batch.calling,
            called=self._batch.called,
            batch=self._batch.number,
            kept=self._kept,
            how=ending,
        )

    async def _receive(self, nursery: trio.Nursery) -> str:
        """Take what comes, until the association ends; how it does."""
        while True:
            match await self._near.receive():
                case PDV() as pdv:
                    await self._take(pdv, nursery)
                case AReleaseRQ():
                    return "released"
                case AAbort():
                    return "aborted"
                case atom:
                    raise RemoteProtocolError(f"{type(atom).__name__} out of turn")

    async def _take(self, pdv: PDV, nursery: trio.Nursery) -> None:
        command = self._reader.feed(pdv)
        if command is not None:
            self._heard(command)
            self._open = await self._begin(pdv.context_id, command)
        message = self._open
        if message is None:
            return
        if not pdv.is_command:
            await self._write(message, pdv)
        if not self._reader.message_open:
            await self._end(message, nursery)
            self._open = None  # whoever has it by now sees to its file

    async def _begin(self, context_id: int, command: CommandSet) -> "_Message | None":
        context = self._accepted[context_id]
        if command.is_response or command.command_field == CommandField.C_CANCEL_RQ:
            self._events.answered(command)
            return None
        message = _Message(context, command)
        _ = command.message_id  # without it, nothing could be answered
        match command.command_field:
            case CommandField.C_STORE_RQ if context.abstract_syntax not in _NO_OBJECTS:
                await self._begin_object(message)
            case CommandField.N_ACTION_RQ if context.abstract_syntax == _COMMITMENT:
                message.data_set = bytearray()
            case CommandField.C_ECHO_RQ if context.abstract_syntax == uids.VERIFICATION:
                pass
            case _:
                message.status = Status.UNRECOGNIZED_OPERATION
        return message

    async def _begin_object(self, message: "_Message") -> None:
        command = message.command
        context = message.context
        if command.sop_class_uid != context.abstract_syntax or not self._is_taken_still(context):
            message.status = Status.SOP_CLASS_NOT_SUPPORTED
        elif not command.has_data_set:
            message.status = Status.UNABLE_TO_PROCESS  # PS3.7 §9.1.1.1: it is mandatory
        elif not 0 < len(command.sop_instance_uid or "") <= UID_LENGTH:
            # Not whether it is a UID: real devices send others, and real archives take them.
            message.status = Status.INVALID_OBJECT_INSTANCE
        else:
            crossing = self._border.stores(command, implied=False)
            message.moves = self._moves_of(command)
            message.command = crossing.command or command
            message.status = crossing.status
        if message.status is None:
            try:
                message.writer = await self._spool.objects.begin()
                if not self._coming:
                    self._coming = True
                    self._queue.couriers.coming(self._batch, self._pairs)
            except SpoolError as error:
                self._no_room(message, error)

    def _is_taken_still(self, context: AcceptedContext) -> bool:
        """Whether the device has not refused this kind since the association was accepted."""
        request, now = self._intake.request, int(self._spool.clock())
        known = self._queue.acceptance.known(self._queue.node, request.called, request.calling, now)
        return known is None or known.takes(context.abstract_syntax, context.transfer_syntax)

    async def _write(self, message: "_Message", pdv: PDV) -> None:
        if message.data_set is not None:
            if len(message.data_set) + len(pdv.fragment) > MAXIMUM_REPORT:
                message.status = Status.RESOURCE_LIMITATION
            else:
                message.data_set += pdv.fragment
        if message.writer is None:
            return  # drained
        try:
            await message.writer.write(pdv.fragment)
        except SpoolError as error:
            writer, message.writer = message.writer, None
            await writer.discard()
            self._no_room(message, error)

    def _no_room(self, message: "_Message", error: SpoolError) -> None:
        message.status = Status.OUT_OF_RESOURCES
        self._queue.no_room(error)

    async def _end(self, message: "_Message", nursery: trio.Nursery) -> None:
        if message.status is not None:
            await self._respond(message, message.status)
        elif message.data_set is not None:
            await self._commit(message, bytes(message.data_set))
        elif message.command.command_field == CommandField.C_ECHO_RQ:
            await self._window.acquire_on_behalf_of(message)
            nursery.start_soon(self._echo, message)
        elif self._overlapping:
            await self._window.acquire_on_behalf_of(message)
            before, self._handed_in = self._handed_in, trio.Event()
            nursery.start_soon(self._keep_in_turn, message, before, self._handed_in)
        else:
            # Not cancelled: what is whole is kept, also where its sender goes at this moment.
            with trio.CancelScope(shield=True):
                status = await self._keep(message)
            await self._respond(message, status)

    async def _keep_in_turn(
        self, message: "_Message", before: trio.Event, handed_in: trio.Event
    ) -> None:
        """Take one of several into custody: each in the order in which they came."""
        with trio.CancelScope(shield=True):
            try:
                status = await self._keep(message, before, handed_in)
            finally:
                handed_in.set()  # or it will not be
                self._window.release_on_behalf_of(message)
        await self._respond(message, status)

    async def _keep(
        self,
        message: "_Message",
        before: trio.Event | None = None,
        handed_in: trio.Event | None = None,
    ) -> int:
        """Take an object into custody; the status for its sender.

        It is handed in once what came `before` is, and `handed_in` says so.
        """
        writer, custody = message.writer, self._spool.custody
        assert writer is not None, "a message without a status has one"
        # Of those that wait, none is read before a session goes.
        soon = self._queue.couriers.sessions(self._batch.called) > 0
        make = partial(self._item, message, accepted=self._spool.clock())
        then = partial(self._is_kept, message, writer)
        try:
            if before is None:
                await custody.finish(self._batch, writer, make, soon=soon, then=then)
            else:
                try:
                    slipped = custody.slipped(self._batch, make)
                    item = await writer.finish_with(slipped, soon=soon)
                finally:
                    # In the order in which they came, not as their syncs end.
                    await before.wait()
                handed = custody.hand_in(self._batch, item, then)
                if handed_in is not None:
                    handed_in.set()
                await custody.settled(handed)
        except SpoolError as error:
            await writer.discard()
            self._no_room(message, error)
            return Status.OUT_OF_RESOURCES
        message.writer = None  # its file is a kept object's, however this association ends
        if message.moves:
            try:
                await custody.noted()  # before the holder can say that it has sent everything
            except SpoolError as error:
                # It is kept; but who moves it would be told so without waiting for its delivery.
                self._no_room(message, error)
                return Status.OUT_OF_RESOURCES
        return Status.SUCCESS

    def _item(self, message: "_Message", stored: StoredObject, *, accepted: float) -> Item:
        """The row of an object that has come whole; by whoever writes it."""
        context = message.context
        item = item_of(self._batch, context, message.command, stored, accepted=accepted)
        read = partial(study_in, item.study, stored.prefix, context.transfer_syntax)
        self._spool.index.note(item.study, read)
        return item

    def _is_kept(self, message: "_Message", writer: ObjectWriter, item: Item) -> None:
        self._kept += 1
        self._traffic.count(item.length)
        self._traffic.objects += 1
        self.witness.over(item.study, item.sop_class, item.sop_instance)
        self._queue.waiting.kept(message.moves, item)
        self._queue.accepted(self._batch, self._pairs, item, writer.content)

    def _moves_of(self, command: CommandSet) -> Sequence[HeldMove]:
        """The moves whose requestors wait for this object, as the holder names them."""
        return self._queue.node.moves.stored_for(
            self._intake.local,
            self._intake.request.called,
            command.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE),
            command.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID),
        )

    async def _commit(self, message: "_Message", data_set: bytes) -> None:
        """Take a request for storage commitment, once what came before it is in custody."""
        commitments = self._queue.commitments
        assert commitments is not None, "without them the context is not accepted"
        places = [object() for _ in range(WINDOW)]
        for place in places:
            await self._window.acquire_on_behalf_of(place)
        for place in places:
            self._window.release_on_behalf_of(place)
        reporter = partial(self._events.report, message.context.id)
        asked = Asked(
            batch=self._batch,
            command=message.command,
            data_set=data_set,
            transfer_syntax=message.context.transfer_syntax,
            reporter=reporter,
        )
        status, told = await commitments.accept(asked, self._border)
        if told is not None:
            self._told[told] = reporter
        await self._respond(message, status)

    async def _respond(self, message: "_Message", status: int) -> None:
        action = message.command.number(Tag.ACTION_TYPE_ID)  # PS3.7 §10.1.4: is said again
        extra: dict[int, int] = {} if action is None else {Tag.ACTION_TYPE_ID: action}
        response = response_to(message.command, status, extra=extra)
        self._heard(response)
        if message.command.command_field == CommandField.C_STORE_RQ and status != Status.SUCCESS:
            sop_class, instance = message.command.sop_class_uid, message.command.sop_instance_uid
            self.witness.over("", sop_class or "", instance or "", f"{status:04X}H")
        try:
            await self._events.answer(PDV(message.context.id, True, True, response.encode()))
        except AssociationAborted:
            # Who went before the answer does not know; what is kept is delivered all the same.
            log.info("sender gone before the answer", calling=self._batch.calling, status=status)

    async def _echo(self, message: "_Message") -> None:
        try:
            async with self._echoing:  # each is a session of its own
                status = await live_echo(self._intake)
        finally:
            self._window.release_on_behalf_of(message)
        await self._respond(message, status)


@attrs.define(slots=True, eq=False)
class _Message:
    """One request while it comes in; `status` is set once it is refused."""

    context: AcceptedContext
    command: CommandSet
    status: int | None = None
    writer: ObjectWriter | None = None
    moves: Sequence[HeldMove] = ()
    data_set: bytearray | None = None  # of an N-ACTION-RQ
