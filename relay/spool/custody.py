"""Taking objects into custody: what this returns for survives a power cut.

    object synced -> [with all others that wait by then: rows committed] -> kept

Syncs are the price of custody, and are shared: while one group is on its way to the disk the next
one gathers, over all senders and over each sender's asynchronous window, so that a group costs one
sync of the database however many objects are in it. The thread that has synced an object goes on to
commit it, with all that wait by then, unless a group is on its way: then the object waits in the
next one. So an object that comes alone takes one call to a thread, and no group waits for anybody.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable

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
from relay.workers import Tell

log = structlog.get_logger()

# Objects of one group: what is on its way to the disk when power fails was answered to nobody.
MAXIMUM_GROUP = 256

_OWN_FAULT = "a fault of Relay's own: the log has it"


@attrs.define(slots=True, eq=False)
class Handed:
    """An object that was handed in, and for which its sender waits, or `tell` tells it."""

    batch: Batch
    item: Item
    then: Callable[[Item], None] | None = None
    tell: Tell[Item] | None = None
    settled: trio.Event = attrs.field(factory=trio.Event)
    error: BaseException | None = None

    def settle(self) -> None:
        """It is kept, or `error` says why not."""
        self.settled.set()
        if self.tell is not None:
            self.tell(self.result)

    def result(self) -> Item:
        """The item, with its number. Raises `error`: of the spool's, each caller one of its own."""
        if isinstance(self.error, SpoolError):
            raise type(self.error)(str(self.error))
        if self.error is not None:
            raise self.error
        return self.item


@attrs.frozen(slots=True)
class _Committed:
    """A group, with its numbers of batch and item; or why it is not known to be kept."""

    group: list[Handed]
    rows: list[tuple[int, int]]
    error: BaseException | None = None


class Custody:
    """What commits. Rows are written in whichever thread it is; senders are told in the event
    loop's, group after group."""

    def __init__(self, database: Database, space: Space) -> None:
        self._database = database
        self._space = space
        # For what follows, which any thread changes.
        self._guard = threading.Lock()
        self._waiting: deque[Handed] = deque()
        self._committing = False
        self._untold = 0  # groups of which the event loop has not heard
        self.groups = 0
        self.kept = 0

    @property
    def committing(self) -> bool:
        """Rows may be there of which nobody has been told yet."""
        return self._untold > 0

    async def finish(
        self,
        batch: Batch,
        writer: ObjectWriter,
        make: Callable[[StoredObject], Item],
        *,
        soon: bool,
        then: Callable[[Item], None] | None = None,
    ) -> Item:
        """Have an object on the disk, and what `make` makes of it in custody; `then` as for
        `hand_in`.

        Not cancelled: others may wait for what this commits, and it is bounded by the disk. Raises
        SpoolFull where it is not kept, SpoolBroken where that is not known.
        """
        token = trio.lowlevel.current_trio_token()

        def commit(stored: StoredObject, tell: Tell[Item]) -> None:
            if self._is_to_commit(Handed(batch, make(stored), then, tell)):
                self._commit(token)

        with trio.CancelScope(shield=True):
            item = await writer.finish_until_told(commit, soon=soon)
        return item

    def hand_in(
        self, batch: Batch, item: Item, then: Callable[[Item], None] | None = None
    ) -> Handed:
        """Hand in `item`, whose file is synced. Numbers rise in the order in which that is done.

        `then` is given the item once it is kept, in the order of the numbers; what it raises is a
        fault of Relay's own, and logged.
        """
        handed = Handed(batch, item, then)
        if self._is_to_commit(handed):
            token = trio.lowlevel.current_trio_token()
            self._database.start(lambda: self._commit(token))
        return handed

    async def wait(self, handed: Handed) -> Item:
        """The item, with its number, once it is durable with its batch.

        Not cancelled. Raises SpoolFull where the item is not kept, SpoolBroken where that is not
        known.
        """
        if not handed.settled.is_set():
            with trio.CancelScope(shield=True):
                await handed.settled.wait()
        return handed.result()

    async def keep(self, batch: Batch, item: Item) -> Item:
        """Hand in `item` and wait until it is kept; see there for what is raised."""
        return await self.wait(self.hand_in(batch, item))

    # --- in any thread --------------------------------------------------------------------------

    def _is_to_commit(self, handed: Handed) -> bool:
        """Have it wait for the next group; whether that is for the caller to begin."""
        with self._guard:
            self._waiting.append(handed)
            if self._committing:
                return False
            self._committing = True
            self._untold += 1
            return True

    def _commit(self, token: trio.lowlevel.TrioToken) -> None:
        """Commit what waits by now. What waits after that is the database's own thread's."""
        with self._guard:
            size = min(len(self._waiting), MAXIMUM_GROUP)
            group = [self._waiting.popleft() for _ in range(size)]
        try:
            self._space.check_disk()
            rows = self._database.run_here(lambda connection: _write(connection, group))
        except BaseException as error:
            # What is broken is so before the next group begins.
            committed = _Committed(group, [], self._failure(error))
        else:
            # At once: the next group may hold more of the same batch.
            for waiting, (batch, _) in zip(group, rows, strict=True):
                waiting.batch.number = batch
            committed = _Committed(group, rows)
        # Before anything of the next group can be told.
        token.run_sync_soon(self._settle, committed)
        with self._guard:
            # For itself: once others may go on, they have changed it perhaps.
            more = self._committing = bool(self._waiting)
            self._untold += more
        if more:
            self._database.start(lambda: self._commit(token))

    def _failure(self, error: BaseException) -> BaseException:
        """What it means that a group was not committed; no SpoolError: a fault of Relay's own."""
        match error:
            case DatabaseError(__cause__=apsw.FullError()):
                # Its pages could not be written: nothing was to be synced, nothing is unknown.
                return SpoolFull(f"the spool cannot be written: {error}")
            case DatabaseError():
                return self._space.break_off(f"the spool cannot be written: {error}")
        return error

    # --- in the event loop's --------------------------------------------------------------------

    def _settle(self, committed: _Committed) -> None:
        """Tell those who wait."""
        with self._guard:
            self._untold -= 1
        if committed.error is not None:
            _give_up(committed.group, committed.error)
            return
        self.groups += 1
        self.kept += len(committed.group)
        for waiting, (batch, number) in zip(committed.group, committed.rows, strict=True):
            waiting.item = attrs.evolve(waiting.item, number=number, batch=batch)
            waiting.settle()
        for waiting in committed.group:
            _tell(waiting)


def _write(connection: apsw.Connection, group: list[Handed]) -> list[tuple[int, int]]:
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


def _give_up(group: Iterable[Handed], error: BaseException) -> None:
    """A fault of Relay's own is raised for the first of them, whose task ends with it."""
    for waiting in group:
        waiting.error = error
        waiting.settle()
        if not isinstance(error, SpoolError):
            error = SpoolFull(_OWN_FAULT)
