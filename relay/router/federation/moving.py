"""C-MOVE at one owner, which sends its part to the destination itself (PS3.4 §C.4.2).

The owner hears the caller's calling AE title and Message ID, so that the Move Originator of what
it sends is the caller's (PS3.7 §9.1.1). The destination goes as the caller names it: on the way to
another hospital's device it takes the network's name. One that may not leave this hospital is
refused here, as in any other call, before another hospital's device is asked. What a device of this
hospital is told instead is said in relay.router.federation.outstanding.
"""

import attrs
import trio

from relay.dicom import uids
from relay.dicom.dimse import CommandField, CommandSet, Status
from relay.dicom.negotiation import AcceptedContext
from relay.errors import Outcome, RelayError, SourceFailed
from relay.router.border import no_destination, note_refused_move, unknown_to
from relay.router.devices import Device
from relay.router.federation.attributes import TRANSFER_SYNTAXES
from relay.router.federation.conversing import Answer, Conversation
from relay.router.federation.errands import RefusedHere
from relay.router.federation.federation import Federation
from relay.router.federation.opening import Opened, open_source
from relay.router.federation.outstanding import Outstanding, outstanding
from relay.router.federation.planning import Errand, Request, Retrieve
from relay.router.federation.sources import Source
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


def no_way_out(federation: Federation, title: str) -> str:
    """Why other hospitals' devices are not asked to move to `title`; empty: they are."""
    node = federation.node
    published = node.names.published(title)
    if published is not None and node.knowledge().may_be_destination(published):
        return ""
    return no_destination(node.names, title)


def note_destination(
    federation: Federation, caller: Device | None, called: str, destination: str, why: str
) -> None:
    """Whether the destination of a C-MOVE that `called` was asked for was refused, for people.

    `why` is empty if it was not.
    """
    node = federation.node
    calling = node.ae_title if caller is None else caller.ae_title
    if why:
        note_refused_move(node.refusals, calling, called, destination, why)
    else:
        node.refusals.forget_move(calling, called, destination)


class Moving:
    """Asks owners to send their parts of one C-MOVE to `destination`.

    `refused` are those that do not know the destination, or may not send there; `refused_here` is
    why this Router has not asked other hospitals; empty: it has; None: there was nothing to ask.
    """

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self.refused = 0
        self.refused_here: str | None = None

    @property
    def refusal(self) -> Refusal | None:
        """A801, where owners have said so (PS3.4 Table C.4-2)."""
        return Refusal.DESTINATION_UNKNOWN if self.refused else None

    def _check_way_out(self, federation: Federation) -> None:
        """Raise RefusedHere where other hospitals are not to be asked."""
        self.refused_here = no_way_out(federation, self.destination)
        if self.refused_here:
            self.refused += 1
            # With both titles within the 64 characters of an Error Comment (PS3.7 §E.1).
            words = f"refuses {self.destination}; publish with store"
            raise RefusedHere(words, Outcome.REFUSED)

    async def perform(self, retrieve: Retrieve, errand: Errand) -> None:
        """Have all of `errand` sent by its owner. Raises SourceFailed."""
        if errand.source.device is None:
            self._check_way_out(retrieve.federation)
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
                        one = _OneMove(
                            retrieve, self, errand.source, opened, context, request, asked
                        )
                        await one.run()
        retrieve.stopped |= opening.cancelled_caught


@attrs.define(slots=True, eq=False)
class _OneMove:
    """One C-MOVE, from its request to its final response.

    Only its owner knows what becomes of it: what it says is shown meanwhile, and counted in the
    end.
    """

    retrieve: Retrieve
    moving: Moving
    source: Source
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
        self._note_destination(answer.status)
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
            # With both titles within the 64 characters of an Error Comment (PS3.7 §E.1).
            words = f"does not know {self.asked.destination} or may not send"
        raise SourceFailed(words, Outcome.REFUSED)

    def _note_destination(self, status: int) -> None:
        """Of a device of ours; with another hospital's the call's own border has seen to it."""
        device, federation = self.source.device, self.retrieve.federation
        if device is None:
            return
        destination, why = self.asked.destination, ""
        if status == Status.MOVE_DESTINATION_UNKNOWN:
            by_router = federation.node.devices.get(destination) is None
            why = unknown_to(device.ae_title, by_router=by_router)
        note_destination(federation, self.retrieve.caller, device.ae_title, destination, why)

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
            tally.complete(uid, warning=position < self.said.warning, named=not unnamed)

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
