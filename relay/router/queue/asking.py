"""Asking the owner of a device what it takes: the near end of a knowledge session.

Nothing is sent but the opening; what comes back is one note (PROTOCOL.md §10.4).
"""

import attrs
import structlog

from relay.dicom import character_sets, negotiation, uids
from relay.dicom.pdu import AAbort, AAssociateRJ, AReleaseRP
from relay.dicom.rejection import CALLING_AE_TITLE_NOT_RECOGNIZED, in_words, rejected
from relay.errors import AssociationAborted, RemoteProtocolError
from relay.router.node import Node
from relay.router.outgoing import prepare, tunnel
from relay.router.refusals import explained
from relay.tunnel import notes
from relay.tunnel.handshake import Purpose
from relay.tunnel.notes import Knowledge
from relay.tunnel.records import Note, Record

log = structlog.get_logger()


async def ask(node: Node, called: str, calling: str, deadline: float) -> tuple[bytes, Knowledge]:
    """Who owns `called`, and what it says that its device takes of `calling`.

    It has `deadline` seconds for its first word. Raises AssociationRejected, AssociationAborted,
    RemoteProtocolError and SignallingError.
    """
    # The request is for the names in it; of what it proposes nothing comes.
    return await _ask(node, called, calling, deadline, uids.VERIFICATION, "store")


async def describe(node: Node, called: str, calling: str, deadline: float) -> Knowledge:
    """What its owner has at hand of `called`, for which no device is asked anything.

    A character set with a term that is not known here is as if nothing was said of it. Deadline and
    errors as `ask` has them; whoever is granted query, retrieve or store is told.
    """
    services = "query,retrieve"
    _, said = await _ask(node, called, calling, deadline, uids.STUDY_ROOT_FIND, services)
    problem = character_sets.problem(said.character_set)
    if problem:
        log.warning("character set not known", called=called, why=problem)
        return attrs.evolve(said, character_set="")
    return said


async def _ask(
    node: Node, called: str, calling: str, deadline: float, proposed: str, services: str
) -> tuple[bytes, Knowledge]:
    """`proposed` is an abstract syntax; `services`: those to ask for where nothing is granted."""
    device = node.names.own(calling)
    request = negotiation.request(
        called,
        calling if device is None else device.ae_title,
        negotiation.propose([(proposed, (uids.IMPLICIT_VR_LITTLE_ENDIAN,))]),
    )
    if device is None and calling != node.ae_title:
        raise rejected(
            CALLING_AE_TITLE_NOT_RECOGNIZED, f"{calling!r} is no device of this Router any more"
        )
    call = prepare(node, device, request, called, Purpose.KNOWLEDGE)
    title, hospital = node.names.local(called) or called, call.route.peer.name
    async with tunnel(node, call, answer=deadline) as far:
        record = await far.receive_record()
        why = explained(far.cause, hospital, title, calling, services=services) or far.cause
        said = _knowledge(record, why)
        if not isinstance(await far.receive_record(), AReleaseRP):
            raise RemoteProtocolError("knowledge session goes on behind the knowledge")
    return call.peer, said


def _knowledge(record: Record, cause: str) -> Knowledge:
    match record:
        case Note():
            message = notes.decode(record)
            if isinstance(message, Knowledge):
                return message
            raise RemoteProtocolError(f"{type(message).__name__} in a knowledge session")
        case AAssociateRJ():
            raise rejected(record, cause or in_words(record))
        case AAbort():
            raise AssociationAborted(record.source, record.reason, cause)
        case _:
            raise RemoteProtocolError(f"{type(record).__name__} in a knowledge session")
