"""One C-GET or C-MOVE of ours with an owner: its words, each within its time, and a C-CANCEL.

What the owner does wrong, or fails to do, is SourceFailed. `Cancelling` is how the caller's own
C-CANCEL reaches the owner that is being asked, whatever is being waited for.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import attrs
import trio

from relay.association import receive_some
from relay.dicom import dimse
from relay.dicom.dimse import (
    CommandField,
    CommandReader,
    CommandSet,
    Priority,
    Status,
    Tag,
    is_pending,
)
from relay.dicom.elements import Encoding, encoding_of
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import PDV, AAbort, Atom
from relay.errors import AssociationAborted, Outcome, RemoteProtocolError, SourceFailed
from relay.router.federation.opening import Opened
from relay.router.federation.targets import Target, read_text
from relay.router.federation.totals import Counts
from relay.router.suboperations import COMPLETE_WITH_FAILURES, FAILED_SOP_INSTANCE_UID_LIST
from relay.scu import MAXIMUM_IDENTIFIER

# Seconds for an owner to come to an end after a C-CANCEL, which it may also not heed (PS3.4 §C.4).
CANCEL_WAIT = 5.0

# Seconds for one request, whatever an owner says meanwhile: a study of ten thousand images over a
# slow line, and not for ever.
LONGEST_REQUEST = 4 * 3600.0


class Cancelling:
    """Whether the caller wants no more, and what has to be woken by that."""

    def __init__(self) -> None:
        self.asked = False
        self._scope: trio.CancelScope | None = None

    def cancel(self) -> None:
        """The caller wants no more."""
        self.asked = True
        if self._scope is not None:
            self._scope.cancel()

    @contextmanager
    def waking(self, scope: trio.CancelScope) -> Iterator[None]:
        """Cancel `scope` if the caller wants no more, as long as the block or `let_be` lasts."""
        self._scope = scope
        if self.asked:
            scope.cancel()
        try:
            yield
        finally:
            self.let_be()

    def let_be(self) -> None:
        """Nothing is to be woken now."""
        self._scope = None


@attrs.frozen(slots=True)
class Answer:
    """A C-GET-RSP or C-MOVE-RSP. `counted`: it has counters."""

    status: int
    counts: Counts
    counted: bool
    failed_uids: tuple[str, ...] = attrs.field(default=(), repr=False)

    @property
    def pending(self) -> bool:
        return is_pending(self.status)

    @property
    def is_of_suboperations(self) -> bool:
        """Whether its counters say what came of the request (PS3.4 Tables C.4-2 and C.4-3).

        That nothing at all could be done has a status of its own, and sub-operations that failed.
        """
        if self.status == Status.UNABLE_TO_PERFORM_SUBOPERATIONS:
            return self.counts.failed > 0
        return self.status in (Status.SUCCESS, COMPLETE_WITH_FAILURES)


class Conversation:
    """One request to an owner, and what it says until its final response.

    `wait`: seconds for each next word. While `owes` is true we are in the middle of something that
    cannot be left, and a cancelled owner may go on with it.
    """

    def __init__(
        self,
        opened: Opened,
        context: AcceptedContext,
        message_id: int,
        cancelling: Cancelling,
        wait: float,
    ) -> None:
        self.owes = False
        self.reader = CommandReader(opened.accepted)
        self._association = opened.association
        self._context = context
        self._message_id = message_id
        self._cancelling = cancelling
        self._wait = wait
        self.encoding = encoding_of(context.transfer_syntax) or Encoding()
        self._come = deque[Atom]()
        self._told = False
        self._left_at = inf  # after a C-CANCEL
        self._until = trio.current_time() + LONGEST_REQUEST

    async def ask(
        self, field: CommandField, target: Target, priority: Priority, destination: str = ""
    ) -> None:
        """Send the request, for `target`; a C-MOVE's has a `destination`."""
        sop_class = self._context.abstract_syntax
        command = dimse.request(
            field,
            self._message_id,
            sop_class,
            priority=priority,
            extra={Tag.MOVE_DESTINATION: destination} if destination else None,
        )
        await self._send(self._pdv(command), end_of_message=False)
        identifier = target.encode(self.encoding, sop_class)
        await self._send(PDV(self._context.id, False, True, identifier))

    async def respond(self, context_id: int, command: CommandSet, status: int) -> None:
        """Answer a request of the owner's."""
        response = dimse.response_to(command, status)
        await self._send(PDV(context_id, True, True, response.encode()))

    async def receive(self) -> tuple[PDV, CommandSet | None]:
        """The next PDV, and the command that is whole with it.

        Raises SourceFailed, or AssociationAborted as its peer has ended it.
        """
        await self._pass_on_cancel()
        while not self._come:
            now = trio.current_time()
            deadline = min(now + self._wait, self._until)
            if not self.owes:
                deadline = min(deadline, self._left_at)
            if now < deadline:
                with trio.CancelScope(deadline=deadline) as scope:
                    await self._wait_for_more(scope)
                    continue
            await self._pass_on_cancel()
            if trio.current_time() >= deadline:
                await self._association.abort()
                raise SourceFailed(*self._silence())
        match self._come.popleft():
            case PDV() as pdv:
                try:
                    return pdv, self.reader.feed(pdv)
                except RemoteProtocolError as error:
                    raise await self.fault(str(error)) from error
            case AAbort(source, reason):
                raise AssociationAborted(source, reason, self._association.cause)
            case atom:
                raise await self.fault(f"{type(atom).__name__} in the middle of a retrieve")

    async def _wait_for_more(self, scope: trio.CancelScope) -> None:
        if self._told:
            self._come.extend(await receive_some(self._association))
        else:
            with self._cancelling.waking(scope):
                self._come.extend(await receive_some(self._association))

    def leavable(self) -> None:
        """What could not be left is over. A cancelled owner has its time to end from now on."""
        self.owes = False
        if self._told:
            self._left_at = trio.current_time() + CANCEL_WAIT

    def _silence(self) -> tuple[str, Outcome]:
        if self._told:
            return f"it did not end within {CANCEL_WAIT:g} s of a C-CANCEL", Outcome.CANCELLED
        if trio.current_time() >= self._until:
            return f"it did not end within {LONGEST_REQUEST:g} s", Outcome.SLOW
        return f"no word of it within {self._wait:g} s", Outcome.SLOW

    async def fault(self, words: str) -> SourceFailed:
        """What came is wrong: the association is aborted."""
        await self._association.abort()
        return SourceFailed(f"what it sends is wrong: {words}", Outcome.REFUSED)

    async def answer(self, command: CommandSet) -> Answer:
        """The response of which `command` has come, with its data set. Raises SourceFailed."""
        return await self.read(command, await self.data_set())

    async def data_set(self) -> bytes:
        """That of the response of which the command has come; empty: it has none."""
        data_set = bytearray()
        while self.reader.message_open:
            pdv, _ = await self.receive()
            data_set += pdv.fragment
            if len(data_set) > MAXIMUM_IDENTIFIER:
                raise await self.fault(f"a response longer than {MAXIMUM_IDENTIFIER} bytes")
        return bytes(data_set)

    async def read(self, command: CommandSet, data_set: bytes) -> Answer:
        """What a response says. Raises SourceFailed."""
        try:
            status = command.status
        except RemoteProtocolError as error:
            raise await self.fault(str(error)) from error
        numbers = [
            command.number(tag)
            for tag in (
                Tag.NUMBER_OF_REMAINING_SUBOPERATIONS,
                Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS,
                Tag.NUMBER_OF_FAILED_SUBOPERATIONS,
                Tag.NUMBER_OF_WARNING_SUBOPERATIONS,
            )
        ]
        failed = read_text(data_set, FAILED_SOP_INSTANCE_UID_LIST, self.encoding)
        return Answer(
            status,
            Counts(*(number or 0 for number in numbers)),
            any(number is not None for number in numbers[1:]),
            tuple(filter(None, (uid.strip(" \0") for uid in failed.split("\\")))),
        )

    async def _pass_on_cancel(self) -> None:
        """Tell the owner of a C-CANCEL, between two words of it; then it has CANCEL_WAIT."""
        if self._cancelling.asked and not self._told:
            self._told = True
            await self._send(self._pdv(dimse.request(CommandField.C_CANCEL_RQ, self._message_id)))
            self._left_at = trio.current_time() + CANCEL_WAIT

    async def _send(self, pdv: PDV, *, end_of_message: bool = True) -> None:
        with trio.move_on_after(self._wait):
            await self._association.send(pdv, end_of_message=end_of_message)
            return
        await self._association.abort()
        raise SourceFailed(f"it took nothing for {self._wait:g} s", Outcome.SLOW)

    def _pdv(self, command: CommandSet) -> PDV:
        return PDV(self._context.id, True, True, command.encode())
