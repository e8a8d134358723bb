"""The far end of a delivery session: a peer's queue hands objects on to a device of this hospital.

    opening -> a place -> the device -> its answer -> a consignment -> the end of both associations

Until the device has answered, it goes as for any association that a peer opens.
"""

from functools import partial

import attrs
import structlog
import trio

from relay import scu
from relay.dicom.pdu import (
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    Atom,
)
from relay.dicom.rejection import LOCAL_LIMIT_EXCEEDED, TEMPORARY_CONGESTION
from relay.errors import AbortReason, AbortSource, AssociationAborted, RemoteProtocolError
from relay.router import contexts, passthrough
from relay.router.incoming import IncomingCall
from relay.router.lasting import Lasting
from relay.router.live import LiveAssociation
from relay.router.node import Network, Node
from relay.router.queue.consignment import NO_ROOM, Consignment
from relay.router.queue.operations import window_of, with_window, with_window_of
from relay.router.queue.results import Counts, Ending, How, say
from relay.router.reaching import Reached, reject, serve_reached
from relay.router.services import may_be_stored, service_of
from relay.spool.receipts import Recorder
from relay.tunnel import notes

log = structlog.get_logger()


async def serve_delivery(
    node: Node, network: Network, call: IncomingCall, recorder: Recorder
) -> None:
    """Serve one delivery session to its end. The association with the device may linger then.

    Raises HandshakeError (BUSY) if the device cannot be reached.
    """
    if not recorder.table.has_room(call.received.caller):
        log.warning("delivery rejected", association=call.number, why=NO_ROOM)
        await reject(network, call, LOCAL_LIMIT_EXCEEDED)
        return
    await serve_reached(node, network, call, proposal(call), partial(_serve, call, recorder))


async def _serve(call: IncomingCall, recorder: Recorder, reached: Reached) -> None:
    """Negotiate with the device, and hand over what comes."""
    window = await _negotiate(call, reached)
    if window is None:
        return
    consignment = Consignment(
        reached.near,
        reached.device,
        reached.guard,
        recorder,
        origin=call.received.caller,
        window=window,
    )
    await _hand_over(reached, consignment)


def proposal(call: IncomingCall) -> AAssociateRQ:
    """What the device is asked: the contexts for C-STORE that are granted, and a window."""
    request = call.proposal()
    kept = tuple(c for c in request.contexts if may_be_stored(service_of(c.abstract_syntax)))
    return with_window(attrs.evolve(request, contexts=kept))


async def _negotiate(call: IncomingCall, reached: Reached) -> int | None:
    """Tell the near Router what the device answers; the window of operations that it grants.

    None: the answer is no.
    """
    near, device = reached.near, reached.device
    answer = await _answer(call, reached)
    why = device.cause
    try:
        match answer:
            case AAssociateAC():
                reached.guard.negotiated(answer)
                window = window_of(answer)
                accepted = sum(result.accepted for result in answer.contexts)
                log.info("association negotiated", accepted=accepted, window=window)
                told = contexts.with_rejections(
                    answer, original=call.request, proposed=reached.proposed
                )
                await near.send(with_window_of(told, window))
                return window
            case AAssociateRJ():
                await near.send(answer)
            case AAbort():
                await near.abort(answer.source, answer.reason)
            case _:
                why = f"no answer within {call.device.answer_wait:g} s"
                await device.abort(AbortSource.SERVICE_PROVIDER)
                await near.send(TEMPORARY_CONGESTION)
    except AssociationAborted as error:
        why = f"near Router has left: {error}"
    except RemoteProtocolError as error:
        why = f"device: {error}"
        await device.abort(AbortSource.SERVICE_PROVIDER, error.abort_reason)
        await near.abort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED)
    log.info("association rejected", association=call.number, why=why)
    return None


async def _answer(call: IncomingCall, reached: Reached) -> Atom | None:
    """What the device answers; None: nothing in time."""
    device = reached.device
    try:
        if device.answer is None:
            await device.send(reached.proposed)
        with trio.move_on_after(call.device.answer_wait):
            return await device.receive()
    except AssociationAborted as error:
        log.info("device takes no request", association=call.number, why=str(error))
        return AAbort(error.source, error.reason)
    return None


async def _hand_over(reached: Reached, consignment: Consignment) -> None:
    """Hand on what comes, and end both associations as they are to be ended."""
    entry, near, device = reached.entry, reached.near, reached.device
    entry.traffic = consignment.traffic
    ending = await consignment.run()
    if ending.how in (How.RELEASED, How.LEFT) and consignment.idle:
        await _release(entry, device)
    else:
        await device.abort(AbortSource.SERVICE_PROVIDER)
    released = ending.how is How.RELEASED
    entry.ending = passthrough.Ending(
        passthrough.How.RELEASED if released else passthrough.How.ABORTED,
        "acceptor" if ending.how is How.DEVICE else "requestor",
        ending.words,
    )
    _log_ending(entry, ending, consignment.results.counts)
    if ending.how is How.RELEASED:
        await say(near, AReleaseRP())
    elif ending.how is not How.LEFT:
        await say(near, notes.encode(ending.note()), AReleaseRP())


async def _release(entry: LiveAssociation, device: Lasting) -> None:
    """Release the device. Nothing depends on its answer any more."""
    try:
        await scu.release(device)
    except (AssociationAborted, RemoteProtocolError) as error:
        log.info("device did not release", association=entry.number, why=str(error))


def _log_ending(entry: LiveAssociation, ending: Ending, counts: Counts) -> None:
    """The one line that tells how a delivery went."""
    log.info(
        "delivery ended",
        association=entry.number,
        calling=entry.calling,
        called=entry.called,
        peer=entry.peer,
        how=ending.how.value,
        why=ending.words,
        **attrs.asdict(counts),
        seconds=round(trio.current_time() - entry.started, 3),
    )
