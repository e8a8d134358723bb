"""C-MOVE and C-GET of studies that several hospitals hold: each object once, byte for byte."""

from collections.abc import Collection
from pathlib import Path

import pytest
import trio
from pydicom.dataset import Dataset

from tests.interop import archives, peers
from tests.interop.archives import NORTH, SOUTH, Holdings, data_sets
from tests.interop.federated import INTERN, VIEWER, WS, World, federated
from tests.interop.test_moves import final, originators_of
from tests.tap import messages, tap

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

SMALL, FULL = 60, 600

WARNING = 0xB000
NOT_OF_THE_SOP_CLASS = 0xA900
DESTINATION_UNKNOWN = 0xA801

ERROR_COMMENT = 0x0902


async def test_split_and_shared_studies_arrive_whole(tmp_path: Path, full_size: bool) -> None:
    holdings = archives.make(FULL if full_size else SMALL)
    with trio.fail_after(600):
        async with federated(tmp_path, holdings) as world:
            held = await held_by(world, tmp_path / "made")
            for number, study in enumerate([*holdings.split[:3], *holdings.shared[:3]]):
                expected = holdings.instances(StudyInstanceUID=study)
                await moved(world, study, expected, (0,))
                assert originators_of(world.workstation_tap) == [(VIEWER, 1)] * len(expected)
                assert_bytes(world.workstation.directory, expected, held)
                forget(world)
                got = tmp_path / f"got{number}"
                assert (await get(world, study, got)).status == 0
                assert_bytes(got, expected, held)
            await a_patient_arrives_from_all_who_have_a_part(world, held, tmp_path)
            await who_is_not_granted_gets_nothing_of_it(world, held, tmp_path)
            await where_it_may_not_go_is_said_here(world)
            await one_owner_dies_between_find_and_move(world, held, tmp_path)


async def a_patient_arrives_from_all_who_have_a_part(
    world: World, held: dict[str, dict[str, bytes]], directory: Path
) -> None:
    """Of several studies of two hospitals, of a split one, and of the one issuer that is named."""
    split = world.holdings.split[2]  # of NORTH and EAST, whose issuer is the same
    [copied] = {str(i.PatientID) for i in instances(world, StudyInstanceUID=split).values()}
    issued = f"IssuerOfPatientID={NORTH.issuer}"
    for patient, more, expected in (
        ("S1", (), instances(world, PatientID="S1")),
        (copied, (), instances(world, PatientID=copied)),
        ("P1", (issued,), instances(world, PatientID="P1", PatientName="MÜLLER1*")),
    ):
        keys = ("QueryRetrieveLevel=PATIENT", f"PatientID={patient}", *more)
        async with tap(world.federation) as near:
            await peers.movescu(near.address, WS, *keys, options=["-P"], calling=VIEWER)
        assert final(near) == (0, len(expected), 0, 0), patient
        assert_bytes(world.workstation.directory, expected, held)
        forget(world)
        got = directory / patient
        result = await peers.getscu(world.federation, got, *keys, options=["-P"], calling=VIEWER)
        assert result.status == 0, result.output[-2000:]
        assert_bytes(got, expected, held)
    keys = ("QueryRetrieveLevel=PATIENT", "PatientID=P1")  # who is two people
    async with tap(world.federation) as near:
        await peers.movescu(near.address, WS, *keys, options=["-P"], calling=VIEWER)
    assert final(near)[0] == NOT_OF_THE_SOP_CLASS
    assert world.workstation.stored() == []


def instances(world: World, **keys: str) -> dict[str, Dataset]:
    """All that match."""
    found = world.holdings.instances(**keys)
    assert found, keys
    return found


async def who_is_not_granted_gets_nothing_of_it(
    world: World, held: dict[str, dict[str, bytes]], directory: Path
) -> None:
    """INTERN may not use SOUTH: what others have of it is all there is."""
    others = without_south(world.holdings)
    in_south = world.holdings.studies_of(SOUTH.title)
    for number, study in enumerate(
        [
            next(iter(in_south - world.holdings.studies_of("NORTH", "EAST"))),
            next(study for study in world.holdings.split if study in in_south),
            next(study for study in world.holdings.shared if study in in_south),
        ]
    ):
        expected = instances(world, StudyInstanceUID=study).keys() & others
        assert bool(expected) == bool(number)
        got = directory / f"intern{number}"
        await peers.getscu(world.federation, got, *study_keys(study), calling=INTERN)
        assert_bytes(got, expected, held)
        async with tap(world.federation) as near:
            await peers.movescu(near.address, WS, *study_keys(study), calling=INTERN)
        assert final(near)[1] in (len(expected), None)
        assert_bytes(world.workstation.directory, expected, held)
        forget(world)


async def where_it_may_not_go_is_said_here(world: World) -> None:
    """VIEWER is not published with store: so says its own Router, to it and to people."""
    [study, *_] = sorted(
        world.holdings.studies_of(SOUTH.title) - world.holdings.studies_of("NORTH", "EAST")
    )
    router = world.net.routers["A"]
    async with tap(world.federation) as near:
        for destination in (VIEWER, "NOBODY"):
            await peers.movescu(near.address, destination, *study_keys(study), calling=VIEWER)
        for association, comment in zip(
            near.associations,
            (f"RELAY_A: refuses {VIEWER}; publish with store", "RELAY_A: NOBODY is unknown; see"),
            strict=True,
        ):
            *_, last = messages(bytes(association.answered))
            assert last.status == DESTINATION_UNKNOWN
            assert (last.text(ERROR_COMMENT) or "").startswith(comment)
    # What is asked next has nothing to do with it.
    assert (await world.find("STUDY", {"StudyInstanceUID": study})).status == 0
    said = " ".join((await router.relay("doctor", check=False)).split())
    for destination in (VIEWER, "NOBODY"):
        assert f"FAIL Move Destination {destination} was refused (A801H): {VIEWER} asked" in said
    assert f"relay device add {VIEWER} … --publish store" in said
    assert "FAIL DICOMweb" not in said


def without_south(holdings: Holdings) -> set[str]:
    """UIDs of what NORTH and EAST have."""
    return {str(of_it.SOPInstanceUID) for of in ("NORTH", "EAST") for of_it in holdings.of[of]}


async def one_owner_dies_between_find_and_move(
    world: World, held: dict[str, dict[str, bytes]], directory: Path
) -> None:
    """Of what was found the other owner serves what it has; what nobody has is not success."""
    holdings = world.holdings
    found = await world.find("STUDY", {"PatientName": "COPIED*"}, ["StudyInstanceUID"])
    assert found.status == 0
    await peers.stop(world.archives["EAST"].process)
    for study in holdings.shared[:3]:
        expected = holdings.instances(StudyInstanceUID=study)
        await moved(world, study, expected, (0, WARNING))
        assert_bytes(world.workstation.directory, expected, held)
        forget(world)
    for study in holdings.split[1:3]:  # of which EAST has a series
        result = await get(world, study, directory / study)
        assert "Success" not in result.output.rpartition("Received C-GET Response")[2]
        assert_bytes(directory / study, without_east(holdings, study), held)


async def held_by(world: World, made: Path) -> dict[str, dict[str, bytes]]:
    """Data sets by SOP Instance UID as each archive itself keeps them."""
    in_south = await world.orthanc.instances()
    return {
        "NORTH": data_sets(world.archives["NORTH"].directory),
        "SOUTH": {uid: peers.data_set_of(content) for uid, content in in_south.items()},
        "EAST": data_sets(made / "EAST"),
    }


def assert_bytes(
    directory: Path, expected: Collection[str], held: dict[str, dict[str, bytes]]
) -> None:
    """Each of `expected` and nothing else, as one of its archives has it."""
    found = data_sets(directory)
    assert len([path for path in directory.iterdir() if path.suffix != ".log"]) == len(found)
    assert found.keys() == set(expected)
    for uid, data_set in found.items():
        assert data_set in [of[uid] for of in held.values() if uid in of], uid


def without_east(holdings: Holdings, study: str) -> set[str]:
    """What of a study NORTH and SOUTH have."""
    return {
        str(data_set.SOPInstanceUID)
        for title in ("NORTH", "SOUTH")
        for data_set in holdings.of[title]
        if data_set.StudyInstanceUID == study
    }


async def moved(
    world: World, study: str, expected: Collection[str], statuses: tuple[int, ...]
) -> None:
    """C-MOVE of it to WS: the counters add up over its owners."""
    async with tap(world.federation) as near:
        await peers.movescu(near.address, WS, *study_keys(study), calling=VIEWER)
    status, *counts = final(near)
    assert counts == [len(expected), 0, 0], (study, status)
    assert status in statuses


async def get(world: World, study: str, directory: Path) -> peers.Result:
    """C-GET of it."""
    return await peers.getscu(world.federation, directory, *study_keys(study), calling=VIEWER)


def study_keys(study: str) -> tuple[str, str]:
    return "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}"


def forget(world: World) -> None:
    """WS begins anew."""
    world.workstation_tap.associations.clear()
    for path in world.workstation.stored():
        path.unlink()
