"""Taking objects into custody: what this returns for survives a power cut.

    object synced -> [with all others that wait by now: rows committed] -> kept

Syncs are the price of custody, and are shared: while one group is on its way to the disk the next
one gathers, over all senders and over each sender's asynchronous window, so that a group costs one
sync of the database however many objects are in it. It waits a moment for those whose own files are
on their way to the disk. There is no task behind it: of those who wait, the first one commits.

Where nobody else waits, or is about to, the thread that has synced an object commits it too.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import apsw
import attrs
import structlog
import trio

from relay.database import Database
from relay.errors import DatabaseError, SpoolError, SpoolFull
from relay.spool.items import Batch, Item
from relay.spool.rows import insert_batch, insert_item
from relay.spool.segments import ObjectWriter, StoredObject
from relay.spool.space import Space

log = structlog.get_logger()

# Objects of one group: what is on its way to the disk when power fails was answered to nobody.
MAXIMUM_GROUP = 256

# How long a group waits for objects that are being synced: a few syncs of an SSD, so that it has
# those of all senders that wait. With four of them a group has 2.3 to 3.3 objects, and 1.4 without,
# which is a tenth more objects a second.
GATHERING = 0.004

_OWN_FAULT = "a fault of Relay's own: the log has it"


@attrs.define(slots=True, eq=False)
class Handed:
    """An object that was handed in, and for which its sender waits."""

    batch: Batch
    item: Item
    then: Callable[[Item], None] | None = None
    turn: trio.Event = attrs.field(factory=trio.Event)
    """It is settled, or whoever waits for it is to commit."""
    settled: bool = False
    error: SpoolError | None = None


class Custody:
    """What commits."""

    def __init__(self, database: Database, space: Space) -> None:
        self._database = database
        self._space = space
        self._waiting: deque[Handed] = deque()
        self._committing = False
        self._coming = 0
        self._news = trio.Event()  # for a group that gathers
        self.groups = 0
        self.kept = 0

    @property
    def idle(self) -> bool:
        """Nobody waits to be committed, or is about to."""
        return not (self._committing or self._coming)

    @property
    def committing(self) -> bool:
        """Somebody commits: rows may be there of which nobody has been told yet."""
        return self._committing

    async def finish(
        self,
        batch: Batch,
        writer: ObjectWriter,
        make: Callable[[StoredObject], Item],
        *,
        soon: bool,
        then: Callable[[Item], None],
    ) -> None:
        """Have an object on the disk, and what `make` makes of it in custody: in one thread, for
        who finds this `idle`. Those that wait by then are committed with it: as they wait for its
        file too, it is one that is `whole`.

        That spares a call to a thread, and three of seventeen turns of the event loop that a CT
        image takes from its sender to the tunnel. `then` as for `hand_in`. Not cancelled. Raises
        SpoolFull where it is not kept, SpoolBroken where that is not known.
        """
        group: list[Handed] = []

        def commit(stored: StoredObject) -> list[tuple[int, int]]:
            group.append(Handed(batch, make(stored), then))
            while self._waiting and len(group) < MAXIMUM_GROUP:
                group.append(self._waiting.popleft())
            self._space.check_disk()
            return self._database.run_here(lambda connection: self._write(connection, group))

        self._committing = True
        try:
            with trio.CancelScope(shield=True):
                rows = await writer.finish_with(commit, soon=soon)
        except BaseException as error:
            if not group:
                raise  # the object itself is not on the disk
            failure = self._failure(error)
            _give_up(group, failure or SpoolFull(_OWN_FAULT))
            if failure is None:
                raise
            raise failure from error
        else:
            self._settle(group, rows)
        finally:
            self._pass_on()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """While an object's file is on its way to the disk: a group waits for it."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._news.set()

    def hand_in(
        self, batch: Batch, item: Item, then: Callable[[Item], None] | None = None
    ) -> Handed:
        """Hand in `item`, whose file is synced. Numbers rise in the order in which that is done.

        Whoever does so is to `wait` for it, whatever happens. `then` is given the item once it is
        kept, in the order of the numbers; what it raises is a fault of Relay's own, and logged.
        """
        handed = Handed(batch, item, then)
        self._waiting.append(handed)
        self._news.set()
        return handed

    async def wait(self, handed: Handed) -> Item:
        """The item, with its number, once it is durable with its batch.

        Not cancelled: others may wait for what this commits, and it is bounded by the disk. Raises
        SpoolFull where the item is not kept, SpoolBroken where that is not known.
        """
        with trio.CancelScope(shield=True):
            if self._committing:
                await handed.turn.wait()
            if not handed.settled:
                await self._lead()
        if handed.error is not None:
            raise type(handed.error)(str(handed.error))  # each caller's own
        return handed.item

    async def keep(self, batch: Batch, item: Item) -> Item:
        """Hand in `item` and wait until it is kept; see there for what is raised."""
        return await self.wait(self.hand_in(batch, item))

    async def _lead(self) -> None:
        """Commit what waits, the first of which is the caller's; then it is the next one's turn."""
        self._committing = True
        try:
            await self._gather()
            size = min(len(self._waiting), MAXIMUM_GROUP)
            await self._commit([self._waiting.popleft() for _ in range(size)])
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        self._committing = bool(self._waiting)
        if self._waiting:
            self._waiting[0].turn.set()

    async def _gather(self) -> None:
        """Wait for what is coming, but not for long."""
        if not self._coming:
            return
        with trio.move_on_after(GATHERING):
            while self._coming and len(self._waiting) < MAXIMUM_GROUP:
                self._news = trio.Event()
                await self._news.wait()

    async def _commit(self, group: list[Handed]) -> None:
        try:
            self._space.check_disk()
            rows = await self._database.run(lambda connection: self._write(connection, group))
        except BaseException as error:
            failure = self._failure(error)
            _give_up(group, failure or SpoolFull(_OWN_FAULT))
            if failure is None:
                raise
            return
        self._settle(group, rows)

    def _settle(self, group: list[Handed], rows: list[tuple[int, int]]) -> None:
        """They are durable, with these numbers of batch and item."""
        self.groups += 1
        self.kept += len(group)
        for waiting, (batch, number) in zip(group, rows, strict=True):
            waiting.batch.number = batch
            waiting.item = attrs.evolve(waiting.item, number=number, batch=batch)
            waiting.settled = True
            waiting.turn.set()
        for waiting in group:
            _tell(waiting)

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


def _tell(kept: Handed) -> None:
    """One that cannot be told is kept all the same, and so are the others of its group."""
    try:
        if kept.then is not None:
            kept.then(kept.item)
    except Exception:
        log.exception("custody not told", item=kept.item.id.hex(), number=kept.item.number)


def _give_up(group: Iterable[Handed], error: SpoolError) -> None:
    for waiting in group:
        waiting.error = error
        waiting.settled = True
        waiting.turn.set()
