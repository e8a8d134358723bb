"""Whether an association is queued, and what it rests on: the near side's way in.

    A-ASSOCIATE-RQ -> queued or confirmed? -> what does the device take? -> (taking)

What is accepted is what the far device is known to take (DESIGN §6): nothing is transcoded, and
nothing is taken that could not be given away again.
"""

from relay.association import Association
from relay.dicom.pdu import AAssociateRJ, AAssociateRQ
from relay.dicom.rejection import (
    LOCAL_LIMIT_EXCEEDED,
    PERMANENT,
    TEMPORARY_CONGESTION,
    rejected,
)
from relay.errors import AbortSource, AssociationRejected, DatabaseError, SpoolError
from relay.router.devices import Device
from relay.router.queue.admission import Intake, check_share, live_entry
from relay.router.queue.destinations import Destination, Mixed, Mode
from relay.router.queue.state import Queue
from relay.router.queue.taking import Taking
from relay.router.refusals import NOT_KNOWN_YET
from relay.router.services import Service, service_of
from relay.spool.items import Priority

# How long a device waits for its first answer while the far Router is asked what it takes: below
# the 30 s after which devices give an association up.
LEARNING_WAIT = 15.0


def choose(destination: Destination, request: AAssociateRQ) -> tuple[bool, str]:
    """Whether `request` is queued, and why (DESIGN §6): decided once, at A-ASSOCIATE."""
    if destination.mode is not Mode.QUEUED:
        return False, "the destination is confirmed"
    kinds = {service_of(context.abstract_syntax) for context in request.contexts}
    if kinds.isdisjoint({Service.STORE, Service.COMMIT}):
        return False, "nothing in it can be queued"
    others = sorted(kinds - {Service.STORE, Service.COMMIT, Service.ECHO})
    if others and destination.mixed is Mixed.CONFIRMED:
        return False, f"it also proposes {', '.join(others)}"
    words = "what it proposes can be queued"
    return True, f"{words}; {', '.join(others)} is rejected" if others else words


async def serve(
    queue: Queue,
    near: Association,
    device: Device | None,
    request: AAssociateRQ,
    *,
    moved: bool = False,
) -> None:
    """Serve one association of `device` to its end; `request` is as the network sees it.

    `moved`: it is of a holder that knows only its Router, for what a C-MOVE has asked for. Raises
    AssociationRejected where it cannot be accepted now, RemoteProtocolError where the device does
    something wrong.
    """
    node = queue.node
    called, calling = request.called, request.calling
    try:
        held = await queue.acceptance.wait(node, called, calling, LEARNING_WAIT)
    except DatabaseError as error:
        raise rejected(TEMPORARY_CONGESTION, str(error)) from error
    if held is None:
        raise _unknown(queue, called, calling)
    if not node.joined().directory.permits(called, held.peer):
        raise rejected(
            TEMPORARY_CONGESTION, f"{called} is no longer the AE title that it was known as"
        )
    try:
        queue.spool.objects.check()
        await check_share(queue, called)
    except (SpoolError, DatabaseError) as error:
        raise rejected(LOCAL_LIMIT_EXCEEDED, str(error)) from error
    destination = queue.destinations.for_call(called, calling)
    intake = Intake(
        queue=queue,
        device=device,
        request=request,
        held=held,
        priority=destination.priority if destination is not None else Priority.NORMAL,
        moved=moved,
    )
    entry = live_entry(intake)
    with node.live.hold(entry):
        taking = Taking(intake, near, entry.traffic, node.counts.messages(entry))
        taking.witness = entry.witness
        try:
            await taking.run()
        finally:
            entry.ending = taking.ending
    if entry.scope.cancelled_caught:  # no longer permitted, or this Router stops
        await near.abort(AbortSource.SERVICE_PROVIDER)


def _unknown(queue: Queue, called: str, calling: str) -> AssociationRejected:
    """What a device is told where it is not known what `called` takes of it.

    Where nothing is granted, or it is not published, that is what a confirmed call would be told.
    """
    why = queue.acceptance.why(called, calling)
    if isinstance(why, AssociationRejected) and why.result == PERMANENT:
        return rejected(AAssociateRJ(why.result, why.source, why.reason), str(why))
    cause = str(why or "its Router has to be reached once")
    return rejected(TEMPORARY_CONGESTION, f"what {called} {NOT_KNOWN_YET}: {cause}")
