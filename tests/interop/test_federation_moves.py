"""Federated retrieves from an archive that knows only its own Router: wherever the objects go."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pydicom
import pytest
import trio

from tests.images import Image, make_series
from tests.interop import peers
from tests.interop.test_moves import granted_to_us
from tests.network import Network, network
from tests.tap import Tap, messages, tap

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

C_STORE_RQ = 0x0001
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
MOVE_ORIGINATOR, MOVE_ORIGINATOR_ID = 0x1030, 0x1031


@attrs.frozen(slots=True)
class Workstation:
    """A workstation, and what its socket saw."""

    peer: peers.Peer
    tapped: Tap

    def originators(self) -> list[tuple[str | None, int | None]]:
        """The Move Originator of each object that was stored there, and the Message ID."""
        return [
            (message.text(MOVE_ORIGINATOR), message.number(MOVE_ORIGINATOR_ID))
            for association in self.tapped.associations
            for message in messages(bytes(association.requested))
            if message.field == C_STORE_RQ
        ]


@asynccontextmanager
async def workstation(directory: Path) -> AsyncIterator[Workstation]:
    async with (
        peers.storescp(directory, ae_title="WS1") as peer,
        tap(peers.Address(peer.port, "WS1")) as tapped,
    ):
        yield Workstation(peer, tapped)


@asynccontextmanager
async def archive(
    directory: Path, net: Network, series: list[Image], *options: str
) -> AsyncIterator[peers.Peer]:
    """QR of hospital A, to which the Router there is the one destination that there is."""
    router = peers.Address(net.routers["A"].port, "RELAY_A")
    async with peers.dcmqrscp(directory, ae_title="QR", move_destinations=[router]) as qr:
        result = await peers.storescu(qr, *(image.path for image in series))
        assert result.status == 0, result.output[-2000:]
        await net.routers["A"].relay(
            *("device", "add", "QR", "127.0.0.1", str(qr.port), "--federation", *options)
        )
        yield qr


def keys(series: list[Image]) -> tuple[str, str]:
    study = pydicom.dcmread(series[0].path).StudyInstanceUID
    return "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}"


async def test_a_move_reaches_a_workstation_here_and_one_in_another_hospital(
    tmp_path: Path,
) -> None:
    series = make_series(tmp_path, 3, size=64)
    with trio.fail_after(200):
        async with (
            network(tmp_path / "net", "A", "B") as net,
            workstation(tmp_path / "a") as ours,
            workstation(tmp_path / "b") as theirs,
            archive(tmp_path / "qr", net, series, "--move-via", "router"),
        ):
            port = str(ours.tapped.address.port)
            # It is known to the network by another title, and publishes nothing there.
            await net.routers["A"].relay("device", "add", "WS1", "127.0.0.1", port, "--as", "A_WS1")
            await net.publish("B", "WS1", theirs.tapped.address.port, "store", "--as", "B_WS1")
            await net.grant(owner="B", grantee="A", ae_title="B_WS1", services="store")
            federation = net.address("A", "FEDERATION")
            # Without `query` at any device of B's there is nobody to ask but our own archive.
            result = await peers.movescu(federation, "WS1", *keys(series), calling="WS1")
            assert result.status == 0, result.output[-2000:]
            assert len(ours.peer.stored()) == 3
            assert ours.originators() == [("WS1", 1)] * 3
            assert theirs.peer.stored() == []
            result = await peers.movescu(federation, "B_WS1", *keys(series), calling="WS1")
            assert result.status == 0, result.output[-2000:]
            assert len(theirs.peer.stored()) == 3
            assert theirs.originators() == [("A_WS1", 1)] * 3
            assert len(ours.peer.stored()) == 3
            held = sorted(peers.data_set_of(path) for path in ours.peer.stored())
            assert held == sorted(peers.data_set_of(path) for path in theirs.peer.stored())


async def test_what_the_queue_has_taken_is_delivered_by_the_final_response(tmp_path: Path) -> None:
    series = make_series(tmp_path, 3, size=64)
    takes = tmp_path / "takes.json"
    takes.write_text(json.dumps({series[0].sop_class: [EXPLICIT, IMPLICIT]}))
    with trio.fail_after(200):
        async with (
            network(tmp_path / "net", "A", "B") as net,
            workstation(tmp_path / "b") as theirs,
            archive(tmp_path / "qr", net, series, "--move-via", "router"),
        ):
            await net.device("A", "WS1", "--as", "A_WS1")
            port = theirs.tapped.address.port
            options = ("--as", "B_WS1", "--declares", str(takes))
            await net.publish("B", "WS1", port, "store", *options)
            await net.grant(owner="B", grantee="A", ae_title="B_WS1", services="store")
            await granted_to_us(net, "A", "B_WS1")
            await net.routers["A"].relay("destination", "add", "B_WS1", "--queued")
            result = await peers.movescu(
                net.address("A", "FEDERATION"), "B_WS1", *keys(series), calling="WS1"
            )
            assert result.status == 0, result.output[-2000:]
            assert len(theirs.peer.stored()) == 3
            assert theirs.originators() == [("A_WS1", 1)] * 3
            assert '"move delivered"' in net.routers["A"].output()


async def test_a_move_to_a_workstation_that_is_off_is_a_failure(tmp_path: Path) -> None:
    series = make_series(tmp_path, 3, size=64)
    with trio.fail_after(200):
        async with (
            network(tmp_path / "net", "A") as net,
            archive(tmp_path / "qr", net, series, "--move-via", "router"),
        ):
            await net.device("A", "WS1")
            federation = net.address("A", "FEDERATION")
            result = await peers.movescu(federation, "WS1", *keys(series), calling="WS1")
            assert result.status != 0, result.output[-2000:]
            assert "OutOfResourcesSubOperations" in result.output, result.output[-2000:]


async def test_a_c_get_of_an_archive_that_is_asked_by_c_move(tmp_path: Path) -> None:
    series = make_series(tmp_path, 3, size=64)
    with trio.fail_after(200):
        async with (
            network(tmp_path / "net", "A") as net,
            archive(tmp_path / "qr", net, series, "--get-via-move"),
        ):
            await net.device("A", "WS1")
            result = await peers.getscu(
                net.address("A", "FEDERATION"), tmp_path / "got", *keys(series), calling="WS1"
            )
            assert result.status == 0, result.output[-2000:]
            found = [pydicom.dcmread(path) for path in (tmp_path / "got").iterdir()]
            assert {f.SOPInstanceUID for f in found} == {image.sop_instance for image in series}
            pixels = {f.SOPInstanceUID: f.PixelData for f in found}
            for image in series:
                assert pixels[image.sop_instance] == pydicom.dcmread(image.path).PixelData
            assert "C-GET by C-MOVE" in net.routers["A"].output()
