"""What changes in a command that crosses from one hospital's names to the network's, and back.

The guard decides which services pass; the border says under which names, and which of them answer
something that was asked for: sub-operations of a C-MOVE, reports of a storage commitment. Of a
command only the values that DESIGN §4 lists are read, and changed where the names differ: Move
Destination (0000,0600), Move Originator (0000,1030) with its Message ID (0000,1031), and of data
sets Retrieve AE Title (0008,0054) and Transaction UID (0008,1195).

There are two borders to an association, one at each Router: `Departure` where a device of ours
calls out, `Arrival` where a peer's device calls one of ours.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import attrs
import structlog

from relay.dicom.dimse import CommandSet, Status, Tag
from relay.router.commitments import Commitment, CommitmentTable
from relay.router.devices import Device, MoveVia
from relay.router.moves import AskedMove, HeldMove, MoveRegister
from relay.router.names import Names, why_ambiguous
from relay.router.refusals import REFUSED_DESTINATION
from relay.router.services import Service

log = structlog.get_logger()


@attrs.frozen(slots=True)
class Crossing:
    """What becomes of a message: it is refused with `status`, or goes on as `command`.

    `before` is to be awaited first: for what must be on the disk, or over, by then.
    """

    status: int | None = None
    command: CommandSet | None = None
    before: Callable[[], Awaitable[None]] | None = None


_PASSES = Crossing()

_GRANT = "`relay grant add HOSPITAL {} --services store` lets its hospital"


class Directory(Protocol):
    """What is needed of relay.router.directory."""

    def owner(self, title: str) -> bytes | None: ...

    def granted(self, title: str) -> frozenset[str]: ...


@attrs.frozen(slots=True, kw_only=True)
class Knowledge:
    """What both borders rest on. `clock` gives Unix seconds; `own` is this Router's identity.

    `refused` is told of a Move Destination that is refused: who called whom, and why, for people.
    """

    names: Names
    moves: MoveRegister
    commitments: CommitmentTable
    directory: Directory
    own: bytes
    clock: Callable[[], int]
    refused: Callable[[str, str, str], None]

    def may_be_destination(self, title: str) -> bool:
        """Whether the published `title` can be stored to: its owner publishes it for that."""
        own = self.names.own(title)
        if own is not None:
            return Service.STORE in own.services
        return self.directory.owner(title) not in (None, self.own)


class Border(Protocol):
    """What the guard asks. Outward is from the association's requestor to its acceptor."""

    def move_asked(self, request: CommandSet) -> Crossing: ...

    def move_cancelled(self, cancel: CommandSet) -> CommandSet: ...

    # `implied`: no grant allows it, only a C-MOVE that is outstanding.
    def stores(self, request: CommandSet, *, implied: bool) -> Crossing: ...

    def commitment_asked(self, transaction: str | None) -> Crossing: ...

    def report_sent(self, transaction: str | None) -> Crossing: ...

    # Inward.

    def move_answered(self, response: CommandSet, *, final: bool) -> Crossing: ...

    def retrieve_title(self) -> Callable[[str], str] | None: ...

    def report_received(self, transaction: str | None) -> Crossing: ...


class _Border:
    """What both have in common: the moves of this association."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        self._names = knowledge.names
        self._moves = knowledge.moves
        # With their Message IDs, the oldest first: some devices use one for all they ask.
        self._asked: list[tuple[int, AskedMove | HeldMove]] = []

    def close(self) -> None:
        """The association is over, and nobody waits for its moves any more."""
        for _, move in self._asked:
            self._moves.abandon(move)
        self._asked.clear()

    def _asked_with(self, message_id: int) -> AskedMove | HeldMove | None:
        return next((move for asked, move in self._asked if asked == message_id), None)

    def _refused(self, calling: str, called: str, destination: str, why: str) -> Crossing:
        log.warning(
            "move destination refused",
            calling=calling,
            called=called,
            destination=destination,
            why=why,
        )
        status = Status.MOVE_DESTINATION_UNKNOWN
        self._knowledge.refused(
            calling, called, f"{REFUSED_DESTINATION} {destination[:64]} ({status:04X}H): {why}"
        )
        return Crossing(status)

    def _over(self, over: AskedMove | HeldMove) -> None:
        self._moves.end(over)
        self._asked = [(asked, move) for asked, move in self._asked if move is not over]


class Departure(_Border):
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

    # --- outward ----------------------------------------------------------------------------------

    def move_asked(self, request: CommandSet) -> Crossing:
        """A C-MOVE-RQ: its destination as the network knows it. PS3.4 §C.4.2."""
        local = request.move_destination or ""
        title = self._names.published(local)
        if title is None or not self._knowledge.may_be_destination(title):
            calling = self._names.router if self._device is None else self._device.ae_title
            called = self._names.local(self._called) or self._called
            return self._refused(calling, called, local, self._no_destination(local))
        own = self._names.own(title)
        if own is not None:
            move = self._moves.ask(self._peer, own.ae_title)
            self._asked.append((request.message_id, move))
        return _changed(request, {Tag.MOVE_DESTINATION: title})

    def _no_destination(self, local: str) -> str:
        if self._names.devices.get(local) is not None:
            return (
                "it is a device of this hospital that is not published with store:"
                f" `relay device add {local} … --publish store`, beside what it has now"
            )
        return (
            "it is neither a device of this hospital nor one that another hospital publishes:"
            " `relay device list` and `relay peer list` show those; `relay alias add LOCAL"
            " PUBLISHED` gives another hospital's this title here"
        )

    def move_cancelled(self, cancel: CommandSet) -> CommandSet:
        """A C-CANCEL-RQ: of what it says."""
        return cancel

    def stores(self, request: CommandSet, *, implied: bool) -> Crossing:
        """A C-STORE-RQ: whose C-MOVE it answers, as the network knows that."""
        originator = request.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE)
        if originator is None or self._device is None:
            return _PASSES
        message_id = request.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID)
        move = self._moves.find(self._device.ae_title, originator, message_id)
        if move is not None:
            return _changed(request, restored(move))
        return _renamed(request, originator, self._names.published(originator))

    def commitment_asked(self, transaction: str | None) -> Crossing:
        """An N-ACTION of storage commitment: its report will be let in."""
        if transaction is None or self._device is None:
            return Crossing(Status.PROCESSING_FAILURE)
        return _kept(self._knowledge, self._commitment(transaction))

    def report_sent(self, transaction: str | None) -> Crossing:
        """An N-EVENT-REPORT of our device: the owner's Router knows whether it is awaited."""
        return _PASSES

    # --- inward -----------------------------------------------------------------------------------

    def move_answered(self, response: CommandSet, *, final: bool) -> Crossing:
        """A C-MOVE-RSP; with the `final` one the move is over."""
        if not final:
            return _PASSES
        message_id = response.message_id_responded_to

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
        return _reported(self._knowledge, self._commitment(transaction))

    def _commitment(self, transaction: str) -> Commitment:
        assert self._device is not None, "both callers have looked"
        return Commitment(transaction, True, self._device.ae_title, self._peer, self._called)


class Arrival(_Border):
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
            return self._refused(self._calling, self._device.ae_title, title, refusal)
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
        destination = self._names.router if via_router else local
        assert destination is not None, "refused above"
        return _changed(request, {Tag.MOVE_DESTINATION: destination, Tag.MESSAGE_ID: seen_id})

    def _destination_refusal(self, title: str) -> str | None:
        own = self._names.own(title)
        if own is not None:
            # The device stores there by itself: only where the caller could as well.
            may = self._may_store(own)
            return None if may else f"the caller may not store there: {_GRANT.format(title)}"
        owner = self._knowledge.directory.owner(title)
        if owner in (None, self._knowledge.own):
            return "no such AE title is published; `relay peer list` shows what there is"
        if owner == self._peer:
            return None
        if Service.STORE in self._knowledge.directory.granted(title):
            return None
        return (
            "the hospital that publishes it has not granted this one `store` there: ask with"
            f" `relay grant ask {title} --services store`"
        )

    def move_cancelled(self, cancel: CommandSet) -> CommandSet:
        """A C-CANCEL-RQ: of the move as the device knows it. PS3.7 §9.3.4.3."""
        move = self._asked_with(cancel.message_id_responded_to)
        if not isinstance(move, HeldMove):
            return cancel
        return cancel.evolve({Tag.MESSAGE_ID_BEING_RESPONDED_TO: move.seen_message_id})

    def stores(self, request: CommandSet, *, implied: bool) -> Crossing:
        """A C-STORE-RQ at our device: granted, or of a C-MOVE that is still outstanding."""
        if implied and not self._moves.expects(self._peer, self._device.ae_title):
            return Crossing(Status.NOT_AUTHORIZED)
        originator = request.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE)
        if originator is None:
            return _PASSES
        return _renamed(request, originator, self._names.local(originator))

    def commitment_asked(self, transaction: str | None) -> Crossing:
        """An N-ACTION of storage commitment: remember whose it is where the name does not tell."""
        if not self._device.present_as:
            return _PASSES
        if transaction is None:
            return Crossing(Status.PROCESSING_FAILURE)
        commitment = Commitment(
            transaction, False, self._device.ae_title, self._peer, self._calling
        )
        known = self._knowledge.commitments.origin(self._device.ae_title, transaction)
        if known not in (None, commitment):
            log.warning("commitment refused", why="its Transaction UID is another requestor's")
            return Crossing(Status.PROCESSING_FAILURE)
        return _kept(self._knowledge, commitment)

    def report_sent(self, transaction: str | None) -> Crossing:
        """An N-EVENT-REPORT of the peer's device to ours: only what ours asked for."""
        if transaction is None:
            return Crossing(Status.NOT_AUTHORIZED)
        return _reported(
            self._knowledge,
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
            return _PASSES
        answer = response.evolve({Tag.MESSAGE_ID_BEING_RESPONDED_TO: move.message_id})
        if not final:
            return Crossing(command=answer)
        del self._held[move.seen_message_id]
        return Crossing(command=answer, before=partial(self._finish, move))

    async def _finish(self, move: HeldMove) -> None:
        await self._moves.settle(move)
        self._over(move)

    def retrieve_title(self) -> Callable[[str], str] | None:
        """What a Retrieve AE Title becomes; None: what it is."""
        names = self._names
        return (lambda title: names.published(title) or title) if names.differ else None

    def report_received(self, transaction: str | None) -> Crossing:
        """An N-EVENT-REPORT of our device: the requestor's Router knows whether it is awaited."""
        return _PASSES


def restored(move: HeldMove) -> dict[int, int | str]:
    """What the Move Originator's two elements become, those of the requestor of `move`."""
    return {
        Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: move.requestor,
        Tag.MOVE_ORIGINATOR_MESSAGE_ID: move.message_id,
    }


def _changed(command: CommandSet, values: dict[int, int | str]) -> Crossing:
    return Crossing(command=command.evolve(values))


def _renamed(request: CommandSet, originator: str, name: str | None) -> Crossing:
    """The Move Originator by its `name` on the other side; what means nothing there stays."""
    if name is None or name == originator:
        return _PASSES
    return _changed(request, {Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: name})


def _kept(knowledge: Knowledge, commitment: Commitment) -> Crossing:
    if not knowledge.commitments.has_room(commitment, knowledge.clock()):
        log.error("commitment refused", why="too many reports are awaited")
        return Crossing(Status.RESOURCE_LIMITATION)
    return Crossing(before=partial(knowledge.commitments.keep, commitment, knowledge.clock()))


def _reported(knowledge: Knowledge, commitment: Commitment) -> Crossing:
    if not knowledge.commitments.known(commitment):
        log.warning("report refused", device=commitment.device, why="nobody asked for it")
        return Crossing(Status.NOT_AUTHORIZED)
    return Crossing(before=partial(knowledge.commitments.reported, commitment, knowledge.clock()))
