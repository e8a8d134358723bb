"""A call that leaves this hospital: to whom it goes, by which names, and what it rests on.

Everything is looked up before anything is sent: what cannot be raises AssociationRejected with the
numbers of DESIGN §11, and the cause in words for the people here.
"""

import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import attrs

from relay.dicom import pdu
from relay.dicom.pdu import AAssociateRQ
from relay.dicom.rejection import (
    CALLED_AE_TITLE_NOT_RECOGNIZED,
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    NO_REASON_GIVEN,
    TEMPORARY_CONGESTION,
    rejected,
)
from relay.errors import HandshakeError
from relay.router import contexts, names
from relay.router.devices import Device
from relay.router.directory import Route
from relay.router.live import LiveAssociation, Side, Work, number
from relay.router.node import Network, Node, unix_time
from relay.router.refusals import NO_CONNECTION, NOT_ENROLLED
from relay.tunnel.handshake import PendingOpening, Purpose, open_session
from relay.tunnel.session import TunnelAssociation, TunnelTimeouts, open_tunnel


@attrs.frozen(slots=True)
class OutgoingCall:
    """A call that may go out. `device` None is the Router's own command line.

    `request` is as the network sees it.
    """

    device: Device | None
    request: AAssociateRQ
    network: Network
    route: Route
    pending: PendingOpening

    @property
    def title(self) -> str:
        """The published title that is called."""
        return self.route.ae_title

    @property
    def peer(self) -> bytes:
        """The identity of the Router that is called."""
        return self.route.peer.identity

    def limits(self, node: Node) -> Device:
        """The device whose waiting times hold; the command line's are the usual ones."""
        return self.device or Device(node.ae_title, "")


def called_title(node: Node, device: Device | None, request: AAssociateRQ) -> str:
    """The published title of what `request` calls. Raises AssociationRejected."""
    title = node.names.published(request.called)
    if title is None:
        raise rejected(
            CALLED_AE_TITLE_NOT_RECOGNIZED, f"{request.called!r} is this Router's own AE title"
        )
    if node.devices.get(request.called) is not None:
        # Also where another hospital publishes that title: its own is what a device here means.
        advice = (
            f"use `relay device test {request.called}`"
            if device is None
            else f"it is called directly; {names.another_of_that_name(request.called)}"
        )
        raise rejected(
            CALLED_AE_TITLE_NOT_RECOGNIZED,
            f"{request.called} is a local device, of this hospital: {advice}",
        )
    return title


def prepare(
    node: Node,
    device: Device | None,
    request: AAssociateRQ,
    title: str,
    purpose: Purpose = Purpose.ASSOCIATION,
) -> OutgoingCall:
    """A call of `device` to the published `title`. Raises AssociationRejected."""
    network = node.network
    if network is None:
        raise rejected(TEMPORARY_CONGESTION, f"{NOT_ENROLLED}: `relay enroll INVITATION` first")
    if not network.client.connected:
        why = network.client.statistics().last_failure or "`relay doctor` says more"
        raise rejected(TEMPORARY_CONGESTION, f"{NO_CONNECTION}: {why}")
    route = network.directory.resolve(title, unix_time())
    request = as_network(node, device, request, title)
    pending = _opening(node, network, route, request, purpose)
    return OutgoingCall(device, request, network, route, pending)


def as_network(
    node: Node, device: Device | None, request: AAssociateRQ, title: str
) -> AAssociateRQ:
    """`request` of `device` for the published `title` as the network is to see it.

    Raises AssociationRejected where it would see another hospital's calling AE title.
    """
    request = names.to_network(request, device, title)
    if device is not None and not device.user_identity:
        request = contexts.without_user_identity(request)
    if node.joined().directory.owner(request.calling) not in (None, node.identity.public):
        raise rejected(
            CALLING_AE_TITLE_NOT_RECOGNIZED,
            f"{request.calling!r} is published by another hospital: give this device another title"
            f" in the network, `relay device add {request.calling} … --as AE_TITLE`",
        )
    return request


def _opening(
    node: Node, network: Network, route: Route, request: AAssociateRQ, purpose: Purpose
) -> PendingOpening:
    try:
        return open_session(
            node.identity,
            network.membership.network,
            route.peer.identity,
            route.key.public,
            route.ae_title,
            pdu.encode(request),
            purpose,
            unix_time(),
            secrets.token_bytes,
        )
    except HandshakeError as error:
        raise rejected(NO_REASON_GIVEN, str(error)) from error


def tunnel(
    node: Node,
    call: OutgoingCall,
    *,
    answer: float | None = None,
    throttle: Callable[[int], Awaitable[None]] | None = None,
) -> AbstractAsyncContextManager[TunnelAssociation]:
    """The association of `call`, for as long as the block lasts. Raises SignallingError.

    `answer`: how long to wait for the far side's first word, if not as long as the device does.
    `throttle` is awaited with the size in bytes of what is about to be sent.
    """
    limits = call.limits(node)
    return open_tunnel(
        call.network.client,
        call.network.objects,
        call.pending,
        allowance=call.network.allowance,
        throttle=throttle,
        timeouts=TunnelTimeouts(
            answer=answer or limits.answer_wait, resume_window=limits.resume_window
        ),
    )


def live_entry(node: Node, call: OutgoingCall) -> LiveAssociation:
    """What the register keeps of `call`: it ends when the device, peer or binding is gone."""
    ae_title = call.limits(node).ae_title
    published = call.request.calling

    def still_permitted() -> bool:
        device = node.devices.get(ae_title)
        known = call.device is None or (device is not None and device.published == published)
        return known and call.network.directory.permits(call.title, call.peer)

    return LiveAssociation(
        number=number(call.pending.session),
        side=Side.CALLER,
        device=ae_title,
        calling=call.request.calling,
        called=call.title,
        peer=call.route.peer.fingerprint,
        still_permitted=still_permitted,
        work=Work.of(Purpose(call.pending.header.purpose)),
    )
