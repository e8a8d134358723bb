"""C-ECHO on an association for the queue: the far device itself answers it (DESIGN §6).

A person who asks wants to know whether the device is there, and not whether the Router is.
"""

import structlog
import trio

from relay.dicom import negotiation, uids
from relay.dicom.negotiation import accepted_contexts
from relay.dicom.status import Status
from relay.errors import RelayError, leaves
from relay.router.outgoing import prepare, tunnel
from relay.router.queue.admission import Intake
from relay.scu import echo, negotiated, release

log = structlog.get_logger()

# From the C-ECHO-RQ to its response: below the 30 s for which devices wait.
ECHO_WAIT = 25.0


async def live_echo(intake: Intake) -> int:
    """The far device's own answer to a C-ECHO; 0110H where there is none within ECHO_WAIT."""
    node, request = intake.queue.node, intake.request
    contexts = negotiation.propose(
        [(uids.VERIFICATION, (uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_LITTLE_ENDIAN))]
    )
    asked = negotiation.request(request.called, intake.local, contexts)
    status: int | None = None
    try:
        with trio.move_on_after(ECHO_WAIT):
            call = prepare(node, intake.device, asked, request.called)
            async with tunnel(node, call) as far:
                accepted = accepted_contexts(call.request, await negotiated(far))
                if accepted:
                    status = await echo(far, accepted[contexts[0].id])
                await release(far)
    except* RelayError as group:
        why = str(next(leaves(group)))
        log.info("C-ECHO not answered by the far device", called=request.called, why=why)
    return Status.PROCESSING_FAILURE if status is None else status
