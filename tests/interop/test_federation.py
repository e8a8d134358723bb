"""The federation of three hospitals with others' archives: queries, and what each caller sees.

What an answer has to be a plain program computes from the archives' data sets
(tests.interop.archives).
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trio

from tests.interop import archives, peers
from tests.interop.archives import ARCHIVES, EAST, NORTH, UNIQUE_KEYS, Holdings
from tests.interop.federated import FEDERATION, INTERN, World, federated, text_of
from tests.network import NetworkError

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

SMALL, FULL = 60, 3000

OF_PATIENT = ["PatientID", "IssuerOfPatientID", "PatientName"]
OF_STUDY = [*OF_PATIENT, "StudyInstanceUID", "StudyDate", "StudyDescription", "ModalitiesInStudy"]
OF_SERIES = ["SeriesInstanceUID", "Modality", "SeriesNumber"]
OF_IMAGE = ["SOPInstanceUID", "InstanceNumber"]

RETURNED = {"PATIENT": OF_PATIENT, "STUDY": OF_STUDY, "SERIES": OF_SERIES, "IMAGE": OF_IMAGE}


def queries(holdings: Holdings) -> list[tuple[str, Mapping[str, str]]]:
    """Of each level: by IDs, wildcards, dates, names in three character sets; of split studies."""
    studies = [*holdings.split[:3], *holdings.shared[:3]]
    found: list[tuple[str, Mapping[str, str]]] = [
        *(("PATIENT", {"PatientID": value}) for value in ("P1", "S1", "P*", "X*", "P2J")),
        ("PATIENT", {"PatientName": "SHARED*"}),
        ("STUDY", {"PatientID": "P1"}),
        ("STUDY", {"PatientID": "S?"}),
        ("STUDY", {"StudyDate": "20050101-20151231"}),
        ("STUDY", {"StudyDate": "20200101-"}),
        ("STUDY", {"PatientName": "COPIED*"}),
        ("STUDY", {"PatientName": "MÜLLER*"}),
        ("STUDY", {"PatientName": "ŁUKASZ1^*"}),
        ("STUDY", {"PatientName": "山田*"}),
        ("STUDY", {"AccessionNumber": "A1?"}),
        ("STUDY", {"StudyInstanceUID": "\\".join(studies)}),
    ]
    for study in studies:
        found.append(("SERIES", {"StudyInstanceUID": study}))
        series = {
            str(i.SeriesInstanceUID) for i in holdings.instances(StudyInstanceUID=study).values()
        }
        found += [
            ("IMAGE", {"StudyInstanceUID": study, "SeriesInstanceUID": uid})
            for uid in sorted(series)
        ]
    return found


async def test_the_answer_is_what_a_plain_program_computes(
    tmp_path: Path, full_size: bool, figure: Callable[[str], None]
) -> None:
    holdings = archives.make(FULL if full_size else SMALL)
    with trio.fail_after(800):
        async with federated(tmp_path, holdings) as world:
            most = dict.fromkeys(RETURNED, 0)
            for number, (level, keys) in enumerate(queries(holdings)):
                started = trio.current_time()
                by_pynetdicom = await world.find(level, keys, RETURNED[level])
                took = trio.current_time() - started
                by_dcmtk = await world.find_by_dcmtk(
                    level, keys, RETURNED[level], tmp_path / f"found{number}"
                )
                expected = holdings.find(level, keys, RETURNED[level])
                assert expected, keys
                unable = [a.title for a in ARCHIVES if not holdings.can_be_asked(a, keys)]
                assert_incomplete(by_pynetdicom.status, by_pynetdicom.comment, unable, "unable")
                assert by_dcmtk.status == by_pynetdicom.status
                for asked in (by_pynetdicom, by_dcmtk):
                    rows = asked.rows(
                        UNIQUE_KEYS[level], RETURNED[level], issuer=level == "PATIENT"
                    )
                    assert rows == expected, (level, keys)
                if len(expected) > most[level]:
                    most[level] = len(expected)
                    figure(f"{level} {len(expected)} answers in {took * 1000:.0f} ms")
            await the_same_id_is_somebody_else_elsewhere(world)
            await who_is_not_granted_sees_nothing_of_it(world)
            await the_federation_is_known_in_its_hospital_only(world)
            await what_would_go_round_is_refused(world)
            await what_two_hold_is_not_counted(world)


def assert_incomplete(status: int, comment: str, titles: list[str], why: str) -> None:
    """The status is a failure that names exactly these archives; success for none."""
    if not titles:
        assert (status, comment) == (0, "")
        return
    assert status & 0xF000 == 0xC000
    words = "; ".join(f"{title} {why}" for title in titles)
    assert comment == f"incomplete: {words}"


async def the_same_id_is_somebody_else_elsewhere(world: World) -> None:
    """By an issuer that is asked for only the archives of that issuer are asked."""
    for issuer in ("NORTHERN_TRUST", "SOUTHERN_TRUST"):
        keys = {"PatientID": "P1"}
        asked = await world.find("STUDY", keys | {"IssuerOfPatientID": issuer}, OF_STUDY)
        of_issuer = [archive for archive in ARCHIVES if archive.issuer == issuer]
        expected = world.holdings.find("STUDY", keys, OF_STUDY, of_issuer)
        assert expected
        assert asked.rows("StudyInstanceUID", OF_STUDY) == expected
        assert (asked.status, asked.comment) == (0, "")


async def who_is_not_granted_sees_nothing_of_it(world: World) -> None:
    """SOUTH is granted to VIEWER and WS; for INTERN it is none of its own, and not missing."""
    keys = {"PatientName": "COPIED*"}
    expected = world.holdings.find("STUDY", keys, OF_STUDY, (NORTH, EAST))
    asked = await world.find("STUDY", keys, OF_STUDY, calling=INTERN)
    assert asked.rows("StudyInstanceUID", OF_STUDY) == expected
    assert (asked.status, asked.comment) == (0, "")
    only_south = await world.find("STUDY", {"PatientName": "ŁUKASZ*"}, calling=INTERN)
    assert only_south.answers == []
    assert "SOUTH" not in only_south.comment


async def the_federation_is_known_in_its_hospital_only(world: World) -> None:
    for router in world.net.routers.values():
        assert FEDERATION not in await router.relay("peer", "list", "--json")
    # A query does not go round: B's federation is its own, and A has granted it nothing.
    with pytest.raises(peers.PeerError):
        await world.find("STUDY", {"PatientID": "P1"}, calling="STRANGER")


async def what_would_go_round_is_refused(world: World) -> None:
    router = world.net.routers["A"]
    for title, port, why in (
        ("LOOP", router.port, "is this Router itself"),
        (FEDERATION, 104, "what this hospital's federation is called by"),
    ):
        with pytest.raises(NetworkError, match=why):
            await router.relay("device", "add", title, "127.0.0.1", str(port), "--federation")


async def what_two_hold_is_not_counted(world: World) -> None:
    """Numbers of series and objects: of a study in one archive its own, of one in two none."""
    counts = ["NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"]
    asked = await world.find("STUDY", {"StudyDate": "20000101-"}, ["StudyInstanceUID", *counts])
    assert asked.status == 0
    in_two = {*world.holdings.split, *world.holdings.shared}
    counted = set()
    for answer in asked.answers:
        study = str(answer.StudyInstanceUID)
        told = [text_of(answer, name) for name in counts]
        of_it = world.holdings.instances(StudyInstanceUID=study)
        if study in in_two:
            assert told == ["", ""], study
        elif told != ["", ""]:  # dcmqrscp does not count
            series = {str(data_set.SeriesInstanceUID) for data_set in of_it.values()}
            assert told == [str(len(series)), str(len(of_it))], study
            counted.add(study)
    assert counted == world.holdings.studies_of("EAST", "SOUTH") - in_two
