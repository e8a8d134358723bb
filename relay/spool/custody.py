"""Taking objects into custody: what this returns for survives a power cut.

    object synced -> [with all others that wait by now: rows committed] -> kept

Syncs are the price of custody, and are shared: while one group is on its way to the disk the next
one gathers, over all senders and over each sender's asynchronous window, so that a group costs one
sync of the database however many objects are in it.
"""

from collections import deque
from collections.abc import Iterable

import apsw
import attrs
import trio

from relay.database import Database
from relay.errors import DatabaseError, SpoolError, SpoolFull
from relay.spool.items import Batch, Item
from relay.spool.rows import insert_batch, insert_item
from relay.spool.space import Space

# Objects of one group: what is on its way to the disk when power fails was answered to nobody.
MAXIMUM_GROUP = 256

_STOPPED = "the Router is stopping"


@attrs.define(slots=True, eq=False)
class Handed:
    """An object that was handed in, and whose sender waits."""

    batch: Batch
    item: Item
    done: trio.Event = attrs.field(factory=trio.Event)
    number: int = 0
    error: SpoolError | None = None

    async def kept(self) -> Item:
        """The item, with its number, once it is durable with its batch.

        A cancelled caller must not be told the outcome, nor can it take it back: the object is
        kept, as one is whose sender went before the answer. Raises SpoolFull where it is not kept,
        SpoolBroken where that is not known.
        """
        await self.done.wait()
        if self.error is not None:
            raise type(self.error)(str(self.error))  # each caller's own
        return attrs.evolve(self.item, number=self.number, batch=self.batch.number)


class Custody:
    """What commits. `run` does the work, in the Router's own nursery."""

    def __init__(self, database: Database, space: Space) -> None:
        self._database = database
        self._space = space
        self._waiting: deque[Handed] = deque()
        self._wake = trio.Event()
        self._stopped = False
        self.groups = 0
        self.kept = 0

    def hand_in(self, batch: Batch, item: Item) -> Handed:
        """Hand in `item`, whose file is synced. Numbers rise in the order in which that is done.

        Raises SpoolFull where nothing is committed any more.
        """
        if self._stopped:
            raise SpoolFull(_STOPPED)
        handed = Handed(batch, item)
        self._waiting.append(handed)
        self._wake.set()
        return handed

    async def keep(self, batch: Batch, item: Item) -> Item:
        """Hand in `item` and wait until it is kept; see there for what is raised."""
        return await self.hand_in(batch, item).kept()

    async def run(self) -> None:
        """Commit what waits, group by group, for ever; what has begun is ended when cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._waiting:
                    size = min(len(self._waiting), MAXIMUM_GROUP)
                    await self._commit([self._waiting.popleft() for _ in range(size)])
        finally:
            # Senders wait shielded: without an answer they would wait for ever.
            self._stopped = True
            _give_up(self._waiting, SpoolFull(_STOPPED))
            self._waiting.clear()

    async def _commit(self, group: list[Handed]) -> None:
        try:
            self._space.check_disk()
            rows = await self._database.run(lambda connection: self._write(connection, group))
        except BaseException as error:
            failure = self._failure(error)
            _give_up(group, failure or SpoolFull(_STOPPED))
            if failure is None:
                raise
            return
        self.groups += 1
        self.kept += len(group)
        for waiting, (batch, number) in zip(group, rows, strict=True):
            waiting.batch.number, waiting.number = batch, number
            waiting.done.set()

    def _failure(self, error: BaseException) -> SpoolError | None:
        """What it means that a group was not committed; None: a fault of Relay's own."""
        match error:
            case SpoolError():
                return error
            case DatabaseError(__cause__=apsw.FullError()):
                # Its pages could not be written: nothing was to be synced, nothing is unknown.
                return SpoolFull(f"the spool cannot be written: {error}")
            case DatabaseError():
                return self._space.break_off(f"the spool cannot be written: {error}")
        return None

    def _write(self, connection: apsw.Connection, group: list[Handed]) -> list[tuple[int, int]]:
        """The numbers of batch and item of each: blocking, in a transaction, in its thread.

        A batch has its number only once that is committed: what is rolled back is given again.
        """
        batches: dict[Batch, int] = {}
        rows = []
        for waiting in group:
            batch = waiting.batch
            number = batch.number or batches.get(batch, 0)
            if not number:
                number = batches[batch] = insert_batch(connection, batch)
            rows.append((number, insert_item(connection, waiting.item, number)))
        return rows


def _give_up(group: Iterable[Handed], error: SpoolError) -> None:
    for waiting in group:
        waiting.error = error
        waiting.done.set()
