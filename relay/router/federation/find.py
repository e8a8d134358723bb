"""C-FIND to the federation: the answers of all sites, and a final status that tells the truth.

PS3.4 §C.4.1. Where a device has not answered in full, the final status is a failure whose Error
Comment names it, after all that the others have; for callers that throw everything away on a
failure the configuration makes it success, and the log and the directory say what is missing.
"""

from collections.abc import Sequence
from itertools import groupby

import structlog

from relay.dicom.dimse import Status, Tag
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.identifiers import Model, QueryRefused, parse
from relay.router.federation.responding import Responder
from relay.router.federation.searching import Answer, Said, Search, search
from relay.router.federation.settings import OnIncomplete

log = structlog.get_logger()

# Of the Cxxx that are "unable to process" (PS3.4 Table C.4-1), so that logs tell them apart.
INCOMPLETE = Status.UNABLE_TO_PROCESS + 1  # a device has not answered in full
NOBODY = Status.UNABLE_TO_PROCESS + 2  # there is no device that the caller may ask

MAXIMUM_COMMENT = 64  # PS3.7 §E.1: Error Comment is LO


async def serve_find(
    federation: Federation, device: Device | None, responder: Responder, identifier: bytes
) -> None:
    """Answer one C-FIND-RQ, to the final response. Raises AssociationAborted if the device goes."""
    syntax = responder.context.transfer_syntax
    model = Model.of(responder.context.abstract_syntax)
    assert model is not None, "no other context is served so"
    try:
        query = parse(model, identifier, syntax)
        async with search(federation, device, query) as found:
            responder.on_cancel = found.cancel
            if responder.cancelled.is_set():  # it came with the request
                found.cancel()
            while some := await found.some():
                await _pass_on(responder, some)
            await _finish(federation, device, responder, found)
    except QueryRefused as refused:
        await responder.send(refused.status, extra={Tag.ERROR_COMMENT: refused.comment})


async def _pass_on(responder: Responder, some: Sequence[Answer]) -> None:
    for status, answers in groupby(some, key=lambda answer: answer.status):
        await responder.send_answers(status, [answer.encoded for answer in answers])


async def _finish(
    federation: Federation, device: Device | None, responder: Responder, found: Search
) -> None:
    if responder.cancelled.is_set():
        await responder.send(Status.CANCEL)
        return
    comment = comment_on(found.incomplete) if found.said else "no device may be asked"
    if not comment:
        await responder.send(Status.SUCCESS)
        return
    log.warning("federated query incomplete", why=comment)
    # Our own command line throws nothing away, and has the person read what is missing.
    if device is not None and federation.settings.on_incomplete is OnIncomplete.SUCCESS:
        await responder.send(Status.SUCCESS)
    else:
        status = INCOMPLETE if found.said else NOBODY
        await responder.send(status, extra={Tag.ERROR_COMMENT: comment})


def comment_on(incomplete: Sequence[Said]) -> str:
    """The Error Comment that names as many devices as fit, and counts the others; "" for none."""
    words = [f"{said.source.title} {said.outcome.value}" for said in incomplete]
    comment = ""
    for count in range(len(words), 0, -1):
        more = f"; {len(words) - count} more" if count < len(words) else ""
        comment = f"incomplete: {'; '.join(words[:count])}{more}"
        if len(comment) <= MAXIMUM_COMMENT:
            break
    # An AE title may have any character of the default repertoire (PS3.5 §6.2), and no other.
    return comment.encode("ascii", "replace").decode("ascii")
