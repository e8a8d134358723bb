"""The audit of one process: events are handed in, and are on the disk a moment later.

    record() -> (waits) -> a group's commit -> the collector (relay.audit.sender), people

Nobody who hands an event in waits for the disk: not a device, nor its data. What waits is bounded
all the same: who begins something new asks for `room()` first, and is told no while the disk does
not take what there is. An event is lost only if the process is killed within the tenth of a second
until its commit.
"""

import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs
import structlog
import trio

from relay.audit import entries, happenings
from relay.audit.codes import EventType, Kind, Outcome
from relay.audit.document import AuditSource
from relay.audit.entries import DATABASE_FILE, MIGRATIONS, Entry, Filter, Finding, Seal
from relay.audit.events import AuditEvent, Participant
from relay.audit.floods import Floods
from relay.database import Database, open_database
from relay.errors import DatabaseError, Refused, RelayError

log = structlog.get_logger()

# Seconds for which events gather: each group is one commit, which waits for the disk.
GATHERING = 0.1

# Events of one commit.
GROUP = 500

# Events that wait before new work is held back. Where the disk is well it is a group at the most;
# these are some 10 MiB.
MAXIMUM_WAITING = 10_000

# How long new work waits for room: below the 30 s after which devices give an association up.
ROOM_WAIT = 10.0

# After a commit that failed.
AGAIN = 5.0

# What is recorded by work that was under way when the disk failed fits in here: 256 associations
# with some entries each. Beyond it memory would be the next to fail.
MAXIMUM_KEPT = 4 * MAXIMUM_WAITING

# Seven years: HIPAA asks for six (45 CFR §164.316(b)(2)), and the longest that is usual elsewhere
# for who has seen what of a patient is a little more.
DEFAULT_DAYS = 7 * 365 + 2

# The most that the entries may take, whatever their age. One takes 0.7 to 1 KiB, so that it is some
# 17 million, or seven years of 6,500 a day: a hospital of some 3,000 associations. The oldest go
# first.
DEFAULT_SPACE = 16 * 2**30

# Between two looks at what is too old.
SWEEP_EVERY = 3600.0

DAY = 86_400.0

# What somebody can cause, if it is a failure, who may do nothing here.
_ANYBODYS = frozenset({Kind.ALERT, Kind.SIGN_IN})

T = TypeVar("T")


class AuditFull(RelayError):
    """Too much waits to be written into the audit: nothing new may begin."""


@attrs.frozen(slots=True)
class Statistics:
    """How it fares. `waiting` events are not on the disk yet; `last` is the last entry's number."""

    recorded: int
    waiting: int
    failures: int
    lost: int
    last: int


class Audit:
    """The audit on an open database. Made by `open_audit`.

    `source` says who reports, as things are. `seal` encrypts what queries asked for; without one
    that is left out.
    """

    def __init__(
        self,
        database: Database,
        source: Callable[[], AuditSource],
        *,
        seal: Seal | None = None,
        days: int = DEFAULT_DAYS,
        space: int = DEFAULT_SPACE,
        last: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.changed = trio.lowlevel.ParkingLot()
        """There are new entries on the disk."""
        self._database = database
        self._source = source
        self._seal = seal
        self._days = days
        self._space = space
        self._clock = clock
        self._last = last
        self._recorded = 0
        self._failures = 0
        self._lost = 0
        self._waiting: list[tuple[AuditEvent, bytes]] = []
        self._floods = Floods()
        self._news = trio.lowlevel.ParkingLot()  # for who writes
        self._taken = trio.lowlevel.ParkingLot()  # for who waits for room
        self._writing = trio.Lock()
        self._verifying = threading.Lock()

    @property
    def source(self) -> AuditSource:
        """Who reports."""
        return self._source()

    def statistics(self) -> Statistics:
        """How it fares."""
        return Statistics(
            self._recorded, len(self._waiting), self._failures, self._lost, self._last
        )

    # --- handing in -------------------------------------------------------------------------------

    def record(self, event: AuditEvent) -> None:
        """Have `event` kept. Nobody waits; a refusal like one of a moment ago is counted."""
        anybodys = event.kind in _ANYBODYS and event.outcome is not Outcome.SUCCESS
        if not anybodys or self._floods.take(event):
            self._add(event)
        self._news.unpark_all()

    def _add(self, event: AuditEvent) -> None:
        if len(self._waiting) >= MAXIMUM_KEPT:
            self._lost += 1
            log.error("audit event lost", kind=event.kind.word, why="the disk takes none")
            return
        self._recorded += 1
        self._waiting.append((event, entries.sealed(event, self._seal).encode()))

    async def room(self) -> None:
        """Return once something new may begin. Raises AuditFull after ROOM_WAIT."""
        with trio.move_on_after(ROOM_WAIT):
            while len(self._waiting) >= MAXIMUM_WAITING:
                await self._taken.park()
            return
        raise AuditFull("the audit cannot be written: see the log for what the disk says")

    # --- writing ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write what is handed in, and take what is too old, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep_always)
            while True:
                await self._wait()
                with trio.move_on_after(GATHERING):
                    while len(self._waiting) < GROUP:
                        await self._news.park()
                if not await self._write():
                    await trio.sleep(AGAIN)

    async def _wait(self) -> None:
        """Return once there is something to be written."""
        while not self._waiting:
            due = self._floods.due
            with trio.CancelScope(deadline=due if due is not None else float("inf")):
                await self._news.park()
            for event in self._floods.over():
                self._add(event)

    async def _write(self) -> bool:
        """Write a group; whether the disk took it."""
        async with self._writing:
            group = self._waiting[:GROUP]
            if not group:
                return True
            try:
                self._last = await self._database.run(partial(entries.append, events=group))
            except DatabaseError as error:
                self._failures += 1
                log.error("audit not written", waiting=len(self._waiting), why=str(error))
                return False
            del self._waiting[: len(group)]
        self._taken.unpark_all()
        self.changed.unpark_all()
        return True

    async def flush(self) -> None:
        """Write all that was handed in. Returns also where the disk does not take it."""
        for event in self._floods.over(all=True):
            self._add(event)
        while self._waiting and await self._write():
            pass

    # --- what is too old --------------------------------------------------------------------------

    async def _sweep_always(self) -> None:
        while True:
            try:
                await self.sweep()
            except DatabaseError as error:
                log.error("audit not swept", why=str(error))
            await trio.sleep(SWEEP_EVERY)

    async def sweep(self) -> int:
        """Take what is too old, and of the rest the oldest until it fits; how many.

        Raises DatabaseError.
        """
        limit = self._clock() - self._days * DAY
        old = await self._database.run(lambda db: entries.older_than(db, limit))
        gone = taken = await self._sweep(old) if old else 0
        while await self._database.run(entries.size) > self._space:
            taken = await self._sweep(self._last, once=True)
            gone += taken
            if not taken:
                break
            log.warning("oldest audit entries removed", entries=taken, why="audit_space is used up")
        if gone:
            log.info("audit swept", entries=gone)
        return gone

    async def _sweep(self, until: int, *, once: bool = False) -> int:
        gone = 0
        while taken := await self._database.run(partial(entries.sweep, until=until)):
            gone += taken
            if once:
                break
        return gone

    # --- reading ----------------------------------------------------------------------------------

    async def latest(self, which: Filter, limit: int) -> list[Entry]:
        """The entries that are meant, the latest first."""
        return await self._database.read(lambda db: entries.latest(db, which, limit))

    async def following(self, number: int, limit: int) -> list[Entry]:
        """The entries behind `number`, in their order."""
        return await self._database.run(lambda db: entries.following(db, number, limit))

    async def one(self, number: int) -> Entry | None:
        """The entry of this number."""
        return await self._database.read(lambda db: entries.one(db, number))

    def event_of(self, entry: Entry) -> AuditEvent:
        """What it tells, with its query as it was asked; of one that was changed, that it was."""
        try:
            return entries.opened(entry.event, self._seal)
        except ValueError:
            return happenings.alert(
                EventType.SECURITY_CONFIGURATION,
                Participant(self.source.id),
                f"entry {entry.number} of the audit was changed on the disk",
                subject=str(entry.number),
                outcome=Outcome.MAJOR_FAILURE,
            )

    async def told(
        self, those: Sequence[Entry], tell: Callable[[Sequence[tuple[Entry, AuditEvent]]], T]
    ) -> T:
        """What `tell` makes of these, in a thread: a page takes it 30 ms, for which no data would
        move."""

        def opened() -> T:
            return tell([(entry, self.event_of(entry)) for entry in those])

        return await trio.to_thread.run_sync(opened)

    async def sent(self) -> int:
        """The last entry that the collector has."""
        number, _ = await self._database.run(lambda db: entries.position(db, "sent"))
        return number

    async def put_sent(self, number: int) -> None:
        """The collector has all entries up to `number`."""
        await self._database.run(lambda db: entries.put_position(db, "sent", number))

    async def verify(self, noted: tuple[int, bytes] | None = None) -> Finding:
        """Go through the whole chain; `noted` is an entry's number and hash kept elsewhere.

        What is recorded meanwhile is not looked at. One at a time: it may take minutes of a core,
        for which the database keeps all that is written beside it. Raises DatabaseError, and
        Refused (503) while somebody else has it done.
        """

        def verify() -> Finding:
            if not self._verifying.acquire(blocking=False):
                raise Refused(503, "the audit is gone through already: try again when that is done")
            try:
                return entries.verify(self._database.path, noted)
            finally:
                self._verifying.release()

        return await trio.to_thread.run_sync(verify, abandon_on_cancel=True)


@asynccontextmanager
async def open_audit(
    data_dir: Path,
    source: Callable[[], AuditSource],
    *,
    seal: Seal | None = None,
    days: int = DEFAULT_DAYS,
    space: int = DEFAULT_SPACE,
) -> AsyncIterator[Audit]:
    """The audit in `data_dir`, whose `run` is the caller's to start.

    At the end what was handed in is written. Raises DatabaseError if it cannot be opened.
    """
    async with open_database(data_dir / DATABASE_FILE, MIGRATIONS) as database:
        last = await database.run(entries.drawn)
        audit = Audit(database, source, seal=seal, days=days, space=space, last=last)
        try:
            yield audit
        finally:
            with trio.CancelScope(shield=True):
                await audit.flush()
