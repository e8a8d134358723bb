"""The books of one delivery session: what is under way, what became of it, and is that durable yet.

    sent -> (Result, the device's abort, the session's end) -> judged -> rows -> files erased

What an object's row says is changed by a Result alone. Results are noted as they come, all that
wait in one transaction. Where the session ends without one, what was sent may have been stored: the
item is doubtful then, keeps its place in the order, and the far Router is asked about it before it
is sent again.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from math import inf

import attrs
import structlog
import trio

from relay.dicom.status import Status
from relay.errors import RelayError
from relay.router.pairs import Pair
from relay.router.queue.pauses import ALONE, Pauses
from relay.router.queue.state import Queue
from relay.router.queue.statuses import (
    MAXIMUM_ALONE_ABORTS,
    Judgement,
    Verdict,
    judge,
    judge_abort,
)
from relay.router.witness import Witness
from relay.spool.items import Batch, Change, Hold, Item, State
from relay.tunnel.notes import EndedBy, Outcome

log = structlog.get_logger()

# Items that were sent and are not answered, or whose answers are not on the disk yet: rows in
# memory, and what is asked about after a break. The tunnel's own window bounds their bytes.
MAXIMUM_OUTSTANDING = 512

# Items whose Forget was sent and is not noted as told. They are noted when there are twice as many,
# the older half: the session has brought enough since then for the far Router to have read it.
TOLD = 1024

# Between two transactions that note results, while more are awaited: each costs more than all that
# is noted in it, and the files that are erased behind it another call to a thread.
GATHERING = 0.05

# Between two attempts of one object that the device had no room for, or that were cut off.
_AGAIN = Pauses()

_NOT_ACCEPTED = "the device does not accept its SOP class and transfer syntax any more"


class How(Enum):
    """How an errand ended."""

    DONE = "done"
    TROUBLE = "trouble"  # of the device, or on the way there: it passes
    PAUSE = "pause"  # the device, or its Router, takes nothing of ours until a person acts
    MOVED = "moved"  # the AE title belongs to another hospital by now


@attrs.frozen(slots=True)
class Report:
    """What became of an errand: `delivered` items are at the device, `settled` are those of which
    something is known now that was not."""

    how: How
    reason: str = ""
    delivered: int = 0
    settled: int = 0


class Ledger:
    """The items of `batch`'s session. `stop` is called where no more should be sent."""

    def __init__(self, queue: Queue, batch: Batch, stop: Callable[[], None]) -> None:
        self.how: How | None = None
        """How the session ended, once that is known."""
        self.reason = ""
        self.sent = 0
        self.delivered = 0
        self.settled = 0
        self.window = 1
        """Objects that the device may have before it answers."""
        self.outstanding: dict[bytes, Item] = {}
        """What was sent, in that order, and has no Result."""
        self.changed = trio.lowlevel.ParkingLot()
        """Something of this has."""
        self._queue = queue
        self._spool = queue.spool
        self._batch = batch
        self._stop = stop
        self._changes: list[tuple[Item, Change]] = []
        self._known: list[bytes] = []  # delivered, and the far Router need not remember it
        self._told: list[bytes] = []  # it has been told so
        self._taken: set[Pair] = set()  # of what the device has stored in this session
        self._witness = Witness()

    # --- the session ------------------------------------------------------------------------------

    def report(self) -> Report:
        """How it went, once it is over."""
        how, reason = (How.TROUBLE, "cut off") if self.how is None else (self.how, self.reason)
        return Report(how, reason, self.delivered, self.settled)

    def done(self) -> None:
        """It has ended as it should."""
        if self.how is None:
            self.how, self.reason = How.DONE, ""

    def trouble(self, reason: str, how: How = How.TROUBLE) -> None:
        """It cannot go on; the first cause counts."""
        if self.how in (None, How.DONE):
            self.how, self.reason = how, reason
        self._stop()
        self.changed.unpark_all()

    @contextmanager
    def seen_by(self, witness: Witness) -> Iterator[None]:
        """Have `witness` told what goes in the block, and what came of it."""
        self._witness = witness
        try:
            yield
        finally:
            for item in self.outstanding.values():
                witness.over(item.study, item.sop_class, item.sop_instance, "not answered")

    async def run(self) -> None:
        """Note what becomes of items, for ever. Raises DatabaseError."""
        due = -inf
        while True:
            if not self._changes:
                await self.changed.park()
            elif self.outstanding and trio.current_time() < due:
                with trio.move_on_at(due):
                    await self.changed.park()
            else:
                await self._settle()
                due = trio.current_time() + GATHERING

    async def room(self) -> None:
        """Return once one more item may be under way."""
        await trio.lowlevel.checkpoint_if_cancelled()  # a turn for each object is dear
        while len(self.outstanding) + len(self._changes) >= MAXIMUM_OUTSTANDING:
            await self.changed.park()

    async def balanced(self) -> None:
        """Return once nothing is under way, and all that is known is on the disk."""
        await trio.lowlevel.checkpoint()
        while self.outstanding or self._changes:
            await self.changed.park()

    async def close(self) -> None:
        """Note what is known, whatever happened."""
        for item in self.outstanding.values():
            self._changes.append((item, _in_doubt(item)))
        self.outstanding.clear()
        try:
            await self._settle()
            if self.how is How.DONE:
                await self._spool.items.forgotten(self._told)
        except RelayError as error:
            # The rows say "waits", as before: asked about, or sent, once more.
            log.error("results not noted", called=self._batch.called, why=str(error))
            self.trouble(str(error))

    # --- what the far Router need not remember ----------------------------------------------------

    def take_known(self, at_least: int) -> list[bytes]:
        """What it is to be told to forget, if it is `at_least` so many; that is done then."""
        if len(self._known) < max(1, at_least):
            return []
        known, self._known = self._known, []
        return known

    def add_known(self, items: list[bytes]) -> None:
        """Items of an earlier session of which it was not told."""
        self._known.extend(items)

    async def told(self, items: list[bytes]) -> None:
        """It was told. Raises DatabaseError."""
        self._told.extend(items)
        if len(self._told) >= 2 * TOLD:
            await self._spool.items.forgotten(self._told[:TOLD])
            del self._told[:TOLD]

    # --- what becomes of items --------------------------------------------------------------------

    def begin(self, item: Item) -> None:
        """It is about to be sent."""
        self.outstanding[item.id] = item
        self.sent += 1
        self._witness.begins(item.study, item.sop_class, item.sop_instance)

    def damaged(self, item: Item, why: str) -> None:
        """It cannot be sent, or not to its end."""
        self.outstanding.pop(item.id, None)
        reason = f"it is damaged on this machine's disk: {why}"
        self._note(
            item,
            Change(
                number=item.number,
                state=State.FAILED,
                attempts=item.attempts,
                doubtful=item.doubtful,
                reason=reason,
                ended=self._now,
            ),
        )

    async def not_accepted(self, item: Item) -> None:
        """The device was known to take its kind, and refuses it now (DESIGN §6).

        Raises DatabaseError.
        """
        self._note(
            item,
            Change(
                number=item.number,
                state=State.HELD,
                hold=Hold.NOT_ACCEPTED,
                attempts=item.attempts,
                doubtful=item.doubtful,
                reason=_NOT_ACCEPTED,
            ),
        )
        await self._queue.refused(self._batch, item.pair)

    def answered(self, item: Item, outcome: Outcome, status: int) -> None:
        """The Result of an item has come, or an Answer that says the same."""
        here = self.outstanding.pop(item.id, None) is not None
        match outcome:
            case Outcome.ANSWERED | Outcome.REFUSED:
                # A person has seen that the device has another one of this name, and tries again.
                seen = item.status == Status.DUPLICATE_SOP_INSTANCE
                # Only an attempt without an answer may have stored it, not one that was refused.
                judgement = judge(status, attempted_before=item.doubtful and not seen)
                if here and judgement.verdict is Verdict.DELIVERED:
                    self._taken.add(item.pair)
                    self._queue.node.reached(self._batch.called)
                self._judged(item, judgement, status=status)
            case Outcome.CONFLICT:
                reason = "the far Router knows another object by this one's id"
                self._judged(item, Judgement(Verdict.FAILED, reason), status=None)
            case Outcome.CHANGED:
                reason = "what arrived at the far Router was not what was sent"
                again = Judgement(Verdict.RETRY_ALONE, reason, MAXIMUM_ALONE_ABORTS)
                self._judged(item, again, status=None)
                self.trouble(reason)

    def device_ended(self, by: EndedBy, words: str) -> None:
        """The association with the device is over, and all that it has answered was told.

        What it may have had in its hands is suspect (DESIGN §6): an object that it stumbles over
        must not be the first of the next association, and the next. The far Router's own trouble is
        no object's fault, and never makes a dead letter.
        """
        if by is EndedBy.DEVICE and not self.outstanding and self.settled and self.how is None:
            self.done()  # it had nothing to do any more, as some devices see to
            return
        judgement = judge_abort()
        if by is EndedBy.ROUTER:
            judgement = Judgement(Verdict.RETRY_ALONE, f"cut off: {words}", sys.maxsize)
        if self.how is None:  # else the cause is another one, and known
            for item in list(self.outstanding.values())[: self.window]:
                del self.outstanding[item.id]
                self._judged(item, judgement, status=item.status, doubtful=True)
        self.trouble(words or judgement.reason)

    def _judged(
        self, item: Item, judgement: Judgement, *, status: int | None, doubtful: bool = False
    ) -> None:
        attempts = _attempts(item, judgement.verdict)
        judgement = judgement.after(attempts)
        change = Change(
            number=item.number,
            state=State.WAITING,
            attempts=attempts,
            doubtful=doubtful or item.doubtful,
            alone=item.alone,
            status=status,
            reason=judgement.reason,
        )
        match judgement.verdict:
            case Verdict.DELIVERED:
                self.delivered += 1
                change = attrs.evolve(change, state=State.DELIVERED, ended=self._now)
            case Verdict.FAILED:
                change = attrs.evolve(change, state=State.FAILED, alone=False, ended=self._now)
            case Verdict.RETRY_ALONE:
                due = self._now + ALONE.next(attempts)
                change = attrs.evolve(change, due=due, alone=True)
            case Verdict.RETRY:
                change = attrs.evolve(change, due=self._now + _AGAIN.next(attempts))
                self.trouble(judgement.reason)
            case Verdict.PAUSE:
                change = attrs.evolve(change, due=self._now)
                self.trouble(judgement.reason, How.PAUSE)
        self._note(item, change)

    def _note(self, item: Item, change: Change) -> None:
        self.settled += 1
        if change.state is not State.HELD:  # that was not sent
            why = "" if change.state is State.DELIVERED else change.reason or "not delivered"
            self._witness.over(item.study, item.sop_class, item.sop_instance, why)
        self._changes.append((item, change))
        self.changed.unpark_all()

    @property
    def _now(self) -> float:
        return self._spool.clock()

    async def _settle(self) -> None:
        """Note all results that wait. Raises DatabaseError: then they still do."""
        changes = list(self._changes)
        if not changes:
            return
        with trio.CancelScope(shield=True):  # rows, counts and files change together
            noted = await self._spool.items.settle([change for _, change in changes])
            delivered = [item for item, c in changes if c.state is State.DELIVERED]
            del self._changes[: len(changes)]
            self._known.extend(item.id for item in delivered)
            # What a person has discarded is not counted, nor is its file given back, twice.
            self._queue.settled(self._batch, [c for _, c in changes if c.number in noted])
            await self._spool.objects.remove(i.stored for i in delivered if i.number in noted)
            taken, self._taken = self._taken, set()
            await self._queue.taken(self._batch, taken)
        self.changed.unpark_all()


def _attempts(item: Item, verdict: Verdict) -> int:
    """How often it was tried by now; alone, if it is tried alone.

    A night in which a device had no room does not use up the few times that an object is tried
    alone which may itself be the trouble.
    """
    if verdict is Verdict.RETRY_ALONE and not item.alone:
        return 1
    if verdict is Verdict.RETRY and item.alone:
        return max(1, item.attempts)
    return item.attempts + 1


def _in_doubt(item: Item) -> Change:
    """It was sent, and what became of it is not known: it keeps its place in the order."""
    return Change(
        number=item.number,
        state=State.WAITING,
        attempts=item.attempts,
        due=item.due,
        doubtful=True,
        alone=item.alone,
        status=item.status,
        reason=item.reason,
    )
