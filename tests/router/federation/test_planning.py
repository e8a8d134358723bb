from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest
import trio

from relay.router.federation import planning
from relay.router.federation.identifiers import Level
from relay.router.federation.owners import Holdings
from relay.router.federation.planning import Errand, Plan, Request, plan_retrieve
from relay.router.federation.sources import Source
from relay.router.federation.targets import Target
from tests.router.federation.archives import Archive, Stored, series_of, site

STUDY = Target(level=Level.STUDY, studies=("1.2",))
A, B, C = (Source(title, title, "hospital", None, True) for title in "ABC")


def holdings(held: Iterable[Stored]) -> Holdings:
    return {one.uid: (one.study, one.series, one.sop_class) for one in held}


def planned(target: Target, *held: tuple[Source, list[Stored]]) -> Plan:
    plan = Plan(target)
    for source, some in held:
        plan.add(source, holdings(some))
    return plan


def said(errands: Iterable[Errand]) -> list[tuple[str, str, tuple[str, ...]]]:
    return [
        (errand.source.title, request.target.level.name, request.target.uids)
        for errand in errands
        for request in errand.requests
    ]


def test_each_instance_is_asked_of_its_first_holder() -> None:
    common, more = series_of("1.2", 1, 2), series_of("1.2", 2, 2)
    plan = planned(STUDY, (A, common), (B, [*common, *more]))
    errands, lost = plan.assign(plan.instances)
    assert said(errands) == [("A", "STUDY", ("1.2",)), ("B", "SERIES", ("1.2.2",))]
    assert [r.instances for e in errands for r in e.requests] == [
        ("1.2.1.1", "1.2.1.2"),
        ("1.2.2.1", "1.2.2.2"),
    ]
    assert lost == []


def test_what_one_gives_up_goes_to_the_next_and_then_is_lost() -> None:
    held = series_of("1.2", 1, 2)
    plan = planned(STUDY, (A, held), (B, held), (C, held[:1]))
    assert plan.is_elsewhere("1.2.1.1")
    plan.give_up(A, ["1.2.1.1"])
    errands, _ = plan.assign(["1.2.1.1"])
    assert said(errands) == [("B", "IMAGE", ("1.2.1.1",))]
    plan.give_up(B, ["1.2.1.1"])
    errands, _ = plan.assign(["1.2.1.1"])
    assert said(errands) == [("C", "STUDY", ("1.2",))]  # it has no other of the study
    assert not plan.is_elsewhere("1.2.1.1")
    plan.give_up(C, ["1.2.1.1"])
    assert plan.assign(["1.2.1.1"]) == ([], ["1.2.1.1"])


def test_one_that_may_not_be_retrieved_from_holds_and_is_not_asked() -> None:
    held = series_of("1.2", 1, 2)
    looked_at = attrs.evolve(A, retrieves=False)
    plan = planned(STUDY, (looked_at, held), (B, held[:1]))
    errands, lost = plan.assign(plan.instances)
    assert said(errands) == [("B", "STUDY", ("1.2",))]
    assert lost == ["1.2.1.2"]


def test_the_classes_of_an_errand_are_known_or_not() -> None:
    held = [*series_of("1.2", 1, 1, sop_class="1.9"), *series_of("1.2", 2, 1, sop_class="1.8")]
    plan = planned(STUDY, (A, held))
    assert plan.assign(plan.instances)[0][0].sop_classes == {"1.9", "1.8"}
    plan = planned(STUDY, (A, [*held, *series_of("1.2", 3, 1, sop_class="")]))
    assert plan.assign(plan.instances)[0][0].sop_classes == frozenset()
    plan.add(B, holdings(series_of("1.2", 3, 1, sop_class="1.7")))
    assert plan.assign(plan.instances)[0][0].sop_classes == {"1.9", "1.8", "1.7"}


def test_below_the_study_only_what_was_asked_for_is() -> None:
    target = Target(level=Level.SERIES, studies=("1.2",), series=("1.2.1", "1.2.2"))
    plan = planned(target, (A, [*series_of("1.2", 1, 2), *series_of("1.2", 2, 2)]))
    assert said(plan.assign(plan.instances)[0]) == [("A", "SERIES", ("1.2.1", "1.2.2"))]
    target = Target(
        level=Level.IMAGE, studies=("1.2",), series=("1.2.1",), instances=("1.2.1.1", "1.2.1.2")
    )
    plan = planned(target, (A, series_of("1.2", 1, 2)))
    (errand,), _ = plan.assign(plan.instances)
    assert said([errand]) == [("A", "IMAGE", ("1.2.1.1", "1.2.1.2"))]
    assert errand.requests[0].target.series == ("1.2.1",)


async def test_what_one_alone_holds_is_asked_as_it_is(tmp_path: Path) -> None:
    archives = {"A": Archive(series_of("1.2", 1, 2)), "B": Archive(series_of("1.3", 1, 2))}
    target = Target(level=Level.STUDY, studies=("1.2", "1.3"))
    with trio.fail_after(20):
        async with site(tmp_path, archives) as here:
            plan = await plan_retrieve(here.federation, here.caller, target)
            assert said(plan.errands) == [("A", "STUDY", ("1.2",)), ("B", "STUDY", ("1.3",))]
            assert not plan.instances
            plan = await plan_retrieve(here.federation, here.caller, target, by_instances=True)
    assert said(plan.errands) == [("A", "STUDY", ("1.2",)), ("B", "STUDY", ("1.3",))]
    assert len(plan.instances) == 4


async def test_more_than_can_be_planned_is_asked_for_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "MAXIMUM_PLANNED", 5)
    both = series_of("1.2", 1, 3)
    archives = {"A": Archive(both), "B": Archive([*both, *series_of("1.2", 2, 6)])}
    with trio.fail_after(20):
        async with site(tmp_path, archives) as here:
            plan = await plan_retrieve(here.federation, here.caller, STUDY)
    assert said(plan.errands) == [("A", "STUDY", ("1.2",)), ("B", "STUDY", ("1.2",))]
    assert plan.errands[1].requests == (Request(STUDY),)
    assert len(plan.instances) == 3


async def test_one_that_has_gone_meanwhile_is_a_trouble(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 3)
    archives = {"A": Archive(held), "B": Archive(held, mute_image=True)}
    with trio.fail_after(20):
        async with site(tmp_path, archives, wait=0.5) as here:
            plan = await plan_retrieve(here.federation, here.caller, STUDY)
    assert said(plan.errands) == [("A", "STUDY", ("1.2",))]
    assert list(plan.troubles) == ["B"]
