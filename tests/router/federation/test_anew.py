"""What came to another archive after it was searched for is found by the retrieve that lacks it."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from relay.association import TCPAssociation
from relay.router.federation import anew
from relay.router.federation.identifiers import Level
from relay.router.federation.retrieving import Target, Totals, retrieve_get, retrieve_move
from relay.router.federation.settings import OnIncomplete
from tests.router.federation.archives import (
    Archive,
    Shelf,
    Shown,
    Site,
    Stored,
    by_uid,
    numbers,
    series_of,
    site,
)

STUDY = Target(level=Level.STUDY, studies=("1.2",))
UIDS = ("1.2.1.1", "1.2.1.2", "1.2.1.3")
IMAGES = Target(level=Level.IMAGE, studies=("1.2",), series=("1.2.1",), instances=UIDS)


@asynccontextmanager
async def remembering(
    folder: Path, archives: dict[str, Archive], *owners: str, **options: object
) -> AsyncIterator[Site]:
    """A federation that was told within the hour that `owners` hold the study, and nobody else."""
    with trio.fail_after(30):
        async with site(folder, archives, **options) as here:  # type: ignore[arg-type]
            here.federation.found.note(
                here.caller, "1.2", owners, whole=True, asked=tuple(archives)
            )
            yield here


async def get(here: Site, shelf: Shelf, target: Target = STUDY) -> tuple[int, int, int, int]:
    """A C-GET, of which no failure is shown that is none in the end."""
    shown = Shown()
    totals = await retrieve_get(here.federation, here.caller, target, shelf, progress=shown)
    assert all(counts.failed <= totals.failed for counts in shown.counts)
    assert totals.counts.remaining == 0
    return numbers(totals)


async def test_a_study_that_has_moved_comes_from_where_it_is(tmp_path: Path) -> None:
    a, b = Archive([]), Archive(series_of("1.2", 1, 3))
    async with remembering(tmp_path, {"A": a, "B": b}, "A") as here:
        shelf = Shelf()
        assert await get(here, shelf) == (0, 3, 0, 0)
        assert shelf.objects == by_uid(b.held)
        assert b.queries == ["STUDY", "SERIES", "IMAGE"]
        # It is remembered now that B has it.
        assert await get(here, Shelf()) == (0, 3, 0, 0)
        assert b.queries.count("STUDY") == 1


async def test_so_does_what_is_more_than_the_owner_has(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 3)
    a, b = Archive(held[:1]), Archive(held)
    async with remembering(tmp_path, {"A": a, "B": b}, "A") as here:
        shelf = Shelf()
        assert await get(here, shelf, IMAGES) == (0, 3, 0, 0)
    assert shelf.objects == by_uid(held)  # each once: the shelf sees to that
    assert b.asked == [("IMAGE", UIDS[1:])]


@pytest.mark.parametrize(
    ("failing", "status"),
    [
        (Archive(series_of("1.2", 1, 3), fails=frozenset(UIDS[1:])), 0),
        (Archive(series_of("1.2", 1, 3), fails=frozenset(UIDS[1:]), names=False), 0),
        # What else it has nobody can say.
        (Archive(series_of("1.2", 1, 3), dies_after=1), 0xB000),
        (Archive(series_of("1.2", 1, 3), final_status=0xC001), 0xB000),
    ],
    ids=["named", "unnamed", "dead", "refusing"],
)
async def test_and_what_the_owner_fails_to_send(
    tmp_path: Path, failing: Archive, status: int
) -> None:
    b = Archive(series_of("1.2", 1, 3))
    async with remembering(tmp_path, {"A": failing, "B": b}, "A") as here:
        shelf = Shelf()
        assert await get(here, shelf) == (status, 3, 0, 0)
    assert shelf.objects == by_uid(b.held)
    assert len(failing.asked) == len(b.asked) == 1


async def test_a_failure_that_nobody_mends_stays_one(tmp_path: Path) -> None:
    """B has an object that A has not, and not the one that A cannot send."""
    a = Archive(series_of("1.2", 1, 3), fails=frozenset(UIDS[:1]), names=False)
    b = Archive(series_of("1.2", 2, 1))
    async with remembering(tmp_path, {"A": a, "B": b}, "A") as here:
        assert await get(here, Shelf()) == (0xB000, 3, 1, 0)


async def test_nor_is_it_mended_by_what_the_owner_may_not_have_had(tmp_path: Path) -> None:
    """A does not say what it holds: of the two that it cannot send B has one, and another one."""
    a = Archive(series_of("1.2", 1, 3), fails=frozenset(UIDS[1:]), names=False, image_status=0xC001)
    b = Archive([*series_of("1.2", 1, 2)[1:], *series_of("1.2", 2, 1)])
    async with remembering(tmp_path, {"A": a, "B": b}, "A") as here:
        assert await get(here, Shelf()) == (0xB000, 3, 2, 0)


async def test_nor_by_as_many_others_where_the_owner_is_gone(tmp_path: Path) -> None:
    """A falls silent after four of ten: of the other six B has three, and three of its own."""
    a = Archive(series_of("1.2", 1, 10), silent_after=4)
    b = Archive([*series_of("1.2", 1, 7), *series_of("1.2", 2, 3)])
    success = OnIncomplete.SUCCESS
    async with remembering(
        tmp_path, {"A": a, "B": b}, "A", on_incomplete=success, wait=2.0
    ) as here:
        assert await get(here, Shelf()) == (0xB000, 10, 6, 0)


async def test_what_another_one_has_and_may_not_be_retrieved_is_failed_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = series_of("1.2", 1, 3)
    a, b = Archive(held[:1]), Archive(held)
    success = OnIncomplete.SUCCESS
    async with remembering(tmp_path, {"A": a, "B": b}, "A", on_incomplete=success) as here:
        sources = here.federation.sources.of(here.caller)
        withheld = [attrs.evolve(one, retrieves=one.title != "B") for one in sources]
        monkeypatch.setattr(here.federation.sources, "of", lambda _: withheld)
        shelf = Shelf()
        totals = await retrieve_get(here.federation, here.caller, IMAGES, shelf)
    assert numbers(totals) == (0xB000, 1, 2, 0)
    assert set(totals.failed_uids) == set(UIDS[1:])
    assert totals.words == "B: its hospital does not grant this one to retrieve"
    assert b.asked == []


async def test_so_it_is_where_that_one_does_not_say_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = Archive([]), Archive(series_of("1.2", 1, 3), image_status=0xC001)
    async with remembering(tmp_path, {"A": a, "B": b}, "A") as here:
        sources = here.federation.sources.of(here.caller)
        withheld = [attrs.evolve(one, retrieves=one.title != "B") for one in sources]
        monkeypatch.setattr(here.federation.sources, "of", lambda _: withheld)
        totals = await retrieve_get(here.federation, here.caller, STUDY, Shelf())
    assert numbers(totals) == (0xA702, 0, 0, 0)
    assert "does not grant this one to retrieve" in totals.words


# --- how long it takes ----------------------------------------------------------------------------


async def test_where_something_has_come_the_others_have_not_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anew, "OTHERS_WAIT", 0.3)
    a, b = Archive(series_of("1.2", 1, 1)), Archive([], mute=True)
    async with remembering(tmp_path, {"A": a, "B": b}, "A", wait=100) as here:
        totals = await retrieve_get(here.federation, here.caller, IMAGES, Shelf())
    assert numbers(totals) == (0xB000, 1, 0, 0)
    assert totals.words == "B: no word of it within 0.3 s"


async def test_owners_that_do_not_say_what_they_had_have_not_long_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anew, "OTHERS_WAIT", 1.0)
    a = Archive(series_of("1.2", 1, 3), fails=frozenset(UIDS[2:]), names=False, mute_image=True)
    b = Archive(series_of("1.2", 1, 3))
    async with remembering(tmp_path, {"A": a, "B": b}, "A", wait=100) as here:
        assert await get(here, Shelf()) == (0xB000, 3, 1, 0)
    assert a.queries == ["SERIES", "IMAGE"]


async def test_owners_are_asked_side_by_side_what_they_had(tmp_path: Path) -> None:
    """Each answers once both are asked."""
    both, asked = trio.Event(), 0

    class Waiting(Archive):
        async def serve(self, association: TCPAssociation) -> None:
            nonlocal asked
            if self.sent:  # what it had to send it has sent
                asked += 1
                if asked == 2:
                    both.set()
                await both.wait()
            await super().serve(association)

    held = series_of("1.2", 1, 3)
    a = Waiting(held[:2], fails=frozenset(UIDS[1:]), names=False, image_status=0xC001)
    b = Waiting([*held[2:], *series_of("1.2", 2, 1)], image_status=0xC001)
    c = Archive(held)
    async with remembering(tmp_path, {"A": a, "B": b, "C": c}, "A", "B", wait=100) as here:
        totals = await retrieve_get(here.federation, here.caller, STUDY, Shelf())
    assert numbers(totals) == (0xB000, 4, 1, 0)
    assert both.is_set()


async def test_where_all_is_named_they_are_not_asked_again(tmp_path: Path) -> None:
    a, b = Archive(series_of("1.2", 1, 3), fails=frozenset(UIDS[2:])), Archive([])
    b.held = series_of("1.2", 1, 3)
    async with remembering(tmp_path, {"A": a, "B": b}, "A") as here:
        assert await get(here, Shelf()) == (0, 3, 0, 0)
    assert a.queries == []


@pytest.mark.parametrize("others", [[], series_of("1.2", 1, 3)], ids=["nobody", "one"])
async def test_all_are_asked_once_and_what_still_fails_is_failed(
    tmp_path: Path, others: list[Stored]
) -> None:
    a = Archive(series_of("1.2", 1, 3), fails=frozenset(UIDS[1:]))
    b = Archive(others, fails=frozenset(UIDS[2:]))
    async with remembering(tmp_path, {"A": a, "B": b}, "A") as here:
        failed = 1 if others else 2
        assert await get(here, Shelf()) == (0xB000, 3 - failed, failed, 0)
    assert b.queries.count("STUDY") == 1
    assert len(a.asked) == 1


async def test_what_the_caller_does_not_take_is_not_offered_again(tmp_path: Path) -> None:
    a, b = Archive(series_of("1.2", 1, 3)), Archive(series_of("1.2", 1, 3))
    async with remembering(tmp_path, {"A": a, "B": b}, "A") as here:
        shelf = Shelf(statuses={UIDS[1]: 0xA700})
        assert await get(here, shelf) == (0xB000, 2, 1, 0)
    assert b.asked == []


async def test_where_all_has_come_nobody_is_asked(tmp_path: Path) -> None:
    a, b = Archive(series_of("1.2", 1, 3)), Archive(series_of("1.2", 1, 3))
    async with remembering(tmp_path, {"A": a, "B": b}, "A") as here:
        assert await get(here, Shelf(), IMAGES) == (0, 3, 0, 0)
    assert a.queries == b.queries == []


async def test_one_that_does_not_say_what_it_has_is_asked_for_all_where_nothing_has_come(
    tmp_path: Path,
) -> None:
    a, b = Archive([]), Archive(series_of("1.2", 1, 3), image_status=0xC001)
    async with remembering(tmp_path, {"A": a, "B": b}, "A") as here:
        assert await get(here, Shelf()) == (0, 3, 0, 0)
    assert b.asked == [("STUDY", ("1.2",))]


async def test_who_cannot_be_asked_is_said(tmp_path: Path) -> None:
    a, b = Archive([]), Archive([], find_status=0xA700)
    async with remembering(tmp_path, {"A": a, "B": b}, "A") as here:
        totals = await retrieve_get(here.federation, here.caller, STUDY, Shelf())
    assert numbers(totals) == (0xA702, 0, 0, 0)
    assert totals.words == "B: its C-FIND ends with status A700H"


async def test_a_cancel_while_they_are_asked_ends_it(tmp_path: Path) -> None:
    a, b, cancelled = Archive([]), Archive([], mute=True), trio.Event()
    async with remembering(tmp_path, {"A": a, "B": b}, "A", wait=100) as here:

        async def cancel() -> None:
            while not b.queries:
                await trio.sleep(0.01)
            cancelled.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            totals = await retrieve_get(
                here.federation, here.caller, STUDY, Shelf(), cancelled=cancelled
            )
    assert numbers(totals) == (0xFE00, 0, 0, 0)


# --- C-MOVE: only the owner knows what has come ---------------------------------------------------


async def move(
    folder: Path, a: Archive, b: Archive, target: Target = STUDY
) -> tuple[Totals, list[str]]:
    """The totals, and what came to the destination."""
    came: list[str] = []

    def take(_: str, one: Stored) -> None:
        came.append(one.uid)

    a.sends_to = b.sends_to = take
    async with remembering(folder, {"A": a, "B": b}, "A") as here:
        return await retrieve_move(here.federation, here.caller, target, "WS"), came


def uids(*held: Iterable[Stored]) -> list[str]:
    return sorted(one.uid for some in held for one in some)


async def test_a_c_move_brings_what_the_owner_has_named_as_failed(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 3)
    a, b = Archive(held, fails=frozenset(UIDS[2:])), Archive(held)
    totals, came = await move(tmp_path, a, b)
    assert numbers(totals) == (0, 3, 0, 0)
    assert sorted(came) == uids(held)


async def test_and_what_the_owner_has_not(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 3)
    a, b = Archive(held[:2]), Archive(held[1:])
    totals, came = await move(tmp_path, a, b, IMAGES)
    assert numbers(totals) == (0, 3, 0, 0)
    assert sorted(came) == uids(held)


async def test_but_nothing_twice_that_may_have_come(tmp_path: Path) -> None:
    """Which two of three have failed nobody knows: they stay failed."""
    held = series_of("1.2", 1, 3)
    a, b = Archive(held, fails=frozenset(UIDS[1:]), names=False), Archive(held)
    totals, came = await move(tmp_path, a, b)
    assert numbers(totals) == (0xB000, 1, 2, 0)
    assert sorted(came) == uids(held[:1])


async def test_nor_where_several_hold_it(tmp_path: Path) -> None:
    """One of three has failed, and another one than that is not brought in its place."""
    came: list[str] = []

    def take(_: str, one: Stored) -> None:
        came.append(one.uid)

    held, other = series_of("1.2", 1, 3), series_of("1.2", 2, 1)
    a = Archive(held, fails=frozenset(UIDS[2:]), names=False, sends_to=take)
    b, c = Archive(other, sends_to=take), Archive(held, sends_to=take)
    async with remembering(tmp_path, {"A": a, "B": b, "C": c}, "A", "B") as here:
        totals = await retrieve_move(here.federation, here.caller, STUDY, "WS")
    assert numbers(totals) == (0xB000, 3, 1, 0)
    assert sorted(came) == uids(held[:2], other)
