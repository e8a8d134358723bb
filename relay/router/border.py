"""What changes in a command that crosses from one hospital's names to the network's, and back.

The guard decides which services pass; the border says under which names, and which of them answer
something that was asked for: sub-operations of a C-MOVE, reports of a storage commitment. Of a
command only the values that DESIGN §4 lists are read, and changed where the names differ: Move
Destination (0000,0600), Move Originator (0000,1030) with its Message ID (0000,1031), and of data
sets Retrieve AE Title (0008,0054) and Transaction UID (0008,1195).

There are two borders to an association, one at each Router: that of a Departure, where a device of
ours calls out, and that of an Arrival, where a peer's device calls one of ours.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import attrs
import structlog

from relay.dicom.atoms import AE_TITLE_LENGTH
from relay.dicom.dimse import CommandSet, Status, Tag
from relay.dicom.elements import Encoding
from relay.router.commitments import Commitment, CommitmentTable
from relay.router.moves import AskedMove, HeldMove, MoveRegister
from relay.router.names import Names
from relay.router.refusals import NOT_PUBLISHED_WITH_STORE, NOWHERE, Refusals
from relay.router.services import Service

log = structlog.get_logger()


# Sends a message on: its command and its data set, empty if it has none.
Send = Callable[[CommandSet, bytes], Awaitable[None]]

# What becomes of a response in its time: it is told the data set, and how that is encoded.
Later = Callable[[bytes, Encoding | None, Send], Awaitable[None]]


@attrs.frozen(slots=True)
class Crossing:
    """What becomes of a message: it is refused with `status`, or goes on as `command`.

    `comment` is the Error Comment (0000,0902) of a refusal; empty: it has none. `before` is to be
    awaited first: for what must be on the disk, or over, by then. `later` sends what goes on in its
    place; a message whose data set is too long for that goes on as it is.
    """

    status: int | None = None
    comment: str = ""
    command: CommandSet | None = None
    before: Callable[[], Awaitable[None]] | None = None
    later: Later | None = None


PASSES = Crossing()


class Directory(Protocol):
    """What is needed of relay.router.directory."""

    def owner(self, title: str) -> bytes | None: ...

    def signed_owner(self, title: str) -> bytes | None: ...

    def granted(self, title: str) -> frozenset[str]: ...


@attrs.frozen(slots=True, kw_only=True)
class Knowledge:
    """What both borders rest on. `clock` gives Unix seconds; `own` is this Router's identity.

    `refusals` has the Move Destinations that are refused, for people.
    """

    names: Names
    moves: MoveRegister
    commitments: CommitmentTable
    directory: Directory
    own: bytes
    clock: Callable[[], int]
    refusals: Refusals

    def may_be_destination(self, title: str) -> bool:
        """Whether a peer may be asked to move to the published `title`.

        A third hospital's need not concern this Router, so that the Bridge's listing of it will
        do. The Router of the peer that is asked decides whether anything goes there, by what the
        owner has signed for it.
        """
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


class SharedBorder:
    """What both have in common: the moves of this association, and awaited reports."""

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

    def _refused(
        self, calling: str, called: str, destination: str, why: str, comment: str
    ) -> Crossing:
        note_refused_move(self._knowledge.refusals, calling, called, destination, why)
        return Crossing(Status.MOVE_DESTINATION_UNKNOWN, comment)

    def _over(self, over: AskedMove | HeldMove) -> None:
        self._moves.end(over)
        self._asked = [(asked, move) for asked, move in self._asked if move is not over]

    def _await_report(self, commitment: Commitment) -> Crossing:
        table, now = self._knowledge.commitments, self._knowledge.clock()
        if not table.has_room(commitment, now):
            log.error("commitment refused", why="too many reports are awaited")
            return Crossing(Status.RESOURCE_LIMITATION)
        return Crossing(before=partial(table.keep, commitment, now))

    def _take_report(self, commitment: Commitment) -> Crossing:
        table = self._knowledge.commitments
        if not table.known(commitment):
            log.warning("report refused", device=commitment.device, why="nobody asked for it")
            return Crossing(Status.NOT_AUTHORIZED)
        return Crossing(before=partial(table.reported, commitment, self._knowledge.clock()))


def note_refused_move(
    refusals: Refusals, calling: str, called: str, destination: str, why: str
) -> None:
    """A C-MOVE that `calling` asked of `called` is refused for its `destination` (A801H)."""
    log.warning(
        "move destination refused",
        calling=calling,
        called=called,
        destination=destination,
        why=why,
    )
    refusals.note_move(calling, called, destination, why)


def no_destination(names: Names, local: str) -> str:
    """Why another hospital's device cannot move to `local`, a title of this one, and what to do."""
    if names.devices.get(local) is not None:
        return (
            f"it is a device of this hospital {NOT_PUBLISHED_WITH_STORE}:"
            f" `relay device add {local} … --publish store`, beside what it has now"
        )
    return (
        f"it is {NOWHERE}: `relay device list` and `relay peer list` show those; `relay alias add"
        " LOCAL PUBLISHED` gives another hospital's this title here"
    )


def comment_on_own_refusal(names: Names, local: str) -> str:
    """Why, in the A801H that the caller's own Router answers: both titles and all else within the
    64 characters of an Error Comment (PS3.7 §E.1)."""
    if names.devices.get(local) is not None:
        return f"{names.router}: refuses {local}; publish with store"
    return f"{names.router}: {named(local)} is unknown; see relay doctor"


def comment_on_refusal(names: Names, destination: str) -> str:
    """... and of one that the Router of the device answers: it says no more than the status has."""
    return f"{names.router}: {named(destination)} is not known or not granted"


def named(destination: str) -> str:
    """A Move Destination as an LO can have it (PS3.5 §6.2), no longer than an AE title."""
    plain = (c if " " <= c <= "~" and c != "\\" else "?" for c in destination[:AE_TITLE_LENGTH])
    return "".join(plain).strip() or "''"


def unknown_to(device: str, *, by_router: bool) -> str:
    """Why `device`, of this hospital, has refused the destination that it was given (A801H).

    `by_router`: what it stores there comes to this Router first.
    """
    where = "this Router's" if by_router else "its"
    return f"{device} does not know it: enter it there, with {where} host and port"


def restored(move: HeldMove) -> dict[int, int | str]:
    """What the Move Originator's two elements become, those of the requestor of `move`."""
    return {
        Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: move.requestor,
        Tag.MOVE_ORIGINATOR_MESSAGE_ID: move.message_id,
    }


def changed(command: CommandSet, values: dict[int, int | str]) -> Crossing:
    return Crossing(command=command.evolve(values))


def renamed(request: CommandSet, originator: str, name: str | None) -> Crossing:
    """The Move Originator by its `name` on the other side; what means nothing there stays."""
    if name is None or name == originator:
        return PASSES
    return changed(request, {Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: name})
