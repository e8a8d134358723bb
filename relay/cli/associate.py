"""An association through the running Router, as a device would make it: echo, find and send."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs

from relay import scu
from relay.association import Association, connect_unix
from relay.cli.context import Invocation
from relay.cli.control import DICOM_SOCKET, Control, NotRunning
from relay.dicom.negotiation import AcceptedContext, accepted_contexts, propose, request
from relay.errors import AssociationAborted

# PS3.7 Annex C, and PS3.4 §B.2.3, §C.4: what people meet most, in words.
_STATUSES = {
    0x0000: "success",
    0x0105: "no such attribute",
    0x0110: "processing failure",
    0x0111: "it has this object already",
    0x0117: "invalid object instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0211: "unrecognised operation",
    0xA700: "out of resources",
    0xA800: "SOP class not supported",
    0xA900: "data set does not match its SOP class",
    0xC000: "cannot understand",
    0xFE00: "cancelled",
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
    AssociationRejected, AssociationAborted, LocalProtocolError for more than 128 pairs.
    """
    config = invocation.router()
    try:
        association = await connect_unix(config.data_dir / DICOM_SOCKET)
    except AssociationAborted as error:
        control = Control(config, invocation.file)
        raise NotRunning(control.how_to_start(error)) from error
    try:
        rq = request(
            called, config.ae_title, propose([(abstract, [syntax]) for abstract, syntax in pairs])
        )
        ac = await scu.negotiate(association, rq)
        accepted = accepted_contexts(rq, ac).values()
        yield Associated(association, {(c.abstract_syntax, c.transfer_syntax): c for c in accepted})
        await scu.release(association)
    finally:
        await association.aclose()


def status_in_words(status: int) -> str:
    """A DIMSE status (0000,0900) for people: its number, and what it stands for."""
    if status in _STATUSES:
        words = _STATUSES[status]
    elif is_warning(status):
        words = "stored, with a warning"
    else:
        words = {0xA: "refused", 0xC: "cannot understand"}.get(status >> 12, "failure")
    return f"{status:04X}H, {words}"


def is_warning(status: int) -> bool:
    """Whether the operation was done all the same (PS3.7 §C.3: Bxxx, and a few of their own)."""
    return status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116)
