"""C-ECHO of another hospital's device, through the network, for a person who wants to know.

It goes the way of any call of this Router's own: names, grants and the far device's answer are what
a device here would meet. What fails is said as it is for those (relay.router.relaying).
"""

from typing import Any

import attrs
import structlog
import trio

from relay.dicom import negotiation, uids
from relay.dicom.negotiation import accepted_contexts
from relay.dicom.pdu import AAssociateAC
from relay.dicom.status import Status
from relay.errors import AssociationRejected, RelayError, leaves
from relay.router.node import Node
from relay.router.outgoing import OutgoingCall, called_title, live_entry, prepare, tunnel
from relay.router.passthrough import Ending, How
from relay.router.probe import Finding
from relay.router.relaying import cause
from relay.scu import echo, negotiated, release
from relay.tunnel.session import TunnelAssociation

log = structlog.get_logger()

# A person waits for the answer, and the far Router waits for its device meanwhile.
ECHO_WAIT = 30.0


@attrs.frozen(slots=True)
class Echo:
    """What came of it; `milliseconds` from the C-ECHO-RQ to its response, None without one."""

    finding: Finding
    milliseconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For people and scripts."""
        return {"finding": attrs.asdict(self.finding), "milliseconds": self.milliseconds}


async def echo_far(node: Node, title: str) -> Echo:
    """C-ECHO what devices here call `title`, as this Router. Never raises for what it meets."""
    what = f"{title} answers a C-ECHO through the network"
    advice, milliseconds = "", None
    try:
        with trio.move_on_after(ECHO_WAIT) as limit:
            milliseconds = await _echo(node, title)
    except* AssociationRejected as group:
        advice = str(next(leaves(group)))
    except* RelayError as group:
        advice = f"{next(leaves(group))}: try again, and look at the other hospital's Router"
    if limit.cancelled_caught:
        advice = (
            f"no answer within {ECHO_WAIT:g} s: the device, or the way to it, is slow; ask the"
            " other hospital to test the device there"
        )
    log.info("device of another hospital echoed", called=title, ok=not advice)
    return Echo(Finding(what, not advice, advice), milliseconds)


async def _echo(node: Node, title: str) -> float:
    """Milliseconds until the answer. Raises AssociationRejected with the cause in words."""
    contexts = negotiation.propose(
        [(uids.VERIFICATION, (uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_LITTLE_ENDIAN))]
    )
    request = negotiation.request(title, node.ae_title, contexts)
    call = prepare(node, None, request, called_title(node, None, request))
    with node.live.hold(live_entry(node, call)) as entry:
        async with tunnel(node, call) as far:
            answer = await _negotiated(far, call, title)
            accepted = accepted_contexts(call.request, answer)
            if not accepted:
                raise _said(f"{title} does not offer C-ECHO to this Router: ask for `echo` of it")
            started = trio.current_time()
            status = await echo(far, accepted[contexts[0].id])
            milliseconds = (trio.current_time() - started) * 1000
            await release(far)
        entry.ending = Ending(How.RELEASED, "requestor")
        if status != Status.SUCCESS:
            raise _said(f"{title} answered with status {status:04X}H")
        return round(milliseconds, 1)
    raise _said("the device, or the grant, was taken away meanwhile")


async def _negotiated(far: TunnelAssociation, call: OutgoingCall, title: str) -> AAssociateAC:
    try:
        return await negotiated(far, deadline=ECHO_WAIT)
    except AssociationRejected as error:
        numbers = (error.result, error.source, error.reason)
        ending = Ending(How.REJECTED, "acceptor", far.cause, numbers)
        raise AssociationRejected(*numbers, cause(call, ending, title)) from None


def _said(words: str) -> AssociationRejected:
    """An end in words alone: no numbers came with it."""
    return AssociationRejected(0, 0, 0, words)
