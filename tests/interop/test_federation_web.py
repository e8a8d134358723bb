"""What a web viewer does, over three hospitals: dicomweb-client finds, opens, retrieves, stores."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pydicom
import pytest
import requests
import trio
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from tests.interop import archives, peers
from tests.interop.archives import NORTH, SOUTH, Holdings, data_sets
from tests.interop.federated import INTERN, VIEWER, World, federated

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

T = TypeVar("T")

SMALL, FULL = 60, 600

ANYTHING = (("application/dicom", "*"),)

# Seconds for everything that a viewer does here.
PATIENCE = 400


class Viewer:
    """A viewer with its token; dicomweb-client waits, so in a thread of its own."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token
        session = requests.Session()
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {token}"
        self.client = DICOMwebClient(url=url, session=session)

    async def __call__(self, do: Callable[[DICOMwebClient], T]) -> T:
        return await trio.to_thread.run_sync(do, self.client)

    async def get(self, path: str, **parameters: str) -> httpx.Response:
        """As any script has it, with the headers of the answer."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            return await client.get(self.url + path, params=parameters, headers=headers)


async def serve_web(world: World, title: str = "FEDERATION", *, caller: str = VIEWER) -> Viewer:
    """A viewer of this AE title whose token calls as `caller`."""
    port = await listen(world)
    made = await world.net.routers["A"].ask("token", "add", f"{caller} {title}", "--device", caller)
    return Viewer(f"http://{peers.LOOPBACK}:{port}/aets/{title}/rs", made["token"])


async def listen(world: World) -> int:
    """The port of DICOMweb of hospital A, which serves it from the first time on."""
    configuration = world.net.routers["A"].configuration
    for line in configuration.read_text().splitlines():
        if line.startswith("dicomweb.listen"):
            return int(json.loads(line.partition(" = ")[2]).rpartition(":")[2])
    port = peers.free_port()
    await world.restart_a({"dicomweb.listen": f"{peers.LOOPBACK}:{port}"})
    await world.settled()
    return port


async def test_a_viewer_finds_opens_and_retrieves_across_hospitals(
    tmp_path: Path, full_size: bool
) -> None:
    holdings = archives.make(FULL if full_size else SMALL)
    with trio.fail_after(PATIENCE):
        async with federated(tmp_path, holdings) as world:
            web = await serve_web(world)
            held = {
                "NORTH": data_sets(world.archives["NORTH"].directory),
                "SOUTH": {
                    uid: peers.data_set_of(content)
                    for uid, content in (await world.orthanc.instances()).items()
                },
                "EAST": data_sets(tmp_path / "made" / "EAST"),
            }
            await it_lists_studies(web, holdings)
            for study in (holdings.split[0], holdings.split[1], holdings.shared[1]):
                await it_opens(web, holdings, study, held)
            await it_is_told_what_is_missing(web, world)
            await it_stores(world, tmp_path)


async def it_lists_studies(web: Viewer, holdings: Holdings) -> None:
    """By ID, date and name, in JSON and Unicode whatever the archives write."""
    for keys in (
        {"PatientID": "P1"},
        {"StudyDate": "20050101-20151231"},
        {"PatientName": "COPIED*"},
    ):
        returned = ["StudyInstanceUID", "PatientID", "StudyDate"]
        rows = await web(partial(search_studies, keys))
        expected = holdings.find("STUDY", keys, returned)
        assert {("", first(row, "0020000D")) for row in rows} == expected.keys()
        for row in rows:
            of_it = expected["", first(row, "0020000D")]
            assert first(row, "00100020") == of_it["PatientID"]
            assert first(row, "00080020") == of_it["StudyDate"]
    for archive, name in ((NORTH, "MÜLLER1^ÄNNE"), (SOUTH, "ŁUKASZ1^ĆWIEK")):
        keys = {"PatientID": "P1", "IssuerOfPatientID": archive.issuer}
        names = {
            row["00100010"]["Value"][0]["Alphabetic"]
            for row in await web(partial(search_studies, keys))
            if first(row, "00100020") == "P1"
        }
        assert names == {name}


def search_studies(keys: dict[str, str], client: DICOMwebClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.search_for_studies(search_filters=keys, limit=5000)
    return found


async def it_opens(
    web: Viewer, holdings: Holdings, study: str, held: dict[str, dict[str, bytes]]
) -> None:
    """A study of two hospitals: its series, their objects, metadata, frames, all of it."""
    expected = holdings.instances(StudyInstanceUID=study)
    series = {str(data_set.SeriesInstanceUID) for data_set in expected.values()}
    rows = await web(lambda c: c.search_for_series(study))
    assert sorted(first(row, "0020000E") for row in rows) == sorted(series)
    found = []
    for uid in series:
        rows = await web(partial(lambda uid, c: c.search_for_instances(study, uid), uid))
        found += [first(row, "00080018") for row in rows]
        rows = await web(partial(lambda uid, c: c.retrieve_series_metadata(study, uid), uid))
        of_series = {u for u, d in expected.items() if d.SeriesInstanceUID == uid}
        assert {first(row, "00080018") for row in rows} == of_series
        for row in rows:
            of_it = expected[first(row, "00080018")]
            assert row["00280010"]["Value"] == [of_it.Rows]
            assert row["00100010"]["Value"][0]["Alphabetic"] == str(of_it.PatientName)
    assert sorted(found) == sorted(expected)

    whole = await web(lambda c: c.retrieve_study(study, media_types=ANYTHING))
    assert sorted(str(one.SOPInstanceUID) for one in whole) == sorted(expected)
    for uid, data_set in expected.items():
        of = (study, str(data_set.SeriesInstanceUID), uid)
        frames = await web(partial(lambda of, c: c.retrieve_instance_frames(*of, [1]), of))
        assert frames == [data_set.PixelData]
        # dicomweb-client parses what it gets: the bytes are what the answer itself has.
        path = "/studies/{}/series/{}/instances/{}".format(*of)
        answer = await web.get(path, accept='multipart/related; type="application/dicom"')
        assert answer.status_code == 200
        [part] = parts_of(answer)
        assert peers.data_set_of(part) in [has[uid] for has in held.values() if uid in has]


def first(row: dict[str, Any], tag: str) -> Any:
    return row[tag]["Value"][0]


def parts_of(answer: httpx.Response) -> list[bytes]:
    """The bodies of a multipart/related answer (RFC 2046 §5.1.1)."""
    boundary = answer.headers["content-type"].partition("boundary=")[2].split(";")[0].strip('"')
    _, *parts, _ = answer.content.split(b"--" + boundary.encode())
    return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]


async def it_is_told_what_is_missing(web: Viewer, world: World) -> None:
    """The answers that there are, and a warning; for whom it is not granted it is not missing."""
    world.refuse.touch()
    intern = await serve_web(world, caller=INTERN)
    keys = {"PatientName": "COPIED*"}
    for viewer, there in ((web, (NORTH, SOUTH)), (intern, (NORTH,))):
        answer = await viewer.get("/studies", **keys)
        assert answer.status_code == 200
        expected = world.holdings.find("STUDY", keys, [], there)
        assert {("", first(row, "0020000D")) for row in answer.json()} == expected.keys()
        assert answer.headers["warning"].startswith("299 ")
        assert "EAST" in answer.headers["warning"]
        assert "SOUTH" not in answer.headers["warning"]
    world.refuse.unlink()
    only_south = world.holdings.studies_of("SOUTH") - world.holdings.studies_of("NORTH", "EAST")
    for viewer, status in ((web, 200), (intern, 404)):
        answer = await viewer.get(f"/studies/{sorted(only_south)[0]}/metadata")
        assert answer.status_code == status
    assert "warning" not in (await web.get("/studies", **keys)).headers


async def it_stores(world: World, directory: Path) -> None:
    """STOW-RS to one archive, which then has it byte for byte; the federation finds it."""
    path = next(iter(sorted((directory / "made" / "NORTH").iterdir())))
    data_set = pydicom.dcmread(path)
    data_set.StudyInstanceUID = data_set.StudyInstanceUID + ".99"
    data_set.SeriesInstanceUID = data_set.StudyInstanceUID + ".1"
    data_set.SOPInstanceUID = data_set.StudyInstanceUID + ".1.1"
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    data_set.save_as(directory / "stored.dcm", enforce_file_format=True)
    to_north = await serve_web(world, NORTH.title)
    answer: Dataset = await to_north(lambda c: c.store_instances([data_set]))
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
        data_set.SOPInstanceUID
    ]
    kept = data_sets(world.archives["NORTH"].directory)
    assert kept[str(data_set.SOPInstanceUID)] == peers.data_set_of(directory / "stored.dcm")
    found = await world.find("STUDY", {"StudyInstanceUID": str(data_set.StudyInstanceUID)})
    assert (len(found.answers), found.status) == (1, 0)
    # By its own URL it is there, too (PS3.18 Table I.1-1).
    [item] = answer.ReferencedSOPSequence
    assert item.RetrieveURL.startswith(f"{answer.RetrieveURL}/series/")
    again = await to_north.get(item.RetrieveURL.removeprefix(to_north.url) + "/metadata")
    assert [first(row, "00080018") for row in again.json()] == [data_set.SOPInstanceUID]
