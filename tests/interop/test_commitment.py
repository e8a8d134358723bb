"""Storage commitment whose report comes by an association of its own (PS3.4 §J.3.3)."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.hospitals import ct_image
from tests.interop import peers
from tests.interop.processes import acceptor
from tests.network import LOOPBACK, Network, network

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]


@asynccontextmanager
async def two_archives(
    directory: Path,
) -> AsyncIterator[tuple[Network, dict[str, peers.OrthancPeer]]]:
    """Hospitals A and B with an Orthanc each that calls itself `PACS`; B grants A `commit`.

    Each knows the other one by its title in the network, and its own Router, at that Router.
    """
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(network(directory / "net", "A", "B"))
        archives = {}
        for letter, other in (("A", "B"), ("B", "A")):
            known = [net.address(letter, title) for title in (f"{other}_PACS", f"RELAY_{letter}")]
            archives[letter] = await stack.enter_async_context(
                peers.orthanc(directory / letter, ae_title="PACS", modalities=known)
            )
            await net.publish(
                letter, "PACS", archives[letter].port, "commit", "--as", f"{letter}_PACS"
            )
        await net.grant(owner="B", grantee="A", ae_title="B_PACS", services="commit")
        yield net, archives


async def commit(archive: peers.OrthancPeer, at: str, *instances: tuple[str, str]) -> Any:
    """What `archive` is told of these instances by the archive `at`, once it has its report."""
    async with httpx.AsyncClient(base_url=archive.http, trust_env=False) as client:
        asked = await client.post(
            f"/modalities/{at}/storage-commitment",
            json={"DicomInstances": instances, "Timeout": 20},
        )
        asked.raise_for_status()
        path = asked.json()["Path"]
        with trio.fail_after(30):
            while True:
                report = (await client.get(path)).json()
                if report["Status"] != "Pending":
                    return report
                await trio.sleep(0.1)


async def test_reports_come_back_by_a_new_association(tmp_path: Path) -> None:
    """In each direction, of what is there and of what is not; by every name that an archive has."""
    image = ct_image()
    instance = (image.sop_class, image.sop_instance)
    async with two_archives(tmp_path) as (net, archives):
        await archives["B"].upload(image.path)
        # Nothing was asked for yet: not even the association is let in.
        assert (await peers.echoscu(net.address("B", "A_PACS"), calling="PACS")).status != 0
        # Then the report needs no grant but that.
        report = await commit(archives["A"], "B_PACS", instance)
        assert report["Status"] == "Success", report

        await net.grant(owner="A", grantee="B", ae_title="A_PACS", services="commit")
        report = await commit(archives["B"], "A_PACS", instance)
        assert report["Status"] == "Failure", report

        # All other hospitals' devices under the one name that both archives have for them.
        for letter, archive in archives.items():
            shown = ("--present-as", f"RELAY_{letter}")
            await net.routers[letter].relay(
                *("device", "add", "PACS", LOOPBACK, str(archive.port), *shown)
            )
        for asker, holder, outcome in (("A", "B", "Success"), ("B", "A", "Failure")):
            report = await commit(archives[asker], f"{holder}_PACS", instance)
            assert report["Status"] == outcome, report


SCRIPT = Path(__file__).with_name("pynetdicom_commitment.py")


async def test_pynetdicom_reports_by_a_new_association(tmp_path: Path) -> None:
    """To the modality by its name in the network, and by the one name for all callers."""
    modality, command = peers.free_port(), (sys.executable, "-W", "ignore", str(SCRIPT))
    async with network(tmp_path / "net", "A", "B") as net:

        def archive(port: int) -> list[str]:
            return [
                *(*command, "archive", "--port", str(port), "--ae-title", "ARCHIVE"),
                *("--report-to", str(net.routers["B"].port)),
            ]

        async with acceptor(archive, "ARCHIVE", tmp_path) as peer:
            await net.publish("A", "MOD", modality, "echo", "--as", "A_MOD")
            await net.publish("B", "ARCHIVE", peer.port, "commit")
            await net.grant(owner="B", grantee="A", ae_title="ARCHIVE", services="commit")
            for presented in ("none", "RELAY_B"):
                await net.publish("B", "ARCHIVE", peer.port, "commit", "--present-as", presented)
                done = await peers.run(
                    *(*command, "asker", "--port", str(modality), "--ae-title", "MOD"),
                    *("--at", str(net.routers["A"].port), "--called", "ARCHIVE"),
                )
                outcome = json.loads(done.check().output)
                assert outcome["status"] == 0
                assert outcome["told"] == [outcome["asked"] | {"calling": "ARCHIVE"}]
