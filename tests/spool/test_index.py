"""What people search the queue by: found exactly, sealed, and written behind the sender's back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from relay.database import Database, open_database
from relay.errors import DatabaseError
from relay.spool import index
from relay.spool.index import PAUSE, TIDYING, Study, StudyIndex
from relay.spool.schema import MIGRATIONS
from relay.spool.vault import SpoolKey
from tests.spool.rows import open_rows

JANE = Study(uid="1.2.1", patient_id="4711", patient_name="DOE JANE", accession="A1", date="1")
RICHARD = Study(uid="1.2.2", patient_id="4712", accession="A2")
AGAIN = Study(uid="1.2.3", patient_id="4711", accession="A3")


@asynccontextmanager
async def opened(folder: Path, secret: bytes = b"k" * 32) -> AsyncIterator[StudyIndex]:
    async with open_database(folder / "queue.db", MIGRATIONS) as database:
        yield StudyIndex(database, SpoolKey(secret))


def note(studies: StudyIndex, *noted: Study) -> list[str]:
    """Note them; which were asked for."""
    asked: list[str] = []

    def read(study: Study) -> Study:
        asked.append(study.uid)
        return study

    for study in noted:
        studies.note(study.uid, lambda study=study: read(study))  # type: ignore[misc]
    return asked


async def uids(studies: StudyIndex, **sought: str) -> list[str]:
    return sorted(study.uid for study in await studies.find(**sought))


async def test_studies_are_found_by_patient_and_accession_number(tmp_path: Path) -> None:
    async with opened(tmp_path) as studies:
        note(studies, JANE, RICHARD, AGAIN)
        assert await uids(studies, patient_id="4711") == ["1.2.1", "1.2.3"]
        assert await uids(studies, patient_id=" 4711 ", accession="a3") == ["1.2.3"]
        assert await uids(studies, accession="A2") == ["1.2.2"]
        assert await uids(studies, patient_id="471") == [], "the whole of it, or nothing"
        assert await uids(studies, patient_id=" ", accession="") == []
        assert await studies.studies(["1.2.1", "1.2.9"]) == [JANE]
        assert await studies.studies([]) == []


async def test_a_study_is_read_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as studies:
        assert note(studies, JANE, JANE, RICHARD) == ["1.2.1", "1.2.2"]
        assert note(studies, JANE) == []
        assert note(studies, Study(uid="")) == []


async def test_nothing_of_a_patient_is_on_the_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as studies:
        note(studies, JANE)
        await studies.write()
    written = b"".join(path.read_bytes() for path in tmp_path.glob("queue.db*"))
    assert b"1.2.1" in written
    for text in (b"4711", b"DOE", b"JANE", b"A1\0"):
        assert text not in written
    async with opened(tmp_path, b"x" * 32) as others:
        assert await others.find(patient_id="4711") == []
        assert await others.studies(["1.2.1"]) == [], (
            "another key opens nothing, and breaks nothing"
        )


async def test_it_is_written_after_a_pause_and_kept(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened(tmp_path) as studies:
        note(studies, JANE)
        with trio.move_on_after(1.5 * PAUSE):
            await studies.run()
    async with opened(tmp_path) as studies:
        assert await studies.find(patient_id="4711") == [JANE]


async def test_a_disk_that_fails_loses_nothing_that_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def fail(self: Database, fn: object) -> None:
        raise DatabaseError("disk full")

    async with opened(tmp_path) as studies:
        note(studies, JANE)
        with monkeypatch.context() as broken, trio.move_on_after(2.5 * PAUSE):
            broken.setattr(Database, "run", fail)
            await studies.run()
        assert await studies.find(patient_id="4711") == [JANE]


async def test_what_has_no_objects_any_more_is_forgotten(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_rows(tmp_path) as rows:
        studies = StudyIndex(rows.table._database, SpoolKey(b"k" * 32))
        await rows.add(await rows.batch("PACS"), 1, study="1.2.1")
        note(studies, JANE, RICHARD)
        with trio.move_on_after(TIDYING + 2 * PAUSE):
            await studies.run()
        assert await uids(studies, patient_id="4711") == ["1.2.1"]
        assert await uids(studies, patient_id="4712") == []
        assert note(studies, RICHARD) == ["1.2.2"], "its next object brings it back"


async def test_no_more_wait_than_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "MAXIMUM_PENDING", 2)
    async with opened(tmp_path) as studies:
        assert note(studies, JANE, RICHARD, AGAIN) == ["1.2.1", "1.2.2"]
        await studies.write()
        assert note(studies, AGAIN) == ["1.2.3"], "the next object of it is in time"


async def test_who_searches_and_who_writes_do_not_meet(tmp_path: Path) -> None:
    """Both write what is noted, and forget what is written: once."""
    async with opened(tmp_path) as studies:
        note(studies, JANE, RICHARD)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(studies.write)
        assert await uids(studies, patient_id="4711") == ["1.2.1"]
