"""Reports of storage commitments that a device sends to the one AE title it knows the network by.

A device with `present_as` sees all other hospitals' devices under one calling AE title, and calls
that one back, at its own Router, with its N-EVENT-REPORT (PS3.4 §J.3.3). Whose it is tells only the
Transaction UID (0008,1195) in its data set, which was remembered with the request
(relay.router.commitments). So the Router takes the report as a service class user, hands it on over
an association of its own with the device that asked, and answers what that device answers.
"""

import attrs
import structlog

from relay.association import Association
from relay.dicom import elements, negotiation
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Status, Tag, response_to
from relay.dicom.elements import TRANSACTION_UID, Element
from relay.dicom.negotiation import RoleSelection, accepted_contexts, find, propose
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PresentationContext,
)
from relay.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, STORAGE_COMMITMENT_PUSH_MODEL
from relay.errors import RelayError, RemoteProtocolError, leaves
from relay.router.commitments import Commitment
from relay.router.devices import Device
from relay.router.node import Node, unix_time
from relay.router.outgoing import live_entry, prepare, tunnel
from relay.scu import negotiated, receive, release, report_event

log = structlog.get_logger()

# One report names each object of the request in some 150 bytes: this is 25,000 of them.
MAXIMUM_REPORT = 4 * 1024 * 1024

# From one report to the next, or to the release: an archive has them at hand or goes away.
IDLE = 60.0


def is_wanted(device: Device, request: AAssociateRQ) -> bool:
    """Whether `device` calls to report on a storage commitment."""
    return bool(device.present_as) and any(_is_commitment(c) for c in request.contexts)


async def serve(node: Node, near: Association, device: Device, request: AAssociateRQ) -> None:
    """Serve the association of a device that reports, to its end.

    Raises RemoteProtocolError after an A-ABORT for what the device does wrong.
    """
    ac = _answer(request)
    await near.send(ac)
    accepted = accepted_contexts(request, ac)
    reader = CommandReader(accepted)
    data_set = bytearray()
    while True:
        match await receive(near, IDLE, "report"):
            case PDV() as pdv:
                reader.feed(pdv)
                if not pdv.is_command and len(data_set) + len(pdv.fragment) <= MAXIMUM_REPORT:
                    data_set += pdv.fragment
                if reader.message_open or reader.command is None:
                    continue
                whole = reader.data_set_length == len(data_set)
                syntax = accepted[pdv.context_id].transfer_syntax
                status = Status.RESOURCE_LIMITATION.value
                if whole:
                    status = await _take(node, device, reader.command, bytes(data_set), syntax)
                await _respond(near, pdv.context_id, reader.command, status)
                data_set.clear()
            case AReleaseRQ():
                await near.send(AReleaseRP())
                return
            case AAbort():
                return
            case atom:
                await near.abort()
                raise RemoteProtocolError(f"{type(atom).__name__} out of turn")


def _is_commitment(context: PresentationContext) -> bool:
    return context.abstract_syntax == STORAGE_COMMITMENT_PUSH_MODEL


def _answer(request: AAssociateRQ) -> AAssociateAC:
    """Only storage commitment, the requestor being its provider (PS3.7 §D.3.3.4)."""

    def accept(context: PresentationContext) -> str | None:
        if not _is_commitment(context):
            return None
        offered = [s for s in context.transfer_syntaxes if elements.encoding_of(s) is not None]
        # What the requestor of the commitment must take in any case (PS3.5 §10.1).
        if IMPLICIT_VR_LITTLE_ENDIAN in offered:
            return IMPLICIT_VR_LITTLE_ENDIAN
        return offered[0] if offered else None

    answer = negotiation.answer(request, accept)
    roles = [
        RoleSelection(role.sop_class, scu=False, scp=role.scp).encode()
        for role in find(request.user_items, RoleSelection)
        if role.sop_class == STORAGE_COMMITMENT_PUSH_MODEL
    ]
    return attrs.evolve(answer, user_items=(*answer.user_items, *roles))


async def _respond(near: Association, context_id: int, command: CommandSet, status: int) -> None:
    if command.is_response or command.command_field == CommandField.C_CANCEL_RQ:
        return  # nothing that could be answered
    event = command.number(Tag.EVENT_TYPE_ID)
    extra: dict[int, int | str | bytes] = {} if event is None else {Tag.EVENT_TYPE_ID: event}
    response = response_to(command, status, extra=extra)
    await near.send(PDV(context_id, True, True, response.encode()))


async def _take(
    node: Node, device: Device, command: CommandSet, data_set: bytes, transfer_syntax: str
) -> int:
    """Hand one report on; the status of the device that it is for."""
    if command.command_field != CommandField.N_EVENT_REPORT_RQ:
        return Status.UNRECOGNIZED_OPERATION
    encoding = elements.encoding_of(transfer_syntax)
    assert encoding is not None, "no other was accepted"
    found = elements.find(data_set, TRANSACTION_UID, encoding, whole=True)
    commitment = (
        node.commitments.origin(device.ae_title, found.text(data_set))
        if isinstance(found, Element)
        else None
    )
    if commitment is None:
        log.warning("report refused", device=device.ae_title, why="nobody asked for it")
        return Status.NOT_AUTHORIZED
    try:
        status = await _deliver(node, device, commitment, command, data_set, transfer_syntax)
        if status == Status.SUCCESS:
            await node.commitments.reported(commitment, unix_time())
    except* RelayError as group:
        log.warning(
            "report not delivered",
            device=device.ae_title,
            called=commitment.remote,
            why=str(next(leaves(group))),
        )
        status = Status.PROCESSING_FAILURE
    return status


async def _deliver(
    node: Node,
    device: Device,
    commitment: Commitment,
    command: CommandSet,
    data_set: bytes,
    transfer_syntax: str,
) -> int:
    request = negotiation.request(
        commitment.remote,
        device.ae_title,
        propose([(STORAGE_COMMITMENT_PUSH_MODEL, [transfer_syntax])]),
        RoleSelection(STORAGE_COMMITMENT_PUSH_MODEL, scu=False, scp=True),
    )
    call = prepare(node, device, request, commitment.remote)
    if call.peer != commitment.peer:
        log.warning(
            "report not delivered",
            called=commitment.remote,
            why="the AE title is another hospital's by now",
        )
        return Status.PROCESSING_FAILURE
    with node.live.hold(live_entry(node, call)):
        async with tunnel(node, call) as far:
            accepted = list(accepted_contexts(request, await negotiated(far)).values())
            if not accepted:
                log.warning("report not delivered", called=commitment.remote, why="not accepted")
                return Status.PROCESSING_FAILURE
            status = await report_event(far, accepted[0], command, data_set)
            await release(far)
            return status
    return Status.PROCESSING_FAILURE  # no longer permitted, and so logged
