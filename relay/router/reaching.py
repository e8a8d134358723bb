"""Reaching a device for a call that comes in: the answer to its opening, a place, a connection.

    opening -> a place -> the device -> (whoever serves the call) -> closed, or kept to linger

Whoever calls is told no by the association's own answer once there is a tunnel to say it in, and by
a refusal of the opening before.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType

import attrs
import structlog

from relay.association import TCPAssociation
from relay.dicom.pdu import AAssociateRJ, AAssociateRQ
from relay.dicom.rejection import (
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
)
from relay.errors import AssociationAborted, AssociationRejected, HandshakeError, Refusal
from relay.identity import fingerprint
from relay.patience import Timeouts
from relay.router.devices import Device
from relay.router.guard import Guard
from relay.router.incoming import IncomingCall, border_of, live_entry
from relay.router.lasting import Lasting
from relay.router.linger import Kept, kind_of
from relay.router.live import LiveAssociation, Side
from relay.router.node import Network, Node
from relay.router.passthrough import DIMSEGuard
from relay.router.places import Claim, Place
from relay.tunnel.session import TunnelAssociation, TunnelTimeouts, accept_tunnel

log = structlog.get_logger()


@attrs.frozen(slots=True)
class Reached:
    """A call and the device that it has reached: both associations, and what guards the device.

    `proposed` is what the device is to be asked, unless its association lingered and has an answer.
    """

    entry: LiveAssociation
    near: TunnelAssociation
    device: Lasting
    guard: DIMSEGuard
    proposed: AAssociateRQ


async def serve_reached(
    node: Node,
    network: Network,
    call: IncomingCall,
    proposed: AAssociateRQ,
    serve: Callable[[Reached], Awaitable[None]],
) -> None:
    """Find a place, connect, answer, and `serve`. The association with the device may linger then.

    Raises HandshakeError, BUSY if the device cannot be reached, NOT_GRANTED if nothing of what the
    caller proposes is.
    """
    if not proposed.contexts:
        # As a refusal, so that the caller's Router can tell it from the device's own rejection.
        raise HandshakeError("nothing of what it proposes is granted", Refusal.NOT_GRANTED)
    entry = live_entry(node, network, call)
    border = border_of(node, call)
    guard = entry.witness.watch(
        Guard(
            proposed,
            call.permission.services,
            border,
            implied=call.implied,
            heard=node.counts.messages(entry),
        )
    )
    answer = Answer(network, call)
    with node.live.hold(entry):
        async with AsyncExitStack() as held:  # the device, then its place: until it is closed
            async with answer:
                place = await find_place(node, call, proposed, answer)
                if place is None:
                    return
                held.callback(place.free)
                device = await reach(node, call, place, held, answer)
                if device is None:
                    return
                near = await answer.given()
                try:
                    await serve(Reached(entry, near, device, guard, proposed))
                finally:
                    border.close()
            if device.stays:
                await node.lingering.stay(place, device, call.device.linger)
    answer.check_given(entry)


class Answer:
    """The answer to an opening, once it is given: the tunnel, for as long as the block lasts."""

    def __init__(self, network: Network, call: IncomingCall) -> None:
        self.near: TunnelAssociation | None = None
        self._network = network
        self._call = call
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Answer":
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    async def given(self) -> TunnelAssociation:
        """Answer, if that was not done yet: from now on there is somebody to tell."""
        if self.near is None:
            tunnel = _accept(self._network, self._call)
            self.near = await self._stack.enter_async_context(tunnel)
        return self.near

    def check_given(self, entry: LiveAssociation) -> None:
        """The call is over. Raises HandshakeError if that was before there was anybody to tell."""
        if self.near is not None:
            return
        if entry.revoked:
            raise HandshakeError("no longer permitted", Refusal.NOT_GRANTED)
        raise HandshakeError("this Router stops", Refusal.BUSY)


async def find_place(
    node: Node, call: IncomingCall, proposed: AAssociateRQ, answer: Answer
) -> Place | None:
    """A place of the device, perhaps after a wait; None: the caller was told no, or has left."""
    claim = _claim(node, call, proposed)
    place = node.lingering.take(claim) or node.places.take_now(claim)
    if place is not None:
        return place
    near = await answer.given()  # whoever waits can be told, and heard if it leaves
    try:
        return await node.places.take(claim, call.device.place_wait, near.receive_record)
    except AssociationRejected as error:
        log.info("association rejected", association=call.number, why=str(error))
        await near.send(LOCAL_LIMIT_EXCEEDED)
    except AssociationAborted as error:
        log.info("association given up", association=call.number, why=str(error))
    return None


def _claim(node: Node, call: IncomingCall, proposed: AAssociateRQ) -> Claim:
    device, caller = call.device, call.received.caller
    peer = fingerprint(caller)
    granted = [grant for grant in node.grants if grant.ae_title == device.published]
    return Claim(
        side=Side.CALLEE,
        device=device.ae_title,
        peer=peer,
        maximum=device.maximum_associations,
        shared=any(grant.grantee != caller for grant in granted),
        proposal=kind_of(device, peer, proposed),
    )


async def reach(
    node: Node, call: IncomingCall, place: Place, held: AsyncExitStack, answer: Answer
) -> Lasting | None:
    """The device: an association that lingers, or a connection; None: the caller was told no.

    Raises HandshakeError (BUSY) if there is no answer yet to say so in.
    """
    if isinstance(kept := place.kept, Kept):
        device = kept.over(place)
        held.push_async_callback(device.aclose)
        if await kept.ready():
            log.info("lingering association taken over", association=call.number)
            return device
    try:
        connection = await connect(node, call.device)
    except HandshakeError as error:
        if answer.near is None:
            raise
        log.info("association rejected", association=call.number, why=str(error))
        await answer.near.send(TEMPORARY_CONGESTION)
        return None
    device = Lasting(connection, stay=place.claim.proposal is not None)
    held.push_async_callback(device.aclose)
    return device


async def reject(network: Network, call: IncomingCall, rejection: AAssociateRJ) -> None:
    """Answer the opening only to say no, as the caller's device should hear it."""
    log.info("association rejected", association=call.number, reason=rejection.reason)
    async with _accept(network, call) as near:
        await near.send(rejection)


def _accept(network: Network, call: IncomingCall) -> AbstractAsyncContextManager[TunnelAssociation]:
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


async def connect(node: Node, device: Device) -> TCPAssociation:
    """A connection to `device`, on which nothing was asked yet. Raises HandshakeError (BUSY)."""
    now = node.devices.get(device.ae_title)
    if now is None or now.where != device.where:  # another machine may be there by now
        raise HandshakeError("the device was changed while the call waited", Refusal.BUSY)
    usual = Timeouts()
    timeouts = attrs.evolve(
        usual,
        connect=min(usual.connect, device.answer_wait),
        tls_handshake=min(usual.tls_handshake, device.answer_wait),
        # `join` waits for the answer, and can say that there was none; this only must not be first.
        association_answer=max(usual.association_answer, 2 * device.answer_wait),
    )
    try:
        return await node.device_tls.connect(device, timeouts)
    except AssociationAborted as error:
        raise HandshakeError(f"device does not answer: {error}", Refusal.BUSY) from None
