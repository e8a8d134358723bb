"""The callee's side: a peer's Router opens a session to call a device of this hospital.

    opening -> is it one? new? -> trusted? granted? -> the device -> answer -> passthrough

Whoever has no grant at all is refused before anything is connected; whoever has one gets a session,
and what the device says in it.
"""

from contextlib import AbstractAsyncContextManager
from functools import partial

import attrs
import structlog

from relay import association
from relay.association import TCPAssociation
from relay.dicom import pdu
from relay.dicom.pdu import AAssociateRJ, AAssociateRQ
from relay.dicom.rejection import CALLING_AE_TITLE_NOT_RECOGNIZED, LOCAL_LIMIT_EXCEEDED
from relay.errors import AssociationAborted, HandshakeError, Refusal, RemoteProtocolError
from relay.identity import fingerprint
from relay.patience import Timeouts
from relay.router import contexts, names, replay
from relay.router.devices import Device
from relay.router.grants import Permission
from relay.router.guard import Guard
from relay.router.live import LiveAssociation, Side, log_ending, number
from relay.router.node import Network, Node, unix_time
from relay.router.passthrough import join
from relay.router.services import Service
from relay.signalling import messages
from relay.tunnel.handshake import Purpose, ReceivedOpening, accept_opening, refuse_opening
from relay.tunnel.session import TunnelAssociation, TunnelTimeouts, accept_tunnel

log = structlog.get_logger()


@attrs.frozen(slots=True)
class _Call:
    """An opening that holds, and what it asks for."""

    received: ReceivedOpening
    device: Device
    request: AAssociateRQ
    permission: Permission

    @property
    def number(self) -> str:
        return number(self.received.session)


async def serve_opening(node: Node, message: messages.Open) -> None:
    """Serve one session from a peer's opening to its end."""
    network = node.joined()
    received: ReceivedOpening | None = None
    try:
        received = accept_opening(
            node.identity,
            node.keyring.pairs,
            network.membership.network,
            message.router,
            message.opening,
            message.request,
            unix_time(),
        )
        call = await _check(node, network, message, received)
        await _serve(node, network, call)
    except HandshakeError as error:
        log.info(
            "opening refused",
            association=number(message.session),
            peer=fingerprint(message.router),
            refusal=error.refusal.name,
            why=str(error),
        )
        refusal = (
            refuse_opening(node.identity, message.opening, error.refusal)
            if received is None
            else received.refuse(error.refusal)
        )
        await network.client.send(messages.Refuse(message.session, refusal))


async def _check(
    node: Node, network: Network, message: messages.Open, received: ReceivedOpening
) -> _Call:
    """What is called for, if the caller may. Raises HandshakeError with the refusal."""
    if (received.session, received.called) != (message.session, message.called):
        raise HandshakeError("opening is for another session or title than the Bridge says")
    if received.purpose is not Purpose.ASSOCIATION:
        raise HandshakeError(
            f"no {received.purpose.name.lower()} sessions here", Refusal.NOT_SPECIFIED
        )
    if not network.peers.trusted(received.caller):
        raise HandshakeError("the caller's contact was never verified", Refusal.UNTRUSTED_PEER)
    # Not before: whoever is nobody here must not be able to fill our disk.
    if not await replay.remember(node.database, received.opening_hash, unix_time()):
        raise HandshakeError("opening was seen before", Refusal.REPLAY)
    device = node.devices.published_as(received.called)
    if device is None:
        raise HandshakeError("called AE title is not published here", Refusal.UNKNOWN_DEVICE)
    try:
        request = pdu.decode(received.request)
    except RemoteProtocolError as error:
        raise HandshakeError(f"sealed request: {error}") from None
    if not isinstance(request, AAssociateRQ) or request.called != received.called:
        raise HandshakeError("sealed request is no A-ASSOCIATE-RQ for the called AE title")
    try:
        contexts.provider_roles(request)
    except RemoteProtocolError as error:
        raise HandshakeError(f"sealed request: {error}") from None
    permission = node.permission(received.caller, device, request.calling)
    if not permission.services:
        raise HandshakeError("nothing is granted to the caller", Refusal.NOT_GRANTED)
    return _Call(received, device, request, permission)


async def _serve(node: Node, network: Network, call: _Call) -> None:
    """Connect, answer and relay. Raises HandshakeError (BUSY) if the device cannot be reached."""
    if not node.live.has_room(Side.CALLEE, call.device.ae_title, call.device.maximum_associations):
        await _reject(network, call, LOCAL_LIMIT_EXCEEDED)
        return
    proposed = _proposal(call)
    if not proposed.contexts:
        await _reject(network, call, CALLING_AE_TITLE_NOT_RECOGNIZED)
        return
    entry = _entry(node, network, call)
    answered = False
    with node.live.hold(entry):
        device = await _connect(call.device)
        try:
            async with _accept(network, call) as near:
                answered = True
                await device.send(proposed)
                ending = await join(
                    near,
                    device,
                    Guard(
                        proposed,
                        call.permission.services,
                        partial(_may_move_to, node, network, call),
                    ),
                    tunnel=near,
                    answer_wait=call.device.answer_wait,
                    answered=partial(
                        contexts.with_rejections, original=call.request, proposed=proposed
                    ),
                )
                log_ending(entry, ending)
        finally:
            await device.aclose()
    if not answered:  # cancelled before there was anybody to tell
        if entry.revoked:
            raise HandshakeError("no longer permitted", Refusal.NOT_GRANTED)
        raise HandshakeError("this Router stops", Refusal.BUSY)


async def _reject(network: Network, call: _Call, rejection: AAssociateRJ) -> None:
    """Answer the opening only to say no, as the caller's device should hear it."""
    log.info("association rejected", association=call.number, reason=rejection.reason)
    async with _accept(network, call) as near:
        await near.send(rejection)


def _accept(network: Network, call: _Call) -> AbstractAsyncContextManager[TunnelAssociation]:
    """Answer the opening: the tunnel, for as long as the block lasts."""
    return accept_tunnel(
        network.client,
        network.objects,
        call.received,
        allowance=network.allowance,
        timeouts=TunnelTimeouts(
            answer=call.device.answer_wait, resume_window=call.device.resume_window
        ),
    )


async def _connect(device: Device) -> TCPAssociation:
    usual = Timeouts()
    timeouts = attrs.evolve(
        usual,
        connect=min(usual.connect, device.answer_wait),
        # `join` waits for the answer, and can say that there was none; this only must not be first.
        association_answer=max(usual.association_answer, 2 * device.answer_wait),
    )
    try:
        return await association.connect(device.host, device.port, timeouts=timeouts)
    except AssociationAborted as error:
        raise HandshakeError(f"device does not answer: {error}", Refusal.BUSY) from None


def _proposal(call: _Call) -> AAssociateRQ:
    """What the device is asked: the caller's request, less what is not granted."""
    request = names.to_device(call.request, call.device)
    if not call.permission.user_identity:
        request = contexts.without_user_identity(request)
    return contexts.granted(request, call.permission.services)


def _entry(node: Node, network: Network, call: _Call) -> LiveAssociation:
    caller, title = call.received.caller, call.device.ae_title

    def still_permitted() -> bool:
        device = node.devices.get(title)
        return (
            device is not None
            and network.peers.trusted(caller)
            and call.permission.within(node.permission(caller, device, call.request.calling))
        )

    return LiveAssociation(
        number=call.number,
        side=Side.CALLEE,
        device=title,
        calling=call.request.calling,
        called=call.request.called,
        peer=fingerprint(caller),
        still_permitted=still_permitted,
    )


def _may_move_to(node: Node, network: Network, call: _Call, title: str) -> bool:
    """Whether the caller may have objects moved to `title`.

    To its own devices and to third hospitals', who grant `store` to this one or do not; to a device
    of this hospital only if it could store there by itself. A title that is only local here is a
    device of this hospital too, whoever publishes it elsewhere: the device that holds the objects
    would send them there.
    """
    own = node.devices.published_as(title) or node.devices.get(title)
    if own is not None:
        permission = node.permission(call.received.caller, own, call.request.calling)
        return Service.STORE in permission.services
    if title == node.ae_title:
        return False
    owner = network.directory.owner(title)
    return owner is not None and owner != node.identity.public
