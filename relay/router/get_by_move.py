"""C-GET of a device that has none: its Router asks it by C-MOVE, and is the destination itself.

    requestor ── C-GET-RQ ──▶ GetByMove ── C-MOVE-RQ, destination: this Router ──▶ device
              ◀─ C-STORE-RQ ─     ▲
              ── C-STORE-RSP ▶    └─ relay.router.get_carrier: an association for each that it
              ◀─ C-GET-RSP ──         opens to store, calling its own Router (relay.router.moved)

To whoever calls, `GetByMove` is the device, with C-GET. The device is accepted what the requestor's
contexts carry, so that what it cannot send it counts as failed. An object that breaks off in the
middle cannot be taken back, and ends the association.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count

import attrs
import structlog
import trio

from relay.association import TERMINAL, Association
from relay.dicom import dimse, elements
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Status, Tag
from relay.dicom.pdu import PDV, AAbort, AAssociateAC, AAssociateRQ, Atom
from relay.errors import (
    AbortReason,
    AbortSource,
    AssociationAborted,
    LocalProtocolError,
    RelayError,
    RemoteProtocolError,
)
from relay.router import get_as_move
from relay.router.border import note_refused_move, unknown_to
from relay.router.devices import Device
from relay.router.direction import command_pdv
from relay.router.get_as_move import Stored
from relay.router.get_carrier import GONE, Carrier
from relay.router.moves import HeldMove
from relay.router.node import Node

log = structlog.get_logger()

# The data set of a final C-MOVE-RSP names the failed instances: this is 16,000 of them.
MAXIMUM_IDENTIFIER = 1024 * 1024

# Each move's destination is one of its own, so that no two are taken for one. No AE title has a
# backslash (PS3.5 §6.2).
_destinations = map("\\{}".format, count(1))
_NOBODY = "\\0"


@asynccontextmanager
async def answering_get(
    node: Node, device: Device, association: Association, request: AAssociateRQ
) -> AsyncIterator[Association]:
    """`association` with `device`, on which `request` was not sent yet, or is answered already.

    As that of a device with C-GET, for as long as the block lasts, where the device has none and
    `request` asks for it; else as it is. The Router must listen under its own AE title.
    """
    if not device.get_via_move or not get_as_move.get_contexts(request):
        yield association
        return
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        getting = GetByMove(node, device, association, request)
        nursery.start_soon(getting.run)
        try:
            yield getting
        except Exception as error:
            # Raised again outside, where the nursery does not wrap it.
            failure = error
        finally:
            getting.close()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


@attrs.define(slots=True, eq=False)
class _Asked:
    """The C-GET that has no final response yet."""

    context_id: int
    command: CommandSet
    move: HeldMove


class GetByMove:
    """The association with a device, to whoever calls it. `run` is its task."""

    def __init__(
        self, node: Node, device: Device, association: Association, request: AAssociateRQ
    ) -> None:
        self._node = node
        self._device = device
        self._association = association
        self._request = request
        self.over = False  # nothing more is said
        self._why = ""
        self._gets = get_as_move.get_contexts(request)
        self._taking = get_as_move.taking_contexts(request)
        self._carrier = Carrier(
            device.ae_title, node.ae_title, self._say, self._broke_off, node.moves
        )
        self._syntaxes: dict[int, str] = {}
        self._told, self._said = CommandReader(), CommandReader()
        self._asked: _Asked | None = None
        self._refusal: PDV | None = None  # to be sent once its request is read to the end
        self._response: CommandSet | None = None  # the C-MOVE-RSP whose data set comes
        self._identifier = bytearray()
        self._words, self._heard = trio.open_memory_channel[Atom | RelayError](0)
        self._running = trio.CancelScope()

    @property
    def cause(self) -> str:
        """How it ended, in words for the log."""
        return self._why or self._association.cause

    # --- an association's verbs -------------------------------------------------------------------

    async def receive(self) -> Atom:
        """See `Association.receive`."""
        try:
            word = await self._heard.receive()
        except trio.EndOfChannel:
            raise LocalProtocolError("receive() after the end of the association") from None
        if isinstance(word, RelayError):
            raise word
        self.over = self.over or isinstance(word, TERMINAL)
        return word

    async def send(self, atom: Atom, *, end_of_message: bool = True) -> None:
        """See `Association.send`."""
        match atom:
            case AAssociateRQ():
                await self._association.send(get_as_move.as_move(atom))
            case PDV():
                await self._tell(atom, end_of_message)
            case _:
                self.over = self.over or isinstance(atom, TERMINAL)
                await self._association.send(atom)

    async def abort(
        self, source: int = AbortSource.SERVICE_USER, reason: int = AbortReason.NOT_SPECIFIED
    ) -> None:
        """See `Association.abort`."""
        self.over = True
        await self._association.abort(source, reason)

    async def aclose(self) -> None:
        """See `Association.aclose`."""
        await self._association.aclose()

    def close(self) -> None:
        """Whoever asked is gone: the device's associations for it end."""
        self._heard.close()
        self._carrier.end()
        if self._asked is not None:
            # The device may go on storing. All such moves have one destination, so that they take
            # no places of those that go on (relay.router.moves.MAXIMUM_DESTINATIONS).
            self._asked.move.destination = _NOBODY
            self._node.moves.abandon(self._asked.move)
            self._asked = None

    # --- what the requestor says ------------------------------------------------------------------

    async def _tell(self, pdv: PDV, end_of_message: bool) -> None:
        command = self._told.feed(pdv)
        if command is not None:
            await self._tell_command(pdv.context_id, command)
        elif not pdv.is_command and self._refusal is None:
            await self._association.send(pdv, end_of_message=end_of_message)
        if self._refusal is not None and not self._told.message_open:
            refusal, self._refusal = self._refusal, None
            async with self._carrier.message:
                await self._say(refusal)

    async def _tell_command(self, context_id: int, command: CommandSet) -> None:
        field = command.command_field
        if context_id in self._taking:
            if field == CommandField.C_STORE_RSP:
                self._carrier.answered(command)
            else:
                self._refuse(context_id, command, Status.SOP_CLASS_NOT_SUPPORTED)
        elif context_id in self._gets:
            if field == CommandField.C_GET_RQ:
                await self._get(context_id, command)
            elif field == CommandField.C_CANCEL_RQ:
                await self._cancel(context_id, command)
            else:
                self._refuse(context_id, command, Status.UNRECOGNIZED_OPERATION)
        else:
            await self._pass_on(context_id, command)

    async def _get(self, context_id: int, command: CommandSet) -> None:
        move = self._hold(command) if self._asked is None else None
        if move is None:
            log.warning("C-GET refused", device=self._device.ae_title, why="too many at once")
            self._refuse(context_id, command, Status.UNABLE_TO_PERFORM_SUBOPERATIONS)
            return
        self._asked = _Asked(context_id, command, move)
        self._carrier.stored = Stored()
        asked = get_as_move.moved(command, move.seen_message_id, self._node.ae_title)
        await self._pass_on(context_id, asked)

    def _hold(self, command: CommandSet) -> HeldMove | None:
        holder, moves = self._device.ae_title, self._node.moves
        move = HeldMove(
            holder=holder,
            requestor=self._request.calling,
            message_id=command.message_id,
            destination=next(_destinations),
            seen_requestor=self._request.calling,
            seen_message_id=moves.message_id(holder),
            via_router=True,
            receiver=self._carrier,
        )
        return move if moves.hold(move) else None

    async def _cancel(self, context_id: int, command: CommandSet) -> None:
        if self._asked is not None:
            cancel = command.evolve(
                {Tag.MESSAGE_ID_BEING_RESPONDED_TO: self._asked.move.seen_message_id}
            )
            await self._pass_on(context_id, cancel)

    async def _pass_on(self, context_id: int, command: CommandSet) -> None:
        pdv = command_pdv(context_id, command)
        await self._association.send(pdv, end_of_message=not command.has_data_set)

    def _refuse(self, context_id: int, command: CommandSet, status: int) -> None:
        if command.is_response or command.command_field == CommandField.C_CANCEL_RQ:
            raise RemoteProtocolError(f"command field {command.command_field:04X}H out of turn")
        self._refusal = command_pdv(context_id, dimse.response_to(command, status))

    # --- what the device says ---------------------------------------------------------------------

    async def run(self) -> None:
        """Hear the device, until the association with it is over."""
        with self._running:
            try:
                await self._hear()
            except AssociationAborted as error:
                log.info("C-GET not answered", device=self._device.ae_title, why=str(error))
            except RelayError as error:
                await self._end_with(error)
        if self._running.cancelled_caught:  # an object in part cannot be taken back
            log.warning("association aborted", device=self._device.ae_title, why=self._why)
            await self._association.abort(AbortSource.SERVICE_PROVIDER)
            await self._end_with(AAbort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED))

    async def _end_with(self, word: Atom | RelayError) -> None:
        with suppress(AssociationAborted):  # then nobody is there to hear it
            await self._say(word)
        self._words.close()

    async def _hear(self) -> None:
        while True:
            atom = await self._association.receive()
            match atom:
                case AAssociateAC():
                    await self._say(self._negotiated(atom))
                case PDV():
                    await self._hear_pdv(atom)
                case _ if isinstance(atom, TERMINAL):
                    await self._end_with(atom)
                    return
                case _:
                    await self._say(atom)

    def _negotiated(self, atom: AAssociateAC) -> AAssociateAC:
        stores_in = partial(self._node.moves.stores_in, self._device.ae_title)
        answer = get_as_move.as_get(atom, self._request, stores_in)
        self._syntaxes = {result.id: result.transfer_syntax for result in answer.contexts}
        self._carrier.negotiated(answer, self._taking)
        return answer

    async def _hear_pdv(self, pdv: PDV) -> None:
        command = self._said.feed(pdv)
        if pdv.is_command and command is None:
            return
        if command is not None:
            of_move = command.command_field == CommandField.C_MOVE_RSP
            self._response = command if of_move and pdv.context_id in self._gets else None
            self._identifier.clear()
            if self._response is None:
                await self._carrier.message.acquire()
                await self._say(command_pdv(pdv.context_id, command))
        elif self._response is None:
            await self._say(pdv)
        elif len(self._identifier) + len(pdv.fragment) > MAXIMUM_IDENTIFIER:
            raise RemoteProtocolError(f"C-MOVE-RSP longer than {MAXIMUM_IDENTIFIER} bytes")
        else:
            self._identifier += pdv.fragment
        if self._said.message_open:
            return
        if self._response is None:
            self._carrier.message.release()
        else:
            await self._answered(self._response, bytes(self._identifier))

    async def _answered(self, response: CommandSet, data_set: bytes) -> None:
        asked = self._asked
        if asked is None:
            return  # a second final one; nobody waits for it
        if dimse.is_pending(response.status):
            async with self._carrier.message:
                answer = get_as_move.pending(response, asked.command)
                await self._say(command_pdv(asked.context_id, answer))
            return
        await self._node.moves.settle(asked.move)
        async with self._carrier.suboperation, self._carrier.message:
            stored, self._carrier.stored = self._carrier.stored or Stored(), None
            self._asked = None
            self._node.moves.end(asked.move)
            encoding = elements.encoding_of(self._syntaxes[asked.context_id])
            answer, data_set = get_as_move.final(
                response, asked.command, data_set, stored, encoding
            )
            self._note(response.status, answer.status, stored)
            await self._say(command_pdv(asked.context_id, answer))
            if answer.has_data_set:
                await self._say(PDV(asked.context_id, False, True, data_set))

    def _note(self, moved: int, status: int, stored: Stored) -> None:
        device, calling = self._device.ae_title, self._request.calling
        counts = stored.completed, stored.failed, stored.warned
        said = f"{moved:04X}, {status:04X}"
        log.info("C-GET by C-MOVE", device=device, calling=calling, said=said, counts=counts)
        refusals, router = self._node.refusals, self._node.ae_title
        if moved == Status.MOVE_DESTINATION_UNKNOWN:
            why = unknown_to(device, by_router=True)
            note_refused_move(refusals, calling, device, router, why)
        else:
            refusals.forget_move(calling, device, router)

    async def _say(self, word: Atom | RelayError) -> None:
        """To whoever called. Raises AssociationAborted if it is gone."""
        try:
            await self._words.send(word)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            gone = AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED
            raise AssociationAborted(*gone, GONE) from None

    def _broke_off(self) -> None:
        if not self._carrier.ended:
            self._why = f"{self._device.ae_title} broke off in the middle of an object"
            self._running.cancel()
