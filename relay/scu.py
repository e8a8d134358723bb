"""DIMSE as service class user, one operation at a time, over any `Association`.

Each operation sends its request and waits for what answers it, within a deadline of its own. What
comes back is a status, whatever it is; an exception means that the association is over:
`AssociationRejected`, `AssociationAborted` (the peer's A-ABORT, a lost connection), `PeerSilent`
after a deadline, or `RemoteProtocolError` after our A-ABORT for what the peer did wrong.

At the end stands `respond_to_echo`, the Router's own C-ECHO provider.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

import attrs
import trio

from relay.association import ABORT_LIMIT, Association
from relay.dicom.dimse import (
    RESPONSE_BIT,
    CommandField,
    CommandReader,
    CommandSet,
    Status,
    Tag,
    is_pending,
    request,
    response_to,
)
from relay.dicom.negotiation import AcceptedContext, answer
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
    Buffer,
    PresentationContext,
)
from relay.dicom.rejection import in_words, rejected
from relay.dicom.uids import VERIFICATION
from relay.errors import (
    AbortReason,
    AbortSource,
    AssociationAborted,
    LocalProtocolError,
    PeerSilent,
    RemoteProtocolError,
)

# From A-ASSOCIATE-RQ to its answer. Longer than a Router takes to find out that the far one is
# away (25 s, DESIGN §5) and a TCP association's own limit: theirs tell more.
NEGOTIATION_DEADLINE = 60.0

ECHO_DEADLINE = 30.0

# From the end of the data set to the C-STORE-RSP. PACS answer after they have stored, some after
# they have compressed; a relayed one adds its way.
STORE_DEADLINE = 300.0

# From one C-FIND-RSP to the next. The first may wait for a search over a whole archive.
FIND_DEADLINE = 120.0

# A report is noted down and answered.
REPORT_DEADLINE = 60.0

RELEASE_DEADLINE = 60.0

# Who asks our own C-ECHO provider asks at once, and again at most after a person's pause.
ECHO_IDLE = 60.0

# One C-FIND identifier. Real ones are some hundred bytes to some tens of KiB.
MAXIMUM_IDENTIFIER = 1024 * 1024


@attrs.frozen(slots=True)
class FindAnswer:
    """One C-FIND-RSP. The final one has no identifier, and a status that is not pending.

    `comment` is its Error Comment (0000,0902), of a failure; most devices send none.
    """

    status: int
    identifier: bytes | None = attrs.field(default=None, repr=False)  # may name a patient
    comment: str = attrs.field(default="", repr=False)  # what a device says, it alone knows

    @property
    def pending(self) -> bool:
        return is_pending(self.status)


async def negotiate(
    association: Association, rq: AAssociateRQ, *, deadline: float = NEGOTIATION_DEADLINE
) -> AAssociateAC:
    """Ask for the association; `negotiation.accepted_contexts(rq, ac)` tells what came of it."""
    await association.send(rq)
    return await negotiated(association, deadline=deadline)


async def negotiated(
    association: Association, *, deadline: float = NEGOTIATION_DEADLINE
) -> AAssociateAC:
    """The answer to a request that is on its way already, as a tunnel's is."""
    async with _aborting_faults(association):
        match await receive(association, deadline, "answer to A-ASSOCIATE-RQ"):
            case AAssociateAC() as ac:
                return ac
            case AAssociateRJ() as rejection:
                raise rejected(rejection, in_words(rejection))
            case atom:
                raise _unexpected(atom, association.cause)


async def echo(
    association: Association,
    context: AcceptedContext,
    *,
    message_id: int = 1,
    deadline: float = ECHO_DEADLINE,
) -> int:
    """C-ECHO; the status of its response (PS3.7 §9.1.5)."""
    command = request(CommandField.C_ECHO_RQ, message_id, VERIFICATION)
    await _send(association, context, command)
    status, _, _ = await _response(association, context, command, deadline)
    return status


async def store(
    association: Association,
    context: AcceptedContext,
    sop_class: str,
    sop_instance: str,
    data_set: Buffer | AsyncIterable[Buffer],
    *,
    message_id: int = 1,
    deadline: float = STORE_DEADLINE,
) -> int:
    """C-STORE; the status of its response (PS3.7 §9.1.1).

    `data_set` goes out byte for byte, as it comes: it must be in the context's transfer syntax.
    """
    command = request(CommandField.C_STORE_RQ, message_id, sop_class, sop_instance)
    await _send(association, context, command, data_set)
    status, _, _ = await _response(association, context, command, deadline)
    return status


async def find(
    association: Association,
    context: AcceptedContext,
    identifier: bytes,
    *,
    message_id: int = 1,
    maximum: int | None = None,
    deadline: float = FIND_DEADLINE,
) -> AsyncGenerator[FindAnswer, None]:
    """C-FIND; its answers as they come, the final one last (PS3.7 §9.1.2).

    After `maximum` identifiers the operation is cancelled and further ones are dropped. Call
    `cancel` at any time and go on: the peer may send more before its final answer. Whoever leaves
    the loop earlier can only close the association. `deadline` is for each word, also of ours.
    """
    command = request(CommandField.C_FIND_RQ, message_id, context.abstract_syntax)
    await _send_within(deadline, association, context, command, identifier)
    count = 0
    while True:
        item = FindAnswer(*await _response(association, context, command, deadline))
        if not item.pending:
            yield item
            return
        count += 1
        if maximum is None or count <= maximum:
            yield item
        if count == maximum:
            stop = request(CommandField.C_CANCEL_RQ, message_id)
            await _send_within(deadline, association, context, stop)


async def report_event(
    association: Association,
    context: AcceptedContext,
    event: CommandSet,
    data_set: bytes,
    *,
    message_id: int = 1,
    deadline: float = REPORT_DEADLINE,
) -> int:
    """N-EVENT-REPORT of what `event`, another one, reports; the status of its response.

    PS3.7 §10.1.1. Raises `RemoteProtocolError` if `event` names no SOP class or instance.
    """
    sop_class, sop_instance = event.sop_class_uid, event.sop_instance_uid
    event_type = event.number(Tag.EVENT_TYPE_ID)
    if sop_class is None or sop_instance is None or event_type is None:
        raise RemoteProtocolError("N-EVENT-REPORT-RQ without SOP class, instance or event type")
    command = request(
        CommandField.N_EVENT_REPORT_RQ,
        message_id,
        sop_class,
        sop_instance,
        has_data_set=True,
        extra={Tag.EVENT_TYPE_ID: event_type},
    )
    await _send(association, context, command, data_set)
    status, _, _ = await _response(association, context, command, deadline)
    return status


async def cancel(
    association: Association, context: AcceptedContext, *, message_id: int = 1
) -> None:
    """C-CANCEL of the operation with this Message ID (PS3.7 §9.3.2.3)."""
    await _send(association, context, request(CommandField.C_CANCEL_RQ, message_id))


async def release(association: Association, *, deadline: float = RELEASE_DEADLINE) -> None:
    """Release the association (PS3.8 §7.2). A peer that releases at the same time is answered."""
    await association.send(AReleaseRQ())
    async with _aborting_faults(association):
        while True:
            match await receive(association, deadline, "answer to A-RELEASE-RQ"):
                case AReleaseRP():
                    return
                case AReleaseRQ():
                    await association.send(AReleaseRP())
                case PDV():
                    pass  # allowed until the answer (PS3.8 §7.2.2.1), and of no use any more
                case atom:
                    raise _unexpected(atom, association.cause)


async def respond_to_echo(association: Association, rq: AAssociateRQ) -> None:
    """Serve one association as C-ECHO provider, to its end: only Verification is accepted."""
    ac = answer(rq, _verification_only)
    await association.send(ac)
    reader = CommandReader({result.id for result in ac.contexts if result.accepted})
    async with _aborting_faults(association):
        while True:
            match await receive(association, ECHO_IDLE, "request"):
                case PDV() as pdv:
                    command = reader.feed(pdv)
                    if command is not None:
                        await _respond_to_echo(association, pdv.context_id, command)
                case AReleaseRQ():
                    await association.send(AReleaseRP())
                    return
                case atom:
                    raise _unexpected(atom, association.cause)


async def _respond_to_echo(association: Association, context_id: int, command: CommandSet) -> None:
    if command.is_response or command.command_field == CommandField.C_CANCEL_RQ:
        return  # nothing that could be answered
    known = command.command_field == CommandField.C_ECHO_RQ
    response = response_to(command, Status.SUCCESS if known else Status.UNRECOGNIZED_OPERATION)
    await association.send(PDV(context_id, True, True, response.encode()))


def _verification_only(context: PresentationContext) -> str | None:
    # A C-ECHO has no data set: any transfer syntax will do.
    return context.transfer_syntaxes[0] if context.abstract_syntax == VERIFICATION else None


# --- messages ---------------------------------------------------------------------------------


async def _send(
    association: Association,
    context: AcceptedContext,
    command: CommandSet,
    data_set: Buffer | AsyncIterable[Buffer] | None = None,
) -> None:
    try:
        await association.send(PDV(context.id, True, True, command.encode()))
        if data_set is None:
            return
        last: Buffer = b""
        if isinstance(data_set, AsyncIterable):
            async for piece in data_set:
                if last:
                    await association.send(PDV(context.id, False, False, last))
                last = piece
        else:
            last = data_set
        await association.send(PDV(context.id, False, True, last))
    except AssociationAborted as error:
        await _last_words(association, error)


async def _send_within(
    deadline: float,
    association: Association,
    context: AcceptedContext,
    command: CommandSet,
    data_set: Buffer | None = None,
) -> None:
    """As `_send`. A peer that does not take it in `deadline` seconds is aborted: PeerSilent."""
    with trio.move_on_after(deadline):
        await _send(association, context, command, data_set)
        return
    await association.abort()
    raise PeerSilent(
        AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, f"it took nothing for {deadline:g} s"
    )


async def _last_words(association: Association, error: AssociationAborted) -> NoReturn:
    """Raise the A-ABORT that the peer sent before it closed, if there is one to read."""
    with trio.move_on_after(ABORT_LIMIT):
        with suppress(LocalProtocolError):  # they have been heard already
            while True:
                atom = await association.receive()
                if isinstance(atom, AAbort):
                    raise AssociationAborted(atom.source, atom.reason, association.cause) from error
    raise error


async def _response(
    association: Association, context: AcceptedContext, asked: CommandSet, deadline: float
) -> tuple[int, bytes | None, str]:
    """The status of the next response to `asked`, its data set, and its Error Comment."""
    reader = CommandReader({context.id})
    command: CommandSet | None = None
    data_set = bytearray()
    async with _aborting_faults(association):
        while command is None or reader.message_open:
            atom = await receive(association, deadline, "response")
            if not isinstance(atom, PDV):
                raise _unexpected(atom, association.cause)
            command = reader.feed(atom) or command
            if not atom.is_command:
                data_set += atom.fragment
                if len(data_set) > MAXIMUM_IDENTIFIER:
                    raise RemoteProtocolError(f"response longer than {MAXIMUM_IDENTIFIER} bytes")
        if (
            command.command_field != asked.command_field | RESPONSE_BIT
            or command.message_id_responded_to != asked.message_id
        ):
            raise RemoteProtocolError(f"command field {command.command_field:04X}H out of turn")
        comment = command.text(Tag.ERROR_COMMENT) or ""
        return command.status, bytes(data_set) if command.has_data_set else None, comment


# --- atoms ------------------------------------------------------------------------------------


async def receive(association: Association, deadline: float, what: str) -> Atom:
    """The next atom. After `deadline` seconds without one the association is aborted, and
    `PeerSilent` says that there was no `what`."""
    with trio.move_on_after(deadline):
        return await association.receive()
    await association.abort()
    raise PeerSilent(
        AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, f"no {what} within {deadline:g} s"
    )


def _unexpected(atom: Atom, cause: str) -> AssociationAborted | RemoteProtocolError:
    """What may come instead of what was awaited: the end, or what has no place here."""
    if isinstance(atom, AAbort):
        return AssociationAborted(atom.source, atom.reason, cause)
    return RemoteProtocolError(f"{type(atom).__name__} out of turn")


@asynccontextmanager
async def _aborting_faults(association: Association) -> AsyncIterator[None]:
    """Abort the association if what came over it is wrong."""
    try:
        yield
    except RemoteProtocolError:
        await association.abort()
        raise
