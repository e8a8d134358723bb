"""C-MOVE and C-GET of studies that several hospitals hold: each object once, byte for byte."""

from collections.abc import Collection
from pathlib import Path

import pytest
import trio

from tests.interop import archives, peers
from tests.interop.archives import Holdings, data_sets
from tests.interop.federated import VIEWER, WS, World, federated
from tests.interop.test_moves import final, originators_of
from tests.tap import tap

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

SMALL, FULL = 60, 600

WARNING = 0xB000


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
            await one_owner_dies_between_find_and_move(world, held, tmp_path)


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
