"""C-GET of archives that are asked by C-MOVE, as others' software sees it at both ends."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pydicom
import pytest

from tests.hospitals import make
from tests.images import shipped
from tests.interop import peers
from tests.network import network
from tests.tap import Tap, messages, tap

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

C_GET_RSP = 0x8010
COMPLETED, FAILED, WARNING = 0x1021, 0x1022, 0x1023
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


STUDY = "1.2.826.0.1.3680043.8.498.1"
KEYS = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}")


def series(directory: Path) -> list[Path]:
    """Three images of one study."""
    image = next(i for i in shipped() if (i.sop_class, i.transfer_syntax) == (CT, EXPLICIT))
    paths = []
    for number in range(3):
        data_set = pydicom.dcmread(image.path)
        data_set.StudyInstanceUID = STUDY
        data_set.SOPInstanceUID = f"{STUDY}.{number}"
        data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        path = directory / f"{number}.dcm"
        data_set.save_as(path)
        paths.append(path)
    return paths


@asynccontextmanager
async def archive(
    kind: str, directory: Path, images: list[Path], router: peers.Address
) -> AsyncIterator[peers.Peer]:
    """An archive that holds `images`, and knows its Router as the only Move Destination."""
    if kind == "dcmqrscp":
        async with peers.dcmqrscp(directory, ae_title="PACS", move_destinations=[router]) as peer:
            result = await peers.storescu(peer, *images, calling="FILLER")
            assert result.status == 0, result.output
            yield peer
        return
    served = make(make(directory) / "served")
    for image in images:
        shutil.copy(image, served)
    known = ["--destination", f"{router.ae_title}={router.port}"]
    if kind == "no originator":
        known.append("--no-originator")
    async with peers.pynetdicom_holder(directory / "holder", served, *known) as peer:
        yield peer


def final(near: Tap) -> tuple[int | None, ...]:
    """Status of the last C-GET-RSP, and its counts of completed, failed, warning."""
    [association] = near.associations
    *_, last = (m for m in messages(bytes(association.answered)) if m.field == C_GET_RSP)
    return (last.status, *(last.number(element) for element in (COMPLETED, FAILED, WARNING)))


@pytest.mark.parametrize("kind", ["dcmqrscp", "pynetdicom", "no originator"])
async def test_a_study_comes_by_c_get(tmp_path: Path, kind: str) -> None:
    images = series(tmp_path)
    sent = sorted(map(peers.data_set_of, images))
    async with network(tmp_path / "net", "A", "B") as net:
        router = peers.Address(net.routers["B"].port, "RELAY_B")
        async with archive(kind, tmp_path / "archive", images, router) as holder:
            await net.device("A", "WS1")
            await net.publish("B", holder.ae_title, holder.port, "retrieve", "--get-via-move")
            await net.grant(owner="B", grantee="A", ae_title=holder.ae_title, services="retrieve")
            for number in range(2):
                got = tmp_path / f"got{number}"
                async with tap(net.address("A", holder.ae_title)) as near:
                    # One context for each class, that of the images first.
                    options = ("-S", "+xe")
                    result = await peers.getscu(
                        near.address, got, *KEYS, options=options, calling="WS1"
                    )
                assert result.status == 0, result.output
                assert final(near) == (0, 3, 0, 0)
                stored = sorted(peers.data_set_of(path) for path in got.iterdir())
                assert len(stored) == len(sent)
                # By then it is known in which transfer syntaxes the archive stores.
                if kind != "dcmqrscp" and number == 1:  # that one encodes anew what it sends
                    assert stored == sent


async def test_an_archive_that_does_not_know_its_router(tmp_path: Path) -> None:
    images = series(tmp_path)
    async with network(tmp_path / "net", "A", "B") as net:
        nobody = peers.Address(net.routers["B"].port, "SOMEBODY")
        async with archive("dcmqrscp", tmp_path / "archive", images, nobody) as holder:
            await net.device("A", "WS1")
            await net.publish("B", holder.ae_title, holder.port, "retrieve", "--get-via-move")
            await net.grant(owner="B", grantee="A", ae_title=holder.ae_title, services="retrieve")
            async with tap(net.address("A", holder.ae_title)) as near:
                await peers.getscu(near.address, tmp_path / "got", *KEYS, calling="WS1")
            assert final(near)[0] == 0xA702
            said = await net.routers["B"].relay("doctor", check=False)
            assert "Move Destination RELAY_B was refused (A801H): WS1 asked" in said
