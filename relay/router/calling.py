"""The caller's side: a device of this hospital calls an AE title of another one.

    A-ASSOCIATE-RQ -> who calls? -> who is called? -> opening to the owner's Router -> passthrough

What cannot be is rejected here with the numbers of DESIGN §11; the rest is the far device's word.
"""

import secrets
from functools import partial

import attrs
import structlog

from relay.association import TCPAssociation
from relay.dicom import pdu
from relay.dicom.pdu import AAssociateRJ, AAssociateRQ
from relay.dicom.rejection import (
    CALLED_AE_TITLE_NOT_RECOGNIZED,
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    LOCAL_LIMIT_EXCEEDED,
    NO_REASON_GIVEN,
    TEMPORARY_CONGESTION,
    in_words,
    rejected,
)
from relay.errors import (
    AbortSource,
    AssociationRejected,
    HandshakeError,
    Refusal,
    RemoteProtocolError,
    SignallingError,
)
from relay.router import contexts, names
from relay.router.devices import Device, addresses, plain_address
from relay.router.directory import Route
from relay.router.guard import Guard
from relay.router.live import LiveAssociation, Side, log_ending, number
from relay.router.node import Network, Node, unix_time
from relay.router.passthrough import Ending, How, join
from relay.scu import respond_to_echo
from relay.signalling.messages import EndReason
from relay.tunnel.handshake import PendingOpening, Purpose, open_session
from relay.tunnel.session import TunnelTimeouts, open_tunnel
from relay.tunnel.verdict import words

log = structlog.get_logger()

# The command line on this machine: a person, or a script that sends a folder.
LOCAL_ASSOCIATIONS = 16


@attrs.frozen(slots=True)
class _Call:
    """A call that goes out. `device` None is the Router's own command line."""

    device: Device | None
    request: AAssociateRQ
    network: Network
    route: Route
    guard: Guard
    pending: PendingOpening


async def serve_device(node: Node, near: TCPAssociation, *, local: bool = False) -> None:
    """Serve one association of a device, from its A-ASSOCIATE-RQ to its end.

    `local`: it comes from this machine's own command line, over the Unix socket.
    """
    request = await near.receive()
    if not isinstance(request, AAssociateRQ):
        return
    try:
        device = await _caller(node, near, request, local)
        if request.called == node.ae_title:
            await respond_to_echo(near, request)
            return
        call = _prepare(node, device, request)
    except RemoteProtocolError as error:
        log.warning("association aborted", calling=request.calling, why=str(error))
        await near.abort(AbortSource.SERVICE_PROVIDER, error.abort_reason)
    except AssociationRejected as error:
        log.info(
            "association rejected", calling=request.calling, called=request.called, why=str(error)
        )
        node.refusals.note(request.calling, request.called, str(error))
        await near.send(AAssociateRJ(error.result, error.source, error.reason))
    else:
        await _relay(node, near, call)


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
        if not node.live.has_room(Side.CALLER, node.ae_title, LOCAL_ASSOCIATIONS):
            raise rejected(LOCAL_LIMIT_EXCEEDED, "too many associations of the command line")
        return None
    device = node.devices.get(request.calling)
    if device is None:
        raise rejected(
            CALLING_AE_TITLE_NOT_RECOGNIZED, f"{request.calling!r} is no device of this Router"
        )
    if device.check_address:
        known = await addresses(device.host)
        if not near.host or plain_address(near.host) not in known:
            raise rejected(
                CALLING_AE_TITLE_NOT_RECOGNIZED,
                f"{request.calling!r} calls from {near.host}, which is not its host",
            )
    if request.called != node.ae_title and not node.live.has_room(
        Side.CALLER, device.ae_title, device.maximum_associations
    ):
        raise rejected(LOCAL_LIMIT_EXCEEDED, f"{device.ae_title!r} has its maximum of associations")
    return device


def _prepare(node: Node, device: Device | None, request: AAssociateRQ) -> _Call:
    """Everything that a call needs. Raises AssociationRejected or RemoteProtocolError."""
    network = node.network
    if device is None and node.devices.get(request.called) is not None:
        owner = network.directory.owner(request.called) if network is not None else None
        if owner in (None, node.identity.public):
            raise rejected(
                CALLED_AE_TITLE_NOT_RECOGNIZED,
                f"{request.called} is a local device, of this hospital:"
                f" use `relay device test {request.called}`",
            )
    if network is None:
        raise rejected(
            TEMPORARY_CONGESTION, "this Router is not enrolled: `relay enroll INVITATION` first"
        )
    if not network.client.connected:
        raise rejected(TEMPORARY_CONGESTION, "no connection to the Bridge")
    route = network.directory.resolve(request.called, unix_time())
    request = _outgoing(request, device)
    guard = Guard(request, None, lambda title: network.directory.owner(title) is not None)
    pending = _opening(node, network, route, request)
    return _Call(device, request, network, route, guard, pending)


def _outgoing(request: AAssociateRQ, device: Device | None) -> AAssociateRQ:
    request = names.to_network(request, device)
    if device is not None and not device.user_identity:
        request = contexts.without_user_identity(request)
    return request


def _opening(node: Node, network: Network, route: Route, request: AAssociateRQ) -> PendingOpening:
    try:
        return open_session(
            node.identity,
            network.membership.network,
            route.peer.identity,
            route.key.public,
            route.ae_title,
            pdu.encode(request),
            Purpose.ASSOCIATION,
            unix_time(),
            secrets.token_bytes,
        )
    except HandshakeError as error:
        raise rejected(NO_REASON_GIVEN, str(error)) from error


async def _relay(node: Node, near: TCPAssociation, call: _Call) -> None:
    network, request = call.network, call.request
    limits = call.device or Device(node.ae_title, "")  # the command line: as any device
    entry = _entry(node, call, limits.ae_title)
    timeouts = TunnelTimeouts(answer=limits.answer_wait, resume_window=limits.resume_window)
    try:
        with node.live.hold(entry):
            async with open_tunnel(
                network.client,
                network.objects,
                call.pending,
                allowance=network.allowance,
                timeouts=timeouts,
            ) as far:
                ending = await join(
                    near,
                    far,
                    call.guard,
                    tunnel=far,
                    answer_wait=limits.answer_wait,
                    answered=partial(contexts.with_rejections, original=request, proposed=request),
                )
                if ending.how is How.REJECTED:
                    ending = attrs.evolve(ending, why=_cause(call, ending))
                    node.refusals.note(entry.calling, entry.called, ending.why)
                log_ending(entry, ending)
    except SignallingError as error:  # more sessions than one Router may hold
        log.warning("association rejected", association=entry.number, why=str(error))
        node.refusals.note(entry.calling, entry.called, str(error))
        await near.send(LOCAL_LIMIT_EXCEEDED)


def _cause(call: _Call, ending: Ending) -> str:
    """Why the far hospital does not take the call, and what can be done."""
    name, title = call.route.peer.name, call.route.ae_title
    # What the Bridge or the far Router says; a rejection that crossed the tunnel has none.
    said = ending.why.rpartition(": ")[2]
    if said == words(EndReason.NOT_GRANTED):
        return (
            f"{name} has granted this Router nothing of {title}:"
            f" ask with `relay grant ask {title} --services …`"
        )
    if said == words(Refusal.UNTRUSTED_PEER):
        return f"{name} has not verified this Router: give them the contact of `relay status`"
    if said == words(Refusal.BUSY):
        return f"{title} of {name} is busy or does not answer its Router: try again later"
    if ending.why:
        return f"{title} of {name}: {ending.why}"
    rejection = AAssociateRJ(*ending.numbers)
    if rejection == CALLING_AE_TITLE_NOT_RECOGNIZED:
        return (
            f"{name} has granted this Router nothing of {title} that this call needs: ask with"
            f" `relay grant ask {title} --services …`; or {title} itself does not know the calling"
            f" AE title {call.request.calling}"
        )
    return f"{title} of {name} answers: {in_words(rejection)}"


def _entry(node: Node, call: _Call, ae_title: str) -> LiveAssociation:
    def still_permitted() -> bool:
        known = call.device is None or node.devices.get(ae_title) is not None
        owner = call.route.peer.identity
        return known and call.network.directory.permits(call.route.ae_title, owner)

    return LiveAssociation(
        number=number(call.pending.session),
        side=Side.CALLER,
        device=ae_title,
        calling=call.request.calling,
        called=call.request.called,
        peer=call.route.peer.fingerprint,
        still_permitted=still_permitted,
    )
