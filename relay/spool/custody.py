"""Taking objects into custody: what this returns for survives a power cut.

    content and slip synced -> kept, the sender is answered -> its row, with those of others

One sync is the price of an object: of its content and of the slip behind it, which says all that
its row will (relay.spool.slips). Rows are written behind the senders' backs, all that wait in one
transaction, of which each costs more than all rows in it; the first after a pause at once, so that
what comes alone is sent on at once. Whatever else is written or asked for takes them along
(relay.database.Preceding): nobody sees a queue without what was answered for. Where this run does
not live to write them, the next one does, from the slips (relay.spool.recovery).
"""

import threading
from collections import deque
from collections.abc import Callable
from math import inf

import apsw
import attrs
import structlog
import trio

from relay.database import Database
from relay.errors import DatabaseError
from relay.spool.items import Batch, Item
from relay.spool.rows import insert_batch, insert_item, known_batch, mark_batches
from relay.spool.segments import ObjectWriter, StoredObject
from relay.spool.slips import Slip
from relay.spool.space import Space
from relay.spool.vault import SpoolKey

log = structlog.get_logger()

# Between two transactions of rows alone. With four senders they hold a dozen each, and a tenth more
# objects come into custody than with one or two in each.
GATHERING = 0.03

# Rows of one transaction: others wait for it.
MAXIMUM_GROUP = 256

# Rows that wait: with each its data set may be in memory still, to be sent on. So many are written
# at once, and senders wait for theirs where there are more: the database is slower than the disk.
MAXIMUM_WAITING = 32

# Between two attempts where the database has no room.
AGAIN = 1.0

_OWN_FAULT = "rows cannot be made, a fault of Relay's own: the log has it"


@attrs.define(slots=True, eq=False)
class Handed:
    """An object in custody, whose row waits. `then` is given its item once that has its number."""

    batch: Batch
    item: Item
    then: Callable[[Item], None] | None = None
    settled: trio.Event = attrs.field(factory=trio.Event)
    """Its row is written, or nobody can say when."""


class Custody:
    """What keeps objects. `run` writes their rows; `run_number` and `epoch` are this Router's."""

    def __init__(
        self, database: Database, space: Space, key: SpoolKey, *, run_number: int, epoch: int
    ) -> None:
        self._database = database
        self._space = space
        self._key = key
        self._run_number = run_number
        self._epoch = epoch
        self._token = trio.lowlevel.current_trio_token()
        self._changed = trio.lowlevel.ParkingLot()
        self._handed = 0
        # For what follows, which any thread changes.
        self._guard = threading.Lock()
        self._waiting: deque[Handed] = deque()
        # In the thread of a transaction, which has it alone: its rows, and their numbers.
        self._group: list[Handed] = []
        self._rows: list[tuple[int, int]] = []
        self._stopped = False  # rows could not be written: no transaction of others is to fail so
        self._lost = False  # nor will they be, in this run; a file that was not synced stops none
        self._ended = False  # `run` is over: nobody is to wait for it
        self.groups = 0
        self.kept = 0
        database.precede(self)

    # --- for those who take objects in ------------------------------------------------------------

    async def finish(
        self,
        batch: Batch,
        writer: ObjectWriter,
        make: Callable[[StoredObject], Item],
        *,
        soon: bool,
        then: Callable[[Item], None] | None = None,
    ) -> Item:
        """Have an object, and what `make` makes of it, in custody; `then` as for `hand_in`.

        Not cancelled: it is bounded by the disk. Raises SpoolFull where it is not kept, SpoolBroken
        where that is not known.
        """
        with trio.CancelScope(shield=True):
            item = await writer.finish_with(self.slipped(batch, make), soon=soon)
            await self.settled(self.hand_in(batch, item, then))
        return item

    def slipped(
        self, batch: Batch, make: Callable[[StoredObject], Item]
    ) -> Callable[[StoredObject], tuple[Item, bytes]]:
        """For ObjectWriter.finish_with: an item of `batch`, and its slip."""

        def made(stored: StoredObject) -> tuple[Item, bytes]:
            item = make(stored)
            return item, Slip(self._run_number, self._epoch, batch, item).encode(self._key)

        return made

    def hand_in(
        self, batch: Batch, item: Item, then: Callable[[Item], None] | None = None
    ) -> Handed:
        """Hand in `item`, which is synced with its slip. Numbers rise in the order of that.

        `then` is given the item with its number once its row is written, in the order of the
        numbers; what it raises is a fault of Relay's own, and logged.
        """
        handed = Handed(batch, item, then)
        self._handed += 1
        with self._guard:
            self._waiting.append(handed)
            waiting = len(self._waiting)
        if self._stopped or self._ended:
            handed.settled.set()
        if waiting in (1, MAXIMUM_WAITING):  # a turn of the event loop for each object is dear
            self._changed.unpark_all()
        return handed

    async def settled(self, handed: Handed) -> None:
        """Return at once, or where too many rows wait, once this one does not any more."""
        if len(self._waiting) > MAXIMUM_WAITING:
            await handed.settled.wait()

    async def keep(self, batch: Batch, item: Item) -> Item:
        """Hand in `item` and give it with its number. Raises SpoolFull or SpoolBroken where its row
        is not written; it is in custody all the same."""
        handed = self.hand_in(batch, item)
        await self.noted()
        return handed.item

    async def noted(self) -> None:
        """Return once all that is in custody by now has its row. Raises SpoolFull or SpoolBroken
        where that cannot be: who asks the rows then would miss some."""
        handed = self._handed
        await self.flush()
        if self.kept < handed:
            self._space.check_disk()

    # --- rows -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write rows, for ever."""
        try:
            await self._run()
        finally:
            # Who waits for a row does so shielded. It is in custody; others write it, or its slip.
            self._ended = True
            self._let_go()

    async def _run(self) -> None:
        due = -inf
        while True:
            await trio.lowlevel.checkpoint_if_cancelled()  # `flush` is not cancelled
            pause = due - trio.current_time()
            if not self._waiting or self._lost:
                await self._changed.park()
            elif pause > 0 and (self._stopped or len(self._waiting) < MAXIMUM_WAITING):
                with trio.move_on_after(pause):
                    await self._changed.park()
            else:
                await self.flush()
                due = trio.current_time() + (AGAIN if self._stopped else GATHERING)

    async def flush(self) -> None:
        """Return once the rows of all that was handed in are written, or cannot be now.

        Not cancelled.
        """
        self._stopped = self._lost
        handed = self._handed  # others may come all the time
        while self.kept < handed and not self._stopped:
            try:
                await self._database.write_preceding()  # behind what has taken some along
            except DatabaseError as error:
                if not self._stopped:  # it was not even begun: `undone` has heard nothing of it
                    self._stopped = True
                    self._space.hold_off(f"the spool cannot be written: {error}")
                    self._let_go()
                return

    @property
    def waits(self) -> bool:
        """See relay.database.Preceding, and for what follows."""
        return self.kept < self._handed and not self._stopped

    def write(self, connection: apsw.Connection) -> None:
        """Write the rows of what waits. Raises apsw.Error, DatabaseError."""
        if self._stopped or self._lost:
            return
        with self._guard:
            size = min(len(self._waiting), MAXIMUM_GROUP)
            self._group = [self._waiting.popleft() for _ in range(size)]
        try:
            self._rows = _write(connection, self._group)
        except apsw.Error:
            raise
        except Exception as error:
            log.exception("rows not made")
            raise DatabaseError(_OWN_FAULT) from error

    def committed(self) -> None:
        """They are on the disk."""
        group, self._group = self._group, []
        if not group:
            return
        # At once: the next group may hold more of the same batch.
        for handed, (batch, _) in zip(group, self._rows, strict=True):
            handed.batch.number = batch
        # Before whoever has asked for the transaction hears of it.
        self._token.run_sync_soon(self._tell, group, self._rows)

    def undone(self, error: BaseException | None) -> None:
        """They are not, and wait again, in their order."""
        group, self._group = self._group, []
        if not group:
            return
        with self._guard:
            self._waiting.extendleft(reversed(group))
        if error is None:
            self._token.run_sync_soon(self._changed.unpark_all)
            return
        # Its pages could not be written: nothing was to be synced, nothing is unknown.
        full = isinstance(error, apsw.FullError)
        self._lost = self._lost or not full  # first: `flush` looks at it
        self._stopped = True
        # Behind what an earlier group has told, or that would undo this.
        self._token.run_sync_soon(self._held_off, full, f"the spool cannot be written: {error}")

    # --- in the event loop's thread ---------------------------------------------------------------

    def _tell(self, group: list[Handed], rows: list[tuple[int, int]]) -> None:
        self.groups += 1
        self.kept += len(group)
        self._space.go_on()
        for handed, (batch, number) in zip(group, rows, strict=True):
            handed.item = attrs.evolve(handed.item, number=number, batch=batch)
            handed.settled.set()
        for handed in group:
            _then(handed)

    def _held_off(self, full: bool, why: str) -> None:
        if full:
            self._space.hold_off(why)
        else:
            self._space.break_off(why)
        self._let_go()

    def _let_go(self) -> None:
        """Nobody is to wait for a row of which nobody can say when it is written."""
        for handed in list(self._waiting):
            handed.settled.set()
        self._changed.unpark_all()  # as nothing seemed to wait when it was looked for


def _write(connection: apsw.Connection, group: list[Handed]) -> list[tuple[int, int]]:
    """The numbers of batch and item of each: blocking, in a transaction, in its thread.

    A batch has its number only once that is committed: what is rolled back is given again.
    """
    batches: dict[Batch, int] = {}
    rows = []
    for handed in group:
        batch = handed.batch
        number = batches.get(batch) or known_batch(connection, batch)
        if not number:
            number = insert_batch(connection, batch)
        batches[batch] = number
        rows.append((number, insert_item(connection, handed.item, number)))
    # Rows that could not be written as their association ended: it was done without them.
    mark_batches(connection, {n for h, (n, _) in zip(group, rows, strict=True) if h.batch.closed})
    return rows


def _then(kept: Handed) -> None:
    """One that cannot be told is kept all the same, and so are the others of its group."""
    try:
        if kept.then is not None:
            kept.then(kept.item)
    except Exception:
        log.exception("custody not told", item=kept.item.id.hex(), number=kept.item.number)
