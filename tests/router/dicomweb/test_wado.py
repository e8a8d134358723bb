"""Retrieves over a real port, of archives that answer C-GETs."""

from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
import trio

from relay.dicom.dimse import Status
from relay.router.dicomweb import wado
from relay.router.federation.identifiers import Level
from tests.router.dicomweb.objects_made import EXPLICIT, JPEG, STREAMS, jpeg, plain, report
from tests.router.dicomweb.served import Served, parts, served
from tests.router.federation import archives
from tests.router.federation.archives import IMPLICIT, Archive, Stored, site

ANY = 'multipart/related; type="application/dicom"; transfer-syntax=*'
STUDY = "/FEDERATION/rs/studies/1.2"


def held(response: httpx.Response) -> dict[str, bytes]:
    """The data sets of an answer's files, by their SOP Instance UID, as they are stored."""
    assert response.status_code == 200, response.text
    found = {}
    for kind, data in parts(response):
        meta = pydicom.dcmread(BytesIO(data), stop_before_pixels=True).file_meta
        assert kind == f"application/dicom; transfer-syntax={meta.TransferSyntaxUID}"
        # Behind the group's length, which is in the group's first element (PS3.10 §7.1).
        begin = 132 + 12 + int.from_bytes(data[140:144], "little")
        found[str(meta.MediaStorageSOPInstanceUID)] = data[begin:]
    return found


async def test_a_study_comes_as_it_is_stored_from_all_that_hold_a_part(tmp_path: Path) -> None:
    a = [plain("1.2", "1.2.1", "1.2.1.1"), jpeg("1.2", "1.2.2", "1.2.2.1")]
    b = [a[0], report("1.2", "1.2.3", "1.2.3.1"), plain("1.3", "1.3.1", "1.3.1.1")]
    of_both = {"A": Archive(a), "B": Archive(b)}
    async with site(tmp_path, of_both) as made, served(made.federation) as web:
        whole = await web.get(STUDY, ANY)
        assert held(whole) == {one.uid: one.data for one in (*a, b[1])}
        series = await web.get(f"{STUDY}/series/1.2.2", ANY)
        assert held(series) == {"1.2.2.1": a[1].data}
        instance = await web.get(f"{STUDY}/series/1.2.3/instances/1.2.3.1", ANY)
        assert held(instance) == {"1.2.3.1": b[1].data}
        alone = await web.get("/A/rs/studies/1.2", ANY)
        assert held(alone) == {one.uid: one.data for one in a}


async def test_an_object_alone_need_not_be_a_part(tmp_path: Path) -> None:
    one = plain("1.2", "1.2.1", "1.2.1.1")
    async with site(tmp_path, {"A": Archive([one])}) as made, served(made.federation) as web:
        path = f"{STUDY}/series/1.2.1/instances/1.2.1.1"
        answer = await web.get(path, "application/dicom")
        assert answer.headers["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT}"
        assert answer.content.endswith(one.data)
        assert (await web.get(STUDY, "application/dicom")).status_code == 406


async def test_who_is_away_holds_up_the_first_request_of_a_series_only(tmp_path: Path) -> None:
    of_both = {
        "A": Archive([plain("1.2", "1.2.1", "1.2.1.1")]),
        "B": Archive([], find_status=Status.OUT_OF_RESOURCES),
    }
    async with site(tmp_path, of_both) as made, served(made.federation) as web:
        for _ in range(3):
            assert (await web.get(f"{INSTANCE}/frames/1")).status_code == 200
        assert of_both["B"].queries == ["STUDY"]
        assert [level for level, _ in of_both["A"].asked] == ["IMAGE"] * 3
        assert of_both["A"].queries == ["STUDY", "IMAGE"]
        # Whoever may not ask A does not get it from there.
        await made.federation.node.remove_device("A")
        assert (await web.get(f"{INSTANCE}/frames/1")).status_code == 503


async def test_what_would_have_to_be_transcoded_is_not_acceptable(tmp_path: Path) -> None:
    archive = Archive([jpeg("1.2", "1.2.1", "1.2.1.1")])
    async with site(tmp_path, {"A": archive}) as made, served(made.federation) as web:
        answer = await web.get(STUDY, 'multipart/related; type="application/dicom"')
        assert (answer.status_code, "transfer-syntax=*" in answer.text) == (406, True)
        answer = await web.get(STUDY, f"{ANY[:-1]}{JPEG}")
        assert len(held(answer)) == 1
        for accept in ("image/png", f"{ANY[:-1]}1.2.840.10008.1.2.2"):
            assert (await web.get(STUDY, accept)).status_code == 406
        assert (await web.get(f"{STUDY}/rendered")).status_code == 406


async def test_an_archive_that_takes_any_context_of_the_class_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As dcmqrscp: of what is proposed it goes by the SOP class alone, compressed ones first."""
    begin = archives._Served._begin

    async def careless(served: Any, one: Stored, data: bytes) -> Any:
        accepted = {c.transfer_syntax for c in served.contexts.values() if c.scp}
        if one.transfer_syntax == EXPLICIT and JPEG in accepted:
            return None
        return await begin(served, one, data)

    monkeypatch.setattr(archives._Served, "_begin", careless)
    stored = [plain("1.2", "1.2.1", "1.2.1.1"), jpeg("1.2", "1.2.2", "1.2.2.1")]
    async with site(tmp_path, {"A": Archive(stored)}) as made, served(made.federation) as web:
        assert held(await web.get(STUDY, ANY)) == {one.uid: one.data for one in stored}
        assert len((await web.get(f"{STUDY}/metadata")).json()) == 2
        for _ in range(2):
            assert (await web.get(f"{INSTANCE}/frames/1")).status_code == 200


async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    archive = Archive([plain("1.2", "1.2.1", "1.2.1.1")])
    async with site(tmp_path, {"A": archive}) as made, served(made.federation) as web:
        assert (await web.get("/FEDERATION/rs/studies/1.9", ANY)).status_code == 404
        instance = f"{STUDY}/series/1.2.1/instances"
        assert (await web.get(f"{instance}/1.2.1.1", ANY)).status_code == 200
        # Also in a series of which it is known already what is in it.
        assert (await web.get(f"{instance}/1.2.1.9", ANY)).status_code == 404
        assert (await web.get(f"{instance}/1.2.1.9/metadata")).status_code == 404
        assert (await web.get(f"{instance}/x", ANY)).status_code == 400


async def test_an_answer_that_cannot_be_finished_breaks_off(tmp_path: Path) -> None:
    stored = [plain("1.2", "1.2.1", f"1.2.1.{n}") for n in range(1, 4)]
    archive = Archive(stored, fails=frozenset({"1.2.1.3"}))
    async with site(tmp_path, {"A": archive}) as made, served(made.federation) as web:
        for path in (STUDY, f"{STUDY}/metadata"):
            with pytest.raises(httpx.RemoteProtocolError):
                await web.get(path)
        archive.fails = frozenset(one.uid for one in stored)
        answer = await web.get(STUDY, ANY)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")


async def test_who_could_not_be_asked_is_named_before_the_rest(tmp_path: Path) -> None:
    of_both = {
        "A": Archive([plain("1.2", "1.2.1", "1.2.1.1")]),
        "B": Archive([], find_status=Status.OUT_OF_RESOURCES),
    }
    async with site(tmp_path, of_both) as made, served(made.federation) as web:
        for path, accept in ((STUDY, ANY), (f"{STUDY}/metadata", "")):
            answer = await web.get(path, accept)
            assert answer.status_code == 200
            assert "Something may be missing: B: its C-FIND ends" in answer.headers["warning"]


async def test_an_archive_that_dies_in_an_object_breaks_it_off(tmp_path: Path) -> None:
    large = plain("1.2", "1.2.1", "1.2.1.1", frames=400_000)
    archive = Archive([large], dies_after=0, dies_in_data=True)
    async with site(tmp_path, {"A": archive}) as made, served(made.federation) as web:
        with pytest.raises(httpx.RemoteProtocolError):
            await web.get(STUDY, ANY)


async def test_metadata_are_json_with_the_urls_of_bulk_data(tmp_path: Path) -> None:
    stored = [plain("1.2", "1.2.1", "1.2.1.1"), report("1.2", "1.2.3", "1.2.3.1")]
    async with site(tmp_path, {"A": Archive(stored)}) as made, served(made.federation) as web:
        answer = await web.get(f"{STUDY}/metadata", "application/dicom+json")
        assert answer.headers["content-type"] == "application/dicom+json"
        image, text = answer.json()
        assert image["00100010"]["Value"] == [{"Alphabetic": "Buc^Jérôme"}]
        assert image["00083002"]["Value"] == [EXPLICIT]
        base = f"http://127.0.0.1:{web.port}/aets{STUDY}/series/1.2.1/instances/1.2.1.1"
        assert image["7FE00010"] == {"vr": "OB", "BulkDataURI": f"{base}/bulkdata/7FE00010"}
        [item] = text["0040A730"]["Value"]
        assert item["0040A160"]["Value"] == ["nothing to be seen"]
        assert (await web.get(f"{STUDY}/metadata", ANY)).status_code == 406
        bulk = await web.get(base.partition("/aets")[2] + "/bulkdata/7FE00010")
        assert [data for _, data in parts(bulk)] == [bytes(range(18))]


INSTANCE = f"{STUDY}/series/1.2.1/instances/1.2.1.1"


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
async def test_frames_are_those_that_are_stored(tmp_path: Path, syntax: str) -> None:
    archive = Archive([plain("1.2", "1.2.1", "1.2.1.1", syntax=syntax)])
    async with site(tmp_path, {"A": archive}) as made, served(made.federation) as web:
        kind = f"application/octet-stream; transfer-syntax={EXPLICIT}"
        answer = await web.get(f"{INSTANCE}/frames/1,3")
        assert parts(answer) == [(kind, bytes(range(6))), (kind, bytes(range(12, 18)))]
        answer = await web.get(f"{INSTANCE}/frames/3,1,2")
        assert [data[0] for _, data in parts(answer)] == [12, 0, 6]
        alone = await web.get(f"{INSTANCE}/frames/2", "application/octet-stream")
        assert (alone.headers["content-type"], alone.content) == (kind, bytes(range(6, 12)))
        missing = await web.get(f"{INSTANCE}/frames/4")
        assert (missing.status_code, "no frame 4" in missing.text) == (404, True)
        for wrong in ("0", "1,1", "x", "1,", "-1"):
            assert (await web.get(f"{INSTANCE}/frames/{wrong}")).status_code == 400


async def test_compressed_frames(tmp_path: Path) -> None:
    archive = Archive([jpeg("1.2", "1.2.1", "1.2.1.1")])
    async with site(tmp_path, {"A": archive}) as made, served(made.federation) as web:
        answer = await web.get(f"{INSTANCE}/frames/2,1", 'multipart/related; type="image/jpeg"')
        kind = f"image/jpeg; transfer-syntax={JPEG}"
        assert parts(answer) == [(kind, STREAMS[1]), (kind, STREAMS[0])]
        answer = await web.get(f"{INSTANCE}/bulkdata/7FE00010")
        assert parts(answer) == [(kind, stream) for stream in STREAMS]
        octets = "multipart/related; type=application/octet-stream; transfer-syntax=*"
        answer = await web.get(f"{INSTANCE}/frames/3", octets)
        kind = f"application/octet-stream; transfer-syntax={JPEG}"
        assert parts(answer) == [(kind, STREAMS[2])]
        refused = await web.get(f"{INSTANCE}/frames/3", octets.partition("; transfer")[0])
        assert refused.status_code == 406


async def test_what_has_no_frames(tmp_path: Path) -> None:
    archive = Archive([report("1.2", "1.2.1", "1.2.1.1")])
    async with site(tmp_path, {"A": archive}) as made, served(made.federation) as web:
        answer = await web.get(f"{INSTANCE}/frames/1")
        assert (answer.status_code, "no pixel data" in answer.text) == (404, True)
        assert (await web.get(f"{INSTANCE}/bulkdata/7FE00010")).status_code == 404
        assert (await web.get(f"{INSTANCE}/bulkdata/00420011")).status_code == 404
        assert (await web.get(f"{INSTANCE}/bulkdata/nothing")).status_code == 404
        text = await web.get(f"{INSTANCE}/bulkdata/0040A730/0/0040A160", "application/octet-stream")
        assert text.content.rstrip(b" ") == b"nothing to be seen"


async def test_of_a_large_object_no_more_comes_than_was_asked_for(tmp_path: Path) -> None:
    large = plain("1.2", "1.2.1", "1.2.1.1", frames=1_000_000)
    archive = Archive([large])
    async with site(tmp_path, {"A": archive}) as made, served(made.federation) as web:
        answer = await web.get(f"{INSTANCE}/frames/1")
        assert parts(answer)[0][1] == bytes(range(6))
        assert archive.sent == 0  # it was told to stop in the middle of it


async def test_many_at_once(tmp_path: Path) -> None:
    archive = Archive([plain("1.2", "1.2.1", "1.2.1.1")])
    async with site(tmp_path, {"A": archive}) as made, served(made.federation) as web:
        await web.get(f"{INSTANCE}/metadata")

        async def one(web: Served, number: int) -> None:
            answer = await web.get(f"{INSTANCE}/frames/{number}")
            assert parts(answer)[0][1][0] == 6 * (number - 1)

        async with trio.open_nursery() as nursery:
            for at in range(24):
                nursery.start_soon(one, web, at % 3 + 1)


def test_the_target_is_what_the_path_names() -> None:
    target = wado.target_of({"study": "1.2", "series": "1.2.1"})
    assert (target.level, target.studies, target.series) == (Level.SERIES, ("1.2",), ("1.2.1",))


async def test_an_archive_that_sends_the_series_for_an_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are such: an object of the same series must not be taken for the one."""
    stored = [plain("1.2", "1.2.1", f"1.2.1.{n}", frames=n) for n in (3, 1, 2)]
    find = archives._Served._retrieve

    async def generous(served: Any, context: Any, command: Any, found: Any, encoding: Any) -> None:
        await find(served, context, command, stored, encoding)

    monkeypatch.setattr(archives._Served, "_retrieve", generous)
    async with site(tmp_path, {"A": Archive(stored)}) as made, served(made.federation) as web:
        for _ in range(2):  # also once it is known whose the series is
            answer = await web.get(INSTANCE, "application/dicom")
            assert answer.content.endswith(stored[1].data)
            assert answer.content.count(b"DICM") == 1
            assert list(held(await web.get(INSTANCE, ANY))) == ["1.2.1.1"]
            [found] = (await web.get(f"{INSTANCE}/metadata")).json()
            assert found["00080018"]["Value"] == ["1.2.1.1"]
            pixels = await web.get(f"{INSTANCE}/bulkdata/00280008", "application/octet-stream")
            assert pixels.content.strip() == b"1"
            missing = await web.get(f"{INSTANCE}/frames/2")
            assert (missing.status_code, "the object has 1" in missing.text) == (404, True)


async def test_where_an_end_cannot_be_told_from_a_break_nothing_is_begun(tmp_path: Path) -> None:
    """In HTTP/1.0, which some proxies speak, what is broken off looks whole."""
    archive = Archive([plain("1.2", "1.2.1", "1.2.1.1")])
    async with site(tmp_path, {"A": archive}) as made, served(made.federation) as web:
        token = web.http.headers["authorization"]
        head = f"GET /aets{INSTANCE} HTTP/1.0\r\nHost: x\r\nAuthorization: {token}\r\n"
        async with await trio.open_tcp_stream("127.0.0.1", web.port) as stream:
            await stream.send_all(f"{head}Accept: application/dicom\r\n\r\n".encode())
            answer = b"".join([bytes(piece) async for piece in stream])
        assert answer.startswith(b"HTTP/1.1 505 ")
        assert b"HTTP/1.1 is needed" in answer
