"""The objects of a C-GET that a device answers by C-MOVE: from its associations to the requestor.

    device ── C-STORE-RQ ──▶ SubAssociation ──▶ Carrier ── C-STORE-RQ ──▶ requestor
           ◀─ C-STORE-RSP ──                            ◀─ C-STORE-RSP ──

A C-GET has one C-STORE-RQ without answer at a time, so that several associations of the device go
one object after the other. Data sets pass as they come: nothing is kept.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from math import inf

import attrs
import trio

from relay.dicom import dimse, negotiation
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Status, Tag
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
    ContextResult,
    PresentationContext,
)
from relay.dicom.rejection import TEMPORARY_CONGESTION
from relay.errors import AbortReason, AbortSource, LocalProtocolError, RemoteProtocolError
from relay.router import get_as_move
from relay.router.direction import command_pdv
from relay.router.get_as_move import Stored
from relay.router.live import LiveAssociation, Side, Work
from relay.router.moves import MoveRegister

_LAST_MESSAGE_ID = 0xFFFF  # US: two bytes

GONE = "whoever asked for the objects is gone"


@attrs.define(slots=True, eq=False)
class _Storing:
    """The object that is on its way to the requestor, or not answered yet."""

    by: "SubAssociation"
    context_id: int  # of the device's association
    command: CommandSet
    sent: bool = False
    answered: bool = False


class Carrier:
    """Carries objects to the requestor of a C-GET, by `say`; `broke_off` is told of one in part.

    `device` and `router` are AE titles: who calls whom to store; what it proposes for that is told
    to `moves`. It is a `relay.router.moves.Receiver`.

    `stored` counts those of the C-GET that is outstanding; None: there is none, and nothing is
    carried. `message` is held from a message's first fragment to the requestor to its last, and
    `suboperation` from a C-STORE-RQ to its answer.
    """

    def __init__(
        self,
        device: str,
        router: str,
        say: Callable[[Atom], Awaitable[None]],
        broke_off: Callable[[], None],
        moves: MoveRegister,
    ) -> None:
        self.stored: Stored | None = None
        self.ended = False
        self.message, self.suboperation = trio.Semaphore(1), trio.Semaphore(1)
        self._device = device
        self._router = router
        self._moves = moves
        self._say = say
        self._broke_off = broke_off
        # By SOP class and transfer syntax, the context that carries it.
        self._contexts: dict[tuple[str, str], int] = {}
        self._storing: _Storing | None = None
        self._subs: set[SubAssociation] = set()
        self._message_ids = cycle(range(1, _LAST_MESSAGE_ID + 1))

    def negotiated(self, answer: AAssociateAC, taking: dict[int, PresentationContext]) -> None:
        """The requestor was answered this: of the contexts `taking` those accepted carry."""
        for result in answer.contexts:
            if result.accepted and (context := taking.get(result.id)) is not None:
                pair = context.abstract_syntax, result.transfer_syntax
                self._contexts.setdefault(pair, result.id)

    def accepts(self, context: PresentationContext) -> str | ContextResult | None:
        """What of a context of the device's is carried, for `negotiation.answer`.

        The first of its transfer syntaxes that is.
        """
        for syntax in context.transfer_syntaxes:
            if (context.abstract_syntax, syntax) in self._contexts:
                return syntax
        known = any(sop_class == context.abstract_syntax for sop_class, _ in self._contexts)
        return ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED if known else None

    def entry(self) -> LiveAssociation:
        """See `Receiver.entry`."""
        return LiveAssociation(
            number=secrets.token_hex(6),
            side=Side.CALLER,
            device=self._device,
            calling=self._device,
            called=self._router,
            peer="",  # none: it is between the device and this Router
            still_permitted=lambda: True,  # as long as the C-GET is, whose end is this one's
            work=Work.LOCAL,
        )

    @contextmanager
    def associate(self, request: AAssociateRQ) -> "Iterator[SubAssociation]":
        """See `Receiver.associate`."""
        self._moves.proposed(self._device, request.contexts)
        sub = SubAssociation(self, request)
        self._subs.add(sub)
        try:
            yield sub
        finally:
            self._subs.discard(sub)
            if self._storing is not None and self._storing.by is sub and not self._storing.sent:
                self._broke_off()

    def end(self) -> None:
        """The requestor is gone: all these associations end."""
        self.ended = True
        self.stored = None
        for sub in tuple(self._subs):
            sub.end()

    async def begin(
        self, sub: "SubAssociation", context_id: int, pair: tuple[str, str], command: CommandSet
    ) -> bool:
        """A C-STORE-RQ in its turn; False if there is nobody any more to take it."""
        begun = False
        await self.suboperation.acquire()
        try:
            await self.message.acquire()
            try:
                if self.stored is not None:
                    request = get_as_move.suboperation(command, next(self._message_ids))
                    self._storing = _Storing(sub, context_id, command)
                    await self._say(command_pdv(self._contexts[pair], request))
                    begun = True
            finally:
                if not begun:
                    self._storing = None
                    self.message.release()
        finally:
            if not begun:
                self.suboperation.release()
        return begun

    async def carry(self, pair: tuple[str, str], pdv: PDV) -> None:
        """A fragment of the object that has begun."""
        storing = self._storing
        assert storing is not None, "`begin` was first"
        await self._say(attrs.evolve(pdv, context_id=self._contexts[pair]))
        if pdv.is_last:
            storing.sent = True
            self.message.release()
            self._end_suboperation(storing)

    def _end_suboperation(self, storing: _Storing) -> None:
        if storing.sent and storing.answered:
            self._storing = None
            self.suboperation.release()

    def answered(self, response: CommandSet) -> None:
        """The requestor's C-STORE-RSP, for the device. Raises RemoteProtocolError out of turn."""
        storing = self._storing
        if storing is None or storing.answered:
            raise RemoteProtocolError("C-STORE-RSP without a request")
        storing.answered = True
        if self.stored is not None:
            self.stored.count(storing.command, response.status)
        self._end_suboperation(storing)
        answer = response.evolve({Tag.MESSAGE_ID_BEING_RESPONDED_TO: storing.command.message_id})
        storing.by.answer(command_pdv(storing.context_id, answer))


class SubAssociation:
    """An association that the device has opened with its own Router, to store: the far end of it.

    `relay.router.moved` has it in the place of a tunnel.
    """

    def __init__(self, carrier: Carrier, request: AAssociateRQ) -> None:
        self.cause = ""
        self._carrier = carrier
        self._reader = CommandReader()
        self._pairs: dict[int, tuple[str, str]] = {}  # SOP class and transfer syntax, by context
        self._refusal: PDV | None = None  # to be sent once its request is read to the end
        # As many as may be asked without an answer (relay.router.direction.MAXIMUM_OUTSTANDING).
        self._words, self._heard = trio.open_memory_channel[Atom](inf)
        if carrier.stored is None:
            self._words.send_nowait(TEMPORARY_CONGESTION)
            return
        answer = negotiation.answer(request, carrier.accepts)
        for context in negotiation.accepted_contexts(request, answer).values():
            self._pairs[context.id] = context.abstract_syntax, context.transfer_syntax
        self._words.send_nowait(answer)

    async def receive(self) -> Atom:
        """See `Association.receive`."""
        try:
            return await self._heard.receive()
        except trio.EndOfChannel:
            return AAbort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED)

    async def send(
        self, atom: Atom, *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        """See `Association.send`."""
        match atom:
            case PDV():
                await self._take(atom)
            case AReleaseRQ():
                await trio.lowlevel.checkpoint()
                # Without a turn of the event loop behind it: whoever asks is to know that it has.
                self.answer(AReleaseRP())
            case _:
                raise LocalProtocolError(f"{type(atom).__name__} in this state")

    async def abort(
        self, source: int = AbortSource.SERVICE_USER, reason: int = AbortReason.NOT_SPECIFIED
    ) -> None:
        """See `Association.abort`."""
        await trio.lowlevel.checkpoint()
        self.end()

    async def aclose(self) -> None:
        """See `Association.aclose`."""
        await self.abort()

    def end(self) -> None:
        """What it has to say is said, and then an A-ABORT."""
        self.cause = self.cause or GONE
        self._words.close()

    def answer(self, atom: Atom) -> None:
        """Tell the device this, if it is still there."""
        with suppress(trio.ClosedResourceError):
            self._words.send_nowait(atom)

    async def _take(self, pdv: PDV) -> None:
        command = self._reader.feed(pdv)
        if command is not None:
            await self._begin(pdv.context_id, command)
        elif not pdv.is_command and self._refusal is None:
            await self._carrier.carry(self._pairs[pdv.context_id], pdv)
        if self._refusal is not None and not self._reader.message_open:
            refusal, self._refusal = self._refusal, None
            self.answer(refusal)

    async def _begin(self, context_id: int, command: CommandSet) -> None:
        status: Status | None = None
        if command.command_field != CommandField.C_STORE_RQ or not command.has_data_set:
            status = Status.UNRECOGNIZED_OPERATION
        elif not await self._carrier.begin(self, context_id, self._pairs[context_id], command):
            status = Status.OUT_OF_RESOURCES
        if status is not None:
            self._refusal = command_pdv(context_id, dimse.response_to(command, status))
