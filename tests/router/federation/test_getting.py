from pathlib import Path

import pytest
import trio
import trio.testing

from relay.dicom.dimse import CommandField, Status
from relay.dicom.negotiation import RoleSelection, find
from relay.errors import AssociationAborted
from relay.router.federation import getting
from relay.router.federation.identifiers import Level
from relay.router.federation.retrieving import Target, retrieve_get
from tests.router.federation.archives import (
    CT,
    IMPLICIT,
    JPEG,
    MR,
    Archive,
    Shelf,
    Shown,
    by_uid,
    numbers,
    series_of,
    site,
)

STUDY = Target(level=Level.STUDY, studies=("1.2",))
LARGE = bytes(range(256)) * 16 * 1024  # 4 MiB: goes on while it comes


async def test_one_owner_is_asked_as_it_is(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 3)
    archive, shelf, shown = Archive(held), Shelf(), Shown()
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": archive}) as here:
            totals = await retrieve_get(
                here.federation, here.caller, STUDY, shelf, message_id=7, progress=shown
            )
    assert numbers(totals) == (Status.SUCCESS, 3, 0, 0)
    assert shelf.objects == by_uid(held)
    assert archive.asked == [("STUDY", ("1.2",))]
    assert archive.queries == ["STUDY"]
    assert archive.callings == ["WS", "WS"]
    request = next(r for r in archive.requests if r.command_field == CommandField.C_GET_RQ)
    assert request.message_id == 7
    assert [c.completed for c in shown.counts] == [1, 2, 3]
    assert {c.total for c in shown.counts[1:]} == {3}
    assert {one.source for one in shelf.arrived} == {"PACS"}


async def test_what_is_proposed_is_what_the_sink_can_carry(tmp_path: Path) -> None:
    archive = Archive(series_of("1.2", 1, 1, transfer_syntax=JPEG))
    shelf = Shelf([(CT, (IMPLICIT,)), (CT, (JPEG,)), (MR, (IMPLICIT,))])
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": archive}) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, shelf)
    assert numbers(totals) == (0, 1, 0, 0)
    assert shelf.arrived[0].transfer_syntax == JPEG
    rq = archive.proposed[-1]
    storage = [(c.abstract_syntax, c.transfer_syntaxes) for c in rq.contexts[2:]]
    assert storage == shelf.takes
    roles = find(rq.user_items, RoleSelection)
    assert [(r.sop_class, r.scu, r.scp) for r in roles] == [(CT, False, True), (MR, False, True)]


async def test_what_the_sink_cannot_carry_is_failed(tmp_path: Path) -> None:
    archive = Archive([*series_of("1.2", 1, 2), *series_of("1.2", 2, 1, sop_class="1.2.840.9")])
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": archive}) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, Shelf())
    assert numbers(totals) == (0xB000, 2, 1, 0)
    assert totals.failed_uids == ("1.2.2.1",)


async def test_the_sinks_word_goes_back_to_the_owner(tmp_path: Path) -> None:
    archive = Archive(series_of("1.2", 1, 4))
    shelf = Shelf(statuses={"1.2.1.2": 0xA700, "1.2.1.3": 0xB000}, refuses={"1.2.1.4": 0x0122})
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": archive}) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, shelf)
    assert archive.answers == [0, 0xA700, 0xB000, 0x0122]
    assert numbers(totals) == (0xB000, 1, 2, 1)
    assert totals.failed_uids == ("1.2.1.2", "1.2.1.4")


async def test_a_large_object_goes_on_while_it_comes(tmp_path: Path) -> None:
    archive, shelf = Archive(series_of("1.2", 1, 1, data=LARGE)), Shelf()
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": archive}) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, shelf)
    assert numbers(totals) == (0, 1, 0, 0)
    assert shelf.objects == {"1.2.1.1": LARGE}
    assert shelf.pieces > 10


async def test_a_small_one_goes_on_whole(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 1, data=LARGE[: getting.HELD])
    shelf = Shelf()
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": Archive(held)}) as here:
            await retrieve_get(here.federation, here.caller, STUDY, shelf)
    assert shelf.objects == by_uid(held)
    assert shelf.pieces == 1


async def test_an_owner_lost_in_a_large_object_ends_the_retrieve(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 2, data=LARGE)
    shelf = Shelf()
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": Archive(held, dies_after=1, dies_in_data=True)}) as here:
            with pytest.raises(AssociationAborted, match="in the middle of an object"):
                await retrieve_get(here.federation, here.caller, STUDY, shelf)
    assert shelf.abandoned == ["1.2.1.2"]
    assert list(shelf.objects) == ["1.2.1.1"]


async def test_an_owner_lost_in_a_small_object_is_failed_and_no_more(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 3, data=LARGE[: 128 * 1024])
    shelf = Shelf()
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": Archive(held, dies_after=1, dies_in_data=True)}) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, shelf)
    assert numbers(totals) == (0xB000, 1, 2, 0)
    assert shelf.abandoned == []
    assert "PACS" in totals.words


async def test_a_sink_that_breaks_ends_the_retrieve_with_its_own_error(tmp_path: Path) -> None:
    class Broken(Shelf):
        async def begin(self, instance: object) -> int:
            raise AssociationAborted(2, 0, "the workstation is gone")

    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": Archive(series_of("1.2", 1, 1))}) as here:
            with pytest.raises(AssociationAborted, match="workstation"):
                await retrieve_get(here.federation, here.caller, STUDY, Broken())


async def test_an_owner_without_c_get_is_failed_with_words_that_say_so(tmp_path: Path) -> None:
    archive = Archive(series_of("1.2", 1, 1), serves=frozenset({CommandField.C_FIND_RQ}))
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": archive}) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, Shelf())
    assert totals.status == Status.UNABLE_TO_PERFORM_SUBOPERATIONS
    assert "does not take a C-GET" in totals.words


async def test_a_frozen_owner_is_left(tmp_path: Path) -> None:
    archive = Archive(series_of("1.2", 1, 3), silent_after=1)
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": archive}, wait=0.5) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, Shelf())
    assert numbers(totals) == (0xB000, 1, 2, 0)
    assert "no word of it within 0.5 s" in totals.words


async def test_more_contexts_than_one_association_has(tmp_path: Path) -> None:
    classes = [f"1.2.840.10008.5.1.4.1.1.{n}" for n in range(1000, 1300)]
    held = [
        one
        for number, sop_class in enumerate(classes[:200])
        for one in series_of("1.2", number, 1, sop_class=sop_class)
    ]
    archive, shelf = Archive(held), Shelf([(sop_class, (IMPLICIT,)) for sop_class in classes])
    with trio.fail_after(60):
        async with site(tmp_path, {"PACS": archive}) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, shelf)
    assert numbers(totals) == (0, 200, 0, 0)
    assert shelf.objects == by_uid(held)
    assert all(len(rq.contexts) <= 128 for rq in archive.proposed)


async def test_a_cancel_goes_to_the_owner(tmp_path: Path) -> None:
    archive, shelf, cancelled = Archive(series_of("1.2", 1, 5)), Shelf(), trio.Event()

    async def progress(counts: object) -> None:
        if len(shelf.objects) == 2:
            cancelled.set()
            await trio.testing.wait_all_tasks_blocked(0.05)

    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": archive}) as here:
            totals = await retrieve_get(
                here.federation, here.caller, STUDY, shelf, progress=progress, cancelled=cancelled
            )
    assert totals.status == Status.CANCEL
    assert archive.cancels == 1
    assert totals.completed == 2
    assert totals.counts.remaining in (2, 3)


async def test_a_cancelled_owner_that_says_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.router.federation.conversing.CANCEL_WAIT", 0.3)
    archive = Archive(series_of("1.2", 1, 5), silent_after=2, heeds_cancel=False)
    cancelled = trio.Event()
    with trio.fail_after(20):
        async with (
            site(tmp_path, {"PACS": archive}, wait=100) as here,
            trio.open_nursery() as nursery,
        ):

            async def cancel() -> None:
                await archive.waiting.wait()
                archive.silent_after = 3  # and so on
                cancelled.set()

            nursery.start_soon(cancel)
            archive.heeds_cancel = False
            totals = await retrieve_get(
                here.federation, here.caller, STUDY, Shelf(), cancelled=cancelled
            )
    assert totals.status == Status.CANCEL
    assert totals.completed == 2
    assert totals.counts.remaining == 3


async def test_fragments_without_a_byte_change_nothing(tmp_path: Path) -> None:
    held = series_of("1.2", 1, 2, data=LARGE[: 64 * 1024])
    shelf = Shelf()
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": Archive(held, empty=100)}) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, shelf)
    assert numbers(totals) == (0, 2, 0, 0)
    assert shelf.objects == by_uid(held)


async def test_an_object_that_was_not_asked_for_goes_to_nobody(tmp_path: Path) -> None:
    """One SOP Instance UID may be another patient's."""
    one = Target(level=Level.IMAGE, studies=("1.2",), series=("1.2.1",), instances=("1.2.1.1",))
    archive = Archive([*series_of("1.2", 1, 1), *series_of("1.9", 1, 1)], heedless=True)
    for shared in ({}, {"Z": Archive(series_of("1.2", 1, 1))}):
        archive.answers.clear()
        shelf = Shelf()
        with trio.fail_after(20):
            async with site(tmp_path / str(len(shared)), {"PACS": archive, **shared}) as here:
                totals = await retrieve_get(here.federation, here.caller, one, shelf)
        assert shelf.objects == by_uid(series_of("1.2", 1, 1))
        assert numbers(totals) == (0xB000, 1, 1, 0)
        assert archive.answers[0] == 0
        assert archive.answers[1] != 0


async def test_what_has_come_from_one_is_not_taken_from_the_next(tmp_path: Path) -> None:
    """Neither says what it holds, so each is asked for all of it."""
    held = series_of("1.2", 1, 3)
    a, b = Archive(held[:2], image_status=0xC001), Archive(held[1:], image_status=0xC001)
    shelf = Shelf()
    with trio.fail_after(20):
        async with site(tmp_path, {"A": a, "B": b}) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, shelf)
    assert numbers(totals) == (0, 3, 0, 0)
    assert [one.sop_instance for one in shelf.arrived] == [one.uid for one in held]
    assert b.answers == [0, 0]


async def test_what_an_owner_says_it_has_sent_and_has_not_come_is_failed(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": Archive(series_of("1.2", 1, 3), boasts=2)}) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, Shelf())
    assert numbers(totals) == (0xB000, 3, 2, 0)


async def test_a_warning_that_nothing_explains_is_a_failure(tmp_path: Path) -> None:
    archive = Archive(
        series_of("1.2", 1, 3), fails=frozenset({"1.2.1.2"}), counts=False, names=False
    )
    with trio.fail_after(20):
        async with site(tmp_path, {"PACS": archive}) as here:
            totals = await retrieve_get(here.federation, here.caller, STUDY, Shelf())
    assert numbers(totals) == (0xB000, 2, 1, 0)
