"""Several owners: split and duplicated studies, and owners that fail."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from relay.dicom.dimse import CommandField, Status
from relay.router.federation.identifiers import Level
from relay.router.federation.retrieving import Arriving, Taking, Target, retrieve_get
from relay.router.federation.settings import OnIncomplete
from relay.router.federation.totals import Counts
from tests.router.federation.archives import (
    CT,
    IMPLICIT,
    JPEG,
    MR,
    Archive,
    Shelf,
    Shown,
    Stored,
    by_uid,
    numbers,
    series_of,
    site,
)

STUDY = Target(level=Level.STUDY, studies=("1.2",))
GET_ONLY = frozenset({CommandField.C_GET_RQ})


async def got(
    folder: Path,
    archives: dict[str, Archive],
    target: Target = STUDY,
    shelf: Shelf | None = None,
    **options: object,
) -> tuple[Shelf, tuple[int, int, int, int], str]:
    shelf, shown = shelf or Shelf(), Shown()
    with trio.fail_after(30):
        async with site(folder, archives, **options) as here:  # type: ignore[arg-type]
            totals = await retrieve_get(here.federation, here.caller, target, shelf, progress=shown)
    if shown.counts:
        assert totals.counts.total >= shown.counts[-1].total - shown.counts[-1].remaining
    return shelf, numbers(totals), totals.words


async def test_a_split_study_comes_from_both(tmp_path: Path) -> None:
    a = Archive(series_of("1.2", 1, 3))
    b = Archive([*series_of("1.2", 2, 2), *series_of("1.2", 3, 2)])
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b})
    assert shelf.objects == by_uid(a.held, b.held)
    assert totals == (0, 7, 0, 0)
    assert a.asked == [("STUDY", ("1.2",))]
    assert b.asked == [("STUDY", ("1.2",))]


async def test_a_duplicated_one_comes_once(tmp_path: Path) -> None:
    a, b = Archive(series_of("1.2", 1, 3)), Archive(series_of("1.2", 1, 3))
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b})
    assert shelf.objects == by_uid(a.held)
    assert totals == (0, 3, 0, 0)
    assert b.asked == []


async def test_the_second_is_asked_for_what_is_missing_only(tmp_path: Path) -> None:
    common, split = series_of("1.2", 1, 3), series_of("1.2", 2, 5)
    a = Archive([*common, *split[:2]])
    b = Archive([*common, *split, *series_of("1.2", 3, 2)])
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b})
    assert shelf.objects == by_uid(b.held)
    assert totals == (0, 10, 0, 0)
    assert sorted(b.asked) == [
        ("IMAGE", ("1.2.2.3", "1.2.2.4", "1.2.2.5")),
        ("SERIES", ("1.2.3",)),
    ]


async def test_lists_of_uids_have_a_limit(tmp_path: Path) -> None:
    everything = series_of("1.2", 1, 250)
    a, b = Archive(everything[:10]), Archive(everything)
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b})
    assert shelf.objects == by_uid(everything)
    assert totals == (0, 250, 0, 0)
    assert [(level, len(uids)) for level, uids in b.asked] == [
        ("IMAGE", 100),
        ("IMAGE", 100),
        ("IMAGE", 40),
    ]


@pytest.mark.parametrize(
    "failing", [{"dies_after": 2}, {"silent_after": 2}, {"final_status": 0xC001}]
)
async def test_an_owner_that_fails_is_followed_by_the_next(
    tmp_path: Path, failing: dict[str, Any]
) -> None:
    held = series_of("1.2", 1, 5)
    a, b = Archive(held, **failing), Archive(held)
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b}, wait=1.0)
    assert shelf.objects == by_uid(held)
    assert totals == (0, 5, 0, 0)
    came = 2 if "final_status" not in failing else 0
    expected = [one.uid for one in held[came:]]
    assert b.asked == ([("IMAGE", tuple(expected))] if came else [("STUDY", ("1.2",))])


async def test_what_it_cannot_send_is_asked_of_the_next(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 5)
    a = Archive([*held, *series_of("1.2", 2, 1)], fails=frozenset({"1.2.1.2", "1.2.1.4"}))
    b = Archive(held)
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b})
    assert shelf.objects == by_uid(a.held)
    assert totals == (0, 6, 0, 0)
    assert b.asked == [("IMAGE", ("1.2.1.2", "1.2.1.4"))]


async def test_what_the_caller_cannot_carry_may_be_elsewhere_in_another_form(
    tmp_path: Path,
) -> None:
    a = Archive(series_of("1.2", 1, 2, transfer_syntax=JPEG))
    b = Archive(series_of("1.2", 1, 2))
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b})
    assert shelf.objects == by_uid(b.held)
    assert totals == (0, 2, 0, 0)


async def test_what_the_sink_does_not_take_of_one_is_asked_of_the_next(tmp_path: Path) -> None:
    class Choosy(Shelf):
        async def begin(self, instance: Arriving) -> Taking | int:
            return 0x0122 if instance.source == "A" else await super().begin(instance)

    held = series_of("1.2", 1, 2)
    a, b = Archive(held), Archive(held)
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b}, shelf=Choosy())
    assert shelf.objects == by_uid(held)
    assert totals == (0, 2, 0, 0)
    assert a.answers == [0x0122, 0x0122]


async def test_what_nobody_has_left_is_failed(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 3)
    fails = frozenset({"1.2.1.2"})
    a, b = Archive(held, fails=fails), Archive(held, fails=fails)
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b})
    assert len(shelf.objects) == 2
    assert totals == (0xB000, 2, 1, 0)


async def test_what_the_caller_has_refused_is_not_offered_again(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 3)
    a, b = Archive(held), Archive(held)
    shelf = Shelf(statuses={"1.2.1.2": 0xA700})
    _, totals, _ = await got(tmp_path, {"A": a, "B": b}, shelf=shelf)
    assert totals == (0xB000, 2, 1, 0)
    assert b.asked == []


async def test_an_owner_that_does_not_say_what_it_has_is_asked_for_all(tmp_path: Path) -> None:
    a = Archive(series_of("1.2", 1, 3))
    b = Archive([*series_of("1.2", 1, 3), *series_of("1.2", 2, 2)])
    b.image_status = 0xA700
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b})
    assert shelf.objects == by_uid(b.held)
    assert totals == (0, 5, 0, 0)
    assert b.asked == [("STUDY", ("1.2",))]


async def test_one_that_is_away_is_said(tmp_path: Path) -> None:
    a, b = Archive(series_of("1.2", 1, 3)), Archive([], find_status=0xA700)
    shelf, totals, words = await got(tmp_path / "f", {"A": a, "B": b})
    assert len(shelf.objects) == 3
    assert totals == (0xB000, 3, 0, 0)
    assert words == "B: its C-FIND ends with status A700H"


async def test_or_not_where_the_configuration_says_so(tmp_path: Path) -> None:
    a, b = Archive(series_of("1.2", 1, 3)), Archive([], find_status=0xA700)
    _, totals, _ = await got(tmp_path, {"A": a, "B": b}, on_incomplete=OnIncomplete.SUCCESS)
    assert totals == (0, 3, 0, 0)


async def test_a_study_that_nobody_has_is_no_failure(tmp_path: Path) -> None:
    _, totals, _ = await got(tmp_path, {"A": Archive([]), "B": Archive([])})
    assert totals == (0, 0, 0, 0)


async def test_nor_is_it_known_where_nobody_could_be_asked(tmp_path: Path) -> None:
    _, totals, words = await got(tmp_path, {"A": Archive([], find_status=0xA700)})
    assert totals == (0xA701, 0, 0, 0)
    assert words.startswith("A: ")


async def test_several_studies_of_one_owner_are_one_request(tmp_path: Path) -> None:
    a = Archive([*series_of("1.2", 1, 2), *series_of("1.3", 1, 2)])
    b = Archive(series_of("1.4", 1, 1))
    target = Target(level=Level.STUDY, studies=("1.2", "1.3", "1.4"))
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b}, target)
    assert shelf.objects == by_uid(a.held, b.held)
    assert totals == (0, 5, 0, 0)
    assert a.asked == [("STUDY", ("1.2", "1.3"))]


@pytest.mark.parametrize(
    ("target", "uids"),
    [
        (
            Target(level=Level.SERIES, studies=("1.2",), series=("1.2.1", "1.2.2")),
            {"1.2.1.1", "1.2.1.2", "1.2.1.3", "1.2.2.1", "1.2.2.2"},
        ),
        (
            Target(
                level=Level.IMAGE,
                studies=("1.2",),
                series=("1.2.1",),
                instances=("1.2.1.1", "1.2.1.3"),
            ),
            {"1.2.1.1", "1.2.1.3"},
        ),
    ],
)
async def test_parts_of_a_split_study(tmp_path: Path, target: Target, uids: set[str]) -> None:
    one = series_of("1.2", 1, 3)
    a = Archive([*one[:2], *series_of("1.2", 3, 2)])
    b = Archive([*one[1:], *series_of("1.2", 2, 2), *series_of("1.2", 4, 1)])
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b}, target)
    assert shelf.objects.keys() == uids
    assert totals == (0, len(uids), 0, 0)


async def test_an_owner_that_is_found_dead_is_not_asked_again(tmp_path: Path) -> None:
    """A fails for one object, B is dead: what B alone has is failed, and it is asked once."""
    both = series_of("1.2", 1, 2)
    a = Archive([*both, *series_of("1.2", 3, 1)], fails=frozenset({"1.2.1.1"}))
    b = Archive([*both, *series_of("1.2", 2, 2)], silent_after=0)
    shelf, totals, words = await got(tmp_path, {"A": a, "B": b}, wait=0.5)
    assert totals == (0xB000, 2, 3, 0)
    assert len(b.asked) == 1
    assert "B: no word" in words
    assert shelf.objects.keys() == {"1.2.1.2", "1.2.3.1"}


async def test_what_was_found_is_remembered(tmp_path: Path) -> None:
    a, b = Archive(series_of("1.2", 1, 1)), Archive([])
    with trio.fail_after(20):
        async with site(tmp_path, {"A": a, "B": b}) as here:
            for _ in range(2):
                await retrieve_get(here.federation, here.caller, STUDY, Shelf())
    assert a.queries == ["STUDY"]
    assert b.queries == ["STUDY"]


async def test_what_a_failure_has_shown_wrong_is_not(tmp_path: Path) -> None:
    a, b = Archive(series_of("1.2", 1, 1), final_status=0xC001), Archive([])
    with trio.fail_after(20):
        async with site(tmp_path, {"A": a, "B": b}) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, Shelf())
            assert totals.status == Status.UNABLE_TO_PERFORM_SUBOPERATIONS
            b.held, a.held, a.final_status = a.held, [], None
            totals = await retrieve_get(here.federation, here.caller, STUDY, Shelf())
    assert numbers(totals) == (0, 1, 0, 0)


async def test_a_caller_that_takes_nothing_of_it_is_told(tmp_path: Path) -> None:
    a = Archive([Stored("1.2", "1.2.1", "1.2.1.1")])
    _, totals, words = await got(tmp_path, {"A": a}, shelf=Shelf([]))
    assert totals == (0xA702, 0, 0, 0)
    assert "nothing that the caller takes" in words


async def test_mixed_classes_of_several_owners(tmp_path: Path) -> None:
    a = Archive(series_of("1.2", 1, 2))
    b = Archive([*series_of("1.2", 2, 2, sop_class=MR), *series_of("1.2", 1, 1)])
    shelf, totals, _ = await got(tmp_path, {"A": a, "B": b}, shelf=Shelf([(CT, (IMPLICIT,))]))
    assert totals == (0xB000, 2, 2, 0)
    assert shelf.objects == by_uid(a.held)


async def test_a_cancel_while_owners_are_looked_for(tmp_path: Path) -> None:
    archive, cancelled = Archive([], mute=True), trio.Event()
    with trio.fail_after(20):
        async with site(tmp_path, {"A": archive}, wait=100) as here, trio.open_nursery() as nursery:

            async def cancel() -> None:
                while not archive.requests:
                    await trio.sleep(0.01)
                cancelled.set()

            nursery.start_soon(cancel)
            totals = await retrieve_get(
                here.federation, here.caller, STUDY, Shelf(), cancelled=cancelled
            )
    assert numbers(totals) == (Status.CANCEL, 0, 0, 0)


async def test_a_cancel_that_comes_too_late_changes_nothing(tmp_path: Path) -> None:
    cancelled = trio.Event()
    shelf = Shelf()

    async def progress(counts: object) -> None:
        if len(shelf.objects) == 3:
            cancelled.set()
            await trio.testing.wait_all_tasks_blocked(0.05)

    a, b = Archive(series_of("1.2", 1, 2)), Archive(series_of("1.2", 2, 1))
    with trio.fail_after(20):
        async with site(tmp_path, {"A": a, "B": b}) as here:
            totals = await retrieve_get(
                here.federation, here.caller, STUDY, shelf, progress=progress, cancelled=cancelled
            )
    assert numbers(totals) == (Status.SUCCESS, 3, 0, 0)


async def test_a_cancel_between_two_owners(tmp_path: Path) -> None:
    cancelled = trio.Event()

    async def progress(counts: Counts) -> None:
        if counts.completed == 2:
            cancelled.set()
            await trio.testing.wait_all_tasks_blocked(0.05)

    a, b = Archive(series_of("1.2", 1, 2)), Archive(series_of("1.2", 2, 5))
    with trio.fail_after(20):
        async with site(tmp_path, {"A": a, "B": b}) as here:
            totals = await retrieve_get(
                here.federation, here.caller, STUDY, Shelf(), progress=progress, cancelled=cancelled
            )
    assert numbers(totals) == (Status.CANCEL, 2, 0, 0)
    assert totals.counts.remaining == 5
    assert b.asked == []
