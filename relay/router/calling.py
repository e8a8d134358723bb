"""The caller's side: a device of this hospital calls an AE title of another one.

    A-ASSOCIATE-RQ -> who calls? -> who is called? -> relay.router.relaying
                                        queued?           -> relay.router.queue.intake
                                        all at once?      -> relay.router.federation

What cannot be is rejected here with the numbers of DESIGN §11; the rest is the far device's word.
What calls the Router itself is a C-ECHO, or what a device has only its Router to send to: objects
of a C-MOVE, reports of a storage commitment.
"""

import attrs
import structlog

from relay.association import RELEASED, TCPAssociation
from relay.dicom.pdu import AAssociateRJ, AAssociateRQ
from relay.dicom.rejection import CALLING_AE_TITLE_NOT_RECOGNIZED, rejected, word_of
from relay.errors import AbortSource, AssociationRejected, RemoteProtocolError
from relay.router import moved, reports, services
from relay.router.counts import UNKNOWN, Line
from relay.router.devices import Device, addresses, plain_address
from relay.router.federation import serving
from relay.router.federation.federation import Federation
from relay.router.federation.registering import caller_entry
from relay.router.live import Side, Work
from relay.router.node import Node
from relay.router.outgoing import as_network, called_title, prepare
from relay.router.passthrough import Ending, How
from relay.router.queue import intake
from relay.router.queue.state import Queue
from relay.router.refusals import NO_DEVICE
from relay.router.relaying import Near, find_place, relay
from relay.router.services import Service
from relay.scu import respond_to_echo

log = structlog.get_logger()


async def serve_device(
    node: Node,
    near: TCPAssociation,
    *,
    queue: Queue | None = None,
    federation: Federation | None = None,
    local: bool = False,
) -> None:
    """Serve one association of a device, from its A-ASSOCIATE-RQ to its end.

    `local`: it comes from this machine's own command line, over the Unix socket. Without a `queue`
    nothing is queued, and without a `federation` its AE title is one like any other.
    """
    request = await near.receive()
    if not isinstance(request, AAssociateRQ):
        return
    device: Device | None = None
    try:
        await node.auditing.admit()
        device = await _caller(node, near, request, local)
        if federation is not None and request.called == federation.settings.ae_title:
            if not (federation.settings.store_to and _only_stores(request)):
                await _federate(federation, near, device, request)
                return
            # As if it had called that one itself.
            request = attrs.evolve(request, called=federation.settings.store_to)
        if _calls_router(node, device, request):
            await _serve_router(node, near, device, request, queue)
            return
        await call_out(node, near, device, request, queue)
    except RemoteProtocolError as error:
        log.warning("association aborted", calling=request.calling, why=str(error))
        await near.abort(AbortSource.SERVICE_PROVIDER, error.abort_reason)
    except AssociationRejected as error:
        log.info(
            "association rejected", calling=request.calling, called=request.called, why=str(error)
        )
        node.refusals.note(request.calling, request.called, str(error))
        node.auditing.refused(request.calling, request.called, near.host or "", error)
        rejection = AAssociateRJ(error.result, error.source, error.reason)
        caller = node.ae_title if local else device.ae_title if device is not None else UNKNOWN
        owner = node.owner_of(request.called)
        node.counts.rejected(Line(Side.CALLER, Work.RELAYED, owner, caller), word_of(rejection))
        await near.send(rejection)


async def call_out(
    node: Node, near: Near, device: Device | None, request: AAssociateRQ, queue: Queue | None
) -> None:
    """Serve a call of `device`, None being the Router itself, to another hospital's.

    Raises AssociationRejected, and RemoteProtocolError for what the caller does wrong.
    """
    title = called_title(node, device, request)
    if queue is not None and _is_queued(queue, device, request, title):
        await _take_in(queue, near, device, request, title)
    else:
        await relay(node, near, prepare(node, device, request, title), request)


def _only_stores(request: AAssociateRQ) -> bool:
    """Whether it proposes Storage, and nothing that the federation itself would answer."""
    asked = {services.service_of(context.abstract_syntax) for context in request.contexts}
    return Service.STORE in asked and asked.isdisjoint({Service.QUERY, Service.RETRIEVE})


async def _federate(
    federation: Federation, near: TCPAssociation, device: Device | None, request: AAssociateRQ
) -> None:
    node = federation.node
    entry = caller_entry(node, device, request.called)
    with node.live.hold(entry):
        place = await find_place(node, near, device)
        if place is None:
            return
        with place:
            node.refusals.forget(request.calling, request.called)
            await serving.serve(federation, near, device, request, entry)
            how = How.RELEASED if near.cause == RELEASED else How.ABORTED
            entry.ending = Ending(how, "requestor", near.cause)


def _is_queued(queue: Queue, device: Device | None, request: AAssociateRQ, title: str) -> bool:
    """Whether objects for `title` are taken in here, and delivered later (DESIGN §6)."""
    if queue.node.network is None:
        return False
    calling = request.calling if device is None else device.published
    destination = queue.destinations.for_call(title, calling)
    if destination is None:
        return False
    queued, why = intake.choose(destination, request)
    log.info("association", calling=calling, called=title, queued=queued, why=why)
    return queued


async def _take_in(
    queue: Queue, near: Near, device: Device | None, said: AAssociateRQ, title: str
) -> None:
    place = await find_place(queue.node, near, device)
    if place is None:
        return
    with place:
        request = as_network(queue.node, device, said, title)
        await intake.serve(queue, near, device, request)
    queue.node.refusals.forget(said.calling, said.called)


def _calls_router(node: Node, device: Device | None, request: AAssociateRQ) -> bool:
    """Whether it is for the Router itself, by its own name or the one that the device has for it.

    Under `present_as` the device knows all of the network as one AE title, and calls it back so.
    """
    if request.called == node.ae_title:
        return True
    return device is not None and request.called == device.present_as


async def _serve_router(
    node: Node,
    near: TCPAssociation,
    device: Device | None,
    request: AAssociateRQ,
    queue: Queue | None,
) -> None:
    if device is None or not (
        moved.is_wanted(node, device, request) or reports.is_wanted(device, request)
    ):
        await respond_to_echo(near, request)
        return
    place = await find_place(node, near, device)
    if place is None:
        return
    with place:
        if moved.is_wanted(node, device, request):  # still, after a wait
            if queue is not None and (title := _queued_move(queue, device, request)):
                asked = as_network(node, device, request, title)
                await intake.serve(queue, near, device, asked, moved=True)
            else:
                await moved.serve(node, near, device, request)
        elif reports.is_wanted(device, request):
            await reports.serve(node, near, device, request)
        else:
            await respond_to_echo(near, request)


def _queued_move(queue: Queue, device: Device, request: AAssociateRQ) -> str:
    """The destination to which `device` moves by way of its Router, where that is one and is
    queued; of several it is not known yet which is meant, and they go through confirmed."""
    titles = queue.node.moves.destinations(device.ae_title)
    alone = len(titles) == 1 and _is_queued(queue, device, request, titles[0])
    return titles[0] if alone else ""


async def _caller(
    node: Node, near: TCPAssociation, request: AAssociateRQ, local: bool
) -> Device | None:
    """The device that calls, if it may; None is the Router's own command line.

    AE titles are addresses and no credentials: the device's must come from its host.
    """
    if local:
        if request.calling != node.ae_title:
            raise rejected(
                CALLING_AE_TITLE_NOT_RECOGNIZED,
                "the command line calls as the Router's own AE title only",
            )
        return None
    device = node.devices.get(request.calling)
    if device is None:
        raise rejected(CALLING_AE_TITLE_NOT_RECOGNIZED, f"{request.calling!r} {NO_DEVICE}")
    if device.check_address:
        known = await addresses(device.host)
        if not near.host or plain_address(near.host) not in known:
            raise rejected(
                CALLING_AE_TITLE_NOT_RECOGNIZED,
                f"{request.calling!r} calls from {near.host}, which is not its host",
            )
    return device
