"""An association through the running Router, as a device would make it: echo, find and send."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from relay import scu
from relay.association import Association, connect_unix
from relay.cli.context import Invocation
from relay.cli.control import DICOM_SOCKET, Control, NotRunning
from relay.dicom.negotiation import AcceptedContext, accepted_contexts, propose, request
from relay.dicom.pdu import AAssociateRQ
from relay.dicom.status import Status, is_warning
from relay.errors import AssociationAborted, AssociationRejected, RelayError

# The Router notes why a far hospital said no only after the A-ASSOCIATE-RJ or A-ABORT has gone out.
CAUSE_TRIES = 5
CAUSE_PAUSE = 0.1  # seconds

# PS3.7 Annex C, and PS3.4 §B.2.3, §C.4: what people meet most, in words.
_STATUSES: dict[int, str] = {
    Status.SUCCESS: "success",
    0x0105: "no such attribute",
    Status.PROCESSING_FAILURE: "processing failure",
    Status.DUPLICATE_SOP_INSTANCE: "it has this object already",
    0x0117: "invalid object instance",
    Status.SOP_CLASS_NOT_SUPPORTED: "SOP class not supported",
    Status.NOT_AUTHORIZED: "not authorised",
    Status.UNRECOGNIZED_OPERATION: "unrecognised operation",
    Status.OUT_OF_RESOURCES: "out of resources",
    0xA800: "SOP class not supported",
    Status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS: "data set does not match its SOP class",
    Status.UNABLE_TO_PROCESS: "cannot understand",
    Status.CANCEL: "cancelled",
}


@attrs.frozen(slots=True)
class Associated:
    """An association that was accepted, and which of the pairs asked for may be used on it."""

    association: Association
    contexts: dict[tuple[str, str], AcceptedContext]


@asynccontextmanager
async def associate(
    invocation: Invocation, called: str, pairs: Sequence[tuple[str, str]]
) -> AsyncIterator[Associated]:
    """Call `called` as the Router itself, one context for each (SOP class, transfer syntax).

    Released at the end of the block, aborted when it raises. Raises NotRunning,
    AssociationRejected, AssociationAborted, both in the words of the Router, LocalProtocolError for
    more than 128 pairs.
    """
    config = invocation.router()
    control = Control(config, invocation.file)
    try:
        association = await connect_unix(config.data_dir / DICOM_SOCKET)
    except AssociationAborted as error:
        raise NotRunning(control.how_to_start(error)) from error
    try:
        rq = request(
            called, config.ae_title, propose([(abstract, [syntax]) for abstract, syntax in pairs])
        )
        called_at = time.time()
        try:
            ac = await scu.negotiate(association, rq)
            accepted = {
                (c.abstract_syntax, c.transfer_syntax): c
                for c in accepted_contexts(rq, ac).values()
            }
            yield Associated(association, accepted)
            await scu.release(association)
        except (AssociationRejected, AssociationAborted) as error:
            await association.aclose()
            why = await _why(control, rq, called_at) or f"{error}; `relay doctor` says more"
            raise _in_words(error, why) from error
    finally:
        await association.aclose()


def _in_words(error: AssociationRejected | AssociationAborted, why: str) -> RelayError:
    if isinstance(error, AssociationRejected):
        return AssociationRejected(error.result, error.source, error.reason, why)
    return AssociationAborted(error.source, error.reason, why)


async def _why(control: Control, rq: AAssociateRQ, since: float) -> str | None:
    """What the Router knows of the call `rq` that failed after `since`."""
    for _ in range(CAUSE_TRIES):
        try:
            refusals = await trio.to_thread.run_sync(control.get, "/v1/refusals")
        except RelayError:
            return None  # the numbers that DICOM has must do
        for refusal in refusals:
            pair = (refusal["calling"], refusal["called"])
            if pair == (rq.calling, rq.called) and refusal["time"] >= since:
                return str(refusal["why"])
        await trio.sleep(CAUSE_PAUSE)
    return None


def status_in_words(status: int) -> str:
    """A DIMSE status (0000,0900) for people: its number, and what it stands for."""
    if status in _STATUSES:
        words = _STATUSES[status]
    elif is_warning(status):
        words = "stored, with a warning"
    else:
        words = {0xA: "refused", 0xC: "cannot understand"}.get(status >> 12, "failure")
    return f"{status:04X}H, {words}"
