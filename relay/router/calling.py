"""The caller's side: a device of this hospital calls an AE title of another one.

    A-ASSOCIATE-RQ -> who calls? -> who is called? -> opening to the owner's Router -> passthrough
                                        queued? -> relay.router.queue.intake

What cannot be is rejected here with the numbers of DESIGN §11; the rest is the far device's word.
What calls the Router itself is a C-ECHO, or what a device has only its Router to send to: objects
of a C-MOVE, reports of a storage commitment.
"""

from contextlib import AsyncExitStack

import attrs
import structlog

from relay.association import TCPAssociation
from relay.dicom.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ
from relay.dicom.rejection import (
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    LOCAL_LIMIT_EXCEEDED,
    in_words,
    rejected,
)
from relay.errors import (
    AbortSource,
    AssociationAborted,
    AssociationRejected,
    RemoteProtocolError,
    SignallingError,
)
from relay.router import contexts, moved, reports
from relay.router.departure import Departure
from relay.router.devices import Device, addresses, plain_address
from relay.router.guard import Guard
from relay.router.live import Side, log_ending
from relay.router.node import Node
from relay.router.outgoing import (
    OutgoingCall,
    as_network,
    called_title,
    live_entry,
    prepare,
    tunnel,
)
from relay.router.passthrough import Ending, How, join
from relay.router.places import Claim, Place
from relay.router.queue import intake
from relay.router.queue.state import Queue
from relay.router.refusals import ABORTED, DEVICE_BUSY, NO_DEVICE, NOTHING_GRANTED, explained
from relay.scu import respond_to_echo

log = structlog.get_logger()

# The command line on this machine: a person, or a script that sends a folder.
LOCAL_ASSOCIATIONS = 16


async def serve_device(
    node: Node, near: TCPAssociation, *, queue: Queue | None = None, local: bool = False
) -> None:
    """Serve one association of a device, from its A-ASSOCIATE-RQ to its end.

    `local`: it comes from this machine's own command line, over the Unix socket.
    """
    request = await near.receive()
    if not isinstance(request, AAssociateRQ):
        return
    try:
        device = await _caller(node, near, request, local)
        if _calls_router(node, device, request):
            await _serve_router(node, near, device, request, queue)
        else:
            title = called_title(node, device, request)
            if queue is not None and _is_queued(queue, device, request, title):
                await _take_in(queue, near, device, request, title)
            else:
                await _relay(node, near, prepare(node, device, request, title), request)
    except RemoteProtocolError as error:
        log.warning("association aborted", calling=request.calling, why=str(error))
        await near.abort(AbortSource.SERVICE_PROVIDER, error.abort_reason)
    except AssociationRejected as error:
        log.info(
            "association rejected", calling=request.calling, called=request.called, why=str(error)
        )
        node.refusals.note(request.calling, request.called, str(error))
        await near.send(AAssociateRJ(error.result, error.source, error.reason))


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
    queue: Queue, near: TCPAssociation, device: Device | None, said: AAssociateRQ, title: str
) -> None:
    place = await _place(queue.node, near, device)
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
    place = await _place(node, near, device)
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


async def _place(
    node: Node, near: TCPAssociation, device: Device | None, peer: str = ""
) -> Place | None:
    """A place for a call of `device` to `peer`, perhaps after a wait; None: the caller has left.

    Raises AssociationRejected where there is none.
    """
    limits = device or Device(node.ae_title, "", maximum_associations=LOCAL_ASSOCIATIONS)
    claim = Claim(
        side=Side.CALLER,
        device=limits.ae_title,
        peer=peer,
        maximum=limits.maximum_associations,
    )
    try:
        return await node.places.take(claim, limits.place_wait, near.wait_indication)
    except AssociationAborted as error:
        log.info("association given up", calling=limits.ae_title, why=str(error))
        return None


async def _relay(node: Node, near: TCPAssociation, call: OutgoingCall, said: AAssociateRQ) -> None:
    """`said` is the request as the device sent it: people here know its titles."""
    request, device = call.request, call.device

    def answered(answer: AAssociateAC) -> AAssociateAC:
        node.refusals.forget(said.calling, said.called)
        return contexts.with_rejections(answer, original=request, proposed=request)

    entry = live_entry(node, call)
    border = Departure(node.knowledge(), device, call.peer, call.title)
    guard = Guard(request, None, border)
    holder = entry.device  # where the call is for a C-MOVE, its response waits for our end
    try:
        with node.live.hold(entry), node.moves.storing(holder, call.title):
            place = await _place(node, near, device, entry.peer)
            if place is None:
                return
            async with AsyncExitStack() as stack:
                stack.enter_context(place)
                far = await stack.enter_async_context(tunnel(node, call))
                ending = await join(
                    near,
                    far,
                    guard,
                    tunnel=far,
                    answer_wait=call.limits(node).answer_wait,
                    answered=answered,
                )
                if ending.how is How.REJECTED:
                    ending = attrs.evolve(ending, why=_cause(call, ending, said.called))
                    node.refusals.note(said.calling, said.called, ending.why)
                elif ending.how is How.ABORTED and ending.by != "requestor":
                    why = ending.why or f"by {said.called} of {call.route.peer.name}"
                    node.refusals.note(said.calling, said.called, f"{ABORTED}: {why}")
                log_ending(entry, ending)
    except SignallingError as error:  # more sessions than one Router may hold
        log.warning("association rejected", association=entry.number, why=str(error))
        node.refusals.note(said.calling, said.called, str(error))
        await near.send(LOCAL_LIMIT_EXCEEDED)
    finally:
        border.close()


def _cause(call: OutgoingCall, ending: Ending, title: str) -> str:
    """Why the far hospital does not take the call to `title`, and what can be done."""
    name = call.route.peer.name
    # A rejection that crossed the tunnel has no word of theirs.
    if why := explained(ending.why, name, title, call.request.calling):
        return f"{why}: try again later" if why.endswith(DEVICE_BUSY) else why
    if ending.why:
        return f"{title} of {name}: {ending.why}"
    rejection = AAssociateRJ(*ending.numbers)
    if rejection == CALLING_AE_TITLE_NOT_RECOGNIZED:
        return (
            f"{name} {NOTHING_GRANTED} {title} that this call needs: ask with"
            f" `relay grant ask {title} --services …`; or {title} itself does not know the calling"
            f" AE title {call.request.calling}"
        )
    return f"{title} of {name} answers: {in_words(rejection)}"
