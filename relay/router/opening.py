"""The callee's side: a peer's Router opens a session to call a device of this hospital.

    opening -> is it one? new? -> trusted? granted? -> the device -> answer -> passthrough
                                                    -> relay.router.queue: knowledge, handover

Whoever has no grant at all is refused before anything is connected; whoever has one gets a session,
and what the device says in it.
"""

from contextlib import AsyncExitStack
from functools import partial

import structlog

from relay.dicom.rejection import CALLING_AE_TITLE_NOT_RECOGNIZED
from relay.errors import HandshakeError, Refusal
from relay.identity import fingerprint
from relay.router import contexts
from relay.router.guard import Guard
from relay.router.incoming import IncomingCall, border_of, check, live_entry
from relay.router.live import log_ending, number
from relay.router.node import Network, Node, unix_time
from relay.router.passthrough import join
from relay.router.queue.handover import serve_delivery
from relay.router.queue.knowledge import serve_knowledge
from relay.router.queue.state import Queue
from relay.router.reaching import Answer, find_place, reach, reject
from relay.signalling import messages
from relay.tunnel.handshake import Purpose, ReceivedOpening, accept_opening, refuse_opening

log = structlog.get_logger()


async def serve_opening(node: Node, message: messages.Open, queue: Queue | None = None) -> None:
    """Serve one session from a peer's opening to its end. Without a `queue` nothing is queued."""
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
        refusal = (
            refuse_opening(node.identity, message.opening, error.refusal)
            if received is None
            else received.refuse(error.refusal)
        )
        await network.client.send(messages.Refuse(message.session, refusal))


async def _serve_purpose(
    node: Node, network: Network, call: IncomingCall, queue: Queue | None
) -> None:
    purpose = call.received.purpose
    if purpose is Purpose.ASSOCIATION:
        await _serve(node, network, call)
    elif queue is None:
        raise HandshakeError(f"no {purpose.name.lower()} sessions here", Refusal.NOT_SPECIFIED)
    elif purpose is Purpose.KNOWLEDGE:
        await serve_knowledge(node, network, call, queue.knowledge)
    else:
        await serve_delivery(node, network, call, queue.spool.recorder)


async def _serve(node: Node, network: Network, call: IncomingCall) -> None:
    """Find a place, connect, answer and relay. The association with the device may linger then.

    Raises HandshakeError (BUSY) if the device cannot be reached.
    """
    proposed = call.proposal()
    if not proposed.contexts:
        await reject(network, call, CALLING_AE_TITLE_NOT_RECOGNIZED)
        return
    entry = live_entry(node, network, call)
    border = border_of(node, call)
    guard = Guard(proposed, call.permission.services, border, implied=call.implied)
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
                if device.answer is None:
                    await device.send(proposed)
                try:
                    ending = await join(
                        near,
                        device,
                        guard,
                        tunnel=near,
                        answer_wait=call.device.answer_wait,
                        answered=partial(
                            contexts.with_rejections, original=call.request, proposed=proposed
                        ),
                    )
                finally:
                    border.close()
                log_ending(entry, ending)
            if device.stays:
                await node.lingering.stay(place, device, call.device.linger)
    answer.check_given(entry)
