"""C-GET and C-MOVE over all that hold a part of what is asked for (DESIGN §7).

    who holds it     what searches have found, or a query by UID of everybody that may be asked
    one owner        is asked as it is
    several          are planned by instances: each one comes from the first that holds it
    one that fails   its part is asked of the next that holds it; what nobody has left is failed

One owner is asked after the other, so that the counters are those of one retrieve, and the caller
hears at most one object at a time.
"""

import trio

from relay.dicom.dimse import CommandSet, Priority, Status, Tag
from relay.dicom.elements import Encoding, encoding_of
from relay.router.border import comment_on_own_refusal, no_destination
from relay.router.devices import Device
from relay.router.federation.errands import Errands
from relay.router.federation.federation import Federation
from relay.router.federation.getting import STORAGE_CONTEXTS, Getting
from relay.router.federation.identifiers import Model, QueryRefused
from relay.router.federation.moving import Moving, is_destination, note_destination
from relay.router.federation.responding import Responder
from relay.router.federation.sinks import Arriving, CallerSink, Sink, Taking
from relay.router.federation.targets import Target
from relay.router.federation.totals import Counts, Progress, Refusal, Totals

# The face of retrieving to whoever serves it.
__all__ = [
    "Arriving",
    "Counts",
    "Progress",
    "Sink",
    "Taking",
    "Target",
    "Totals",
    "retrieve_get",
    "retrieve_move",
    "serve_get",
    "serve_move",
]


async def quiet(counts: Counts) -> None:
    """For a caller that does not want to know how far it is."""


async def retrieve_get(
    federation: Federation,
    caller: Device | None,
    target: Target,
    sink: Sink,
    *,
    message_id: int = 1,
    priority: Priority = Priority.MEDIUM,
    progress: Progress = quiet,
    cancelled: trio.Event | None = None,
) -> Totals:
    """Have all of `target` come to `sink`, for `caller`; None is the Router itself.

    `message_id` and `priority` are the caller's. `cancelled` is set for a C-CANCEL. Raises
    QueryRefused for what may not be asked so, AssociationAborted once the sink is of no use any
    more, and whatever else `sink` and `progress` raise.
    """
    # Who takes more than one association can carry is served by the classes that there are.
    by_instances = len(sink.contexts) > STORAGE_CONTEXTS
    errands = Errands(federation, caller, target, message_id, priority, progress, by_instances)
    return await errands.run(Getting(sink), cancelled)


async def retrieve_move(
    federation: Federation,
    caller: Device | None,
    target: Target,
    destination: str,
    *,
    message_id: int = 1,
    priority: Priority = Priority.MEDIUM,
    progress: Progress = quiet,
    cancelled: trio.Event | None = None,
) -> Totals:
    """Have all of `target` sent to `destination`, by its name in this hospital.

    Its owners send it there themselves, each as for a C-MOVE of `caller` with this `message_id`.
    Otherwise as `retrieve_get`.
    """
    title = federation.settings.ae_title
    if not is_destination(federation, destination):
        why = no_destination(federation.node.names, destination)
        note_destination(federation, caller, title, destination, why)
        words = comment_on_own_refusal(federation.node.names, destination)
        return Totals(status=Refusal.DESTINATION_UNKNOWN, words=words)
    moving = Moving(destination)
    errands = Errands(federation, caller, target, message_id, priority, progress)
    totals = await errands.run(moving, cancelled)
    if moving.refused_here is not None:
        note_destination(federation, caller, title, destination, moving.refused_here)
    return totals


async def serve_get(
    federation: Federation, device: Device | None, responder: Responder, identifier: bytes
) -> None:
    """Answer one C-GET-RQ, to the final response. Raises AssociationAborted if the device goes."""
    priority = _priority(responder.request)
    sink = CallerSink(
        responder.association, responder.writing, responder.contexts, priority=priority
    )
    responder.takes_response = sink.answered
    try:
        target = _target(responder, identifier)
        totals = await retrieve_get(
            federation,
            device,
            target,
            sink,
            message_id=responder.request.message_id,
            priority=priority,
            progress=_shown_by(responder),
            cancelled=responder.cancelled,
        )
    except QueryRefused as refused:
        await responder.send(refused.status, extra={Tag.ERROR_COMMENT: refused.comment})
    else:
        _audit(federation, responder, target, totals)
        await _finish(responder, totals)


async def serve_move(
    federation: Federation, device: Device | None, responder: Responder, identifier: bytes
) -> None:
    """Answer one C-MOVE-RQ, as `serve_get` does a C-GET-RQ."""
    try:
        target = _target(responder, identifier)
        totals = await retrieve_move(
            federation,
            device,
            target,
            responder.request.move_destination or "",
            message_id=responder.request.message_id,
            priority=_priority(responder.request),
            progress=_shown_by(responder),
            cancelled=responder.cancelled,
        )
    except QueryRefused as refused:
        await responder.send(refused.status, extra={Tag.ERROR_COMMENT: refused.comment})
    else:
        _audit(federation, responder, target, totals)
        await _finish(responder, totals)


def _target(responder: Responder, identifier: bytes) -> Target:
    model = Model.of(responder.context.abstract_syntax)
    assert model is not None, "no other context is served so"
    return Target.parse(model, identifier, responder.context.transfer_syntax)


def _priority(request: CommandSet) -> Priority:
    """(0000,0700); what is none of the three is the one in the middle."""
    number = request.number(Tag.PRIORITY)
    return Priority(number) if number in list(Priority) else Priority.MEDIUM


def _shown_by(responder: Responder) -> Progress:
    async def show(counts: Counts) -> None:
        await responder.send(Status.PENDING, extra=counts.elements())

    return show


def _audit(federation: Federation, responder: Responder, target: Target, totals: Totals) -> None:
    """Have the audit know what came of it."""
    if responder.entry is not None:
        federation.node.auditing.retrieved(
            responder.entry,
            responder.request.move_destination or "",
            target.studies,
            stored=totals.completed + totals.warning,
            failed=totals.failed,
            why=totals.words,
        )


async def _finish(responder: Responder, totals: Totals) -> None:
    encoding = encoding_of(responder.context.transfer_syntax) or Encoding()
    await responder.send(totals.status, data_set=totals.data_set(encoding), extra=totals.elements())
