"""A call of this hospital's own, relayed to another one: joined with its tunnel, from end to end.

Who calls is a device over TCP, or a part of this Router in its name (relay.router.inner).
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Protocol

import attrs
import structlog

from relay.association import Association
from relay.dicom.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ, Atom
from relay.dicom.rejection import (
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    LOCAL_LIMIT_EXCEEDED,
    in_words,
)
from relay.errors import AssociationAborted, SignallingError
from relay.router import contexts
from relay.router.departure import Departure
from relay.router.devices import Device
from relay.router.guard import Guard
from relay.router.live import Side, log_ending
from relay.router.node import Node
from relay.router.outgoing import OutgoingCall, live_entry, tunnel
from relay.router.passthrough import Ending, How, join
from relay.router.places import Claim, Place
from relay.router.refusals import ABORTED, DEVICE_BUSY, NOTHING_GRANTED, explained

log = structlog.get_logger()

# The command line on this machine: a person, or a script that sends a folder.
LOCAL_ASSOCIATIONS = 16


class Near(Association, Protocol):
    """The near end of a call, which may leave while it waits."""

    async def wait_indication(self) -> Atom:
        """The atom that the next `receive()` gives, left in its place."""


async def find_place(node: Node, near: Near, device: Device | None, peer: str = "") -> Place | None:
    """A place for a call of `device` to `peer`, perhaps after a wait; None: the caller has left.

    Raises AssociationRejected where there is none.
    """
    limits = device or Device(node.ae_title, "", maximum_associations=LOCAL_ASSOCIATIONS)
    claim = Claim(
        side=Side.CALLER,
        device=limits.ae_title,
        peer=peer,
        maximum=limits.maximum_associations,
    )
    try:
        return await node.places.take(claim, limits.place_wait, near.wait_indication)
    except AssociationAborted as error:
        log.info("association given up", calling=limits.ae_title, why=str(error))
        return None


def _unheard(ending: Ending, words: str) -> None:
    """Nobody asked how it ended."""


async def relay(
    node: Node,
    near: Near,
    call: OutgoingCall,
    said: AAssociateRQ,
    *,
    placed: bool = False,
    answer_wait: float | None = None,
    ended: Callable[[Ending, str], None] = _unheard,
) -> None:
    """Relay `call` to its end.

    `said` is the request as `near` sent it: people here know its titles. It takes a place of the
    device that calls, unless it is `placed` already. The far association has `answer_wait` seconds
    for its answer, or what its device says. `ended` is told how it went, before the tunnel is
    closed, and of what did not come about the cause in words for the people here. Raises
    AssociationRejected where there is no place.
    """
    request, device = call.request, call.device
    answer_wait = answer_wait or call.limits(node).answer_wait

    def answered(answer: AAssociateAC) -> AAssociateAC:
        node.refusals.forget(said.calling, said.called)
        node.reached(call.title)
        return contexts.with_rejections(answer, original=request, proposed=request)

    entry = live_entry(node, call)
    border = Departure(node.knowledge(), device, call.peer, call.title)
    guard = entry.witness.watch(Guard(request, None, border, heard=node.counts.messages(entry)))
    holder = entry.device  # where the call is for a C-MOVE, its response waits for our end
    try:
        with node.live.hold(entry), node.moves.storing(holder, call.title):
            async with AsyncExitStack() as stack:
                if not placed:
                    place = await find_place(node, near, device, entry.peer)
                    if place is None:
                        return
                    stack.enter_context(place)
                far = await stack.enter_async_context(tunnel(node, call, answer=answer_wait))
                ending = await join(
                    near,
                    far,
                    guard,
                    tunnel=far,
                    answer_wait=answer_wait,
                    answered=answered,
                    traffic=entry.traffic,
                )
                why = _why(call, ending, said.called)
                if why:
                    node.refusals.note(said.calling, said.called, why)
                ended(ending, why)
                log_ending(entry, attrs.evolve(ending, why=why or ending.why))
    except SignallingError as error:  # more sessions than one Router may hold
        log.warning("association rejected", association=entry.number, why=str(error))
        node.refusals.note(said.calling, said.called, str(error))
        await near.send(LOCAL_LIMIT_EXCEEDED)
    finally:
        border.close()


def _why(call: OutgoingCall, ending: Ending, title: str) -> str:
    """Why it did not come about, or not to its end; empty where the caller knows, or wanted it."""
    if ending.how is How.REJECTED:
        return cause(call, ending, title)
    if ending.how is How.ABORTED and ending.by != "requestor":
        return f"{ABORTED}: {ending.why or f'by {title} of {call.route.peer.name}'}"
    return ""


def cause(call: OutgoingCall, ending: Ending, title: str) -> str:
    """Why the far hospital does not take the call to `title`, and what can be done."""
    name = call.route.peer.name
    # A rejection that crossed the tunnel has no word of theirs.
    if why := explained(ending.why, name, title, call.request.calling):
        return f"{why}: try again later" if why.endswith(DEVICE_BUSY) else why
    if ending.why:
        return f"{title} of {name}: {ending.why}"
    rejection = AAssociateRJ(*ending.numbers)
    if rejection == CALLING_AE_TITLE_NOT_RECOGNIZED:
        return (
            f"{name} {NOTHING_GRANTED} {title} that this call needs: ask with"
            f" `relay grant ask {title} --services …`; or {title} itself does not know the calling"
            f" AE title {call.request.calling}"
        )
    return f"{title} of {name} answers: {in_words(rejection)}"
