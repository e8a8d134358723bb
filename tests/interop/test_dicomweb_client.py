"""dicomweb-client against a Router whose archives speak plain DIMSE: what a web viewer does."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import httpx
import pydicom
import pytest
import requests
import trio
from dicomweb_client.api import DICOMwebClient
from pydicom.encaps import generate_frames

from relay.router.app import CONTROL_SOCKET, run_router
from relay.router.dicomweb.settings import DicomwebSettings
from relay.router.federation.settings import FederationSettings
from tests import images
from tests.images import Image
from tests.interop import peers

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

T = TypeVar("T")

PATIENCE = 90
EXPLICIT, JPEG_LOSSLESS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


class Client:
    """dicomweb-client, which waits, in a thread of its own."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.headers = url, {"Authorization": f"Bearer {token}"}
        session = requests.Session()
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {token}"
        self.client = DICOMwebClient(url=url, session=session)

    async def __call__(self, do: Callable[[DICOMwebClient], T]) -> T:
        return await trio.to_thread.run_sync(do, self.client)

    async def get(self, url: str) -> httpx.Response:
        """As any script has it."""
        async with httpx.AsyncClient(trust_env=False, headers=self.headers) as client:
            return await client.get(url)

    async def post(self, *stored: Image) -> httpx.Response:
        """These, in one request, with what is answered of those that failed."""
        begin, end = b"--XX\r\nContent-Type: application/dicom\r\n\r\n", b"\r\n"
        body = b"".join(begin + image.path.read_bytes() + end for image in stored) + b"--XX--\r\n"
        kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=XX'}
        async with httpx.AsyncClient(trust_env=False, headers=self.headers | kind) as client:
            return await client.post(f"{self.url}/studies", content=body)


@attrs.frozen(slots=True)
class Site:
    """A Router, by its REST, and what makes clients of an AE title."""

    rest: httpx.AsyncClient
    port: int
    token: str

    def __call__(self, title: str) -> Client:
        return Client(f"http://127.0.0.1:{self.port}/aets/{title}/rs", self.token)


@asynccontextmanager
async def router(folder: Path, *archives: peers.Peer, store_to: str = "") -> AsyncIterator[Site]:
    """A Router whose federation asks `archives`."""
    port, stopping = peers.free_port(), trio.Event()
    control = httpx.AsyncHTTPTransport(uds=str(folder / "data" / CONTROL_SOCKET))
    serve = partial(
        run_router,
        data_dir=folder / "data",
        ae_title="RELAY",
        listen=[("127.0.0.1", 0)],
        federation=FederationSettings(store_to=store_to),
        dicomweb=DicomwebSettings(listen=[("127.0.0.1", port)]),
        grace_period=1.0,
        stopping=stopping,
    )
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            async with httpx.AsyncClient(transport=control, base_url="http://relay") as rest:
                for archive in archives:
                    where = {"ae_title": archive.ae_title, "host": archive.host}
                    device = where | {"port": archive.port, "federation": True}
                    assert (await rest.post("/v1/devices", json=device)).status_code == 200
                made = await rest.post("/v1/tokens", json={"name": "viewer"})
                yield Site(rest, port, made.json()["token"])
            stopping.set()


def pictures(*transfer_syntaxes: str) -> list[Image]:
    """The smallest image of each, as it can be shown."""
    found = images.by_transfer_syntax()
    return [next(filter(is_picture, found[syntax])) for syntax in transfer_syntaxes]


def is_picture(image: Image) -> bool:
    found = read(image)
    study, series = found.get("StudyInstanceUID"), found.get("SeriesInstanceUID")
    return bool(study and series and found.get("PixelData") and found.get("PatientID"))


def read(image: Image) -> pydicom.Dataset:
    return pydicom.dcmread(image.path)


async def test_what_is_stored_is_found_and_comes_back_as_it_is(tmp_path: Path) -> None:
    async with (
        peers.dcmqrscp(tmp_path / "dcmtk", "+xs", ae_title="DCMTK") as dcmtk,
        peers.orthanc(tmp_path / "orthanc", ae_title="ORTHANC") as orthanc,
        router(tmp_path, dcmtk, orthanc.peer, store_to="ORTHANC") as site,
    ):
        everything = site("FEDERATION")
        for title, stored in (
            ("DCMTK", pictures(EXPLICIT, JPEG_LOSSLESS)),
            ("FEDERATION", pictures(JPEG_BASELINE)),  # which goes to ORTHANC, by store_to
        ):
            answer = await site(title)(partial(store, stored))
            assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
                image.sop_instance for image in stored
            ]
            for item, image in zip(answer.ReferencedSOPSequence, stored, strict=True):
                await is_where_the_answer_says(site(title), item.RetrieveURL, image)
                await retrieved(everything, image)
        assert image.sop_instance in await orthanc.instances()
        await who_is_shown_and_let_in(site)


async def is_where_the_answer_says(web: Client, url: str, image: Image) -> None:
    """Retrieve URL (0008,1190), PS3.18 Table I.1-1: the instance, and no other."""
    assert url.startswith(f"{web.url}/studies/")
    answer = await web.get(f"{url}/metadata")
    assert answer.status_code == 200
    assert [values(row, "00080018") for row in answer.json()] == [image.sop_instance]


async def who_is_shown_and_let_in(site: Site) -> None:
    """A token that is removed ends with the next request."""
    shown = (await site.rest.get("/v1/status")).json()["dicomweb"]
    assert shown == {
        "urls": [site("FEDERATION").url],
        "tokens": 1,
        "open": False,
        "origins": [],
    }
    web = site("FEDERATION")
    assert (await web.get(f"{web.url}/studies?PatientID=NOBODY")).status_code == 204
    assert (await site.rest.delete("/v1/tokens/viewer")).status_code == 200
    assert (await web.get(f"{web.url}/studies?PatientID=NOBODY")).status_code == 401
    assert (await site.rest.get("/v1/status")).json()["dicomweb"]["tokens"] == 0


async def test_what_a_device_refuses_is_named_with_its_own_word(tmp_path: Path) -> None:
    async with (
        peers.dcmqrscp(tmp_path / "plain", ae_title="PLAIN") as plain,
        peers.pynetdicom_scp(tmp_path / "full", "--status", "A700", ae_title="FULL") as full,
        router(tmp_path, plain, full) as site,
    ):
        image, compressed = *pictures(EXPLICIT), *pictures(JPEG_BASELINE)
        for title, sent, status, failed in (
            ("PLAIN", [image, compressed], 202, {compressed.sop_instance: 0xC122}),
            ("PLAIN", [compressed], 409, {compressed.sop_instance: 0xC122}),
            ("FULL", [image], 409, {image.sop_instance: 0xA700}),
        ):
            answer = await site(title).post(*sent)
            assert answer.status_code == status, answer.text
            rows = answer.json()["00081198"]["Value"]
            assert {values(row, "00081155"): values(row, "00081197") for row in rows} == failed


def store(stored: list[Image], client: DICOMwebClient) -> pydicom.Dataset:
    return client.store_instances([read(image) for image in stored])


async def retrieved(web: Client, image: Image) -> None:
    """By all ways that a viewer has."""
    expected = read(image)
    study, series = str(expected.StudyInstanceUID), str(expected.SeriesInstanceUID)
    uid = image.sop_instance

    found = await web(lambda c: c.search_for_studies(search_filters={"StudyInstanceUID": study}))
    assert [values(row, "0020000D") for row in found] == [study]
    found = await web(lambda c: c.search_for_series(study))
    assert series in [values(row, "0020000E") for row in found]
    found = await web(lambda c: c.search_for_instances(study, series))
    assert uid in [values(row, "00080018") for row in found]

    anything = (("application/dicom", "*"),)
    for whole in (
        await web(lambda c: c.retrieve_instance(study, series, uid, media_types=anything)),
        *(
            one
            for one in await web(lambda c: c.retrieve_study(study, media_types=anything))
            if one.SOPInstanceUID == uid
        ),
    ):
        assert whole.file_meta.TransferSyntaxUID == image.transfer_syntax
        assert whole.PixelData == expected.PixelData
        assert whole.PatientName == expected.PatientName

    [metadata] = [
        row
        for row in await web(lambda c: c.retrieve_series_metadata(study, series))
        if values(row, "00080018") == uid
    ]
    assert metadata["00280010"]["Value"] == [expected.Rows]
    bulk = await web(lambda c: c.retrieve_bulkdata(metadata["7FE00010"]["BulkDataURI"]))
    frames = frames_of(expected, image.transfer_syntax)
    # What is uncompressed is one value, else each frame is.
    assert bulk == ([expected.PixelData] if image.transfer_syntax == EXPLICIT else frames)
    numbers = list(range(1, len(frames) + 1))
    assert await web(lambda c: c.retrieve_instance_frames(study, series, uid, numbers)) == frames


def frames_of(expected: pydicom.Dataset, transfer_syntax: str) -> list[bytes]:
    count = int(expected.get("NumberOfFrames") or 1)
    if transfer_syntax != EXPLICIT:
        return list(generate_frames(expected.PixelData, number_of_frames=count))
    size = expected.Rows * expected.Columns * expected.SamplesPerPixel * expected.BitsAllocated // 8
    return [expected.PixelData[at * size : (at + 1) * size] for at in range(count)]


def values(row: dict[str, Any], tag: str) -> Any:
    return row[tag]["Value"][0]
