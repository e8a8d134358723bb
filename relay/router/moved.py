"""Objects of a C-MOVE that the holder sends to its own Router, the only destination it knows.

With `move_via = "router"` the Router is the Move Destination of every C-MOVE that the holder gets.
Its associations then do not say which of the outstanding moves they are for; their first C-STORE
does, by its Move Originator (0000,1030) and Message ID (0000,1031), which the Router has chosen so
that they tell (DESIGN §4). So each possible destination is asked for an association, the holder is
accepted what all of them accept, and the first C-STORE chooses; the others are released. As a rule
there is one. It may also be this Router itself, which asks for a C-GET (relay.router.get_by_move),
or, where its federation has asked, a device of this hospital (relay.router.own_destination).

An object is never sent where it may not be meant: what cannot be told is refused (A700), and the
holder reports it as a failed sub-operation.
"""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from typing import Protocol

import attrs
import structlog
import trio

from relay.association import Association, TCPAssociation
from relay.dicom.dimse import CommandSet, Status, Tag
from relay.dicom.negotiation import AsynchronousOperationsWindow, SOPClassExtended, without
from relay.dicom.pdu import (
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    Atom,
    ContextResult,
    PresentationContextResult,
)
from relay.dicom.rejection import LOCAL_LIMIT_EXCEEDED, TEMPORARY_CONGESTION, rejected
from relay.errors import (
    AbortReason,
    AbortSource,
    AssociationRejected,
    RelayError,
    SignallingError,
)
from relay.router import contexts
from relay.router.border import Crossing, restored
from relay.router.departure import Departure
from relay.router.devices import Device
from relay.router.guard import Guard
from relay.router.live import LiveAssociation, log_ending
from relay.router.moves import Receiver
from relay.router.node import Node
from relay.router.outgoing import OutgoingCall, live_entry, prepare, tunnel
from relay.router.own_destination import OwnCall
from relay.router.passthrough import Ending, join
from relay.router.refusals import NOT_ENROLLED
from relay.router.services import Service
from relay.router.side import Tunnel
from relay.scu import release

log = structlog.get_logger()

# For a destination that turned out not to be meant: nothing was sent to it.
RELEASE_DEADLINE = 10.0

# Beyond a destination's own time for its answer, so that one that is away is known to be, and those
# that have answered go on without it.
ANSWER_MARGIN = 2.0


def is_wanted(node: Node, device: Device, request: AAssociateRQ) -> bool:
    """Whether `device` calls its Router to send what a C-MOVE has asked for."""
    wanted = contexts.granted(request, (), {Service.STORE}).contexts
    return bool(wanted) and bool(node.moves.destinations(device.ae_title))


async def serve(node: Node, near: TCPAssociation, device: Device, request: AAssociateRQ) -> None:
    """Serve the association of a holder to the end. Raises AssociationRejected."""
    proposed = contexts.granted(request, (), {Service.STORE})
    if node.network is None:
        raise rejected(TEMPORARY_CONGESTION, NOT_ENROLLED)
    calls = _prepare(node, device, proposed)
    entry = _entry(node, list(calls.values()))
    try:
        with node.live.hold(entry):
            async with AsyncExitStack() as stack:
                tunnels = {
                    title: await _open(node, call, proposed, stack) for title, call in calls.items()
                }
                ending = await _relay(node, near, device, request, proposed, tunnels, entry)
                log_ending(entry, ending)
    except SignallingError as error:  # more sessions than one Router may hold
        log.warning("association rejected", association=entry.number, why=str(error))
        node.refusals.note(request.calling, request.called, str(error))
        await near.send(LOCAL_LIMIT_EXCEEDED)


async def _relay(
    node: Node,
    near: TCPAssociation,
    device: Device,
    request: AAssociateRQ,
    proposed: AAssociateRQ,
    tunnels: Mapping[str, Tunnel],
    entry: LiveAssociation,
) -> Ending:
    with ExitStack() as stack:
        # One for each, since those that are not meant are dropped before the others.
        storing = {title: stack.enter_context(ExitStack()) for title in tunnels}
        for title, held in storing.items():
            held.enter_context(node.moves.storing(device.ae_title, title))
        async with trio.open_nursery() as nursery:

            def drop(title: str) -> None:
                storing[title].close()
                nursery.start_soon(_release, title, tunnels[title])

            def answered(answer: AAssociateAC) -> AAssociateAC:
                node.refusals.forget(request.calling, request.called)
                return contexts.with_rejections(answer, original=request, proposed=proposed)

            switch = Switch(tunnels, drop)
            border = MovedDeparture(node, device, switch)
            ending = await join(
                near,
                switch,
                entry.witness.watch(
                    Guard(proposed, None, border, heard=node.counts.messages(entry))
                ),
                tunnel=switch,
                answer_wait=device.answer_wait + ANSWER_MARGIN,
                answered=answered,
                traffic=entry.traffic,
            )
            # Nothing is stored any more, though one of those not meant may still be released.
            for held in storing.values():
                held.close()
            return ending


_Call = OutgoingCall | OwnCall | Receiver


def _prepare(node: Node, device: Device, request: AAssociateRQ) -> dict[str, _Call]:
    """A call to each destination that can be called; raises for the last if there is none."""
    calls: dict[str, _Call] = {}
    refused: AssociationRejected | None = None
    for title in node.moves.destinations(device.ae_title):
        if (receiver := node.moves.receiver(device.ae_title, title)) is not None:
            calls[title] = receiver
            continue
        if (own := node.names.own(title)) is not None:
            calls[title] = OwnCall(node, device, own)
            continue
        try:
            calls[title] = prepare(node, device, request, title)
        except AssociationRejected as error:
            log.warning("move destination cannot be called", called=title, why=str(error))
            refused = error
    if not calls:
        assert refused is not None, "`is_wanted` has seen a destination"
        raise refused
    return calls


async def _open(node: Node, call: _Call, request: AAssociateRQ, stack: AsyncExitStack) -> Tunnel:
    if isinstance(call, OutgoingCall):
        return await stack.enter_async_context(tunnel(node, call))
    if isinstance(call, OwnCall):
        return await stack.enter_async_context(call.opened(request))
    return stack.enter_context(call.associate(request))


def _entry(node: Node, calls: list[_Call]) -> LiveAssociation:
    entries = [
        live_entry(node, call) if isinstance(call, OutgoingCall) else call.entry() for call in calls
    ]
    first = entries[0]
    first.called = ", ".join(entry.called for entry in entries)
    permissions = [entry.still_permitted for entry in entries]
    first.still_permitted = lambda: all(permitted() for permitted in permissions)
    return first


async def _release(title: str, far: Association) -> None:
    try:
        await release(far, deadline=RELEASE_DEADLINE)
    except RelayError as error:
        log.info("unused association not released", called=title, why=str(error))


class Switch:
    """An association with one of several destinations; which one is chosen in the course of it.

    `tunnels` have been sent the request. `drop` is told each destination that was not chosen.
    """

    def __init__(self, tunnels: Mapping[str, Tunnel], drop: Callable[[str], None]) -> None:
        self._tunnels = tunnels
        self._drop = drop
        self._answers: dict[str, AAssociateAC] | None = None
        self._chosen: str | None = None
        self._known = trio.Event()

    @property
    def cause(self) -> str:
        """How it ended, in words for the log."""
        known = [self._tunnels[self._chosen]] if self._chosen else self._tunnels.values()
        return "; ".join(tunnel.cause for tunnel in known if tunnel.cause)

    def choose(self, destination: str) -> bool:
        """From now on it is the association with `destination`; whether that can be."""
        if self._chosen is None and self._answers is not None and destination in self._answers:
            self._chosen = destination
            self._known.set()
            for title in self._answers:
                if title != destination:
                    self._drop(title)
        return self._chosen == destination

    # --- an association's verbs -------------------------------------------------------------------

    async def receive(self) -> Atom:
        """See `Association.receive`; the first is what all destinations answer, as one."""
        if self._answers is None:
            return await self._first_answer()
        await self._known.wait()
        return await self._tunnel.receive()

    async def send(
        self, atom: Atom, *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        """See `Association.send`. Before anything was stored, any destination will do."""
        if self._chosen is None and self._answers:
            self.choose(next(iter(self._answers)))
        await self._tunnel.send(atom, compressible=compressible, end_of_message=end_of_message)

    async def abort(
        self, source: int = AbortSource.SERVICE_USER, reason: int = AbortReason.NOT_SPECIFIED
    ) -> None:
        """See `Association.abort`; all of them that are not over."""
        chosen = [self._tunnel] if self._chosen else list(self._tunnels.values())
        async with trio.open_nursery() as nursery:
            for far in chosen:
                nursery.start_soon(far.abort, source, reason)

    async def aclose(self) -> None:
        """Nothing: whoever opened the tunnels closes them."""

    @property
    def _tunnel(self) -> Tunnel:
        title = self._chosen or next(iter(self._answers or self._tunnels))
        return self._tunnels[title]

    async def _first_answer(self) -> Atom:
        atoms: dict[str, Atom] = {}

        async def take(title: str, far: Tunnel) -> None:
            atoms[title] = await far.receive()

        async with trio.open_nursery() as nursery:
            for title, far in self._tunnels.items():
                nursery.start_soon(take, title, far)
        answers = {
            title: atom for title in self._tunnels if isinstance(atom := atoms[title], AAssociateAC)
        }
        self._answers = answers
        if not answers:
            # A refusal of any one destination rather than a lost tunnel: it says more.
            said = [atoms[title] for title in self._tunnels]
            return min(said, key=lambda atom: not isinstance(atom, AAssociateRJ))
        if len(answers) == 1:
            self.choose(next(iter(answers)))
        return _common(list(answers.values()))


def _common(answers: list[AAssociateAC]) -> AAssociateAC:
    """The contexts that all accept in the same transfer syntax, as one answer."""
    first, *others = answers
    if not others:
        return first
    accepted = [
        {(r.id, r.transfer_syntax) for r in answer.contexts if r.accepted} for answer in others
    ]
    results = [
        result
        if not result.accepted or all((result.id, result.transfer_syntax) in a for a in accepted)
        else PresentationContextResult(
            result.id, ContextResult.USER_REJECTION, result.transfer_syntax
        )
        for result in first.contexts
    ]
    # How many operations may be outstanding, and what a class can do beside its own, was agreed
    # with one of them only.
    items = without(first.user_items, AsynchronousOperationsWindow, SOPClassExtended)
    return attrs.evolve(first, contexts=tuple(results), user_items=items)


class Choice(Protocol):
    """What is told which destination an object is for (`Switch`)."""

    def choose(self, destination: str) -> bool:
        """Whether it can be that one."""


@attrs.frozen(slots=True)
class Only:
    """There is one."""

    destination: str

    def choose(self, destination: str) -> bool:
        """See `Choice.choose`."""
        return destination == self.destination


class MovedDeparture(Departure):
    """The border of such an association: each C-STORE says which destination is meant.

    `peer` and `called` are given where there is but one.
    """

    def __init__(
        self, node: Node, device: Device, switch: Choice, peer: bytes = b"", called: str = ""
    ) -> None:
        super().__init__(node.knowledge(), device, peer, called)
        self._holder = device.ae_title
        self._switch = switch

    def stores(self, request: CommandSet, *, implied: bool) -> Crossing:
        """A C-STORE-RQ: to the destination of the move that it names."""
        originator = request.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE) or ""
        message_id = request.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID)
        elsewhere = not self._is_of_here(originator)
        move = self._moves.find(self._holder, originator, message_id)
        if move is not None and not elsewhere and move.seen_requestor != originator:
            move = None  # else this Router has asked in that one's name
        destination: str | None = None
        if move is not None:
            destination = move.destination if move.via_router else None
        elif elsewhere and not self._moves.is_over(message_id):
            destination = self._moves.only(self._holder)
        if destination is None or not self._switch.choose(destination):
            log.warning(
                "moved object refused",
                holder=self._holder,
                why="its Move Originator tells no destination of a move that is outstanding"
                if destination is None
                else f"its destination {destination} is not the one of this association",
            )
            return Crossing(Status.OUT_OF_RESOURCES)
        if move is None or move.receiver is not None:
            return Crossing(command=request)
        return Crossing(command=request.evolve(restored(move)))

    def _is_of_here(self, originator: str) -> bool:
        """Whether it is the move of another device of this hospital, and so none of the network's.

        No requestor elsewhere is shown to the holder by such a name (`Names.shown_to`); itself it
        may name.
        """
        return originator != self._holder and self._names.devices.get(originator) is not None
