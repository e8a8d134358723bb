"""The federation as a service class provider: one association of a device, to its end.

    C-ECHO            is answered
    C-FIND            relay.router.federation.find
    C-MOVE, C-GET     relay.router.federation.retrieving
    C-STORE           is refused: with `store_to` another serves it (relay.router.calling)

One operation at a time: no asynchronous window is negotiated (PS3.7 §D.3.3.3). A C-CANCEL is heard
meanwhile, and a device that goes away ends what was done for it. For the device an operation is
over with its final response; the associations with the sites are released beside the next one.
"""

from collections.abc import Awaitable, Callable

import attrs
import structlog
import trio

from relay.association import Association, receive_some
from relay.dicom import negotiation, uids
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Status, Tag
from relay.dicom.negotiation import AcceptedContext, RoleSelection, accepted_contexts, find
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
from relay.errors import AbortReason, AssociationAborted, RelayError, RemoteProtocolError, leaves
from relay.router.devices import Device
from relay.router.federation import retrieving
from relay.router.federation.attributes import TRANSFER_SYNTAXES
from relay.router.federation.federation import Federation
from relay.router.federation.find import serve_find
from relay.router.federation.identifiers import Model
from relay.router.federation.responding import Responder
from relay.router.live import LiveAssociation
from relay.router.witness import Asked
from relay.scu import MAXIMUM_IDENTIFIER

log = structlog.get_logger()

# From the end of one operation to the next request, or the release: workstations keep an
# association while somebody reads what it has brought.
IDLE = 600.0

Operation = Callable[[Federation, Device | None, Responder, bytes], Awaitable[None]]


async def serve(
    federation: Federation,
    near: Association,
    device: Device | None,
    request: AAssociateRQ,
    entry: LiveAssociation | None = None,
) -> None:
    """Serve the association that `device` asks for with `request`; None: our own command line.

    `entry` is what the register has of it.

    Raises RemoteProtocolError for what the device does wrong; whoever catches it aborts.
    """
    ac = answer(request)
    await near.send(ac)
    serving = _Serving(federation, near, device, accepted_contexts(request, ac), entry)
    fault: RemoteProtocolError | None = None
    async with trio.open_nursery() as nursery:
        try:
            await serving.run(nursery)
        except RemoteProtocolError as error:
            fault = error  # raised again outside, where the nursery does not wrap it
        except AssociationAborted as error:
            log.info("association over", calling=request.calling, why=str(error))
        serving.end()
    if fault is not None:
        raise fault


def answer(request: AAssociateRQ) -> AAssociateAC:
    """What is accepted of `request`. Extended negotiation is not answered: neither relational
    queries nor fuzzy matching can be promised for all sites (PS3.7 §D.3.3.5)."""
    providers = {
        role.sop_class
        for role in find(request.user_items, RoleSelection)
        if role.scp and uids.is_storage(role.sop_class)
    }

    def accept(context: PresentationContext) -> str | ContextResult | None:
        offered = context.transfer_syntaxes
        if context.abstract_syntax == uids.VERIFICATION:
            return offered[0]
        if context.abstract_syntax in providers:
            # The objects of a C-GET (PS3.4 §C.5.3). Of its list each requestor can do all.
            return next((s for s in offered if s in uids.TRANSFER_SYNTAXES), offered[0])
        if Model.of(context.abstract_syntax) is None:
            return None
        chosen = next((s for s in TRANSFER_SYNTAXES if s in offered), None)
        return chosen or ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED

    ac = negotiation.answer(request, accept)
    proposed = {context.abstract_syntax for context in request.contexts}
    roles = (
        RoleSelection(uid, scu=False, scp=True).encode() for uid in sorted(providers & proposed)
    )
    return attrs.evolve(ac, user_items=(*ac.user_items, *roles))


class _Serving:
    def __init__(
        self,
        federation: Federation,
        near: Association,
        device: Device | None,
        contexts: dict[int, AcceptedContext],
        entry: LiveAssociation | None,
    ) -> None:
        self._entry = entry
        self._federation = federation
        self._near = near
        self._device = device
        self._contexts = contexts
        self._writing = trio.Lock()
        self._reader = CommandReader(contexts)
        self._data_set = bytearray()
        self._current: Responder | None = None
        self._scopes: dict[Responder, trio.CancelScope] = {}

    async def run(self, nursery: trio.Nursery) -> None:
        """Read what the device says, to the end; operations run in `nursery`."""
        while True:
            for atom in await self._receive():
                match atom:
                    case PDV():
                        await self._feed(atom, nursery)
                    case AReleaseRQ():
                        async with self._writing:  # a message that goes out is not cut
                            self.end()  # whoever releases waits for nothing more
                            await self._near.send(AReleaseRP())
                        return
                    case AAbort():
                        return
                    case _:
                        raise RemoteProtocolError(
                            f"{type(atom).__name__} out of turn", AbortReason.UNEXPECTED_PDU
                        )

    def end(self) -> None:
        """End what is still done for the device. What is over for it is cleared up in peace."""
        for responder, scope in self._scopes.items():
            if not responder.finished.is_set():
                scope.cancel()

    async def _receive(self) -> list[Atom]:
        """What comes next; while it is the device's turn, within IDLE seconds."""
        while True:
            current = self._current
            busy = current is not None and not current.finished.is_set()
            with trio.CancelScope(deadline=trio.current_time() + IDLE) as scope:
                return list(await receive_some(self._near))
            assert scope.cancelled_caught
            if not busy:
                raise RemoteProtocolError(
                    f"neither a request nor a release within {IDLE:g} s", AbortReason.NOT_SPECIFIED
                )

    # --- messages ---------------------------------------------------------------------------------

    async def _feed(self, pdv: PDV, nursery: trio.Nursery) -> None:
        self._reader.feed(pdv)
        if not pdv.is_command and self._reader.data_set_length <= MAXIMUM_IDENTIFIER:
            self._data_set += pdv.fragment
        command = self._reader.command
        if self._reader.message_open or command is None:
            return
        data_set, self._data_set = bytes(self._data_set), bytearray()
        current = self._current
        busy = current is not None and not current.finished.is_set()
        if command.is_response:
            if current is not None and current.takes_response is not None:
                current.takes_response(command)
        elif command.command_field == CommandField.C_CANCEL_RQ:
            # It may have crossed the final response of what it is for.
            if current is not None and busy and _is_of(command, current.request):
                current.cancel()
        elif busy:
            raise RemoteProtocolError(
                "a request before the last one was answered", AbortReason.NOT_SPECIFIED
            )
        else:
            await self._begin(command, self._contexts[pdv.context_id], data_set, nursery)

    async def _begin(
        self,
        request: CommandSet,
        context: AcceptedContext,
        data_set: bytes,
        nursery: trio.Nursery,
    ) -> None:
        responder = Responder(
            self._near, self._writing, list(self._contexts.values()), context, request
        )
        responder.entry = self._entry
        operation = _operation(request, context)
        if isinstance(operation, Status):
            await responder.send(operation)
        elif not data_set or self._reader.data_set_length > MAXIMUM_IDENTIFIER:
            await responder.send(
                Status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS,
                extra={Tag.ERROR_COMMENT: "no identifier, or one that is too long"},
            )
        else:
            if self._entry is not None and request.command_field == CommandField.C_FIND_RQ:
                syntax = context.transfer_syntax
                self._entry.witness.asked(Asked(context.abstract_syntax, data_set, syntax))
            self._current = responder
            self._scopes[responder] = trio.CancelScope()
            nursery.start_soon(self._operate, operation, responder, data_set)

    async def _operate(self, operation: Operation, responder: Responder, data_set: bytes) -> None:
        try:
            with self._scopes[responder]:
                await operation(self._federation, self._device, responder, data_set)
        except* AssociationAborted as group:
            # With the device, which is read elsewhere; or our own A-ABORT, which ends the reading.
            log.info("operation over", why=str(next(leaves(group))))
        except* RelayError as group:
            log.error("operation failed", why=str(next(leaves(group))))
            if not responder.finished.is_set():
                await self._fail(responder)
        finally:
            del self._scopes[responder]

    async def _fail(self, responder: Responder) -> None:
        try:
            await responder.send(
                Status.UNABLE_TO_PROCESS, extra={Tag.ERROR_COMMENT: "the Router has failed"}
            )
        except AssociationAborted as error:
            log.info("operation over", why=str(error))


def _is_of(cancel: CommandSet, request: CommandSet) -> bool:
    return cancel.message_id_responded_to == request.message_id


def _operation(request: CommandSet, context: AcceptedContext) -> Operation | Status:
    """What is done with `request`, or the status that it is answered with at once."""
    if request.affected_sop_class_uid not in (None, context.abstract_syntax):
        return Status.SOP_CLASS_NOT_SUPPORTED
    model = Model.of(context.abstract_syntax)
    match request.command_field:
        case CommandField.C_ECHO_RQ:
            return Status.SUCCESS
        case CommandField.C_FIND_RQ if model and context.abstract_syntax == model.find:
            return serve_find
        case CommandField.C_MOVE_RQ if model and context.abstract_syntax == model.move:
            return retrieving.serve_move
        case CommandField.C_GET_RQ if model and context.abstract_syntax == model.get:
            return retrieving.serve_get
        case CommandField.C_STORE_RQ:
            return Status.NOT_AUTHORIZED
    return Status.UNRECOGNIZED_OPERATION
