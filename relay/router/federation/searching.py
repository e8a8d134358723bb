"""One query to every device that a caller may ask, and one stream of answers (DESIGN §7).

    query -> each device (relay.router.federation.site) -> merged or streamed

All are asked at once, but for a moment: merged, where the last answer counts, the slowest have a
start; streamed, where the first one does, those of this hospital.

Merged, an answer waits for all that may still have something to say of it: while several devices
are being asked it is held, and what the last of them answers is passed on as it comes. A device has
ended its part with its last word; its association is released after that, beside what the caller
does with the answers. What could not be had is never passed over: `said` has each device and how
its part ended.
"""

from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice

import attrs
import structlog
import trio

from relay.dicom.dimse import Status
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.identifiers import (
    STUDY_INSTANCE_UID,
    Answered,
    Level,
    Query,
    QueryRefused,
)
from relay.router.federation.merging import Merger
from relay.router.federation.outcomes import Outcome, is_incomplete
from relay.router.federation.settings import Merging
from relay.router.federation.site import Said, Site
from relay.router.federation.sources import Source

log = structlog.get_logger()

__all__ = ["Answer", "Said", "Search", "search"]

# Answers that are passed on and not taken yet; devices wait beyond. As a rule they have a few
# hundred bytes each, but one may have as many as a device likes.
MAXIMUM_COMING = 256
MAXIMUM_COMING_BYTES = 1024 * 1024

# Answers that are given at once, as many as go out in one call.
ANSWERS_AT_ONCE = 64

# Answers of the last device that a merged search gathers before it passes them on: each by itself
# would wake whoever sends them, and be a write of its own; who asks so does not wait for the first.
GATHERED = 16

# Seconds that a streamed search gives this hospital's own archives to be asked before the tunnels
# to others are begun. An archive next door had answered 6 ms after it was called; beside two
# tunnels in the making it was asked after 17 to 28. The first answer is theirs as a rule.
OWN_FIRST = 0.010

# Seconds that a merged search, which waits for the last, gives the slowest devices before it begins
# those that are done sooner by at least as much. On two cores a tunnel was made and the archive
# behind it asked in 22 ms, and that one looked at what it has for 30 more. Where two others began
# at once the final response was 14 to 20 ms later, of some 650.
HEAD_START = 0.050


@attrs.frozen(slots=True)
class Answer:
    """One answer, in the query's syntax. `owners` are the titles of who holds the entity,
    as far as is known yet; `status` is the pending one of a C-FIND-RSP (PS3.4 §C.4.1.1.4)."""

    encoded: bytes = attrs.field(repr=False)
    owners: tuple[str, ...]
    status: int = Status.PENDING


class Search:
    """A search that runs. Made by `search`; iterate over its answers, once."""

    def __init__(
        self,
        federation: Federation,
        caller: Device | None,
        query: Query,
        sources: Sequence[Source],
        merging: Merging,
        maximum: int,
        *,
        asks_all: bool,
    ) -> None:
        self._federation = federation
        self._caller = caller
        self._query = query
        self._sources = sources
        self._said: dict[str, Said] = {}
        self._asks_all = asks_all
        self._streams = merging is Merging.STREAMED
        self._merger = Merger(query, merging)
        self._finished: Iterator[Answered] = iter(())
        self._lacking: set[tuple[str, ...]] = set()  # whose answers lack optional keys
        self._coming: deque[Answer] = deque()
        self._coming_bytes = 0
        self._given: deque[Answer] = deque()
        self._news = trio.lowlevel.ParkingLot()
        self._cancelled = False
        self._study = ""
        if query.level not in (Level.PATIENT, Level.STUDY):
            self._study = query.value(STUDY_INSTANCE_UID)
        self._sites = [
            Site(
                federation,
                caller,
                source,
                query,
                maximum=maximum,
                take=partial(self._take, source, rank),
                settled=self._settle,
            )
            for rank, source in enumerate(sources)
        ]

    @property
    def said(self) -> list[Said]:
        """How each device's part ended, of those that have ended: all once there are no more
        answers."""
        return [self._said[s.title] for s in self._sources if s.title in self._said]

    @property
    def incomplete(self) -> list[Said]:
        """Of `said`, where something may be missing of what the caller could have had."""
        return [said for said in self.said if is_incomplete(said.outcome)]

    @property
    def outcome(self) -> str:
        """How it went, in a word for whoever counts."""
        if self._cancelled or not self.over:
            return "cancelled"
        return "incomplete" if self.incomplete else "complete"

    @property
    def over(self) -> bool:
        """Whether each device has said its last."""
        return len(self._said) == len(self._sources)

    @property
    def count(self) -> int:
        """How many entities there are answers of, so far."""
        return len(self._merger.owners)

    def cancel(self) -> None:
        """C-CANCEL to all that have not ended. The iteration ends once they have, within some
        seconds, without further answers."""
        self._cancelled = True
        self._coming.clear()
        self._coming_bytes = 0
        self._finished = iter(())
        for site in self._sites:
            site.cancel()
        self._news.unpark_all()

    async def some(self) -> Sequence[Answer]:
        """The next answers, all that there are but not too many at once; none: that was all."""
        await trio.lowlevel.checkpoint()
        while not self.over and not self._is_enough:
            await self._news.park()
        if not self._coming:
            return self._held()
        some = [self._coming.popleft() for _ in range(min(len(self._coming), ANSWERS_AT_ONCE))]
        self._coming_bytes -= sum(len(answer.encoded) for answer in some)
        self._news.unpark_all()
        return some

    def __aiter__(self) -> "Search":
        return self

    async def __anext__(self) -> Answer:
        if not self._given:
            self._given.extend(await self.some())
        if not self._given:
            raise StopAsyncIteration
        return self._given.popleft()

    async def run(self) -> None:
        """Ask all."""
        later = self._later()
        first = [site for site in self._sites if site not in later]
        async with trio.open_nursery() as nursery:
            for site in first:
                nursery.start_soon(site.run)
            if later:
                with trio.move_on_after(OWN_FIRST if self._streams else HEAD_START):
                    for site in first:
                        await (site.begun if self._streams else site.over).wait()
            for site in later:
                nursery.start_soon(site.run)

    def _later(self) -> list[Site]:
        """Those that are begun after the others, and lose nothing by it."""
        if self._streams:
            return [site for site in self._sites if not site.is_own]
        paces = {site: pace for site in self._sites if (pace := site.pace) is not None}
        slowest = max(paces.values(), default=0.0)
        return [site for site, pace in paces.items() if pace + HEAD_START <= slowest]

    def close(self) -> None:
        """Let go what is held."""
        self._federation.held.free(self._merger.size)
        for _ in self._merger.finish():
            pass

    # --- what the sites say -----------------------------------------------------------------------

    async def _take(self, source: Source, rank: int, answered: Answered, status: int) -> bool:
        held, merger = self._federation.held, self._merger
        last = len(self._said) == len(self._sources) - 1
        before, room = merger.size, merger.room_for(answered, last=last)
        if not held.take(room):
            return False
        passed = merger.add(answered, source.title, rank, last=last)
        held.free(room - (merger.size - before))
        if status == Status.PENDING_WITHOUT_OPTIONAL_KEYS:
            self._lacking.add(answered.key)
        study = answered.key[0] if self._query.level is Level.STUDY else self._study
        if study:
            self._federation.found.note(self._caller, study, (source.title,))
        if passed is not None:
            while self._is_full and not self._cancelled:
                await self._news.park()
            if not self._cancelled:
                self._coming.append(self._answer(passed))
                self._coming_bytes += len(passed.encoded)
                if self._is_enough:
                    self._news.unpark_all()
        return True

    @property
    def _is_enough(self) -> bool:
        """Whether some of what is coming goes on its way now."""
        return len(self._coming) >= (1 if self._streams else GATHERED) or self._is_full

    @property
    def _is_full(self) -> bool:
        return len(self._coming) >= MAXIMUM_COMING or self._coming_bytes >= MAXIMUM_COMING_BYTES

    def _settle(self, said: Said) -> None:
        self._said[said.source.title] = said
        if self.over:
            if not self._streams and not self._cancelled:
                self._finished = self._merger.finish()
            self._note_whole()
            self._news.unpark_all()

    def _note_whole(self) -> None:
        """Who was asked for a study by its UID, and has it not, need not be asked again."""
        if not (self._asks_all and self._query.is_by_uid) or self.incomplete:
            return
        asked = [said.source.title for said in self.said if said.outcome is Outcome.COMPLETE]
        for key, titles in self._merger.owners.items():
            self._federation.found.note(self._caller, key[0], titles, whole=True, asked=asked)

    # --- answers ----------------------------------------------------------------------------------

    def _held(self) -> list[Answer]:
        before = self._merger.size
        some = [self._answer(answered) for answered in islice(self._finished, ANSWERS_AT_ONCE)]
        self._federation.held.free(before - self._merger.size)
        return some

    def _answer(self, answered: Answered) -> Answer:
        lacks = answered.key in self._lacking
        return Answer(
            answered.encoded,
            tuple(self._merger.owners[answered.key]),
            Status.PENDING_WITHOUT_OPTIONAL_KEYS if lacks else Status.PENDING,
        )


@asynccontextmanager
async def search(
    federation: Federation,
    caller: Device | None,
    query: Query,
    *,
    merging: Merging | None = None,
    maximum: int | None = None,
    but: Collection[str] = (),
) -> AsyncIterator[Search]:
    """Ask all that `caller` may ask; None is the Router itself.

    `merging` and `maximum`, of answers of one device, are the configuration's unless given; `but`
    are titles that are left out. Leaving the block ends what is not over; associations are released
    before it is left. Raises QueryRefused where the query leaves all there is, and that is not
    allowed.
    """
    settings, counts = federation.settings, federation.node.counts
    begun = trio.current_time()
    if settings.narrowing and not query.narrows:
        counts.queried("refused")
        raise QueryRefused(
            Status.UNABLE_TO_PROCESS, "a key is needed that narrows the query, as an ID or a date"
        )
    sources = [source for source in federation.sources.of(caller) if source.title not in but]
    found = Search(
        federation,
        caller,
        query,
        sources,
        settings.answers if merging is None else merging,
        settings.maximum_answers if maximum is None else maximum,
        asks_all=not but,
    )
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.run)
            try:
                yield found
            except Exception as error:
                failure = error  # raised again outside, where the nursery does not wrap it
            if failure is not None or not found.over:
                nursery.cancel_scope.cancel()
    finally:
        found.close()
    counts.queried("failed" if failure is not None else found.outcome, trio.current_time() - begun)
    log.info(
        "federated query",
        calling=federation.node.ae_title if caller is None else caller.ae_title,
        level=query.level.value,
        answers=found.count,
        outcomes={said.source.title: said.outcome.value for said in found.said},
    )
    if failure is not None:
        raise failure
