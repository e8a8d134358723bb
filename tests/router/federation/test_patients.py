from pathlib import Path

import pytest
import trio

from relay.dicom.dimse import Status
from relay.router.federation.identifiers import Level, QueryRefused
from relay.router.federation.patients import studies_of_patient
from relay.router.federation.retrieving import retrieve_get
from relay.router.federation.targets import Target
from tests.router.federation.archives import Archive, Shelf, by_uid, numbers, series_of, site

PATIENT = Target(level=Level.PATIENT, patient=b"P1")


def archives() -> dict[str, Archive]:
    a = Archive([*series_of("1.2", 1, 1), *series_of("1.9", 1, 1, patient=b"P2")])
    return {"A": a, "B": Archive([*series_of("1.2", 2, 1), *series_of("1.3", 1, 1)])}


async def studies(
    folder: Path,
    these: dict[str, Archive],
    issuers: dict[str, str],
    target: Target = PATIENT,
) -> tuple[set[str], dict[str, str]]:
    troubles: dict[str, str] = {}
    with trio.fail_after(20):
        async with site(folder, these, issuers=issuers) as here:
            found = await studies_of_patient(here.federation, here.caller, target, troubles)
    assert found.level is Level.STUDY
    # Where it is told, the issuer is known from here on, whether the caller has named it or not.
    assert found.issuer == (b"H" if issuers and found.studies else target.issuer)
    return set(found.studies), troubles


async def test_a_patient_of_one_issuer_in_two_archives(tmp_path: Path) -> None:
    found, troubles = await studies(tmp_path, archives(), {"A": "H", "B": "H"})
    assert found == {"1.2", "1.3"}
    assert not troubles


@pytest.mark.parametrize("issuers", [{"A": "H", "B": "OTHER"}, {"A": "H"}, {}])
async def test_an_id_that_may_be_several_people_is_refused(
    tmp_path: Path, issuers: dict[str, str]
) -> None:
    these = {"A": Archive(series_of("1.2", 1, 1)), "B": Archive(series_of("1.3", 1, 1))}
    with trio.fail_after(20):
        async with site(tmp_path, these, issuers=issuers) as here:
            with pytest.raises(QueryRefused, match="retrieve by study") as caught:
                await studies_of_patient(here.federation, here.caller, PATIENT, {})
    assert caught.value.status == Status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS
    assert len(caught.value.comment) <= 64


async def test_devices_that_share_a_study_share_its_patient(tmp_path: Path) -> None:
    found, _ = await studies(tmp_path, archives(), {})
    assert found == {"1.2", "1.3"}


async def test_the_issuer_tells(tmp_path: Path) -> None:
    target = Target(level=Level.PATIENT, patient=b"P1", issuer=b"H")
    these = {"A": Archive(series_of("1.2", 1, 1)), "B": Archive(series_of("1.3", 1, 1))}
    found, troubles = await studies(tmp_path, these, {"A": "H", "B": "OTHER"}, target)
    assert found == {"1.2"}
    assert not troubles


async def test_studies_of_others_are_not_the_patients(tmp_path: Path) -> None:
    """There are devices that know no case, or that answer with all that they have."""
    a = Archive(
        [
            *series_of("1.2", 1, 1, patient=b"P1 "),
            *series_of("1.3", 1, 1, patient=b"p1"),
            *series_of("1.9", 1, 1, patient=b"P2"),
        ],
        heedless=True,
    )
    found, troubles = await studies(tmp_path, {"A": a}, {"A": "H"})
    assert found == {"1.2"}
    assert not troubles


async def test_one_that_does_not_say_whose_a_study_is_is_a_trouble(tmp_path: Path) -> None:
    a = Archive(series_of("1.2", 1, 1, patient=b""), heedless=True)
    found, troubles = await studies(tmp_path, {"A": a}, {"A": "H"})
    assert found == set()
    assert "A" in troubles


async def test_one_that_cannot_be_asked_is_a_trouble(tmp_path: Path) -> None:
    these = {"A": Archive(series_of("1.2", 1, 1)), "B": Archive([], find_status=0xA700)}
    found, troubles = await studies(tmp_path, these, {"A": "H", "B": "H"})
    assert found == {"1.2"}
    assert list(troubles) == ["B"]


async def test_all_of_a_patient_is_retrieved_by_study(tmp_path: Path) -> None:
    these, shelf = archives(), Shelf()
    with trio.fail_after(20):
        async with site(tmp_path, these, issuers={"A": "H", "B": "H"}) as here:
            totals = await retrieve_get(here.federation, here.caller, PATIENT, shelf)
    assert numbers(totals) == (0, 3, 0, 0)
    assert shelf.objects == by_uid(
        [one for archive in these.values() for one in archive.held if one.patient == b"P1"]
    )
    assert {level for archive in these.values() for level, _ in archive.asked} == {"STUDY"}
