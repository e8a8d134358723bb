"""Transfers: by destination and study, searched by patient, paused and resumed."""

from pathlib import Path

import pytest

from relay.people.roles import Role
from relay.spool.index import Study
from relay.spool.items import State
from tests.router.pages.site import Browser, browser, text, value_of
from tests.router.queue.queues import batch_of, becomes, couriers_of, keep


async def send(visitor: Browser) -> None:
    """Two studies of two patients for PACS: one half delivered, one with a failure."""
    batch = batch_of("PACS", "CT_N", "CT")
    first = [await keep(visitor.queue, batch, study="1.2.1", instance=f"1.9.{n}") for n in "1234"]
    second = [await keep(visitor.queue, batch, study="1.2.2", instance=f"1.8.{n}") for n in "12"]
    await becomes(visitor.queue, first[0], State.DELIVERED)
    await becomes(visitor.queue, first[1], State.DELIVERED)
    await becomes(visitor.queue, second[0], State.FAILED, "A900, does not match")
    for study in (
        Study(uid="1.2.1", patient_id="4711", patient_name="DOE JANE", accession="ACC1"),
        Study(uid="1.2.2", patient_id="4712", patient_name="ROE RICHARD", modality="CT"),
    ):
        visitor.queue.spool.index.note(study.uid, lambda study=study: study)  # type: ignore[misc]


async def test_an_empty_queue_says_what_to_do(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        page = text(await visitor.get("/transfers"))
    assert "Queue what goes to a device that is far away" in page
    assert "Send images to a device that is queued" in page


async def test_studies_show_how_far_they_are(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        await send(visitor)
        page = await visitor.get("/transfers")
        shown = text(page)
        assert "2 delivered, 2 to go" in shown
        assert '<progress aria-label="Delivered of the study" value="2" max="4">' in page
        assert 'href="/transfers/items?study=1.2.2&amp;called=PACS&amp;state=failed"' in page
        assert "DOE JANE" in shown
        assert "4712 CT" in shown
        viewer = await visitor.sign_in(Role.VIEWER)
        page = await viewer.get("/transfers")
        assert "DOE JANE" not in page
        assert "4711" not in page
        assert "1.2.1" in page
        assert "Patient ID" not in page


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ({"patient_id": "4711"}, ["DOE JANE"]),
        ({"accession": " acc1 "}, ["DOE JANE"]),
        ({"patient_id": "4712", "accession": ""}, ["ROE RICHARD"]),
        ({"patient_id": "4712", "accession": "ACC1"}, []),
        ({"patient_id": "471"}, []),
    ],
)
async def test_an_operator_searches_by_patient_and_accession_number(
    tmp_path: Path, typed: dict[str, str], found: list[str]
) -> None:
    async with browser(tmp_path) as administrator:
        await send(administrator)
        operator = await administrator.sign_in(Role.OPERATOR)
        page = await operator.post("/transfers/search", 200, **typed)
    shown = text(page)
    names = [name for name in ("DOE JANE", "ROE RICHARD") if name in shown]
    assert names == found
    assert ("Nothing was found" in shown) == (not found)
    assert value_of(page, "patient_id") == typed.get("patient_id", "").strip()


async def test_a_search_for_nobody_is_refused(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        page = await visitor.post("/transfers/search", 400, patient_id="  ")
        assert "type a Patient ID or an Accession Number" in text(page)
        page = await visitor.post("/transfers/search", 400, patient_id="x" * 65)
        assert "at most 64 characters" in text(page)


async def test_a_destination_is_paused_with_a_reason_and_resumed(tmp_path: Path) -> None:
    async with browser(tmp_path) as administrator:
        await send(administrator)
        operator = await administrator.sign_in(Role.OPERATOR)
        page = text(await operator.post("/transfers/pause", called="PACS", reason="new archive"))
        assert "PACS gets nothing until it is resumed" in page
        assert "by a person: new archive" in page
        (pause,) = await operator.queue.spool.items.pauses()
        assert (pause.called, pause.by_person, pause.reason) == ("PACS", True, "new archive")
        page = text(await operator.post("/transfers/resume", called="PACS"))
        assert "Delivery to PACS goes on." in page
        assert not await operator.queue.spool.items.pauses()
        page = text(await operator.post("/transfers/pause", called="NOBODY", reason=""))
        assert "Not paused: no destination 'NOBODY'" in page


async def test_one_destination_is_shown_alone(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        await send(visitor)
        await keep(visitor.queue, batch_of("OTHER", "MR", "MR"), study="1.2.9")
        page = await visitor.get("/transfers?called=OTHER")
        assert "1.2.9" in page
        assert "1.2.2" not in page
        assert 'data-live="/live/transfers?called=OTHER"' in page


async def test_a_destination_that_is_away_says_why_and_is_tried_at_once(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        await send(visitor)
        couriers = couriers_of(visitor.queue)
        couriers.troubles["PACS"] = "PACS of <b>South</b> is busy or does not answer its Router"
        page = await visitor.get("/transfers")
        assert "PACS of <b>South</b> is busy" in text(page)
        assert 'aria-label="Try PACS now"' in page
        page = await visitor.post(
            "/transfers/retry", called="PACS", state="waiting", **{"from": "transfers"}
        )
        assert "will be tried again now." in text(page)
        assert ("wake", "PACS") in couriers.told
