"""The C-MOVEs that are outstanding: what the associations that store for them may do and say.

The device that holds the objects answers a C-MOVE by calling the Move Destination, in associations
of their own. Two Routers must know of it meanwhile:

    the requestor's   it lets those associations in, though nothing was granted: its own device has
                      asked for them (DESIGN §3)
    the holder's      it knows under which name and Message ID the holder sees each C-MOVE, so that
                      the destination sees the original ones (PS3.7 §9.1.1), and lets the final
                      C-MOVE-RSP go once the destination's associations are released, and what this
                      Router's queue has taken for it is delivered

Moves live in memory and end with their final response or with their association. What the holder
stores by way of its Router is told apart by them alone: it may go on storing for a requestor that
has gone, so that such a move is kept for a while, and its Message ID is not soon used again.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import inf
from typing import Protocol

import attrs
import trio

from relay.dicom.pdu import AAssociateRQ, PresentationContext
from relay.router.live import LiveAssociation
from relay.router.side import Tunnel

# Different destinations to which one holder may move at once by way of its Router: for each one an
# association with the destination is opened before it is known which of them is meant.
MAXIMUM_DESTINATIONS = 4

# Some holders keep the association to a destination for the next move: the response does not wait
# for it any longer than this. It is below what a workstation waits for a response.
SETTLE_WAIT = 10.0

# How long a holder may go on storing by way of its Router for a requestor that has gone, from its
# last association for that move on: it was sent an A-ABORT, and is at most within one object.
ABANDONED_WAIT = 60.0

# Moves of one holder at once: as many as one association may have requests unanswered
# (relay.router.direction), and far fewer than there are Message IDs to choose from.
MAXIMUM_MOVES = 1024

# Objects in the queue that responses wait for, of all moves together: a hundred large studies, at
# some 250 bytes each. A response does not wait for what is beyond that, and counts it as failed.
MAXIMUM_KEPT = 131072

# Failed instances that one response names: what an element with two bytes of length takes
# (PS3.5 §7.1.2), at 64 characters each. The counters say how many there are.
MAXIMUM_NAMED = 1000

# SOP classes of one holder of which is remembered how it stores them: the standard has some 200.
MAXIMUM_CLASSES = 1024

# Message IDs that a Router chooses: the upper half, since devices count from 1.
_FIRST_ID, _LAST_ID = 0x8000, 0xFFFE


@attrs.define(slots=True, eq=False)
class AskedMove:
    """A C-MOVE that a device of ours asks `peer` for; `destination` is a device of ours."""

    peer: bytes
    destination: str  # its local AE title


@attrs.define(slots=True, eq=False)
class Kept:
    """Objects of one move that this Router's queue has answered for, and what became of them.

    `waiting` has the SOP Instance UID of each that is not delivered yet, by its number there.
    """

    waiting: dict[int, str] = attrs.field(factory=dict, repr=False)
    delivered: int = 0
    warned: int = 0  # delivered, and the destination's status was a warning
    failed: int = 0
    named: list[str] = attrs.field(
        factory=list, repr=False
    )  # the first MAXIMUM_NAMED of the failed
    cancelled: bool = False
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, repr=False)

    @property
    def taken(self) -> int:
        """All of them."""
        return len(self.waiting) + self.delivered + self.warned + self.failed

    def end(self, number: int, *, delivered: bool, warning: bool = False) -> None:
        """What was waited for as `number` is at its destination, or will not be."""
        instance = self.waiting.pop(number)
        if not delivered:
            self.fail(instance)
        elif warning:
            self.warned += 1
        else:
            self.delivered += 1
        self._changed.unpark_all()

    def fail(self, instance: str) -> None:
        """This one counts as failed."""
        self.failed += 1
        if len(self.named) < MAXIMUM_NAMED:
            self.named.append(instance)

    def cancel(self) -> None:
        """Its requestor does not want to wait."""
        self.cancelled = True
        self._changed.unpark_all()

    async def settle(self) -> None:
        """Return once nothing is waited for."""
        await trio.lowlevel.checkpoint()
        while self.waiting and not self.cancelled:
            await self._changed.park()


class Receiver(Protocol):
    """Whoever takes the objects of a move in this Router itself (relay.router.get_by_move)."""

    def entry(self) -> LiveAssociation:
        """What the register keeps of an association with it."""

    def associate(self, request: AAssociateRQ) -> AbstractContextManager[Tunnel]:
        """An association with it, which was sent `request`, while the block lasts."""


@attrs.define(slots=True, eq=False, kw_only=True)
class HeldMove:
    """A C-MOVE that a peer's device asks `holder`, a device of ours, for.

    `seen_requestor` and `seen_message_id` are what the holder knows it by, and names as its Move
    Originator; the others are those of the network. With a `receiver` there is no network: this
    Router has asked for itself, and `destination` is no AE title. Its federation asks in the name
    of a device of ours; then `requestor` is by the name that `destination` knows.
    """

    holder: str
    requestor: str
    message_id: int
    destination: str
    seen_requestor: str
    seen_message_id: int
    via_router: bool = False
    receiver: Receiver | None = attrs.field(default=None, repr=False)  # None: another hospital's
    storing: int = 0  # associations that store for it
    kept: Kept = attrs.field(factory=Kept)
    stored: bool = False  # its holder has answered: what it took is all it takes
    until: float = inf  # when it is forgotten, by trio's clock: its requestor has gone


class MoveRegister:
    """All moves that cross this Router."""

    def __init__(self) -> None:
        self._asked: list[AskedMove] = []
        self._held: list[HeldMove] = []
        # Anywhere, so that what a holder stores for the run before means no move of this one.
        self._last_id = _FIRST_ID + secrets.randbelow(_LAST_ID - _FIRST_ID + 1)
        # Holders that were seen to leave out the Move Originator: theirs go one by one.
        self._without_originator: set[str] = set()
        # In which transfer syntaxes each holder has proposed to store each SOP class, every time.
        self._stores_in: dict[str, dict[str, frozenset[str]]] = {}
        self._changed = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._asked) + sum(move.until == inf for move in self._held)

    # --- the requestor's Router -----------------------------------------------------------------

    def ask(self, peer: bytes, destination: str) -> AskedMove:
        """A device of ours asks `peer` to store at our device `destination`, until `end`."""
        move = AskedMove(peer, destination)
        self._asked.append(move)
        return move

    def expects(self, peer: bytes, destination: str) -> bool:
        """Whether `peer` was asked to store at our device `destination` and has not ended yet."""
        return any((m.peer, m.destination) == (peer, destination) for m in self._asked)

    # --- the holder's Router ----------------------------------------------------------------------

    def hold(self, move: HeldMove) -> bool:
        """Keep `move` until `end`; False if the holder has too many of them to tell apart.

        A holder that goes by way of its Router gives only the Move Originator to tell by.
        """
        self._forget()
        if sum(m.holder == move.holder for m in self._held) >= MAXIMUM_MOVES:
            return False
        if move.via_router:
            others = {m.destination for m in self._via_router(move.holder)} - {move.destination}
            limit = 1 if move.holder in self._without_originator else MAXIMUM_DESTINATIONS
            if len(others) >= limit:
                return False
        self._held.append(move)
        return True

    def message_id(self, holder: str) -> int:
        """A Message ID that tells a move of `holder` from all its others."""
        used = {m.seen_message_id for m in self._held if m.holder == holder}
        while True:  # there are more than MAXIMUM_MOVES
            self._last_id = self._last_id + 1 if self._last_id < _LAST_ID else _FIRST_ID
            if self._last_id not in used:
                return self._last_id

    def proposed(self, holder: str, contexts: Iterable[PresentationContext]) -> None:
        """`holder` has proposed to store by way of this Router, for a move of the Router's own."""
        now: dict[str, frozenset[str]] = {}
        for context in contexts:
            syntaxes = now.get(context.abstract_syntax, frozenset())
            now[context.abstract_syntax] = syntaxes.union(context.transfer_syntaxes)
        known = self._stores_in.setdefault(holder, {})
        for sop_class, syntaxes in now.items():
            if sop_class in known or len(known) < MAXIMUM_CLASSES:
                known[sop_class] = known.get(sop_class, syntaxes) & syntaxes

    def stores_in(self, holder: str, sop_class: str) -> frozenset[str]:
        """The transfer syntaxes that `holder` has proposed for it each time; empty: not known."""
        return self._stores_in.get(holder, {}).get(sop_class, frozenset())

    def destinations(self, holder: str) -> list[str]:
        """Where `holder` may be storing by way of its Router, the oldest move first."""
        return list(dict.fromkeys(m.destination for m in self._via_router(holder)))

    def receiver(self, holder: str, destination: str) -> Receiver | None:
        """Who takes what `holder` stores there in this Router itself."""
        found = [m for m in self._held if (m.holder, m.destination) == (holder, destination)]
        return found[0].receiver if found else None

    def find(self, holder: str, requestor: str, message_id: int | None) -> HeldMove | None:
        """The move of `holder` that it names by this Move Originator and Message ID.

        Some holders name themselves as the originator: a Message ID that we have chosen is enough.
        """
        for move in self._held:
            if move.stored:
                continue
            if (move.holder, move.seen_message_id) == (holder, message_id) and (
                move.via_router or move.seen_requestor == requestor
            ):
                self._without_originator.discard(holder)
                return move
        return None

    def is_over(self, message_id: int | None) -> bool:
        """Whether a Message ID that `find` does not know was given to a move that is over."""
        return message_id is not None and _FIRST_ID <= message_id <= _LAST_ID

    def only(self, holder: str) -> str | None:
        """The one destination to which `holder` moves by way of its Router, if there is just one.

        For a C-STORE without a Move Originator that means anything; from now on this holder's moves
        go to one destination at a time.
        """
        found = self.destinations(holder)
        if found:
            self._without_originator.add(holder)
        return found[0] if len(found) == 1 else None

    @contextmanager
    def storing(self, holder: str, destination: str) -> Iterator[None]:
        """`holder` has an association with `destination` for the length of the block."""
        moves = [m for m in self._held if (m.holder, m.destination) == (holder, destination)]
        for move in moves:
            move.storing += 1
        try:
            yield
        finally:
            for move in moves:
                move.storing -= 1
                if move.until < inf:
                    move.until = trio.current_time() + ABANDONED_WAIT
            self._changed.unpark_all()

    def stored_for(
        self, holder: str, destination: str, originator: str | None, message_id: int | None
    ) -> Sequence[HeldMove]:
        """The moves that an object which `holder` stores at `destination` may be of.

        One, where it names the Move Originator; else all those to that destination.
        """
        move = self.find(holder, originator or "", message_id)
        if move is not None:
            return [move] if move.destination == destination else []
        if originator not in (None, holder):
            return []
        return [
            m
            for m in self._held
            if (m.holder, m.destination) == (holder, destination) and not m.stored
        ]

    def keep(self, moves: Iterable[HeldMove], number: int, instance: str) -> None:
        """The queue has the object `instance` of these moves as `number`; it will be delivered."""
        for move in moves:
            if sum(len(held.kept.waiting) for held in self._held) < MAXIMUM_KEPT:
                move.kept.waiting[number] = instance
            else:
                move.kept.fail(instance)

    def kept(self) -> list[Kept]:
        """What is waited for, of all moves that wait for anything."""
        return [move.kept for move in self._held if move.kept.waiting]

    async def settle(self, move: HeldMove) -> None:
        """Return once no association stores for `move`, or SETTLE_WAIT is over."""
        with trio.move_on_after(SETTLE_WAIT):
            while move.storing:
                await self._changed.park()

    # --- both -------------------------------------------------------------------------------------

    def end(self, move: AskedMove | HeldMove) -> None:
        """The move has its final response; harmless the second time."""
        if isinstance(move, AskedMove):
            if move in self._asked:
                self._asked.remove(move)
        elif move in self._held:
            self._held.remove(move)

    def abandon(self, move: AskedMove | HeldMove) -> None:
        """Nobody is there for its final response; its holder may still be storing."""
        if isinstance(move, HeldMove) and move.via_router:
            move.until = trio.current_time() + ABANDONED_WAIT
        else:
            self.end(move)

    def _via_router(self, holder: str) -> list[HeldMove]:
        self._forget()
        return [m for m in self._held if m.via_router and m.holder == holder and not m.stored]

    def _forget(self) -> None:
        now = trio.current_time()
        self._held = [move for move in self._held if move.storing or move.until > now]
