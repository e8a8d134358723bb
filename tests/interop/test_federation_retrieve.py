"""C-GET and C-MOVE of a study that two archives hold in part, with others' programs at each end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pydicom
import pytest
import trio

from relay import listener
from relay.router.calling import serve_device
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.settings import FederationSettings
from tests.images import Image, make_series
from tests.interop import peers
from tests.router.fakes import hospital
from tests.tap import Tap, messages, tap

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

C_STORE_RQ = 0x0001
MOVE_ORIGINATOR, MOVE_ORIGINATOR_ID = 0x1030, 0x1031


@attrs.frozen(slots=True)
class Site:
    """A hospital whose federation has an archive of DCMTK's and an Orthanc, and a workstation."""

    federation: peers.Address
    dcmtk: peers.Peer
    orthanc: peers.OrthancPeer
    workstation: peers.Peer
    workstation_tap: Tap
    series: list[Image]

    @property
    def study(self) -> str:
        return f"StudyInstanceUID={pydicom.dcmread(self.series[0].path).StudyInstanceUID}"

    def assert_there(self, files: list[Path], images: list[Image]) -> None:
        """Each once, its pixels those that were stored."""
        found = [pydicom.dcmread(file) for file in files]
        assert sorted(f.SOPInstanceUID for f in found) == sorted(i.sop_instance for i in images)
        pixels = {f.SOPInstanceUID: f.PixelData for f in found}
        for image in images:
            assert pixels[image.sop_instance] == pydicom.dcmread(image.path).PixelData


@asynccontextmanager
async def site(directory: Path) -> AsyncIterator[Site]:
    """The first four of six images are in one archive, the last four in the other."""
    (directory / "made").mkdir()
    series = make_series(directory / "made", 6, size=128)
    async with (
        peers.storescp(directory / "ws", ae_title="WS") as workstation,
        tap(peers.Address(workstation.port, "WS")) as tapped,
    ):
        there = peers.Address(tapped.address.port, "WS")
        async with (
            peers.dcmqrscp(directory / "qr", ae_title="QR", move_destinations=[there]) as qr,
            peers.orthanc(directory / "orthanc", modalities=[there]) as orthanc,
            hospital(directory / "router", enrolled=False) as node,
            trio.open_nursery() as nursery,
        ):
            result = await peers.storescu(qr, *(image.path for image in series[:4]))
            assert result.status == 0, result.output[-2000:]
            for image in series[2:]:
                await orthanc.upload(image.path)
            for title, port in (("QR", qr.port), ("ORTHANC", orthanc.port)):
                await node.put_device(Device(title, "127.0.0.1", port, federation=True))
            await node.put_device(Device("WS", "127.0.0.1", workstation.port))
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            federation = Federation(node, FederationSettings(site_wait=20))
            serve = partial(serve_device, node, federation=federation)
            nursery.start_soon(listener.serve, listeners, serve)
            port = int(listeners[0].socket.getsockname()[1])
            address = peers.Address(port, "FEDERATION")
            yield Site(address, qr, orthanc, workstation, tapped, series)
            nursery.cancel_scope.cancel()


async def test_a_c_get_has_each_once(tmp_path: Path) -> None:
    with trio.fail_after(200):
        async with site(tmp_path) as it:
            keys = ("QueryRetrieveLevel=STUDY", it.study)
            result = await peers.getscu(it.federation, tmp_path / "got", *keys, calling="WS")
            assert result.status == 0, result.output[-2000:]
            it.assert_there(list((tmp_path / "got").iterdir()), it.series)


async def test_so_has_a_c_move_and_the_originator_is_the_callers(tmp_path: Path) -> None:
    with trio.fail_after(200):
        async with site(tmp_path) as it:
            keys = ("QueryRetrieveLevel=STUDY", it.study)
            result = await peers.movescu(it.federation, "WS", *keys, calling="WS")
            assert result.status == 0, result.output[-2000:]
            it.assert_there(it.workstation.stored(), it.series)
            stores = [
                message
                for association in it.workstation_tap.associations
                for message in messages(bytes(association.requested))
                if message.field == C_STORE_RQ
            ]
            assert len(stores) == len(it.series)
            assert {m.text(MOVE_ORIGINATOR) for m in stores} == {"WS"}
            assert {m.number(MOVE_ORIGINATOR_ID) for m in stores} == {1}
            result = await peers.movescu(it.federation, "NOBODY", *keys, calling="WS")
            assert "MoveDestinationUnknown" in result.output, result.output[-2000:]


async def test_a_series_and_a_patient(tmp_path: Path) -> None:
    with trio.fail_after(200):
        async with site(tmp_path) as it:
            first = pydicom.dcmread(it.series[0].path)
            keys = (
                "QueryRetrieveLevel=SERIES",
                it.study,
                f"SeriesInstanceUID={first.SeriesInstanceUID}",
            )
            result = await peers.getscu(it.federation, tmp_path / "series", *keys, calling="WS")
            assert result.status == 0, result.output[-2000:]
            it.assert_there(list((tmp_path / "series").iterdir()), it.series)
            patient = ("QueryRetrieveLevel=PATIENT", f"PatientID={first.PatientID}")
            result = await peers.getscu(
                it.federation, tmp_path / "patient", *patient, options=["-P"], calling="WS"
            )
            assert result.status == 0, result.output[-2000:]
            it.assert_there(list((tmp_path / "patient").iterdir()), it.series)


async def test_what_a_dead_archive_held_is_failed_or_comes_from_the_other(tmp_path: Path) -> None:
    with trio.fail_after(200):
        async with site(tmp_path) as it:
            keys = ("QueryRetrieveLevel=STUDY", it.study)
            result = await peers.getscu(it.federation, tmp_path / "all", *keys, calling="WS")
            assert result.status == 0, result.output[-2000:]
            await peers.stop(it.dcmtk.process)
            result = await peers.getscu(it.federation, tmp_path / "rest", *keys, calling="WS")
            it.assert_there(list((tmp_path / "rest").iterdir()), it.series[2:])
