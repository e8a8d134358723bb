"""A lane: what goes to one destination, and when.

    lane = published AE title: its batches, in order of priority and age; what is due again; its
           pauses after trouble, or a person's

Whatever happens in a lane stays in it: a device that is away, a database that cannot be read, and a
fault of our own as well.
"""

from collections.abc import Collection
from functools import partial
from math import inf

import attrs
import structlog
import trio

from relay import tracing
from relay.errors import DatabaseError, RelayError, leaves
from relay.router.queue.delivery import deliver
from relay.router.queue.errand import Errand, Firsts, Retries, together
from relay.router.queue.ledger import How, Report
from relay.router.queue.pauses import ALONE, Pauses
from relay.router.queue.sessions import Sessions
from relay.router.queue.state import Queue
from relay.spool.items import Batch, Hold, Item, Pause

log = structlog.get_logger()

# Sessions with one destination at once. A device says itself how many associations it takes; this
# is what one hospital asks of one device at most.
PARALLEL = 8

# Items that are looked at for one errand of retries.
RETRIES = 64

# The spool's database does not answer, or the lane has a fault: nothing can be done but to try
# again.
FAULT_PAUSE = 5.0

# Before what is due and cannot be begun, or came to nothing without a reason, is looked at again.
SHORTEST_PAUSE = 1.0

# How long a wait for what is due goes on without a look at the clock, which may be set meanwhile.
LONGEST_LOOK_AWAY = 60.0

OWN_FAULT = "a fault of Relay's own: the log has it"


class Lane:
    """One destination. `run` is its task; `sessions` are those of all lanes."""

    def __init__(self, queue: Queue, called: str, sessions: Sessions) -> None:
        self.called = called
        self.failures = 0
        """How often in a row it came to nothing."""
        self.reason = ""
        """Why, the last time."""
        self.paused: Pause | None = None
        self._queue = queue
        self._spool = queue.spool
        self._sessions = sessions
        self._pauses = Pauses()
        self._until = -inf  # by trio's clock: not again before
        self._wake = trio.Event()
        self._running: list[Errand] = []  # one for each session
        self._retried = False  # the last that was begun were retries
        self._finishing = False
        self._reachable = False
        self._more = False  # and waits for one of those to end
        # Whose first object is on its way to the disk, with the pairs that may come.
        self._coming: dict[Batch, frozenset[tuple[str, str]]] = {}
        self._ahead: set[Firsts] = set()  # begun before it, over one session of several
        # Batches whose association is open still: the very ones that the intake closes.
        self._open: dict[int, tuple[Batch, frozenset[tuple[str, str]]]] = {}

    @property
    def sessions(self) -> int:
        """How many run now."""
        return len(self._running)

    @property
    def left(self) -> float:
        """Seconds until it is tried again after trouble; 0: it may be now."""
        return max(0.0, self._until - trio.current_time())

    # --- what happens to it -----------------------------------------------------------------------

    def coming(self, batch: Batch, accepted: frozenset[tuple[str, str]]) -> None:
        """The first object of `batch` has begun to come: a session may be there when it is kept."""
        if not (self.failures or self.paused is not None or self._finishing):
            self._coming[batch] = accepted
            self._wake.set()

    def arrived(
        self,
        batch: Batch,
        accepted: frozenset[tuple[str, str]],
        item: Item | None = None,
        content: bytes | None = None,
    ) -> None:
        """An object of `batch` is kept. See `Firsts.arrived` for `item` and `content`."""
        self._coming.pop(batch, None)
        if batch.closed is None:
            self._open[batch.number] = batch, accepted
        self._news(batch, item, content)

    def closed(self, batch: Batch) -> None:
        """Nothing more comes with `batch`."""
        self._coming.pop(batch, None)
        self._open.pop(batch.number, None)
        self._news(batch)

    def discarded(self, items: Collection[bytes]) -> None:
        """See `Firsts.discarded`."""
        for errand in self._running:
            if isinstance(errand, Firsts):
                errand.discarded(items)

    def _news(self, batch: Batch, item: Item | None = None, content: bytes | None = None) -> None:
        for errand in self._running:
            if isinstance(errand, Firsts) and errand.batch is batch:
                errand.arrived(item, content)
                if errand in self._ahead:
                    self._wake.set()
                return  # it carries that too, or wakes the lane when it ends
        self._wake.set()

    def network_changed(self) -> None:
        """The Bridge has said something: the far Router may be back."""
        network = self._queue.node.network
        reachable = network is not None and network.directory.is_reachable(self.called)
        if reachable and not self._reachable:
            self.wake(again=True)
        self._reachable = reachable

    def wake(self, *, again: bool = False) -> None:
        """Something has changed; `again`: it is worth trying at once."""
        if again:
            self._until = -inf
        self._wake.set()

    def stop(self, pause: Pause) -> None:
        """Nothing goes out any more but what is being sent."""
        self.paused = pause
        self._end_running()

    def finish(self) -> None:
        """The Router stops: what is being sent is sent to its end, and nothing else is begun."""
        self._finishing = True
        self._end_running()

    def _end_running(self) -> None:
        for errand in self._running:
            errand.stop()

    def resume(self) -> None:
        """Go on at once."""
        self.paused, self.failures, self.reason = None, 0, ""
        self.wake(again=True)

    # --- its task ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver what there is, for ever."""
        tracing.apart()  # it may be the end of one association that has it begin
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                try:
                    wait = await self._begin(nursery)
                except DatabaseError as error:
                    log.error("queue not readable", called=self.called, why=str(error))
                    wait = FAULT_PAUSE
                except Exception:
                    log.exception("queue not looked through", called=self.called)
                    self.reason = OWN_FAULT
                    wait = FAULT_PAUSE
                with trio.move_on_after(wait):
                    await self._wake.wait()

    async def _begin(self, nursery: trio.Nursery) -> float:
        """Begin what can be; how long to wait for the next thing, in seconds."""
        self._widen(nursery)
        while not self._finishing and self.paused is None and len(self._running) < self._room:
            # Rows are read shielded: cancelled, this would begin and end sessions for ever.
            await trio.lowlevel.checkpoint_if_cancelled()
            left = self._until - trio.current_time()
            if left > 0:
                return left
            errand = await self._next() or self._next_coming()
            if errand is None:
                return await self._until_due()
            if self._finishing or self.paused is not None:
                break  # meanwhile
            self._retried = isinstance(errand, Retries)
            split = errand.split if isinstance(errand, Firsts) else 1
            if isinstance(errand, Firsts) and split > 1 and not errand.batch.number:
                # A device's associations are dear: the others when there is something to carry.
                self._ahead.add(errand)
                split = 1
            self._start(nursery, errand, split)
        if not self._more and self.paused is None and not self._finishing:
            self._more = await self._next() is not None
        return inf

    def _start(self, nursery: trio.Nursery, errand: Errand, sessions: int) -> None:
        for _ in range(min(sessions, self._room - len(self._running))):
            self._running.append(errand)
            nursery.start_soon(self._carry, errand)

    def _widen(self, nursery: trio.Nursery) -> None:
        """Begin the other sessions of what was begun ahead, once its first object is kept."""
        for errand in [errand for errand in self._ahead if errand.batch.number]:
            self._ahead.discard(errand)
            if not errand.stopped:
                self._start(nursery, errand, errand.split - 1)

    @property
    def _room(self) -> int:
        """After trouble one goes ahead, and the others follow if that goes well."""
        return 1 if self.failures else PARALLEL

    # --- what is next -----------------------------------------------------------------------------

    async def _next(self) -> Errand | None:
        """What to do next: batches and retries take turns where both wait."""
        if self._retried:
            return await self._next_batch() or await self._next_retries()
        return await self._next_retries() or await self._next_batch()

    async def _next_retries(self) -> Retries | None:
        if self._retrying:
            return None
        items, now = self._spool.items, self._spool.clock()
        due = await items.due(self.called, now, RETRIES)
        if not due:
            first = await items.next_due(self.called)
            if first is not None and first - now > ALONE.cap:
                # No pause is so long: the clock was set back, and its times are not ours.
                due = await items.due(self.called, first, RETRIES)
        return together(due, await items.batches(item.batch for item in due)) if due else None

    async def _next_batch(self) -> Firsts | None:
        items = self._spool.items
        busy = [errand.batch.number for errand in self._running if isinstance(errand, Firsts)]
        while (batch := await items.next_batch(self.called, busy)) is not None:
            if not self._is_carried(batch):
                break
            busy.append(batch.number)
        if batch is None:
            return None
        if self._is_untold(batch):
            # Read before its association ended.
            batch = (await items.batches([batch.number])).get(batch.number, batch)
        accepted: frozenset[tuple[str, str]] = frozenset()
        if batch.number in self._open:
            batch, accepted = self._open[batch.number]
        elif batch.closed is None:
            batch = attrs.evolve(batch, closed=self._spool.clock())
        split = self._split(batch)
        return Firsts(items, batch, accepted, split=split, wanted=partial(self._wanted, batch))

    def _is_untold(self, batch: Batch) -> bool:
        """Whether a row is open and its association is not known to be."""
        return batch.closed is None and batch.number not in self._open

    def _is_carried(self, batch: Batch) -> bool:
        """Whether a session has `batch` that was begun before it had a number."""
        for errand in self._running:
            had = errand.batch
            if had.number in (0, batch.number) and (had.opened, had.calling) == (
                batch.opened,
                batch.calling,
            ):
                return isinstance(errand, Firsts)
        return False

    def _next_coming(self) -> Firsts | None:
        """A batch of which nothing is kept yet, where nothing else waits.

        Opening a session takes two round trips and more, and the first object to come in less.
        """
        while self._coming and not self.failures:
            batch = next(iter(self._coming))
            accepted = self._coming.pop(batch)
            if not batch.number and batch.closed is None:
                wanted = partial(self._wanted, batch)
                items, split = self._spool.items, self._split(batch)
                return Firsts(items, batch, accepted, split=split, wanted=wanted)
        return None

    def _wanted(self, batch: Batch) -> bool:
        """Whether something waits for the session that `batch` has."""
        return self._more or self._sessions.wanted(batch.peer)

    def _split(self, batch: Batch) -> int:
        """Over how many associations at once, as the device is set."""
        held = self._queue.acceptance.known(
            self._queue.node, batch.called, batch.calling, int(self._spool.clock())
        )
        return held.split if held is not None and not self.failures else 1

    @property
    def _retrying(self) -> bool:
        return any(isinstance(errand, Retries) for errand in self._running)

    async def _until_due(self) -> float:
        if self._retrying:
            return inf
        due = await self._spool.items.next_due(self.called)
        if due is None:
            return inf
        return min(max(SHORTEST_PAUSE, due - self._spool.clock()), LONGEST_LOOK_AWAY)

    # --- one session ------------------------------------------------------------------------------

    async def _carry(self, errand: Errand) -> None:
        report = Report(How.TROUBLE, "stopped")
        try:
            async with self._sessions.one(errand.batch.peer):
                report = await deliver(self._queue, errand)
        except* RelayError as group:
            report = Report(How.TROUBLE, str(next(leaves(group))))
        except* Exception:
            log.exception("delivery failed", called=self.called)
            report = Report(How.TROUBLE, OWN_FAULT)
        finally:
            self._running.remove(errand)
            self._more = False
            if isinstance(errand, Firsts):
                self._ahead.discard(errand)
        if report.how is not How.DONE:
            errand.stop()  # what this session had taken of it is begun anew with the rest
        try:
            await self._follow(errand, report)
        except DatabaseError as error:
            log.error("delivery's end not noted", called=self.called, why=str(error))
            self._failed(str(error))
        except Exception:
            log.exception("delivery's end not noted", called=self.called)
            self._failed(OWN_FAULT)
        self._wake.set()

    async def _follow(self, errand: Errand, report: Report) -> None:
        if report.delivered or report.how is How.DONE:
            self.failures, self.reason = 0, ""
        match report.how:
            case How.DONE if not report.settled and errand.batch.number and not _is_shared(errand):
                self._until = max(self._until, trio.current_time() + SHORTEST_PAUSE)
            case How.TROUBLE if not errand.batch.number:
                pass  # nothing was to go yet: if it lasts, the first object says so
            case How.TROUBLE if self.paused is None:
                self._failed(report.reason)
            case How.PAUSE if self.paused is None:
                # Others of ours may be welcome: a person has to know whom to mend, or to discard.
                reason = f"called as {errand.batch.calling}: {report.reason}"
                pause = Pause(self.called, False, reason, self._spool.clock())
                await self._queue.pause(pause)
            case How.MOVED:
                await self._spool.items.hold_batch(errand.batch, Hold.MOVED, report.reason)

    def _failed(self, reason: str) -> None:
        self.reason = reason
        if trio.current_time() < self._until:
            return  # sessions that broke together are one failure
        self.failures += 1
        self._until = trio.current_time() + self._pauses.next(self.failures)


def _is_shared(errand: Errand) -> bool:
    """Whether one session with nothing to do may only mean that the others did it."""
    return isinstance(errand, Firsts) and errand.split > 1
