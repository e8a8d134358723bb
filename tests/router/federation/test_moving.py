from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from relay.dicom.atoms import AE_TITLE_LENGTH
from relay.dicom.dimse import CommandField, Status
from relay.router.devices import Device
from relay.router.federation.identifiers import Level
from relay.router.federation.moving import is_destination
from relay.router.federation.retrieving import Target, retrieve_move
from relay.router.federation.totals import MAXIMUM_COMMENT, Totals
from tests.router.federation.archives import Archive, Shown, Stored, numbers, series_of, site

STUDY = Target(level=Level.STUDY, studies=("1.2",))


@pytest.fixture
def sent() -> list[tuple[str, str]]:
    return []


async def moved(
    folder: Path,
    sent: list[tuple[str, str]],
    archives: dict[str, Archive],
    *,
    destination: str = "WS",
    **options: object,
) -> Totals:
    def note(where: str, one: Stored) -> None:
        sent.append((where, one.uid))

    for archive in archives.values():
        archive.sends_to = note
    shown = Shown()
    with trio.fail_after(30):
        async with site(folder, archives, **options) as here:  # type: ignore[arg-type]
            totals = await retrieve_move(
                here.federation,
                here.caller,
                STUDY,
                destination,
                message_id=77,
                progress=shown,
            )
    if shown.counts:
        last = shown.counts[-1]
        assert totals.completed >= last.completed
        assert totals.warning >= last.warning
    return totals


async def test_the_owner_sends_to_the_destination(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    archive = Archive(series_of("1.2", 1, 3))
    totals = await moved(tmp_path, sent, {"PACS": archive})
    assert numbers(totals) == (0, 3, 0, 0)
    assert sent == [("WS", f"1.2.1.{n}") for n in (1, 2, 3)]
    request = next(r for r in archive.requests if r.command_field == CommandField.C_MOVE_RQ)
    assert request.message_id == 77
    assert request.move_destination == "WS"
    assert archive.callings[-1] == "WS"


async def test_a_destination_that_nobody_knows_is_refused_here(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    archive = Archive(series_of("1.2", 1, 3))
    for destination in ("NOBODY", "RELAY", "FEDERATION", ""):
        totals = await moved(
            tmp_path / f"d{destination}", sent, {"PACS": archive}, destination=destination
        )
        assert totals.status == Status.MOVE_DESTINATION_UNKNOWN
        title = destination or "''"
        assert totals.words == f"RELAY: {title} is unknown; see relay doctor"
        assert not destination or fits(totals.words, "RELAY", destination)
    assert archive.requests == []


async def test_it_is_told_to_people_until_it_is_known(tmp_path: Path) -> None:
    archive = Archive(series_of("1.2", 1, 3), destinations=frozenset())
    with trio.fail_after(30), capture_logs() as logs:
        async with site(tmp_path, {"PACS": archive}) as here:
            refusals = here.federation.node.refusals

            def told() -> list[tuple[str, str, str]]:
                return [(r.called, r.destination, r.why) for r in refusals]

            await retrieve_move(here.federation, here.caller, STUDY, "NOBODY")
            await retrieve_move(here.federation, here.caller, STUDY, "WS")
            own, nobody = told()
            assert own == (
                "PACS",
                "WS",
                "PACS does not know it: enter it there, with its host and port",
            )
            assert nobody[:2] == ("FEDERATION", "NOBODY")
            assert "relay alias add LOCAL PUBLISHED" in nobody[2]
            noted = [row for row in logs if row["event"] == "move destination refused"]
            assert [row["why"] for row in noted] == [nobody[2], own[2]]
            archive.destinations = frozenset({"WS"})
            archive.sends_to = lambda where, one: None
            totals = await retrieve_move(here.federation, here.caller, STUDY, "WS")
            assert numbers(totals) == (0, 3, 0, 0)
            assert told() == [nobody]


def fits(words: str, *titles: str) -> bool:
    """Whether it would fit an Error Comment with titles of 16 characters (PS3.7 §E.1: LO)."""
    for title in titles:
        words = words.replace(title, "A" * AE_TITLE_LENGTH)
    return len(words) <= MAXIMUM_COMMENT


async def test_a_destination_that_the_owner_does_not_know(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    archive = Archive(series_of("1.2", 1, 3), destinations=frozenset())
    totals = await moved(tmp_path, sent, {"PACS": archive})
    assert totals.status == Status.MOVE_DESTINATION_UNKNOWN
    assert totals.words == "PACS: does not know WS or may not send"
    assert fits(totals.words, "PACS", "WS")


async def test_a_split_study_comes_from_both_and_what_is_twice_comes_once(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    common = series_of("1.2", 1, 3)
    a, b = Archive(common), Archive([*common, *series_of("1.2", 2, 2)])
    totals = await moved(tmp_path, sent, {"A": a, "B": b})
    assert numbers(totals) == (0, 5, 0, 0)
    assert sorted(uid for _, uid in sent) == sorted(one.uid for one in b.held)
    assert b.asked == [("SERIES", ("1.2.2",))]


async def test_what_one_cannot_send_the_next_is_asked_for(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    held = series_of("1.2", 1, 4)
    a, b = Archive(held, fails=frozenset({"1.2.1.2"})), Archive(held)
    totals = await moved(tmp_path, sent, {"A": a, "B": b})
    assert numbers(totals) == (0, 4, 0, 0)
    assert b.asked == [("IMAGE", ("1.2.1.2",))]


async def test_one_that_names_no_failures_is_followed_for_all(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    held = series_of("1.2", 1, 4)
    a, b = Archive(held, fails=frozenset({"1.2.1.2"}), names=False), Archive(held)
    totals = await moved(tmp_path, sent, {"A": a, "B": b})
    assert numbers(totals) == (0, 4, 0, 0)
    assert b.asked == [("STUDY", ("1.2",))]


async def test_and_what_it_has_sent_counts_if_that_one_fails(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    held = series_of("1.2", 1, 4)
    a = Archive(held, fails=frozenset({"1.2.1.2"}), names=False)
    totals = await moved(tmp_path, sent, {"A": a, "B": Archive(held, dies_after=0)})
    assert numbers(totals) == (0xB000, 3, 1, 0)


async def test_failures_that_are_not_named_count_where_nobody_else_has_them(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    common = series_of("1.2", 1, 2)
    a = Archive([*common, *series_of("1.2", 2, 2)], fails=frozenset({"1.2.2.1"}), names=False)
    totals = await moved(tmp_path, sent, {"A": a, "B": Archive(common)})
    assert numbers(totals) == (0xB000, 3, 1, 0)


async def test_one_that_dies_is_followed_by_the_next(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    held = series_of("1.2", 1, 4)
    a, b = Archive(held, dies_after=2), Archive(held)
    totals = await moved(tmp_path, sent, {"A": a, "B": b})
    assert numbers(totals) == (0, 4, 0, 0)


async def test_what_a_dying_one_has_sent_counts(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    totals = await moved(tmp_path, sent, {"A": Archive(series_of("1.2", 1, 4), dies_after=2)})
    assert numbers(totals) == (0xB000, 2, 2, 0)


async def test_it_counts_too_where_the_next_dies_earlier(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    held = series_of("1.2", 1, 4)
    a, b = Archive(held, dies_after=3), Archive(held, dies_after=1)
    totals = await moved(tmp_path, sent, {"A": a, "B": b})
    assert numbers(totals) == (0xB000, 3, 1, 0)


async def test_an_owner_without_counters_is_believed(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    held = series_of("1.2", 1, 2)
    a, b = Archive(held, counts=False), Archive([*held, *series_of("1.2", 2, 1)], counts=False)
    totals = await moved(tmp_path, sent, {"A": a, "B": b})
    assert numbers(totals) == (0, 3, 0, 0)


async def test_a_warning_without_counters_is_not_believed(
    tmp_path: Path, sent: list[tuple[str, str]]
) -> None:
    common = series_of("1.2", 1, 2)
    a = Archive(
        [*common, *series_of("1.2", 2, 2)],
        fails=frozenset({"1.2.2.1"}),
        names=False,
        counts=False,
    )
    totals = await moved(tmp_path, sent, {"A": a, "B": Archive(common)})
    assert numbers(totals) == (0xB000, 3, 1, 0)


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("lost", ["1.2.1.2", "1.2.1.3"])
async def test_what_came_to_an_archive_meanwhile_hides_no_failure(
    tmp_path: Path, sent: list[tuple[str, str]], lost: str, names: bool
) -> None:
    """It sends more than was planned: as many as were, though one of them is not among them."""
    held, later = series_of("1.2", 1, 2), series_of("1.2", 1, 3)[2:]
    a = Archive(held, later=later, fails=frozenset({lost}), names=names)
    totals = await moved(tmp_path, sent, {"A": a, "B": Archive(series_of("1.2", 2, 1))})
    assert totals.status == 0xB000
    assert totals.failed == 1
    assert totals.failed_uids == ((lost,) if names else ())


async def test_a_cancel_goes_to_the_owner(tmp_path: Path) -> None:
    archive, cancelled = Archive(series_of("1.2", 1, 50)), trio.Event()

    async def progress(counts: object) -> None:
        cancelled.set()

    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": archive}) as here:
            totals = await retrieve_move(
                here.federation,
                here.caller,
                STUDY,
                "WS",
                progress=progress,
                cancelled=cancelled,
            )
    assert totals.status == Status.CANCEL
    assert archive.cancels == 1
    assert totals.counts.total == 50
    assert 0 < totals.counts.remaining < 50


async def test_a_cancel_of_what_is_planned_counts_what_remains(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 50)
    a, b, cancelled = Archive(held), Archive([*held, *series_of("1.2", 2, 3)]), trio.Event()

    async def progress(counts: object) -> None:
        cancelled.set()

    with trio.fail_after(20):
        async with site(tmp_path, {"A": a, "B": b}) as here:
            totals = await retrieve_move(
                here.federation, here.caller, STUDY, "WS", progress=progress, cancelled=cancelled
            )
    assert totals.status == Status.CANCEL
    assert totals.counts.total == 53
    assert b.asked == []


async def test_what_may_be_a_destination(tmp_path: Path) -> None:
    async with site(tmp_path, {}) as here:
        await here.federation.node.put_device(Device("CT1", "127.0.0.1", 105))
        assert is_destination(here.federation, "CT1")
        assert is_destination(here.federation, "WS")
        assert not is_destination(here.federation, "ELSEWHERE")
        assert not is_destination(here.federation, "RELAY")
        assert not is_destination(here.federation, "FEDERATION")
