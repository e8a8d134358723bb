"""The main job with others' software at both ends: two hospitals, a Bridge, real processes."""

import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import images
from tests.hospitals import (
    EVERYTHING,
    ct_image,
    make,
    publish,
    two_hospitals,
)
from tests.interop import peers
from tests.tap import messages, pdus, tap

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

STUDY_OF_CT_SMALL = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"

# What makes DCMTK's storescu propose a transfer syntax.
STORESCU_OPTION = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}


async def test_everyone_reaches_everyone(tmp_path: Path) -> None:
    """DCMTK, Orthanc and pynetdicom, each as caller and as called: echo, store, find, get."""
    image = ct_image()
    shutil.copy(image.path, make(tmp_path / "served"))
    async with (
        peers.dcmqrscp(tmp_path / "q", ae_title="DCMQRSCP") as dcmtk,
        peers.orthanc(tmp_path / "o", ae_title="ORTHANC_B") as orthanc,
        peers.pynetdicom_scp(
            tmp_path / "p",
            "--answers",
            "1",
            "--serve",
            str(tmp_path / "served"),
            ae_title="PYNET",
        ) as pynet,
        two_hospitals(
            tmp_path / "net", "ECHOSCU", "STORESCU", "FINDSCU", "GETSCU", "PYSCU", "ORTHANC_A"
        ) as net,
    ):
        for ae_title, port in [
            ("DCMQRSCP", dcmtk.port),
            ("ORTHANC_B", orthanc.port),
            ("PYNET", pynet.port),
        ]:
            await publish(net, ae_title, port)
            target = net.address("A", ae_title)
            assert (await peers.echoscu(target)).status == 0
            assert (await peers.storescu(target, image.path)).status == 0
            found = await peers.findscu(target, "QueryRetrieveLevel=STUDY", "StudyInstanceUID")
            assert found.status == 0
            assert "0020,000d" in found.output
            study = f"StudyInstanceUID={STUDY_OF_CT_SMALL}"
            got = await peers.getscu(
                target, tmp_path / f"dcmtk{ae_title}", "QueryRetrieveLevel=STUDY", study
            )
            assert got.status == 0, got.output
            assert list((tmp_path / f"dcmtk{ae_title}").iterdir())
            into = make(tmp_path / f"pynetdicom{ae_title}")
            keys = ("-S", "-k", "QueryRetrieveLevel=STUDY", "-k", study)
            for application, options in (
                ("echoscu", ()),
                ("storescu", (str(image.path),)),
                ("findscu", keys),
                ("getscu", (*keys, "-od", str(into))),
            ):
                result = await peers.pynetdicom(application, target, *options, calling="PYSCU")
                assert result.status == 0, result.output
            assert list(into.iterdir())
        async with peers.orthanc(
            tmp_path / "oa",
            ae_title="ORTHANC_A",
            modalities=[net.address("A", a) for a in ("DCMQRSCP", "ORTHANC_B", "PYNET")],
        ) as caller:
            for ae_title in ("DCMQRSCP", "ORTHANC_B", "PYNET"):
                await caller.call(ae_title, "echo", {})
                sent = await caller.upload(image.path)
                await caller.call(ae_title, "store", {"Resources": [sent]})
                query = await caller.call(
                    ae_title, "query", {"Level": "Study", "Query": {"StudyInstanceUID": ""}}
                )
                assert query["ID"]
        assert len(await orthanc.instances()) == 1


async def test_every_transfer_syntax_arrives_bit_for_bit(tmp_path: Path) -> None:
    """Data sets at the socket of the calling device equal those at the called device's."""
    groups = images.by_transfer_syntax()
    assert groups.keys() >= STORESCU_OPTION.keys()
    async with (
        peers.storescp(tmp_path / "scp") as scp,
        tap(peers.Address(scp.port, scp.ae_title)) as far,
        two_hospitals(tmp_path / "net", "STORESCU") as net,
        tap(net.address("A", "STORESCP")) as near,
    ):
        await publish(net, "STORESCP", far.address.port)
        for syntax, option in STORESCU_OPTION.items():
            before = len(near.data_sets_requested())
            files = [image.path for image in groups[syntax]]
            await peers.storescu(near.address, *files, options=["-nh", option])
            sent = near.data_sets_requested()[before:]
            assert sent, f"storescu sent nothing in {syntax}"
            assert far.data_sets_requested()[before:] == sent, syntax
        statuses = [
            [m.status for tapped in side.associations for m in messages(bytes(tapped.answered))]
            for side in (near, far)
        ]
        assert statuses[0] == statuses[1]
        assert len(statuses[0]) >= 150


async def test_find_with_no_one_and_a_thousand_answers_and_cancel(tmp_path: Path) -> None:
    for answers in (0, 1, 1000):
        async with (
            peers.pynetdicom_scp(tmp_path / str(answers), "--answers", str(answers)) as scp,
            two_hospitals(tmp_path / f"net{answers}", "FINDSCU") as net,
            tap(net.address("A", "PYNETDICOM")) as near,
        ):
            await publish(net, "PYNETDICOM", scp.port)
            keys = ("QueryRetrieveLevel=STUDY", "StudyInstanceUID")
            assert (await peers.findscu(near.address, *keys)).status == 0
            assert len(near.data_sets_answered()) == answers
            if answers == 1000:
                result = await peers.findscu(near.address, *keys, options=["-S", "--cancel", "3"])
                assert result.status == 0
                last = list(messages(bytes(near.associations[-1].answered)))[-1]
                assert last.status in (0xFE00, 0x0000)  # a peer may ignore C-CANCEL
                assert len(near.data_sets_answered()) < 2000


async def test_rejections_and_aborts_arrive_as_they_were(tmp_path: Path) -> None:
    image = ct_image()
    async with (
        peers.pynetdicom_scp(
            tmp_path / "only", "--only", "1.2.840.10008.5.1.4.1.1.4", ae_title="ONLY_MR"
        ) as only,
        peers.pynetdicom_scp(tmp_path / "reject", "--reject", "2,3,2", ae_title="FULL") as full,
        peers.pynetdicom_scp(tmp_path / "abort", "--abort", "store", ae_title="ABORTS") as aborts,
        two_hospitals(tmp_path / "net", "STORESCU", "UNKNOWN") as net,
    ):
        for ae_title, peer in (("ONLY_MR", only), ("FULL", full), ("ABORTS", aborts)):
            await publish(net, ae_title, peer.port)
        async with (
            tap(net.address("A", "ONLY_MR")) as near,
            tap(peers.Address(only.port, "ONLY_MR")) as direct,
        ):
            for side in (near, direct):
                result = await peers.storescu(side.address, image.path)
                assert result.status != 0
                assert (
                    "No presentation context"
                    in result.output.replace("Presentation", "presentation")
                    or "No Acceptable" in result.output
                )
            relayed, plain = (pdu_of(side.associations[0].answered, 2) for side in (near, direct))
            assert context_results(relayed) == context_results(plain)
        for ae_title, kind, body in [("FULL", 3, b"\x00\x02\x03\x02"), ("ABORTS", 7, None)]:
            peer = {"FULL": full, "ABORTS": aborts}[ae_title]
            async with (
                tap(net.address("A", ae_title)) as near,
                tap(peers.Address(peer.port, ae_title)) as direct,
            ):
                for side in (near, direct):
                    assert (await peers.storescu(side.address, image.path)).status != 0
                relayed, plain = (pdu_of(s.associations[0].answered, kind) for s in (near, direct))
                assert relayed == plain
                assert body is None or relayed == body
        async with tap(net.address("A", "NOWHERE")) as near:
            assert (await peers.echoscu(near.address, calling="STORESCU")).status != 0
            assert pdu_of(near.associations[0].answered, 3) == b"\x00\x01\x01\x07"
        async with tap(net.address("A", "FULL")) as near:
            assert (await peers.echoscu(near.address, calling="STRANGER")).status != 0
            assert pdu_of(near.associations[0].answered, 3) == b"\x00\x01\x01\x03"


def pdu_of(stream: bytearray, kind: int) -> bytes:
    """The body of the first PDU of this type; fails with what there was instead."""
    found = list(pdus(bytes(stream)))
    bodies = [body for k, body in found if k == kind]
    assert bodies, f"no PDU of type {kind}, only {[k for k, _ in found]}"
    return bodies[0]


def context_results(body: bytes) -> list[tuple[int, int]]:
    """(context ID, result) of each item 21H of an A-ASSOCIATE-AC (PS3.8 §9.3.3.2)."""
    results, at = [], 68
    while at + 4 <= len(body):
        length = int.from_bytes(body[at + 2 : at + 4], "big")
        if body[at] == 0x21:
            results.append((body[at + 4], body[at + 6]))
        at += 4 + length
    return results


async def test_a_service_that_is_not_granted_cannot_be_used(tmp_path: Path) -> None:
    """`query` alone: C-ECHO and C-STORE contexts are rejected, C-FIND works."""
    async with (
        peers.dcmqrscp(tmp_path / "q") as scp,
        two_hospitals(tmp_path / "net", "STORESCU", "FINDSCU") as net,
    ):
        await net.publish("B", "DCMQRSCP", scp.port, EVERYTHING)
        await net.grant(owner="B", grantee="A", ae_title="DCMQRSCP", services="query")
        target = net.address("A", "DCMQRSCP")
        assert (await peers.storescu(target, ct_image().path)).status != 0
        found = await peers.findscu(target, "QueryRetrieveLevel=STUDY", "StudyInstanceUID")
        assert found.status == 0
        assert "No presentation context" not in found.output
        assert not [path for path in scp.stored() if path.name != "index.dat"]


async def test_the_bridge_and_the_store_see_no_plaintext(tmp_path: Path) -> None:
    """Canaries are in no byte on the Routers' way out, and in no byte at rest at the Bridge."""
    import pydicom

    canaries = {
        "PatientName": "CANARY^NAME",
        "PatientID": "CANARYPATIENTID",
        "AccessionNumber": "CANARYACCESSION",
        "StudyInstanceUID": "1.2.3.99887766.1",
        "SeriesInstanceUID": "1.2.3.99887766.2",
        "SOPInstanceUID": "1.2.3.99887766.3",
    }
    data_set = pydicom.dcmread(ct_image().path)
    for keyword, value in canaries.items():
        setattr(data_set, keyword, value)
    data_set.file_meta.MediaStorageSOPInstanceUID = canaries["SOPInstanceUID"]
    private = data_set.private_block(0x0099, "CANARYCREATOR", create=True)
    private.add_new(0x01, "LO", "CANARYPRIVATE")
    file = tmp_path / "canary.dcm"
    data_set.save_as(file)
    searched = [value.encode() for value in (*canaries.values(), "CANARYCREATOR", "CANARYPRIVATE")]
    searched.append(b"CANARYCALLER")
    async with (
        peers.dcmqrscp(tmp_path / "q") as scp,
        two_hospitals(tmp_path / "net", "CANARYCALLER", record=True) as net,
    ):
        await publish(net, "DCMQRSCP", scp.port)
        target = net.address("A", "DCMQRSCP")
        assert (await peers.storescu(target, file, calling="CANARYCALLER")).status == 0
        found = await peers.findscu(
            target,
            "QueryRetrieveLevel=STUDY",
            "PatientName=CANARY*",
            "PatientID",
            "StudyInstanceUID",
            calling="CANARYCALLER",
        )
        assert "CANARYPATIENTID" in found.output
        got = await peers.getscu(
            target,
            tmp_path / "got",
            "QueryRetrieveLevel=STUDY",
            "StudyInstanceUID=1.2.3.99887766.1",
            calling="CANARYCALLER",
        )
        assert got.status == 0
        (held,) = (path for path in scp.stored() if path.name != "index.dat")
        assert peers.data_set_of(next((tmp_path / "got").iterdir())) == peers.data_set_of(held)
        wire = net.wire.recorded()
        assert len(wire) > file.stat().st_size  # the image did cross, twice, compressed
        for canary in searched:
            assert canary not in wire, f"{canary!r} on the wire"
        for path in net.bridge.directory.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                for canary in searched:
                    assert canary not in content, f"{canary!r} in {path.name}"
        for site in net.routers.values():
            for canary in searched[:-1]:  # a Router's log may name its own devices
                assert canary not in site.log.read_bytes(), f"{canary!r} in the log of {site.name}"


async def test_a_large_object_crosses_in_little_memory(
    tmp_path: Path, full_size: bool, figure: Callable[[str], None]
) -> None:
    """One object of 3 GiB (smaller unless --all): each process's memory stays flat."""
    frames = 3072 if full_size else 256
    file = tmp_path / "large.dcm"
    digest = write_multi_frame(file, frames)
    async with (
        peers.storescp(tmp_path / "scp") as scp,
        two_hospitals(tmp_path / "net", "STORESCU") as net,
    ):
        await publish(net, "STORESCP", scp.port)
        sites = [net.bridge, *net.routers.values()]
        result = await peers.storescu(net.address("A", "STORESCP"), file, deadline=500)
        assert result.status == 0, result.output[-2000:]
        (received,) = scp.stored()
        assert digest_of(received) == digest
        for site in sites:
            figure(f"{frames} MiB, {site.name}: peak {site.peak_memory() / 2**20:.0f} MiB")
            assert site.peak_memory() < 200 * 2**20, site.name


def write_multi_frame(path: Path, frames: int) -> bytes:
    """A multi-frame file of `frames` MiB, written piece by piece; the SHA-256 of the whole tail."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian

    data_set = pydicom.dcmread(ct_image().path)
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.SOPClassUID = data_set.file_meta.MediaStorageSOPClassUID = (
        "1.2.840.10008.5.1.4.1.1.7.3"  # Multi-frame Grayscale Word Secondary Capture
    )
    data_set.Rows, data_set.Columns, data_set.NumberOfFrames = 512, 1024, frames
    if "DataSetTrailingPadding" in data_set:
        del data_set.DataSetTrailingPadding
    del data_set.PixelData
    data_set.save_as(path)
    source = random.Random(3)
    frame = source.randbytes(2**20)
    with path.open("ab") as file:
        file.write(b"\xe0\x7f\x10\x00OW\x00\x00" + (frames * 2**20).to_bytes(4, "little"))
        for number in range(frames):
            file.write(number.to_bytes(4, "little") + frame[4:])
    return digest_of(path)


def digest_of(path: Path) -> bytes:
    """SHA-256 of the pixel data of a large file, without reading it whole."""
    with path.open("rb") as file:
        head = file.read(2**20)
        start = head.index(b"\xe0\x7f\x10\x00OW")
        file.seek(start)
        hasher = hashlib.sha256()
        while piece := file.read(2**22):
            hasher.update(piece)
    return hasher.digest()
