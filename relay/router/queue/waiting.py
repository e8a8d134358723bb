"""Who waits for items of the queue to be delivered: C-MOVEs whose objects it has answered for.

An item's end is told here as it is noted. What ends without a word (a person discards it, its
destination has moved) is found in the rows, which are looked at from time to time.
"""

from collections.abc import Iterable, Sequence

import structlog
import trio

from relay.dicom.status import is_warning
from relay.errors import DatabaseError
from relay.router.moves import HeldMove, Kept, MoveRegister
from relay.spool.items import Change, Item, Selection, State
from relay.spool.people import PAGE
from relay.spool.table import ItemTable

log = structlog.get_logger()

# Below the pause between two responses to who waits (relay.router.arrival.PENDING_PAUSE).
LOOK = 5.0

# What a person has to see to is not delivered while somebody waits.
_GIVEN_UP = (State.HELD, State.FAILED, State.DISCARDED)


class Waiting:
    """The moves that wait. They end with their associations, and so does what is kept here."""

    def __init__(self, moves: MoveRegister, items: ItemTable) -> None:
        self._moves = moves
        self._items = items

    def kept(self, moves: Sequence[HeldMove], item: Item) -> None:
        """`item`, of these moves, is in custody."""
        if moves:
            self._moves.keep(moves, item.number, item.sop_instance)

    def settled(self, changes: Iterable[Change]) -> None:
        """These changes are on the disk."""
        for kept in self._moves.kept():
            for change in changes:
                _tell(kept, change.number, change.state, change.status)

    async def look(self) -> None:
        """Tell of what has ended without a word. Raises DatabaseError."""
        for kept in self._moves.kept():
            numbers = tuple(kept.waiting)
            for at in range(0, len(numbers), PAGE):
                asked = numbers[at : at + PAGE]
                found = await self._items.select(Selection(numbers=asked))
                for item in found:
                    _tell(kept, item.number, item.state, item.status)
                for number in set(asked).difference(item.number for item in found):
                    _tell(kept, number, State.DISCARDED, None)  # its row was old, and is gone

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await trio.sleep(LOOK)
            try:
                await self.look()
            except DatabaseError as error:
                log.error("the queue cannot be looked at", why=str(error))


def _tell(kept: Kept, number: int, state: State, status: int | None) -> None:
    if number not in kept.waiting:
        return
    if state is State.DELIVERED:
        kept.end(number, delivered=True, warning=status is not None and is_warning(status))
    elif state in _GIVEN_UP:
        kept.end(number, delivered=False)
