"""Carries a retrieve out, one errand after the other, and says what came of it.

What an owner does not send is asked of the next that holds it. One at a time: so the counters are
those of one retrieve, and the caller hears one object after the other.
"""

from collections import deque
from collections.abc import Iterable
from typing import Protocol

import attrs
import structlog
import trio

from relay.dicom.dimse import Priority
from relay.router.devices import Device
from relay.router.federation.anew import lacks_some, plan_anew
from relay.router.federation.conversing import Cancelling
from relay.router.federation.federation import Federation
from relay.router.federation.outcomes import Outcome, SourceFailed, told_of
from relay.router.federation.planning import (
    Errand,
    Plan,
    Retrieve,
    plan_retrieve,
)
from relay.router.federation.settings import OnIncomplete
from relay.router.federation.targets import Target
from relay.router.federation.totals import Progress, Refusal, Tally, Totals

log = structlog.get_logger()

# Who ends so is not there: another errand to it would only wait again.
_GONE = (Outcome.UNREACHABLE, Outcome.SLOW, Outcome.NOT_GRANTED)


class RefusedHere(SourceFailed):
    """This Router does not let it be asked of that owner; the words are this Router's own."""


class Way(Protocol):
    """C-GET or C-MOVE."""

    @property
    def refusal(self) -> Refusal | None:
        """Why nothing was stored, where owners have said so."""

    async def perform(self, retrieve: Retrieve, errand: Errand) -> None:
        """Ask the owner of `errand` for it. Raises SourceFailed."""


@attrs.define(slots=True, eq=False)
class Errands:
    """One retrieve. `troubles` are why something may be missing, by the title of the device, or of
    this Router."""

    federation: Federation
    caller: Device | None
    target: Target
    message_id: int
    priority: Priority
    progress: Progress
    by_instances: bool = False
    troubles: dict[str, str] = attrs.field(factory=dict)
    _gone: set[str] = attrs.field(factory=set)

    async def run(self, way: Way, cancelled: trio.Event | None) -> Totals:
        """Do all of it, by `way`; `cancelled` is set for a C-CANCEL. Raises what the way raises."""
        cancelling = Cancelling()
        failure: Exception | None = None

        async def watch(event: trio.Event) -> None:
            await event.wait()
            cancelling.cancel()

        async with trio.open_nursery() as nursery:
            if cancelled is not None:
                nursery.start_soon(watch, cancelled)
            try:
                totals = await self._carry_out(way, cancelling)
            except Exception as error:  # it is to leave the nursery as what it is
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return totals

    async def _carry_out(self, way: Way, cancelling: Cancelling) -> Totals:
        plan: Plan | None = None
        planning = trio.CancelScope()
        with planning, cancelling.waking(planning):
            plan = await plan_retrieve(
                self.federation, self.caller, self.target, by_instances=self.by_instances
            )
        if plan is None:
            return Tally().totals(cancelled=True)
        tally = Tally(plan.instances)
        retrieve = Retrieve(
            federation=self.federation,
            caller=self.caller,
            message_id=self.message_id,
            priority=self.priority,
            progress=self.progress,
            cancelling=cancelling,
            plan=plan,
            tally=tally,
        )
        self.troubles.update(plan.troubles)
        for uid in plan.lost:
            tally.fail(uid)
        errands = await self._perform_all(way, retrieve, plan.errands)
        if plan.remembered and not cancelling.asked and lacks_some(plan, tally):
            # It may have come to another archive since it was searched for.
            anew = list[Errand]()
            planning = trio.CancelScope()
            with planning, cancelling.waking(planning):
                anew = await plan_anew(self.federation, self.caller, plan, tally, self._gone)
            retrieve.stopped |= planning.cancelled_caught
            self.troubles.update(plan.troubles)
            errands = await self._perform_all(way, retrieve, anew)
        # A C-CANCEL may come too late to leave anything out.
        left_out = bool(errands) or retrieve.stopped or tally.counts().remaining > 0
        totals = self._totals(way, tally, plan, cancelled=cancelling.asked and left_out)
        if not totals.counts.total:
            # Who is remembered to hold a study may have nothing of it that is asked for now.
            for study in self.target.studies:
                self.federation.found.forget(self.caller, study)
        return totals

    async def _perform_all(
        self, way: Way, retrieve: Retrieve, errands: Iterable[Errand]
    ) -> deque[Errand]:
        """One after the other; what is left of them after a C-CANCEL."""
        left = deque(errands)
        while left and not retrieve.cancelling.asked:
            errand = left.popleft()
            left += await self._perform(way, retrieve, errand)
            await retrieve.show()
        return left

    async def _perform(self, way: Way, retrieve: Retrieve, errand: Errand) -> list[Errand]:
        """What others are to be asked for in the place of this owner."""
        plan, tally, source = retrieve.plan, retrieve.tally, errand.source
        failure: SourceFailed | None = None
        try:
            if source.title not in self._gone:
                await way.perform(retrieve, errand)
        except SourceFailed as error:
            if retrieve.broken is not None:
                raise retrieve.broken from error
            failure = error
        if retrieve.cancelling.asked:
            retrieve.stopped |= failure is not None
            return []
        left = [uid for r in errand.requests for uid in r.instances or () if tally.is_left(uid)]
        plan.give_up(source, left)
        if failure is not None and failure.outcome in _GONE:
            self._gone.add(source.title)
            plan.give_up(source, filter(tally.is_left, plan.instances))
        others, lost = plan.assign(left)
        for uid in lost:
            tally.fail(uid)
        if failure is not None and (lost or any(r.instances is None for r in errand.requests)):
            here = isinstance(failure, RefusedHere)
            self.troubles[self._own_title if here else source.title] = str(failure)
        if left or failure is not None:
            for request in errand.requests:
                for study in request.target.studies:
                    self.federation.found.forget(self.caller, study)
            log.info(
                "federation's owner failed",
                called=source.title,
                why=str(failure or ""),
                missing=len(left),
                elsewhere=len(left) - len(lost),
            )
        return others

    @property
    def _own_title(self) -> str:
        return self.federation.node.ae_title

    def _totals(self, way: Way, tally: Tally, plan: Plan, *, cancelled: bool) -> Totals:
        refusal: Refusal | None = None
        if self.troubles:
            unable = Refusal.UNABLE_TO_PERFORM if plan.has_owners else Refusal.UNABLE_TO_COUNT
            refusal = way.refusal or unable
        own = self._own_title
        # What can be mended here stands first: there is room for little more in a response.
        troubles = sorted(self.troubles.items(), key=lambda row: (row[0] != own, row))
        words = "; ".join(told_of(title, why) for title, why in troubles)
        may_lack = self.federation.settings.on_incomplete is OnIncomplete.SUCCESS
        return tally.totals(cancelled=cancelled, refusal=refusal, words=words, may_lack=may_lack)
