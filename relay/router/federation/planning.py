"""Who is asked for which part of a retrieve.

What one device alone holds, it is asked for as the caller asked. What several hold is looked up by
instances, with C-FINDs of each level in turn (PS3.4 §C.4.1, nothing relational): so that a split
study comes from all that hold a part of it, and what is there twice comes once. The first device
that holds an instance is asked for it; the others that do are known for the case that it fails.

Where nobody was asked who holds it, since that is remembered, what is missing in the end may have
come to another device meanwhile (relay.router.federation.anew).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

import attrs
import trio

from relay.dicom.dimse import Priority
from relay.errors import AssociationAborted, Outcome, SourceFailed
from relay.router.devices import Device
from relay.router.federation.conversing import Cancelling
from relay.router.federation.federation import Federation
from relay.router.federation.identifiers import Level
from relay.router.federation.owners import (
    Holdings,
    MayBeThere,
    holdings_of,
    owners_of,
    remembered,
)
from relay.router.federation.patients import studies_of_patient
from relay.router.federation.sources import Source
from relay.router.federation.targets import MAXIMUM_ASKED, Target
from relay.router.federation.totals import Counts, Progress, Tally

# Instances that one retrieve is planned by, at some 300 bytes each. What has more is asked of its
# owners one after the other, each for all that it has.
MAXIMUM_PLANNED = 32768

# Why something does not come that a device has.
NO_RETRIEVE = "its hospital does not grant this one to retrieve"

# Of those that end so, it is not known which instances they hold; they may send them all the same.
_SAYS_NOT_WHAT_IT_HAS = (Outcome.REFUSED, Outcome.CAPPED, Outcome.UNABLE)


@attrs.frozen(slots=True)
class Request:
    """One C-GET or C-MOVE. `instances` are what is to come of it; None: only the owner knows."""

    target: Target
    instances: tuple[str, ...] | None = None


@attrs.frozen(slots=True)
class Errand:
    """What one owner is asked for. `sop_classes` are those of it; empty: not known."""

    source: Source
    requests: tuple[Request, ...]
    sop_classes: frozenset[str] = frozenset()


@attrs.define(slots=True)
class Instance:
    """Where an instance is: `holders` are the titles of those that have not failed to send it."""

    study: str
    series: str
    sop_class: str
    holders: tuple[str, ...] = ()


class Plan:
    """The errands of one retrieve.

    `instances` are those that are planned, `lost` of them those that nobody may be asked for, since
    their owners do not let us retrieve. `troubles` say in words why something may be missing,
    by the title of the device. `has_owners`: somebody holds something of what is asked for; those
    are the `owners`, by title. `remembered` are the studies of which nobody was asked who else has
    a part. `withheld` is what each one holds that may not be asked for it, by title.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.errands: list[Errand] = []
        self.instances: dict[str, Instance] = {}
        self.troubles: dict[str, str] = {}
        self.lost: list[str] = []
        self.owners: dict[str, Source] = {}
        self.remembered: frozenset[str] = frozenset()
        self.withheld: dict[str, frozenset[str]] = {}
        self._sources: dict[str, Source] = {}
        # How many each device holds of a series, and of a study, of what is asked for.
        self._counts = Counter[tuple[str, str]]()

    @property
    def has_owners(self) -> bool:
        return bool(self.owners)

    def add(self, source: Source, holdings: Holdings) -> None:
        """`source` holds these; it comes after all that were added before it."""
        self._sources[source.title] = source
        if not source.retrieves:
            self.withheld[source.title] = frozenset(holdings)
        for uid, (study, series, sop_class) in holdings.items():
            instance = self.instances.setdefault(uid, Instance(study, series, sop_class))
            instance.sop_class = instance.sop_class or sop_class
            if source.retrieves:
                instance.holders += (source.title,)
                self._counts[source.title, instance.series] += 1
                self._counts[source.title, instance.study] += 1

    def assign(self, uids: Iterable[str]) -> tuple[list[Errand], list[str]]:
        """Errands to the first holder of each, and those that nobody is left to be asked for."""
        by_holder: dict[str, list[str]] = defaultdict(list)
        lost = []
        for uid in uids:
            if holders := self.instances[uid].holders:
                by_holder[holders[0]].append(uid)
            else:
                lost.append(uid)
        order = list(self._sources)
        errands = [self._errand(title, by_holder[title]) for title in order if title in by_holder]
        return errands, lost

    def is_elsewhere(self, uid: str) -> bool:
        """Whether another one than who is being asked for it holds this instance too."""
        return len(self.instances[uid].holders) > 1

    def give_up(self, source: Source, uids: Iterable[str]) -> None:
        """`source` was asked for these, and they have not come."""
        for uid in uids:
            instance = self.instances[uid]
            instance.holders = tuple(t for t in instance.holders if t != source.title)

    def requests(self, source: Source, uids: Iterable[str]) -> Iterator[Request]:
        """What `source` is to be asked for, so that it sends these and no others.

        A study or a series of which all that it holds is wanted is asked for as a whole.
        """
        by_study: dict[str, list[str]] = defaultdict(list)
        for uid in uids:
            by_study[self.instances[uid].study].append(uid)
        for study, wanted in by_study.items():
            target = self.target.of_study(study)
            if len(wanted) == self._counts[source.title, study] and len(target.uids) == 1:
                yield Request(target, tuple(wanted))
            else:
                yield from self._by_series(source, target, wanted)

    def _by_series(self, source: Source, target: Target, uids: list[str]) -> Iterator[Request]:
        by_series: dict[str, list[str]] = defaultdict(list)
        for uid in uids:
            by_series[self.instances[uid].series].append(uid)
        whole = {
            series: wanted
            for series, wanted in by_series.items()
            if target.level is not Level.IMAGE and len(wanted) == self._counts[source.title, series]
        }
        for some in _parts(list(whole)):
            yield Request(
                attrs.evolve(target, level=Level.SERIES, series=some),
                tuple(uid for series in some for uid in whole[series]),
            )
        for series, wanted in by_series.items():
            for some in _parts(wanted) if series not in whole else ():
                yield Request(
                    attrs.evolve(target, level=Level.IMAGE, series=(series,), instances=some), some
                )

    def _errand(self, title: str, uids: list[str]) -> Errand:
        source = self._sources[title]
        sop_classes = {self.instances[uid].sop_class for uid in uids}
        return Errand(
            source,
            tuple(self.requests(source, uids)),
            frozenset() if "" in sop_classes else frozenset(sop_classes),
        )


@attrs.define(slots=True, eq=False, kw_only=True)
class Retrieve:
    """What all errands of one retrieve share.

    `message_id` and `priority` are the caller's. `broken` is why nothing can be brought to the
    caller any more, `stopped` whether something was left out after a C-CANCEL.
    """

    federation: Federation
    caller: Device | None
    message_id: int
    priority: Priority
    progress: Progress
    cancelling: Cancelling
    plan: Plan
    tally: Tally
    broken: AssociationAborted | None = None
    stopped: bool = False
    _shown: Counts = attrs.field(factory=Counts)

    def open_requests(self, errand: Errand) -> Iterator[Request]:
        """Those of `errand` that something is still to come of, until the caller cancels."""
        for request in errand.requests:
            uids = request.instances
            if uids is not None and not any(map(self.tally.is_left, uids)):
                continue
            if self.cancelling.asked:
                self.stopped = True
                return
            yield request

    async def show(self) -> None:
        """Tell the caller how far it is, if that has changed."""
        counts = self.tally.counts()
        if self.plan.remembered:  # what has failed may be had elsewhere
            counts = attrs.evolve(counts, remaining=counts.remaining + counts.failed, failed=0)
        if counts != self._shown:
            self._shown = counts
            await self.progress(counts)


def _parts(uids: list[str]) -> Iterator[tuple[str, ...]]:
    for at in range(0, len(uids), MAXIMUM_ASKED):
        yield tuple(uids[at : at + MAXIMUM_ASKED])


async def plan_retrieve(
    federation: Federation, caller: Device | None, target: Target, *, by_instances: bool = False
) -> Plan:
    """Whom `caller` is to ask for what of `target`. `by_instances`: also where one holds it all.

    Raises QueryRefused for a patient who cannot be told from others.
    """
    troubles: dict[str, str] = {}
    if target.level is Level.PATIENT:
        target = await studies_of_patient(federation, caller, target, troubles)
    plan = Plan(target)
    plan.troubles = troubles
    plan.remembered = remembered(federation, caller, target.studies)
    owners = await owners_of(federation, caller, target.studies, troubles, target.patient_keys)
    sources = {source.title: source for held in owners.values() for source in held}
    alone: dict[str, list[str]] = defaultdict(list)
    shared: dict[str, list[str]] = defaultdict(list)
    for study, held in owners.items():
        for source in held:
            by_itself = len(held) == 1 and not by_instances
            (alone if by_itself else shared)[source.title].append(study)
    unplanned = await survey(federation, caller, plan, sources, shared)
    plan.owners = sources
    plan.errands, plan.lost = plan.assign(plan.instances)
    for title, source in sources.items():
        studies = (*alone.get(title, ()), *unplanned.get(title, ()))
        if studies and source.retrieves:
            whole = attrs.evolve(target, studies=studies)
            plan.errands.append(Errand(source, tuple(map(Request, whole.parts()))))
        elif studies or (plan.lost and not source.retrieves):
            plan.troubles[title] = NO_RETRIEVE
    return plan


async def survey(
    federation: Federation,
    caller: Device | None,
    plan: Plan,
    sources: Mapping[str, Source],
    shared: Mapping[str, list[str]],
) -> dict[str, list[str]]:
    """Put into `plan` what each holds of its studies; of those that do not say, they are returned.

    `shared` are the studies of each of `sources`, by title.

    One that cannot be reached is not asked again: it is noted among the troubles.
    """
    found: dict[str, Holdings] = {}
    failed: dict[str, SourceFailed] = {}

    async def look(title: str) -> None:
        targets = [plan.target.of_study(study) for study in shared[title]]
        try:
            found[title] = await holdings_of(
                federation, caller, sources[title], targets, MAXIMUM_PLANNED
            )
        except SourceFailed as error:
            failed[title] = error

    async with trio.open_nursery() as nursery:
        for title in shared:
            nursery.start_soon(look, title)
    unplanned = {}
    for title, source in sources.items():
        if isinstance(doubt := failed.get(title), MayBeThere):
            plan.troubles[title] = str(doubt)  # what it sends may not be all that it has
        if title in found and len(plan.instances.keys() | found[title]) <= MAXIMUM_PLANNED:
            plan.add(source, found[title])
        elif title in found or (title in failed and failed[title].outcome in _SAYS_NOT_WHAT_IT_HAS):
            unplanned[title] = shared[title]
        elif title in failed:
            plan.troubles[title] = str(failed[title])
    return unplanned
