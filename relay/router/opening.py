"""The callee's side: a peer's Router opens a session to call a device of this hospital.

    opening -> is it one? new? -> trusted? granted? -> the device -> answer -> passthrough
                                                    -> relay.router.queue: telling, handover

Whoever has no grant at all is refused before anything is connected; whoever has one gets a session,
and what the device says in it.
"""

from functools import partial

import structlog

from relay.dicom.pdu import AAssociateAC
from relay.errors import AssociationRejected, HandshakeError, Refusal
from relay.identity import fingerprint
from relay.router import contexts
from relay.router.counts import UNKNOWN, Line
from relay.router.get_by_move import answering_get
from relay.router.incoming import IncomingCall, check
from relay.router.live import Side, Work, log_ending, number
from relay.router.node import Network, Node, unix_time
from relay.router.passthrough import join
from relay.router.queue.handover import serve_delivery
from relay.router.queue.state import Queue
from relay.router.queue.telling import serve_knowledge
from relay.router.reaching import Reached, serve_reached
from relay.signalling import messages
from relay.tunnel.handshake import Purpose, ReceivedOpening, accept_opening, refuse_opening

log = structlog.get_logger()


async def serve_opening(node: Node, message: messages.Open, queue: Queue | None = None) -> None:
    """Serve one session from a peer's opening to its end. Without a `queue` nothing is queued."""
    network = node.joined()
    received: ReceivedOpening | None = None
    try:
        await _admit(node)
        received = accept_opening(
            node.identity,
            node.keyring.pairs,
            network.membership.network,
            message.router,
            message.opening,
            message.request,
            unix_time(),
        )
        call = await check(node, network, message, received)
        await _serve_purpose(node, network, call, queue)
    except HandshakeError as error:
        log.info(
            "opening refused",
            association=number(message.session),
            peer=fingerprint(message.router),
            refusal=error.refusal.name,
            why=str(error),
        )
        node.auditing.refused_opening(fingerprint(message.router), error)
        refusal = (
            refuse_opening(node.identity, message.opening, error.refusal)
            if received is None
            else received.refuse(error.refusal)
        )
        device = node.devices.published_as(message.called)
        title = device.ae_title if device is not None else UNKNOWN
        known = network.peers.get(message.router) is not None
        line = Line(Side.CALLEE, Work.RELAYED, fingerprint(message.router) if known else "", title)
        node.counts.rejected(line, error.refusal.name.lower())
        await network.client.send(messages.Refuse(message.session, refusal))


async def _admit(node: Node) -> None:
    """Raises HandshakeError while nothing may begin."""
    try:
        await node.auditing.admit()
    except AssociationRejected as error:
        raise HandshakeError(str(error), Refusal.BUSY) from error


async def _serve_purpose(
    node: Node, network: Network, call: IncomingCall, queue: Queue | None
) -> None:
    purpose = call.received.purpose
    if purpose is Purpose.ASSOCIATION:
        await serve_reached(node, network, call, call.proposal(), partial(_join, node, call))
    elif queue is None:
        raise HandshakeError(f"no {purpose.name.lower()} sessions here", Refusal.NOT_SPECIFIED)
    elif purpose is Purpose.KNOWLEDGE:
        await serve_knowledge(node, network, call, queue.knowledge)
    else:
        await serve_delivery(node, network, call, queue.spool.recorder)


async def _join(node: Node, call: IncomingCall, reached: Reached) -> None:
    """Relay the association to its end."""
    near, proposed = reached.near, reached.proposed

    def answered(answer: AAssociateAC) -> AAssociateAC:
        node.reached(call.device.published)
        return contexts.with_rejections(answer, original=call.request, proposed=proposed)

    async with answering_get(node, call.device, reached.device, proposed) as device:
        if reached.device.answer is None:
            await device.send(proposed)
        ending = await join(
            near,
            device,
            reached.guard,
            tunnel=near,
            answer_wait=call.device.answer_wait,
            answered=answered,
            traffic=reached.entry.traffic,
        )
    log_ending(reached.entry, ending)
