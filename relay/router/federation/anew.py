"""A retrieve that lacks something, and of which nobody was asked who holds it: who does by now?

Whose a study is, is remembered for an hour (relay.router.federation.found). Meanwhile it may come
to another archive, or some of it. So where those who are remembered fail, or have less than is
asked for, the others are asked as well, once and within the same retrieve.
"""

from collections import defaultdict
from collections.abc import Mapping, Set
from math import inf

import attrs
import structlog
import trio

from relay.errors import SourceFailed
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.identifiers import Level
from relay.router.federation.owners import OTHERS_WAIT, holdings_of, others_of
from relay.router.federation.planning import (
    MAXIMUM_PLANNED,
    NO_RETRIEVE,
    Errand,
    Plan,
    Request,
    survey,
)
from relay.router.federation.sources import Source
from relay.router.federation.targets import Target
from relay.router.federation.totals import Tally

log = structlog.get_logger()


def lacks_some(plan: Plan, tally: Tally) -> bool:
    """Whether less has come than was asked for, as far as that can be known."""
    counts = tally.counts()
    stored = counts.completed + counts.warning
    if plan.target.level is Level.IMAGE:
        return stored < len(plan.target.instances)
    return counts.failed > 0 or not stored


async def plan_anew(
    federation: Federation, caller: Device | None, plan: Plan, tally: Tally, gone: Set[str]
) -> list[Errand]:
    """Errands for what others than the owners in `plan` hold of it, and has not come.

    Only of studies whose owners were remembered. `gone`: owners that are not asked any more. Where
    nobody has said which instances have come, they are those that the owners hold.
    """
    studies = tuple(s for s in plan.target.studies if s in plan.remembered)
    target = attrs.evolve(plan.target, studies=studies)
    plan.remembered = frozenset()
    has_some = bool(tally.came or tally.came_unnamed)
    others = await others_of(
        federation,
        caller,
        studies,
        plan.owners,
        plan.troubles,
        target.patient_keys,
        OTHERS_WAIT if has_some else inf,
    )
    sources = {source.title: source for held in others.values() for source in held}
    if not sources:
        return []
    shared: dict[str, list[str]] = defaultdict(list)
    for study, held in others.items():
        for source in held:
            shared[source.title].append(study)
    before: set[str] | None = None
    if tally.has_unnamed and gone.isdisjoint(plan.owners):
        before = await _held_before(federation, caller, plan, target)
    planned = set(plan.instances)
    unplanned = await survey(federation, caller, plan, sources, shared)
    wanted = _wanted(plan, tally, sources, before)
    for source in plan.owners.values():
        plan.give_up(source, wanted)
    errands, lost = plan.assign(wanted)
    counted = planned.union(tally.failed_uids, before or ())
    nowhere = set(lost)
    for uid in wanted:
        if uid not in nowhere:
            # Where an owner does not say what it holds, or is gone, no failure is taken for mended
            # by what may be something else.
            tally.again(uid, failed=before is not None and uid in before)
        elif uid not in counted:
            tally.fail(uid)
    for title, source in sources.items():
        withheld = plan.withheld.get(title, frozenset())
        if not source.retrieves and (title in unplanned or not withheld.isdisjoint(nowhere)):
            plan.troubles[title] = NO_RETRIEVE
    if not has_some:  # else nobody could say what of it is missing
        errands += _whole(target, sources, unplanned)
    plan.owners |= sources
    return errands


def _wanted(
    plan: Plan, tally: Tally, sources: Mapping[str, Source], before: set[str] | None
) -> list[str]:
    """What has not come of what `sources` hold; `before`: what the owners hold, if they say.

    Also what they are not to be asked for.
    """
    withheld = frozenset[str]().union(*(plan.withheld.get(title, ()) for title in sources))

    def has_not_come(uid: str) -> bool:
        if not tally.may_come(uid):
            return False
        if not tally.came_unnamed or uid in tally.failed_uids:
            return True
        return before is not None and uid not in before

    return [
        uid
        for uid, instance in plan.instances.items()
        if (uid in withheld or not sources.keys().isdisjoint(instance.holders))
        and has_not_come(uid)
    ]


def _whole(
    target: Target, sources: Mapping[str, Source], unplanned: Mapping[str, list[str]]
) -> list[Errand]:
    """Of those that do not say what they hold: all of it."""
    return [
        Errand(
            sources[title],
            tuple(map(Request, attrs.evolve(target, studies=tuple(studies)).parts())),
        )
        for title, studies in unplanned.items()
        if sources[title].retrieves
    ]


async def _held_before(
    federation: Federation,
    caller: Device | None,
    plan: Plan,
    target: Target,
) -> set[str] | None:
    """What the owners in `plan` hold of `target`; None where one of them does not say in time."""
    held: set[str] = set()
    silent = set(plan.owners)
    targets = [target.of_study(study) for study in target.studies]

    async def look(source: Source) -> None:
        try:
            held.update(await holdings_of(federation, caller, source, targets, MAXIMUM_PLANNED))
        except SourceFailed as error:
            log.debug("an owner does not say what it has", called=source.title, why=str(error))
        else:
            silent.remove(source.title)

    with trio.move_on_after(OTHERS_WAIT):
        async with trio.open_nursery() as nursery:
            for source in plan.owners.values():
                nursery.start_soon(look, source)
    return None if silent else held
