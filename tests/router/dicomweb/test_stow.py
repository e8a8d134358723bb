"""Stores over a real port, at a device that takes C-STOREs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from relay.dicom import elements
from relay.dicom.elements import STUDY_INSTANCE_UID, Element, Encoding
from relay.router.devices import Device
from relay.router.dicomweb import part10
from relay.router.dicomweb.asked import SomeSources
from relay.router.dicomweb.multipart import Writer
from relay.router.dicomweb.part10 import Meta
from relay.router.dicomweb.stow import MAXIMUM_PREFIX
from relay.router.federation.federation import Federation
from relay.router.federation.settings import FederationSettings
from tests.router.dicomweb.objects_made import jpeg, plain, report
from tests.router.dicomweb.served import Served, served
from tests.router.dicomweb.stores import Store, stores
from tests.router.fakes import hospital
from tests.router.federation.archives import Stored

OBJECTS = [
    plain("1.2", "1.2.1", "1.2.1.1"),
    jpeg("1.2", "1.2.1", "1.2.1.2"),
    plain("1.2", "1.2.1", "1.2.1.3"),
    report("1.3", "1.3.1", "1.3.1.1"),
]
STUDIES = "/STORE/rs/studies"


def file(one: Stored) -> bytes:
    return part10.write(Meta(one.sop_class, one.uid, one.transfer_syntax)) + one.data


def body(*parts: bytes, kind: str = "application/dicom") -> tuple[bytes, str]:
    writer = Writer("application/dicom")
    return b"".join(writer.begin(kind) + part for part in parts) + writer.end(), writer.content_type


@asynccontextmanager
async def storing(folder: Path, store: Store, **settings: Any) -> AsyncIterator[Served]:
    async with (
        hospital(folder, enrolled=False) as node,
        stores(node, "STORE", store),
        served(Federation(node, FederationSettings(site_wait=5.0, **settings))) as web,
    ):
        yield web


async def post(web: Served, path: str, *parts: bytes, **headers: str) -> httpx.Response:
    content, kind = body(*parts)
    return await web.http.post(path, content=content, headers={"content-type": kind} | headers)


def uids(answer: dict[str, Any], sequence: str) -> list[str]:
    return [row["00081155"]["Value"][0] for row in answer[sequence]["Value"]]


def url_of(row: dict[str, Any]) -> str:
    """Retrieve URL; empty: it has none."""
    element = row["00081190"]
    assert element["vr"] == "UR"
    [url] = element.get("Value", [""])
    return str(url)


async def test_objects_are_stored_as_they_are(tmp_path: Path) -> None:
    store = Store()
    async with storing(tmp_path, store) as web:
        answer = await post(web, STUDIES, *map(file, OBJECTS))
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/dicom+json"
        said = answer.json()
        assert uids(said, "00081199") == [one.uid for one in OBJECTS]
        assert "00081198" not in said
        base = f"http://127.0.0.1:{web.port}/aets{STUDIES}"
        assert said["00081190"] == {"vr": "UR"}  # of one study there would be one
        [row, *_, last] = said["00081199"]["Value"]
        assert row["00081150"]["Value"] == [OBJECTS[0].sop_class]
        assert url_of(row) == f"{base}/1.2/series/1.2.1/instances/1.2.1.1"
        assert url_of(last) == f"{base}/1.3/series/1.3.1/instances/1.3.1.1"
    assert store.objects == {one.uid: (one.transfer_syntax, one.data) for one in OBJECTS}
    assert set(store.callings) == {web.service.federation.node.ae_title}
    # One for each pair that was new.
    assert (len(store.callings), store.broken) == (3, 0)


async def test_the_answer_says_where_what_was_stored_can_be_had(tmp_path: Path) -> None:
    """Each instance and the study, by the AE title of the request; PS3.18 Table I.1-1."""
    private = elements.encode(0x0019_1010, b"UN", bytes(2 * MAXIMUM_PREFIX), Encoding())
    hidden = plain("1.2", "1.2.1", "1.2.1.4")
    at = elements.find(hidden.data, STUDY_INSTANCE_UID, Encoding(), whole=True)
    assert isinstance(at, Element)
    data = hidden.data[: at.start] + private + hidden.data[at.start :]
    strange = plain("1.2.99", "1.2.1", "1.2.1.5")
    strange = attrs.evolve(strange, data=strange.data.replace(b"1.2.99", b"1.2/.."))
    async with storing(tmp_path, Store(), store_to="STORE") as web:
        for title in ("STORE", "FEDERATION"):
            answer = await post(web, f"/{title}/rs/studies", *map(file, OBJECTS[:2]))
            said = answer.json()
            study = f"http://127.0.0.1:{web.port}/aets/{title}/rs/studies/1.2"
            assert url_of(said) == study
            assert [url_of(row) for row in said["00081199"]["Value"]] == [
                f"{study}/series/1.2.1/instances/{one.uid}" for one in OBJECTS[:2]
            ]
        # UIDs that cannot be found, or that are none, make no URL.
        for one in (attrs.evolve(hidden, data=data), strange):
            said = (await post(web, STUDIES, file(one))).json()
            assert [url_of(said), url_of(said["00081199"]["Value"][0])] == ["", ""]


async def test_from_what_only_stores_nothing_can_be_had(tmp_path: Path) -> None:
    """Another hospital's device, of which `query` and `retrieve` are not granted."""
    async with storing(tmp_path, Store()) as web:
        web.service.federation.sources = SomeSources(web.service.federation.sources)
        said = (await post(web, STUDIES, file(OBJECTS[0]))).json()
        assert uids(said, "00081199") == ["1.2.1.1"]
        assert [url_of(said), url_of(said["00081199"]["Value"][0])] == ["", ""]


async def test_pieces_of_a_body_may_be_of_any_size(tmp_path: Path) -> None:
    content, kind = body(*map(file, OBJECTS))

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 97):
            yield content[at : at + 97]

    store = Store()
    async with storing(tmp_path, store) as web:
        answer = await web.http.post(STUDIES, content=pieces(), headers={"content-type": kind})
        assert answer.status_code == 200
    assert {uid: data for uid, (_, data) in store.objects.items()} == {
        one.uid: one.data for one in OBJECTS
    }


async def test_of_another_study_than_the_urls_nothing_is_stored(tmp_path: Path) -> None:
    store = Store()
    async with storing(tmp_path, store) as web:
        answer = await post(web, f"{STUDIES}/1.3", file(OBJECTS[0]), file(OBJECTS[3]))
        assert answer.status_code == 202
        said = answer.json()
        assert uids(said, "00081199") == ["1.3.1.1"]
        [failed] = said["00081198"]["Value"]
        assert failed["00081197"]["Value"] == [0xA900]
        assert url_of(said).endswith("/studies/1.3")
    assert list(store.objects) == ["1.3.1.1"]


async def test_what_the_device_says_is_answered(tmp_path: Path) -> None:
    store = Store(statuses={"1.2.1.1": 0xA700, "1.2.1.3": 0xB007})
    async with storing(tmp_path, store) as web:
        answer = await post(web, STUDIES, file(OBJECTS[0]), file(OBJECTS[2]))
        assert answer.status_code == 202
        [failed] = answer.json()["00081198"]["Value"]
        assert failed["00081197"]["Value"] == [0xA700]
        [warned] = answer.json()["00081199"]["Value"]
        assert warned["00081196"]["Value"] == [0xB007]
        answer = await post(web, STUDIES, file(OBJECTS[0]))
        assert answer.status_code == 409
        answer = await post(web, STUDIES, file(OBJECTS[2]))
        assert answer.status_code == 202


async def test_what_the_device_does_not_take_does_not_hinder_the_rest(tmp_path: Path) -> None:
    store = Store(takes=frozenset({OBJECTS[0].transfer_syntax}))
    async with storing(tmp_path, store) as web:
        answer = await post(web, STUDIES, *map(file, OBJECTS[:3]))
        assert answer.status_code == 202
        assert uids(answer.json(), "00081199") == ["1.2.1.1", "1.2.1.3"]
        [failed] = answer.json()["00081198"]["Value"]
        assert failed["00081197"]["Value"] == [0xC122]


async def test_what_is_no_file_is_named_among_the_others(tmp_path: Path) -> None:
    async with storing(tmp_path, Store()) as web:
        answer = await post(web, STUDIES, b"x" * 200, file(OBJECTS[0]), b"")
        assert answer.status_code == 202
        assert len(answer.json()["0008119A"]["Value"]) == 2
        assert uids(answer.json(), "00081199") == ["1.2.1.1"]
        content, kind = body(file(OBJECTS[0]), kind="image/jpeg")
        answer = await web.http.post(STUDIES, content=content, headers={"content-type": kind})
        assert answer.status_code == 409


async def test_a_device_that_goes_in_the_middle(tmp_path: Path) -> None:
    store = Store(dies_after=1)
    async with storing(tmp_path, store) as web:
        answer = await post(web, STUDIES, file(OBJECTS[0]), file(OBJECTS[2]))
        assert answer.status_code == 202
        [failed] = answer.json()["00081198"]["Value"]
        assert failed["00081197"]["Value"] == [0x0110]


async def test_a_device_that_is_away(tmp_path: Path) -> None:
    async with storing(tmp_path, Store()) as web:
        node = web.service.federation.node
        device = node.devices.get("STORE")
        assert device is not None
        await node.put_device(attrs.evolve(device, port=1))
        answer = await post(web, STUDIES, *map(file, OBJECTS))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")


async def test_a_body_that_is_cut_short_stores_no_part_of_an_object(tmp_path: Path) -> None:
    store = Store()
    async with storing(tmp_path, store) as web:
        content, kind = body(file(OBJECTS[0]), file(OBJECTS[2]))
        answer = await web.http.post(STUDIES, content=content[:-20], headers={"content-type": kind})
        assert (answer.status_code, "before its last boundary" in answer.text) == (400, True)
        with trio.fail_after(5):
            while not store.broken:
                await trio.sleep(0.01)
    assert list(store.objects) == ["1.2.1.1"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/dicom", 415),
        ('multipart/related; type="application/dicom+json"; boundary=x', 415),
        ('multipart/related; type="application/dicom"', 400),
        ('multipart/related; type="application/dicom"; boundary=x', 400),
    ],
)
async def test_what_is_no_store_request(tmp_path: Path, kind: str, status: int) -> None:
    async with storing(tmp_path, Store()) as web:
        answer = await web.http.post(STUDIES, content=b"--x--", headers={"content-type": kind})
        assert answer.status_code == status
        accept = {"content-type": kind, "accept": "application/dicom+xml"}
        answer = await web.http.post(STUDIES, content=b"--x--", headers=accept)
        assert answer.status_code == 406


async def test_where_nothing_can_be_stored(tmp_path: Path) -> None:
    async with storing(tmp_path, Store()) as web:
        await web.service.federation.node.put_device(Device("PRINTER", "127.0.0.1", 104))
        for title, words in (
            ("FEDERATION", "no store_to"),
            ("NOBODY", "no AE title 'NOBODY'"),
            ("PRINTER", "'PRINTER' is not for DICOMweb"),
        ):
            answer = await post(web, f"/{title}/rs/studies", file(OBJECTS[0]))
            assert (answer.status_code, words in answer.text) == (404, True)
            assert web.http.headers["authorization"] not in answer.text


async def test_the_federation_stores_where_it_is_told_to(tmp_path: Path) -> None:
    store = Store()
    async with storing(tmp_path, store, store_to="STORE") as web:
        # That others had all of the study is no longer so.
        found = web.service.federation.found
        for study in ("1.2", "1.3"):
            found.note(None, study, ["ARCHIVE"], whole=True)
        answer = await post(web, "/FEDERATION/rs/studies", file(OBJECTS[0]))
        assert answer.status_code == 200
        assert [bool(found.owners(None, study).titles) for study in ("1.2", "1.3")] == [False, True]
    assert list(store.objects) == ["1.2.1.1"]


async def test_a_deflated_data_set_of_an_odd_length_is_padded(tmp_path: Path) -> None:
    store = Store()
    deflated = attrs.evolve(OBJECTS[0], transfer_syntax="1.2.840.10008.1.2.1.99", data=b"abc")
    async with storing(tmp_path, store) as web:
        assert (await post(web, STUDIES, file(deflated))).status_code == 200
    assert store.objects["1.2.1.1"][1] == b"abc\0"


async def test_a_file_that_says_another_uid_than_its_data_set_is_not_stored(
    tmp_path: Path,
) -> None:
    store = Store()
    one = attrs.evolve(OBJECTS[0], uid="1.2.1.9")
    async with storing(tmp_path, store) as web:
        answer = await post(web, STUDIES, file(one))
        assert answer.status_code == 409
        [failed] = answer.json()["00081198"]["Value"]
        assert failed["00081197"]["Value"] == [0xA900]
    assert not store.objects


async def test_a_file_without_a_data_set_is_not_stored(tmp_path: Path) -> None:
    store = Store()
    async with storing(tmp_path, store) as web:
        answer = await post(web, STUDIES, file(attrs.evolve(OBJECTS[0], data=b"")))
        assert answer.status_code == 409
    assert not store.objects


async def test_what_begins_as_a_boundary_does_not_end_an_object(tmp_path: Path) -> None:
    store = Store()
    async with storing(tmp_path, store) as web:
        content, kind = body(file(OBJECTS[0]))
        boundary = kind.partition("boundary=")[2].encode()
        at = len(content) - 60  # in the pixel data
        content = content[:at] + b"\r\n--" + boundary + b"x" + content[at:]
        answer = await web.http.post(STUDIES, content=content, headers={"content-type": kind})
        assert answer.status_code == 400
    assert not store.objects


@pytest.mark.parametrize("removed", [False, True])
async def test_a_device_that_is_changed_in_the_middle_of_an_object(
    tmp_path: Path, removed: bool
) -> None:
    """What ends is that association, and nothing of the Router."""
    store = Store()
    async with storing(tmp_path, store) as web:
        node = web.service.federation.node
        content, kind = body(file(OBJECTS[0]), file(OBJECTS[2]))

        async def pieces() -> AsyncIterator[bytes]:
            yield content[:-100]
            while "1.2.1.1" not in store.objects:
                await trio.sleep(0.01)
            device = node.devices.get("STORE")
            assert device is not None
            if removed:
                await node.remove_device("STORE")
            else:
                await node.put_device(attrs.evolve(device, port=1))
            yield content[-100:]

        answer = await web.http.post(STUDIES, content=pieces(), headers={"content-type": kind})
        assert answer.status_code == 202
        assert uids(answer.json(), "00081199") == ["1.2.1.1"]
        assert uids(answer.json(), "00081198") == ["1.2.1.3"]
        assert (await web.get("/FEDERATION/rs/studies")).status_code == 400  # it is there
    # It may have been whole before it was heard that nobody is to have it.
    assert store.objects.keys() <= {"1.2.1.1", "1.2.1.3"}
    for one in (OBJECTS[0], OBJECTS[2]):
        assert store.objects.get(one.uid, ("", one.data))[1] == one.data
