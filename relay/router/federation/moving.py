"""C-MOVE at one owner, which sends its part to the destination itself (PS3.4 §C.4.2).

The owner hears the caller's calling AE title and Message ID, so that the Move Originator of what
it sends is the caller's (PS3.7 §9.1.1). The destination goes as the caller names it: on the way to
another hospital's device it takes the network's name, and is refused there as in any other call.
What a device of this hospital is told instead is said in relay.router.federation.outstanding.
"""

import attrs
import trio

from relay.dicom import uids
from relay.dicom.dimse import CommandField, CommandSet, Status
from relay.dicom.negotiation import AcceptedContext
from relay.errors import Outcome, RelayError, SourceFailed
from relay.router.federation.attributes import TRANSFER_SYNTAXES
from relay.router.federation.conversing import Answer, Conversation
from relay.router.federation.federation import Federation
from relay.router.federation.opening import Opened, open_source
from relay.router.federation.outstanding import Outstanding, outstanding
from relay.router.federation.planning import Errand, Request, Retrieve
from relay.router.federation.totals import Counts, Refusal
from relay.router.suboperations import COMPLETE_WITH_FAILURES
from relay.scu import STORE_DEADLINE

_MOVE = (uids.STUDY_ROOT_MOVE, uids.PATIENT_ROOT_MOVE)


def is_destination(federation: Federation, title: str) -> bool:
    """Whether this Move Destination means anything in this hospital."""
    node = federation.node
    if title == federation.settings.ae_title:
        return False
    if node.devices.get(title) is not None:
        return True
    published = node.names.published(title)
    if published is None or node.network is None:
        return False
    return node.network.directory.owner(published) is not None


class Moving:
    """Asks owners to send their parts of one C-MOVE to `destination`.

    `refused` are those that do not know the destination, or may not send there.
    """

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self.refused = 0

    @property
    def refusal(self) -> Refusal | None:
        """A801, where owners have said so (PS3.4 Table C.4-2)."""
        return Refusal.DESTINATION_UNKNOWN if self.refused else None

    async def perform(self, retrieve: Retrieve, errand: Errand) -> None:
        """Have all of `errand` sent by its owner. Raises SourceFailed."""
        opening = trio.CancelScope()
        with opening, retrieve.cancelling.waking(opening):
            async with open_source(
                retrieve.federation,
                retrieve.caller,
                errand.source,
                [(sop_class, TRANSFER_SYNTAXES) for sop_class in _MOVE],
                transfers=True,
            ) as opened:
                retrieve.cancelling.let_be()
                context = opened.context(*_MOVE)
                for request in retrieve.open_requests(errand):
                    with outstanding(
                        retrieve.federation.node,
                        retrieve.caller,
                        errand.source,
                        self.destination,
                        retrieve.message_id,
                    ) as asked:
                        await _OneMove(retrieve, self, opened, context, request, asked).run()
        retrieve.stopped |= opening.cancelled_caught


@attrs.define(slots=True, eq=False)
class _OneMove:
    """One C-MOVE, from its request to its final response.

    Only its owner knows what becomes of it: what it says is shown meanwhile, and counted in the
    end.
    """

    retrieve: Retrieve
    moving: Moving
    opened: Opened
    context: AcceptedContext
    request: Request
    asked: Outstanding
    said: Counts = attrs.field(factory=Counts)

    async def run(self) -> None:
        """Ask, and wait. Raises SourceFailed."""
        retrieve = self.retrieve
        # An owner may say nothing while a sub-operation waits for its C-STORE-RSP.
        wait = max(retrieve.federation.settings.site_wait, STORE_DEADLINE)
        conversation = Conversation(
            self.opened, self.context, self.asked.message_id, retrieve.cancelling, wait
        )
        try:
            await conversation.ask(
                CommandField.C_MOVE_RQ,
                self.request.target,
                retrieve.priority,
                self.asked.destination,
            )
            while (answer := await self._answer(conversation)).pending:
                await self._tell(answer)
        except RelayError:
            self._lost()
            raise
        self._end(answer)

    async def _answer(self, conversation: Conversation) -> Answer:
        while True:
            _, command = await conversation.receive()
            if command is None:
                continue
            if command.command_field != CommandField.C_MOVE_RSP:
                raise await conversation.fault(
                    f"command field {command.command_field:04X}H in a C-MOVE"
                )
            answer, data_set = command, await conversation.data_set()
            if not (await conversation.read(answer, data_set)).pending:

                async def show(pending: CommandSet) -> None:
                    await self._tell(await conversation.read(pending, b""))

                answer, data_set = await self.asked.settled(
                    answer, data_set, conversation.encoding, self.retrieve.cancelling, show
                )
            return await conversation.read(answer, data_set)

    async def _tell(self, answer: Answer) -> None:
        self._show(answer)
        await self.retrieve.show()

    @property
    def _uids(self) -> tuple[str, ...]:
        """What is planned of it, and was not stored by another owner."""
        return tuple(filter(self.retrieve.tally.is_left, self.request.instances or ()))

    def _show(self, answer: Answer) -> None:
        if not answer.counted:
            return
        said = self.said = answer.counts
        if self.request.instances is None:
            self.retrieve.tally.now = said
        else:
            # A failure is one only if nobody else has it.
            done = said.completed + said.warning
            self.retrieve.tally.now = Counts(-done, said.completed, 0, said.warning)

    def _end(self, answer: Answer) -> None:
        """The final response. Raises SourceFailed for one that is not of sub-operations."""
        self._show(answer)
        if answer.is_of_suboperations:
            if self.request.instances is None:
                # Without counters, what it names is what has failed, or one at least.
                named = max(len(answer.failed_uids), answer.status == COMPLETE_WITH_FAILURES)
                self._count(failed=self.said.failed if answer.counted else named)
                for uid in answer.failed_uids:
                    self.retrieve.tally.name(uid)
            else:
                self._settle(answer)
            return
        self._lost()
        if self.retrieve.cancelling.asked and answer.status == Status.CANCEL:
            self.retrieve.stopped = True
            return
        words = f"its C-MOVE ends with status {answer.status:04X}H"
        if answer.status == Status.MOVE_DESTINATION_UNKNOWN:
            self.moving.refused += 1
            words = f"it does not know {self.asked.destination}, or may not send there (A801H)"
        raise SourceFailed(words, Outcome.REFUSED)

    def _settle(self, answer: Answer) -> None:
        """What was planned is there, but for what the owner names, or counts, as failed."""
        plan, tally, uids = self.retrieve.plan, self.retrieve.tally, self._uids
        said_failed = dict.fromkeys(answer.failed_uids)
        named = set(said_failed).intersection(uids)
        for uid in said_failed:
            if uid not in plan.instances:  # it came to the owner after that was asked what it has
                tally.fail(uid)
        if answer.counted:
            done = self.said.completed + self.said.warning
            failed = self.said.failed - (len(said_failed) - len(named))
        else:
            # Without counters a success is one of all, and a warning of all but what it names.
            done, failed = len(uids), int(answer.status == COMPLETE_WITH_FAILURES)
        missing = min(len(uids), max(len(uids) - done, len(named), failed))
        tally.counts()
        tally.now = Counts()
        if missing == len(uids):
            return  # all of them: whoever else holds one is asked for it
        if missing > len(named) and all(plan.is_elsewhere(uid) for uid in uids):
            return  # nobody knows which: the next one is to send them all
        stored = [uid for uid in uids if uid not in named]
        unnamed = missing - len(named)
        for uid in stored[:unnamed]:
            tally.fail(uid, named=False)
        for position, uid in enumerate(stored[unnamed:]):
            tally.complete(uid, warning=position < self.said.warning)

    def _lost(self) -> None:
        """It is over before its time. What it has stored is stored; nobody knows which that is."""
        tally, said = self.retrieve.tally, self.said
        planned = self.request.instances is not None
        if self.retrieve.cancelling.asked:
            done = said.completed + said.failed + said.warning
            tally.now = attrs.evolve(said, remaining=-done) if planned else said
            return
        if not planned:
            self._count(failed=said.failed + said.remaining)
        tally.counts()
        tally.now = Counts()

    def _count(self, failed: int) -> None:
        tally, said = self.retrieve.tally, self.said
        tally.now = Counts()
        tally.complete(count=said.completed)
        tally.complete(count=said.warning, warning=True)
        tally.fail(count=failed)
