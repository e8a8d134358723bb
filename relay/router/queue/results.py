"""Results: what became of the objects of a delivery, written down and then told, in groups.

The far end's promise is kept here: what the device has stored is durable in a receipt before the
near Router hears of it. While one group gathers or is written the device has its next objects.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from math import inf

import attrs
import structlog
import trio

from relay.errors import AbortReason, AbortSource, AssociationAborted, DatabaseError
from relay.router.node import unix_time
from relay.spool.receipts import Conflict, Receipt, Recorder
from relay.tracing import number
from relay.tunnel import notes
from relay.tunnel.notes import Ended, EndedBy, Outcome, Result
from relay.tunnel.records import Note, Record
from relay.tunnel.session import TunnelAssociation

log = structlog.get_logger()

# Results that wait to be written. Whoever brings more waits, and the device with it.
WAITING_RESULTS = 32

# Between two groups. A result that is told alone costs a chunk, a message at the Bridge, and a
# commit at the near Router: with an object each 4 ms, a quarter of that Router's processor time
# beside the tunnel (1.3 and 0.95 ms for a CT image). Written down alone it costs a commit here: 0.5
# of some 4 ms. The first one is written and told at once. What a device has answered within this
# time is what it may see again when its Router is killed.
TELL_EVERY = 0.05

# For the near Router to take what it is told. Where it cannot be reached the session ends sooner,
# after its resume window; one that is there takes it at once.
TELLING_WAIT = 120.0


@attrs.frozen(slots=True)
class Due:
    """A result that is due, and the receipt that must be durable first."""

    result: Result
    receipt: Receipt | None = None
    from_receipt: bool = False


def known(item: bytes, receipt: Receipt | Conflict) -> Due:
    """What an item comes to that has a receipt: of this object, or of another one."""
    if isinstance(receipt, Conflict):
        return Due(Result(item, Outcome.CONFLICT, 0, ""))
    result = Result(item, Outcome.ANSWERED, receipt.status, receipt.comment)
    return Due(result, from_receipt=True)


class How(Enum):
    """How a session ended."""

    RELEASED = "released"
    LEFT = "left by the near Router"
    DEVICE = "ended by the device"
    ROUTER = "aborted by this Router"


@attrs.frozen(slots=True)
class Ending:
    """How it ended, in words for both Routers' logs, and as an A-ABORT says it (PS3.8 §9.3.8)."""

    how: How
    words: str = ""
    source: int = AbortSource.SERVICE_PROVIDER
    reason: int = AbortReason.NOT_SPECIFIED

    def note(self) -> Ended:
        """What the near Router is told."""
        by = EndedBy.DEVICE if self.how is How.DEVICE else EndedBy.ROUTER
        return Ended(by, int(self.source), int(self.reason), self.words)


@attrs.define(slots=True)
class Counts:
    """Objects of one session: those that the device took, and those that it did not."""

    delivered: int = 0
    failed: int = 0
    from_receipts: int = 0
    refused: int = 0
    conflicts: int = 0
    changed: int = 0

    def add(self, due: Due) -> None:
        """Count one that is told."""
        match due.result.outcome:
            case Outcome.CONFLICT:
                self.conflicts += 1
            case Outcome.CHANGED:
                self.changed += 1
            case Outcome.REFUSED:
                self.refused += 1
            case Outcome.ANSWERED if due.from_receipt:
                self.from_receipts += 1
            case Outcome.ANSWERED if due.receipt is not None:
                self.delivered += 1
            case Outcome.ANSWERED:
                self.failed += 1


async def say(near: TunnelAssociation, *records: Record) -> None:
    """Tell the near Router; if it has left, what is received from it next says so.

    Also one that asks and asks, and takes no answer: it would hold the device's place.
    """
    association = number(near.session)
    try:
        with trio.move_on_after(TELLING_WAIT) as scope:
            # In as few chunks as may be: one for each result cost a fifth of the Bridge's time.
            for left, record in zip(range(len(records) - 1, -1, -1), records, strict=True):
                await near.send(record, end_of_message=not left)
        if scope.cancelled_caught:
            log.warning("near Router takes no answers", association=association)
            await near.abort(AbortSource.SERVICE_PROVIDER)
    except AssociationAborted as error:
        log.info("near Router has left", association=association, why=str(error))


class Results:
    """The results of one session with the Router whose identity is `origin`, told to `near`."""

    def __init__(self, near: TunnelAssociation, recorder: Recorder, origin: bytes) -> None:
        self.counts = Counts()
        self._near = near
        self._recorder = recorder
        self._origin = origin
        self._lock = trio.Lock()  # a tunnel is for one sender at a time
        self._in_hand: dict[bytes, None] = {}
        self._due: list[Due] = []
        self._telling_due = -inf
        self._ended = False
        self._broken = False  # nothing can be written any more
        self._news = trio.lowlevel.ParkingLot()  # for who writes and tells
        self._room = trio.lowlevel.ParkingLot()  # for who brings more

    async def take(self, item: bytes) -> None:
        """Have an item in hand until its result is told, once no other session has it."""
        await self._recorder.take(self._origin, item)
        self._in_hand[item] = None

    async def add(self, due: Due) -> None:
        """Have `due` told. Waits while too many are; cancelled then, it is written all the same."""
        try:
            while len(self._due) >= WAITING_RESULTS:
                await self._room.park()
        finally:
            self._due.append(due)
        if len(self._due) in (1, WAITING_RESULTS):
            self._news.unpark_all()

    async def say(self, *said: Note) -> None:
        """Tell the near Router something else."""
        async with self._lock:
            await say(self._near, *said)

    async def run(self, failed: Callable[[DatabaseError], None]) -> None:
        """Write and tell what is due, until `end`; `failed` is told, maybe often, if it cannot be.

        A result that could not be written is not told, nor is any later one. Cancelled, what is due
        is written all the same: the device has the objects.
        """
        try:
            while group := await self._next_group():
                told = await self._kept(group, failed)
                if told:
                    await self.say(*told)
                    self._telling_due = trio.current_time() + TELL_EVERY
        finally:
            await self.write(failed)

    async def write(self, failed: Callable[[DatabaseError], None]) -> None:
        """Write what is due, and tell nothing. Not cancelled: it is bounded by the disk."""
        with trio.CancelScope(shield=True):
            while self._due:
                await self._kept(self._taken(), failed)

    async def _kept(
        self, group: Sequence[Due], failed: Callable[[DatabaseError], None]
    ) -> list[Note]:
        """What is to be told of the group; nothing, where it cannot be written.

        Then all is taken still: who brings it must not wait.
        """
        if group and not self._broken:
            try:
                return await self._keep(group)
            except DatabaseError as error:
                self._broken = True
                failed(error)
        return []

    async def _next_group(self) -> list[Due]:
        """All that is due, once it is time or as much as may wait; nothing at the end."""
        while not (self._due or self._ended):
            await self._news.park()
        with trio.move_on_at(self._telling_due):
            while len(self._due) < WAITING_RESULTS and not self._ended:
                await self._news.park()
        return self._taken()

    def _taken(self) -> list[Due]:
        group, self._due = self._due, []
        self._room.unpark_all()
        return group

    async def _keep(self, group: Sequence[Due]) -> list[Note]:
        """Have the group durable, and its items free: what is to be told. Raises DatabaseError."""
        receipts = [due.receipt for due in group if due.receipt is not None]
        if receipts:
            await self._recorder.keep(receipts, unix_time())
        for due in group:
            del self._in_hand[due.result.id]
            self._recorder.free(self._origin, due.result.id)
            self.counts.add(due)
        return [notes.encode(due.result) for due in group]

    def end(self) -> None:
        """Nothing more is added: `run` returns once all is told."""
        self._ended = True
        self._news.unpark_all()

    def close(self) -> None:
        """Nothing more is told: other sessions may have what was in hand."""
        for item in self._in_hand:
            self._recorder.free(self._origin, item)
        self._in_hand.clear()
