"""The border of a call that arrives: a peer's device speaks to one of ours, in its names."""

from collections.abc import Callable
from functools import partial

import structlog
import trio

from relay.dicom.dimse import CommandSet, Status, Tag
from relay.dicom.elements import Encoding
from relay.router import suboperations
from relay.router.border import (
    PASSES,
    Crossing,
    Knowledge,
    Send,
    SharedBorder,
    changed,
    comment_on_refusal,
    note_refused_move,
    renamed,
    unknown_to,
)
from relay.router.commitments import Commitment
from relay.router.devices import Device, MoveVia
from relay.router.moves import HeldMove
from relay.router.names import why_ambiguous
from relay.router.refusals import CALLER_MAY_NOT_STORE, NO_SUCH_TITLE, STORE_NOT_GRANTED
from relay.router.services import Service

log = structlog.get_logger()

# How long the final C-MOVE-RSP waits for what this Router's queue has taken: a study over a short
# line, a device that is started anew. A person waits for it, and hears what has come by then.
DELIVERY_WAIT = 300.0

# From one C-MOVE-RSP to the next meanwhile: below what a workstation waits for one, as
# relay.router.moves.SETTLE_WAIT is.
PENDING_PAUSE = 10.0

_GRANT = "`relay grant add HOSPITAL {} --services store` lets its hospital"


class Arrival(SharedBorder):
    """The device `calling` (published) of `peer` calls `device`, which is ours.

    `seen` is the calling AE title that the device is shown; `may_store` says of a device of ours
    whether the peer may store there by a grant.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        device: Device,
        peer: bytes,
        calling: str,
        *,
        seen: str,
        may_store: Callable[[Device], bool],
    ) -> None:
        super().__init__(knowledge)
        self._device = device
        self._peer = peer
        self._calling = calling
        self._seen = seen
        self._may_store = may_store
        self._via_router = device.move_via is MoveVia.ROUTER
        # By the Message IDs that the device sees: what the caller is to be answered.
        self._held: dict[int, HeldMove] = {}

    # --- outward ----------------------------------------------------------------------------------

    def move_asked(self, request: CommandSet) -> Crossing:
        """A C-MOVE-RQ: its destination as the device knows it. PS3.4 §C.4.2."""
        title = request.move_destination or ""
        refusal = self._destination_refusal(title)
        local = self._names.local(title)
        own = self._names.own(title)
        via_router = self._via_router and own is None
        if refusal is None and local is None and not via_router:
            refusal = why_ambiguous(title)
        if refusal is not None:
            comment = comment_on_refusal(self._names, title)
            return self._refused(self._calling, self._device.ae_title, title, refusal, comment)
        # Under one name for many requestors, or to the Router, only the Message ID can tell; and no
        # two that are outstanding here have the same.
        unique = via_router or bool(self._device.present_as) or request.message_id in self._held
        seen_id = self._moves.message_id(self._device.ae_title) if unique else request.message_id
        move = HeldMove(
            holder=self._device.ae_title,
            requestor=self._calling,
            message_id=request.message_id,
            destination=title,
            seen_requestor=self._seen,
            seen_message_id=seen_id,
            via_router=via_router,
        )
        if not self._moves.hold(move):
            log.warning("move refused", holder=move.holder, why="too many destinations at once")
            return Crossing(Status.UNABLE_TO_PERFORM_SUBOPERATIONS)
        self._asked.append((request.message_id, move))
        self._held[seen_id] = move
        seen = self._seen_destination(move)
        return changed(request, {Tag.MOVE_DESTINATION: seen, Tag.MESSAGE_ID: seen_id})

    def _seen_destination(self, move: HeldMove) -> str:
        """The title that the device is given."""
        if move.via_router:
            return self._names.router
        return self._names.local(move.destination) or move.destination

    def _destination_refusal(self, title: str) -> str | None:
        own = self._names.own(title)
        if own is not None:
            # The device stores there by itself: only where the caller could as well.
            may = self._may_store(own)
            return None if may else f"{CALLER_MAY_NOT_STORE}: {_GRANT.format(title)}"
        directory = self._knowledge.directory
        # Nothing is let go by the Bridge's listing; to say why not it will do.
        if directory.signed_owner(title) == self._peer:
            return None
        if directory.owner(title) in (None, self._knowledge.own):
            return f"{NO_SUCH_TITLE}; `relay peer list` shows what there is"
        if Service.STORE in directory.granted(title):
            return None
        if directory.owner(title) == self._peer:
            return "the Bridge lists it as the caller's, who has not signed that"
        return (
            f"the hospital that publishes it {STORE_NOT_GRANTED}: ask with"
            f" `relay grant ask {title} --services store`"
        )

    def move_cancelled(self, cancel: CommandSet) -> CommandSet:
        """A C-CANCEL-RQ: of the move as the device knows it. PS3.7 §9.3.4.3."""
        move = self._asked_with(cancel.message_id_responded_to)
        if not isinstance(move, HeldMove):
            return cancel
        move.kept.cancel()
        return cancel.evolve({Tag.MESSAGE_ID_BEING_RESPONDED_TO: move.seen_message_id})

    def stores(self, request: CommandSet, *, implied: bool) -> Crossing:
        """A C-STORE-RQ at our device: granted, or of a C-MOVE that is still outstanding."""
        if implied and not self._moves.expects(self._peer, self._device.ae_title):
            return Crossing(Status.NOT_AUTHORIZED)
        originator = request.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE)
        if originator is None:
            return PASSES
        return renamed(request, originator, self._names.local(originator))

    def commitment_asked(self, transaction: str | None) -> Crossing:
        """An N-ACTION of storage commitment: remember whose it is where the name does not tell."""
        if not self._device.present_as:
            return PASSES
        if transaction is None:
            return Crossing(Status.PROCESSING_FAILURE)
        commitment = Commitment(
            transaction, False, self._device.ae_title, self._peer, self._calling
        )
        known = self._knowledge.commitments.origin(self._device.ae_title, transaction)
        if known not in (None, commitment):
            log.warning("commitment refused", why="its Transaction UID is another requestor's")
            return Crossing(Status.PROCESSING_FAILURE)
        return self._await_report(commitment)

    def report_sent(self, transaction: str | None) -> Crossing:
        """An N-EVENT-REPORT of the peer's device to ours: only what ours asked for."""
        if transaction is None:
            return Crossing(Status.NOT_AUTHORIZED)
        return self._take_report(
            Commitment(transaction, True, self._device.ae_title, self._peer, self._calling),
        )

    # --- inward -----------------------------------------------------------------------------------

    def move_answered(self, response: CommandSet, *, final: bool) -> Crossing:
        """A C-MOVE-RSP: to the Message ID that was asked with; the final one in its time."""
        move = self._held.get(response.message_id_responded_to)
        if move is None and len(self._held) == 1:
            # Some devices answer with a Message ID of their own: of one there is no doubt.
            (move,) = self._held.values()
        if move is None:
            return PASSES
        answer = response.evolve({Tag.MESSAGE_ID_BEING_RESPONDED_TO: move.message_id})
        if not final:
            return Crossing(command=answer)
        del self._held[move.seen_message_id]
        self._note_destination(move, response.status)
        finish = partial(self._finish, move)
        if not move.kept.taken:
            return Crossing(command=answer, before=finish)
        return Crossing(command=answer, before=finish, later=partial(self._answer, move, answer))

    def _note_destination(self, move: HeldMove, status: int) -> None:
        """Whether the device knew the destination, for people."""
        refusals, seen = self._knowledge.refusals, self._seen_destination(move)
        people = self._calling, self._device.ae_title
        if status == Status.MOVE_DESTINATION_UNKNOWN:
            by_router = move.via_router or self._names.own(move.destination) is None
            why = unknown_to(self._device.ae_title, by_router=by_router)
            note_refused_move(refusals, *people, seen, why)
            return
        for title in {seen, move.destination}:
            refusals.forget_move(*people, title)

    async def _finish(self, move: HeldMove) -> None:
        await self._moves.settle(move)
        self._over(move)

    async def _answer(
        self,
        move: HeldMove,
        answer: CommandSet,
        data_set: bytes,
        encoding: Encoding | None,
        send: Send,
    ) -> None:
        """Answer once what the queue has of the move is delivered, and say how far it is until
        then. PS3.4 §C.4.2.3.1."""
        await self._moves.settle(move)
        move.stored = True  # another one of its holder need not wait
        kept = move.kept
        if answer.status == Status.CANCEL:
            kept.cancel()
        until = trio.current_time() + DELIVERY_WAIT
        while kept.waiting and not kept.cancelled and trio.current_time() < until:
            with trio.move_on_at(min(trio.current_time() + PENDING_PAUSE, until)):
                await kept.settle()
            if kept.waiting and not kept.cancelled and trio.current_time() < until:
                await send(suboperations.pending(answer, kept), b"")
        command, data_set = suboperations.final(answer, data_set, kept, encoding)
        log.info(
            "move answered",
            holder=move.holder,
            destination=move.destination,
            status=f"{command.status:04X}",
            delivered=kept.delivered + kept.warned,
            failed=kept.failed,
            waiting=len(kept.waiting),  # counted as failed, or left, and delivered all the same
        )
        self._over(move)
        await send(command, data_set)

    def retrieve_title(self) -> Callable[[str], str] | None:
        """What a Retrieve AE Title becomes; None: what it is."""
        names = self._names
        return (lambda title: names.published(title) or title) if names.differ else None

    def report_received(self, transaction: str | None) -> Crossing:
        """An N-EVENT-REPORT of our device: the requestor's Router knows whether it is awaited."""
        return PASSES
