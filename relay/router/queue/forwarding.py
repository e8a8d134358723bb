"""A request for storage commitment goes to the far device, over an association of its own.

    N-ACTION-RQ -> far Router, device -> N-ACTION-RSP -> perhaps its report, there -> release

The report comes by an association that the device opens, as a rule; some send it over this one at
once, and it is handed on.
"""

from collections.abc import Awaitable, Callable

import structlog
import trio

from relay.dicom import negotiation
from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import RESPONSE_BIT, CommandField, CommandReader, Status, Tag, response_to
from relay.dicom.negotiation import AcceptedContext, accepted_contexts
from relay.dicom.pdu import PDV, AAbort
from relay.dicom.rejection import (
    CALLED_AE_TITLE_NOT_RECOGNIZED,
    NO_REASON_GIVEN,
    TEMPORARY_CONGESTION,
    rejected,
)
from relay.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL
from relay.errors import AssociationAborted, RelayError, RemoteProtocolError, leaves
from relay.router.node import Node
from relay.router.outgoing import live_entry, prepare, tunnel
from relay.router.reports import MAXIMUM_REPORT
from relay.scu import negotiated, receive, release
from relay.spool.transactions import Transaction
from relay.tunnel.session import TunnelAssociation

log = structlog.get_logger()

# From the N-ACTION-RQ to its response: the device notes down what it is asked for.
ACTION_DEADLINE = 60.0

# How long a device may still report over this association: those that do have everything at hand.
REPORT_HERE = 5.0

# Hands a report on, an N-EVENT-REPORT-RQ with its data set; the status to answer it with.
HandOn = Callable[[CommandSet, bytes], Awaitable[int]]


async def forward(node: Node, transaction: Transaction, data_set: bytes, hand_on: HandOn) -> int:
    """Ask the device for what `transaction` asks; the status of its response. PS3.4 §J.3.2.

    Raises RelayErrors, in a group or alone, if it could not be asked or did not answer.
    """
    request = negotiation.request(
        transaction.called,
        transaction.calling,
        negotiation.propose([(STORAGE_COMMITMENT_PUSH_MODEL, [transaction.transfer_syntax])]),
    )
    call = prepare(node, None, request, transaction.called)
    if call.peer != transaction.peer:
        raise rejected(
            CALLED_AE_TITLE_NOT_RECOGNIZED,
            f"{transaction.called} belongs to another hospital than it did",
        )
    status: int | None = None
    try:
        with node.live.hold(live_entry(node, call)):
            async with tunnel(node, call) as far:
                accepted = list(accepted_contexts(request, await negotiated(far)).values())
                if not accepted:
                    await release(far)
                    raise rejected(NO_REASON_GIVEN, "storage commitment is not accepted there")
                asking = _Asking(far, accepted[0], hand_on)
                status = await asking.ask(transaction, data_set)
                if status == Status.SUCCESS:
                    await asking.hear()
                await release(far)
    except* RelayError as group:
        if status is None:
            raise
        # It has answered, and that counts however it ends.
        log.info("not released", called=transaction.called, why=str(next(leaves(group))))
    if status is None:
        raise rejected(TEMPORARY_CONGESTION, "it was cut off")
    return status


class _Asking:
    """One association with the device."""

    def __init__(self, far: TunnelAssociation, context: AcceptedContext, hand_on: HandOn) -> None:
        self._far = far
        self._context = context
        self._hand_on = hand_on
        self._reader = CommandReader({context.id})

    async def ask(self, transaction: Transaction, data_set: bytes) -> int:
        """The status of the response."""
        command = CommandSet.decode(transaction.command).evolve({Tag.MESSAGE_ID: 1})
        await self._send(command, data_set)
        while True:
            said, content = await self._message(ACTION_DEADLINE)
            if said.command_field == CommandField.N_ACTION_RQ | RESPONSE_BIT:
                return said.status
            await self._take(said, content)

    async def hear(self) -> None:
        """Take a report, if it comes soon."""
        heard: tuple[CommandSet, bytes] | None = None
        with trio.move_on_after(REPORT_HERE):
            heard = await self._message(2 * REPORT_HERE)
        if heard is not None:
            await self._take(*heard)

    async def _take(self, command: CommandSet, data_set: bytes) -> None:
        if command.command_field != CommandField.N_EVENT_REPORT_RQ:
            await self._far.abort()
            raise RemoteProtocolError(f"command field {command.command_field:04X}H out of turn")
        status = await self._hand_on(command, data_set)
        event = command.number(Tag.EVENT_TYPE_ID)
        extra: dict[int, int] = {} if event is None else {Tag.EVENT_TYPE_ID: event}
        await self._send(response_to(command, status, extra=extra))

    async def _send(self, command: CommandSet, data_set: bytes = b"") -> None:
        await self._far.send(
            PDV(self._context.id, True, True, command.encode()), end_of_message=not data_set
        )
        if data_set:
            await self._far.send(PDV(self._context.id, False, True, data_set))

    async def _message(self, deadline: float) -> tuple[CommandSet, bytes]:
        """The next message, whole."""
        command: CommandSet | None = None
        data_set = bytearray()
        while command is None or self._reader.message_open:
            match await receive(self._far, deadline, "answer to the request for commitment"):
                case PDV() as pdv:
                    command = self._reader.feed(pdv) or command
                    if not pdv.is_command:
                        data_set += pdv.fragment
                    if len(data_set) > MAXIMUM_REPORT:
                        raise RemoteProtocolError(f"report longer than {MAXIMUM_REPORT} bytes")
                case AAbort() as abort:
                    raise AssociationAborted(abort.source, abort.reason, self._far.cause)
                case atom:
                    raise RemoteProtocolError(f"{type(atom).__name__} out of turn")
        return command, bytes(data_set)
