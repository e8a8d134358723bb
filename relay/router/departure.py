"""The border of a call that leaves: a device of ours speaks, or asks, in the network's names."""

from collections.abc import Callable

import structlog

from relay.dicom.dimse import CommandSet, Status, Tag
from relay.router.border import (
    PASSES,
    Crossing,
    Knowledge,
    SharedBorder,
    changed,
    comment_on_own_refusal,
    no_destination,
    note_refused_move,
    renamed,
    restored,
)
from relay.router.commitments import Commitment
from relay.router.devices import Device

log = structlog.get_logger()

# Only its hospital knows which it is.
_ASK_THEM = "it is not known there, or nothing may be stored there; their `relay doctor` says which"


class Departure(SharedBorder):
    """A device of ours calls `called`, a published title of `peer`.

    `device` None is the Router's own command line.
    """

    def __init__(
        self, knowledge: Knowledge, device: Device | None, peer: bytes, called: str
    ) -> None:
        super().__init__(knowledge)
        self._device = device
        self._peer = peer
        self._called = called
        self._destinations: dict[int, str] = {}  # those asked for here, by the request's Message ID

    # --- outward ----------------------------------------------------------------------------------

    def move_asked(self, request: CommandSet) -> Crossing:
        """A C-MOVE-RQ: its destination as the network knows it. PS3.4 §C.4.2."""
        local = request.move_destination or ""
        title = self._names.published(local)
        if title is None or not self._knowledge.may_be_destination(title):
            why = no_destination(self._names, local)
            comment = comment_on_own_refusal(self._names, local)
            return self._refused(*self._people, local, why, comment)
        own = self._names.own(title)
        if own is not None:
            move = self._moves.ask(self._peer, own.ae_title)
            self._asked.append((request.message_id, move))
        self._destinations[request.message_id] = local
        return changed(request, {Tag.MOVE_DESTINATION: title})

    @property
    def _people(self) -> tuple[str, str]:
        """Who calls whom, by the names that people here know."""
        calling = self._names.router if self._device is None else self._device.ae_title
        return calling, self._names.local(self._called) or self._called

    def move_cancelled(self, cancel: CommandSet) -> CommandSet:
        """A C-CANCEL-RQ: of what it says."""
        return cancel

    def stores(self, request: CommandSet, *, implied: bool) -> Crossing:
        """A C-STORE-RQ: whose C-MOVE it answers, as the network knows that."""
        originator = request.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE)
        if originator is None or self._device is None:
            return PASSES
        message_id = request.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID)
        move = self._moves.find(self._device.ae_title, originator, message_id)
        if move is not None:
            return changed(request, restored(move))
        return renamed(request, originator, self._names.published(originator))

    def commitment_asked(self, transaction: str | None) -> Crossing:
        """An N-ACTION of storage commitment: its report will be let in."""
        if transaction is None or self._device is None:
            return Crossing(Status.PROCESSING_FAILURE)
        return self._await_report(self._commitment(transaction))

    def report_sent(self, transaction: str | None) -> Crossing:
        """An N-EVENT-REPORT of our device: the owner's Router knows whether it is awaited."""
        return PASSES

    # --- inward -----------------------------------------------------------------------------------

    def move_answered(self, response: CommandSet, *, final: bool) -> Crossing:
        """A C-MOVE-RSP; with the `final` one the move is over."""
        if not final:
            return PASSES
        message_id = response.message_id_responded_to
        if (destination := self._destinations.pop(message_id, None)) is not None:
            refusals = self._knowledge.refusals
            if response.status == Status.MOVE_DESTINATION_UNKNOWN:
                why = f"so {self._people[1]} answers, or its Router: {_ASK_THEM}"
                note_refused_move(refusals, *self._people, destination, why)
            else:
                refusals.forget_move(*self._people, destination)

        async def finish() -> None:
            if (move := self._asked_with(message_id)) is not None:
                self._over(move)

        return Crossing(before=finish)

    def retrieve_title(self) -> Callable[[str], str] | None:
        """What a Retrieve AE Title becomes; None: what it is."""
        names = self._names
        return (lambda title: names.local(title) or title) if names.differ else None

    def report_received(self, transaction: str | None) -> Crossing:
        """An N-EVENT-REPORT of the far device: only what our device asked it for."""
        if transaction is None or self._device is None:
            return Crossing(Status.NOT_AUTHORIZED)
        return self._take_report(self._commitment(transaction))

    def _commitment(self, transaction: str) -> Commitment:
        assert self._device is not None, "both callers have looked"
        return Commitment(transaction, True, self._device.ae_title, self._peer, self._called)
