"""C-GET from one owner: what it stores with us goes on to the caller's sink (PS3.4 §C.4.3).

To the owner we are the C-GET's user and, for each SOP class that the sink can carry, the provider
of storage. An object goes on fragment by fragment; a small one once it is whole, since an owner
that is lost in the middle of a larger one takes the caller's association with it: what has begun to
go out cannot be taken back.
"""

from collections.abc import Sequence

import attrs
import trio

from relay.dicom import uids
from relay.dicom.dimse import CommandField, CommandSet, Status, Tag
from relay.dicom.negotiation import MAXIMUM_CONTEXTS, AcceptedContext
from relay.dicom.pdu import is_uid
from relay.dicom.status import is_warning
from relay.errors import (
    AbortReason,
    AbortSource,
    AssociationAborted,
    Outcome,
    RelayError,
    SourceFailed,
)
from relay.router.federation.attributes import TRANSFER_SYNTAXES
from relay.router.federation.conversing import Answer, Conversation
from relay.router.federation.identifiers import Level
from relay.router.federation.opening import Opened, Proposed, open_source
from relay.router.federation.planning import Errand, Request, Retrieve
from relay.router.federation.sinks import Arriving, Sink, Taking
from relay.router.federation.sources import Source
from relay.router.federation.totals import Counts, Refusal
from relay.router.suboperations import COMPLETE_WITH_FAILURES

# What is held of an object before it goes on. Most objects of a CT or MR are smaller: of those
# nothing is lost with their owner. It is what one retrieve costs in memory.
HELD = 1024 * 1024

_GET = (uids.STUDY_ROOT_GET, uids.PATIENT_ROOT_GET)

# Storage contexts of one association, beside those of the C-GET itself.
STORAGE_CONTEXTS = MAXIMUM_CONTEXTS - len(_GET)


class Getting:
    """Asks owners for their parts of one C-GET, which go to `sink`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    @property
    def refusal(self) -> Refusal | None:
        """None has a status of its own."""
        return None

    async def perform(self, retrieve: Retrieve, errand: Errand) -> None:
        """Have all of `errand` that is left come from its owner. Raises SourceFailed."""
        contexts = [
            (sop_class, tuple(syntaxes))
            for sop_class, syntaxes in self._sink.contexts
            if not errand.sop_classes or sop_class in errand.sop_classes
        ]
        if not contexts:
            raise SourceFailed("what it has is nothing that the caller takes", Outcome.REFUSED)
        for at in range(0, len(contexts), STORAGE_CONTEXTS):
            await self._associate(retrieve, errand, contexts[at : at + STORAGE_CONTEXTS])
            left = [
                uid
                for request in errand.requests
                for uid in request.instances or ()
                if retrieve.tally.is_left(uid)
            ]
            if not left or retrieve.cancelling.asked:
                return
            requests = tuple(retrieve.plan.requests(errand.source, left))
            errand = attrs.evolve(errand, requests=requests)

    async def _associate(
        self, retrieve: Retrieve, errand: Errand, contexts: Sequence[tuple[str, Sequence[str]]]
    ) -> None:
        proposed: list[Proposed] = [(sop_class, TRANSFER_SYNTAXES) for sop_class in _GET]
        roles = tuple(dict.fromkeys(sop_class for sop_class, _ in contexts))
        opening = trio.CancelScope()
        with opening, retrieve.cancelling.waking(opening):
            async with open_source(
                retrieve.federation,
                retrieve.caller,
                errand.source,
                [*proposed, *contexts],
                provider_roles=roles,
                transfers=True,
            ) as opened:
                retrieve.cancelling.let_be()
                if not any(context.abstract_syntax in _GET for context in opened.accepted.values()):
                    raise SourceFailed(
                        "it does not take a C-GET (`--get-via-move` may help)", Outcome.REFUSED
                    )
                context = opened.context(*_GET)
                for request in retrieve.open_requests(errand):
                    one = _OneGet(retrieve, self._sink, opened, context, errand.source, request)
                    await one.run()
        retrieve.stopped |= opening.cancelled_caught


@attrs.define(slots=True, eq=False)
class _OneGet:
    """One C-GET, from its request to its final response."""

    retrieve: Retrieve
    sink: Sink
    opened: Opened
    context: AcceptedContext
    source: Source
    request: Request
    refused: int = 0  # C-STOREs that we have answered with a failure: the owner counts them too
    stored: int = 0  # those that we have answered with a success, or a warning
    warned: int = 0  # ... with a warning
    left_out: int = 0  # of the refused those that came after a C-CANCEL
    counted: bool = False  # the owner has said how much there is

    async def run(self) -> None:
        """Ask, and pass on what comes. Raises SourceFailed."""
        tally = self.retrieve.tally
        try:
            await self._converse()
        except RelayError:
            now, tally.now = tally.now, Counts()
            if self.retrieve.cancelling.asked:
                tally.now = Counts(remaining=now.remaining)
            else:
                tally.fail(count=now.failed + now.remaining)
            raise

    @property
    def _planned(self) -> bool:
        return self.request.instances is not None

    async def _converse(self) -> None:
        retrieve = self.retrieve
        conversation = Conversation(
            self.opened,
            self.context,
            retrieve.message_id,
            retrieve.cancelling,
            retrieve.federation.settings.site_wait,
        )
        await conversation.ask(CommandField.C_GET_RQ, self.request.target, retrieve.priority)
        while True:
            pdv, command = await conversation.receive()
            if command is None:
                continue
            match command.command_field:
                case CommandField.C_STORE_RQ:
                    context = self.opened.accepted[pdv.context_id]
                    status = await self._store(conversation, context, command)
                    self.stored += status == Status.SUCCESS or is_warning(status)
                    self.warned += is_warning(status)
                    await conversation.respond(pdv.context_id, command, status)
                    if self.counted or self._planned:
                        await retrieve.show()
                case CommandField.C_GET_RSP:
                    answer = await conversation.answer(command)
                    if not answer.pending:
                        self._end(answer)
                        return
                    self._said(answer)
                    await retrieve.show()
                case field:
                    raise await conversation.fault(f"command field {field:04X}H in a C-GET")

    # --- what the owner says of it --------------------------------------------------------------

    def _said(self, answer: Answer) -> None:
        # What is planned is counted as it comes.
        self.counted |= answer.counted
        if answer.counted and not self._planned:
            self.retrieve.tally.now = Counts(
                remaining=answer.counts.remaining + self.left_out,
                failed=max(0, answer.counts.failed - self.refused),
            )

    def _end(self, answer: Answer) -> None:
        """The final response. Raises SourceFailed for one that is not of sub-operations."""
        tally = self.retrieve.tally
        self._said(answer)
        cancelled = self.retrieve.cancelling.asked and answer.status == Status.CANCEL
        if not (cancelled or answer.is_of_suboperations):
            raise SourceFailed(f"its C-GET ends with status {answer.status:04X}H", Outcome.REFUSED)
        now, tally.now = tally.now, Counts()
        if not self._planned:
            # Without counters, what it names is what has failed, or one at least of a warning.
            named = [uid for uid in answer.failed_uids if uid not in tally.failed_uids]
            # What it says it has sent, and has not come, has failed too.
            said = answer.counts.completed + answer.counts.failed + answer.counts.warning
            failed = max(now.failed, said - self.stored - self.refused)
            if not self.counted:
                warns = answer.status == COMPLETE_WITH_FAILURES
                failed = max(len(named), warns and not (self.refused or self.warned))
            tally.fail(count=failed)
            for uid in named:
                tally.name(uid)
            if cancelled:
                self.retrieve.stopped = True
                tally.now = Counts(remaining=now.remaining)

    # --- what it stores -------------------------------------------------------------------------

    async def _store(
        self, conversation: Conversation, context: AcceptedContext, command: CommandSet
    ) -> int:
        """Pass on one object; the status that its owner is answered with."""
        tally = self.retrieve.tally
        if command.number(Tag.MESSAGE_ID) is None:
            raise await conversation.fault("a C-STORE-RQ without Message ID")
        arriving = Arriving(
            sop_class=command.affected_sop_class_uid or "",
            sop_instance=command.sop_instance_uid or "",
            transfer_syntax=context.transfer_syntax,
            source=self.source.title,
        )
        uid = arriving.sop_instance
        if not (
            is_uid(uid)
            and is_uid(arriving.sop_class)
            and command.has_data_set
            and self._is_asked_for(uid)
        ):
            await _drain(conversation)
            self.refused += 1
            tally.fail(uid if is_uid(uid) else "")
            return Status.INVALID_OBJECT_INSTANCE
        if self._is_done(uid):
            await _drain(conversation)
            return Status.SUCCESS
        if self.retrieve.cancelling.asked:
            await _drain(conversation)
            self.refused += 1
            self.left_out += 1
            return Status.OUT_OF_RESOURCES
        status, taken = await self._pass_on(conversation, arriving)
        if status == Status.SUCCESS or is_warning(status):
            tally.complete(uid, warning=is_warning(status))
        else:
            self.refused += 1
            # What the sink cannot take in this form, another owner may have in another one.
            if taken or not self._planned:
                tally.fail(uid, refused=taken)
        tally.now = attrs.evolve(tally.now, remaining=max(0, tally.now.remaining - 1))
        return status

    def _is_asked_for(self, uid: str) -> bool:
        """Above the IMAGE level nobody but the owner can say: it may have more by now."""
        target = self.request.target
        return target.level is not Level.IMAGE or uid in target.instances

    def _is_done(self, uid: str) -> bool:
        """Whether it has come from another owner: one that is not planned sends all that it has."""
        plan, tally = self.retrieve.plan, self.retrieve.tally
        return uid in tally.came or (uid in plan.instances and not tally.is_left(uid))

    async def _pass_on(self, conversation: Conversation, arriving: Arriving) -> tuple[int, bool]:
        """The status of the C-STORE, and whether the sink had the object before it gave that."""
        # No list: fragments may be of one byte each, or of none.
        held = bytearray()
        taking: Taking | None = None
        whole = lost = False
        try:
            while not whole:
                try:
                    pdv, _ = await conversation.receive()
                except RelayError:
                    lost = True
                    raise
                whole = pdv.is_last
                if taking is not None:
                    await taking.data(pdv.fragment, whole)
                    continue
                held += pdv.fragment
                if len(held) <= HELD and not whole:
                    continue
                begun = await self.sink.begin(arriving)
                if isinstance(begun, int):
                    await _drain(conversation)
                    return begun, False
                taking, conversation.owes = begun, True
                await taking.data(bytes(held), whole)
                held.clear()
            conversation.leavable()
            assert taking is not None, "it has begun by the last fragment"
            return await taking.end(), True
        except BaseException as error:
            if taking is None or whole:
                raise
            await taking.abandon()
            if not lost:
                raise
            self.retrieve.broken = AssociationAborted(
                AbortSource.SERVICE_PROVIDER,
                AbortReason.NOT_SPECIFIED,
                f"{self.source.title} is lost in the middle of an object: {error}",
            )
            raise self.retrieve.broken from error


async def _drain(conversation: Conversation) -> None:
    """Leave out the rest of a data set."""
    while conversation.reader.message_open:
        await conversation.receive()
