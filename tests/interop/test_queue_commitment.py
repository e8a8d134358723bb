"""Storage commitment to a queued destination: asked once its objects are there, and reported."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.hospitals import ct_image
from tests.interop import peers
from tests.interop.processes import acceptor
from tests.interop.test_commitment import SCRIPT, commit
from tests.interop.test_moves import granted_to_us
from tests.network import Network, network
from tests.tap import Tap, messages, tap

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
COMMIT, IMPLICIT = "1.2.840.10008.1.20.1", "1.2.840.10008.1.2"
N_EVENT_REPORT_RQ, N_ACTION_RQ, C_STORE_RQ = 0x0100, 0x0130, 0x0001

# From what is awaited to its coming, at most.
DELIVERY = 60.0

PYTHON = (sys.executable, "-W", "ignore", str(SCRIPT))


async def queued(
    net: Network, title: str, port: int, directory: Path, *, published: str = ""
) -> None:
    """A device of B that A's objects are queued for; what it takes is said."""
    published = published or title
    takes = directory / "takes.json"
    takes.write_text(json.dumps({CT: [EXPLICIT, IMPLICIT], COMMIT: [IMPLICIT, EXPLICIT]}))
    services = "store,commit"
    options = ("--declares", str(takes), "--as", published)
    await net.publish("B", title, port, services, *options)
    await net.grant(owner="B", grantee="A", ae_title=published, services=services)
    await granted_to_us(net, "A", published)
    await net.routers["A"].relay("destination", "add", published, "--queued")


def fields(tapped: Tap) -> list[int | None]:
    """The Command Field of each request that reached a device, in order."""
    return [
        message.field
        for association in tapped.associations
        for message in messages(bytes(association.requested))
    ]


async def test_orthanc_asks_for_what_it_has_sent(tmp_path: Path) -> None:
    """Its report comes from the other archive, by an association of its own."""
    image = ct_image()
    instance = (image.sop_class, image.sop_instance)
    async with network(tmp_path / "net", "A", "B") as net, AsyncExitStack() as stack:
        archives = {}
        for letter, other in (("A", "B"), ("B", "A")):
            known = [net.address(letter, f"{other}_PACS")]
            archives[letter] = await stack.enter_async_context(
                peers.orthanc(tmp_path / letter, ae_title="PACS", modalities=known)
            )
        tapped = await stack.enter_async_context(tap(peers.Address(archives["B"].port, "PACS")))
        await net.publish("A", "PACS", archives["A"].port, "echo", "--as", "A_PACS")
        await queued(net, "PACS", tapped.address.port, tmp_path, published="B_PACS")
        stored = await archives["A"].upload(image.path)
        await archives["A"].call("B_PACS", "store", [stored])
        report = await commit(archives["A"], "B_PACS", instance)
        assert report["Status"] == "Success", report
        # It was not asked before it had the object.
        asked = [field for field in fields(tapped) if field in (C_STORE_RQ, N_ACTION_RQ)]
        assert asked == [C_STORE_RQ, N_ACTION_RQ]
        # What it never got it says itself.
        report = await commit(archives["A"], "B_PACS", (CT, "1.2.3.4"))
        assert report["Status"] == "Failure", report


@asynccontextmanager
async def archive(directory: Path, *options: str) -> AsyncIterator[Network]:
    """ARCHIVE of pynetdicom in B, and MOD in A, which asks it. MOD's port is given to `ask`."""
    async with network(directory / "net", "A", "B") as net:

        def command(port: int) -> list[str]:
            return [
                *(*PYTHON, "archive", "--port", str(port), "--ae-title", "ARCHIVE"),
                *("--report-to", str(net.routers["B"].port), *options),
            ]

        async with acceptor(command, "ARCHIVE", directory) as peer:
            await queued(net, "ARCHIVE", peer.port, directory)
            yield net


async def ask(net: Network) -> Any:
    """What MOD is answered, and told."""
    modality = peers.free_port()
    await net.publish("A", "MOD", modality, "echo", "--as", "A_MOD")
    done = await peers.run(
        *(*PYTHON, "asker", "--port", str(modality), "--ae-title", "MOD"),
        *("--at", str(net.routers["A"].port), "--called", "ARCHIVE"),
    )
    return json.loads(done.check().output)


async def test_a_report_by_a_new_association_reaches_who_asked(tmp_path: Path) -> None:
    async with archive(tmp_path) as net:
        outcome = await ask(net)
    assert outcome["status"] == 0
    assert outcome["told"] == [outcome["asked"] | {"calling": "ARCHIVE"}]


async def test_what_the_device_refuses_the_queue_reports(tmp_path: Path) -> None:
    """Who asked was told 0000 before: so it hears that nothing was committed (PS3.4 §J.3.3)."""
    async with archive(tmp_path, "--status", "0112") as net:
        outcome = await ask(net)
    assert outcome["status"] == 0
    failure = {"calling": "ARCHIVE", "failed": "0110"}
    assert outcome["told"] == [outcome["asked"] | failure]


async def test_a_report_at_once_reaches_who_has_not_gone(tmp_path: Path) -> None:
    """Where the device reports over the association on which it is asked, the queue does too."""
    async with (
        network(tmp_path / "net", "A", "B") as net,
        peers.pynetdicom_services(tmp_path / "services") as services,
    ):
        await net.device("A", "PYSCU")
        await queued(net, "SERVICES", services.port, tmp_path)
        async with tap(net.address("A", "SERVICES")) as near:
            steps = await peers.pynetdicom_scu("commitment", near.address, calling="PYSCU")
        assert [step["step"] for step in steps] == ["N-ACTION", "N-EVENT-REPORT"]
        assert steps[0]["status"] == 0
        [association] = near.associations
        said = [message.field for message in messages(bytes(association.answered))]
        assert said == [N_ACTION_RQ | 0x8000, N_EVENT_REPORT_RQ]


async def test_what_has_no_commitment_is_not_asked_for_it(tmp_path: Path) -> None:
    """Its presentation context is rejected, and the objects go on without."""
    async with (
        network(tmp_path / "net", "A", "B") as net,
        peers.storescp(tmp_path / "storescp") as storescp,
    ):
        await net.device("A", "PYSCU")
        takes = tmp_path / "takes.json"
        takes.write_text(json.dumps({CT: [EXPLICIT]}))
        await net.publish("B", "STORESCP", storescp.port, "store", "--declares", str(takes))
        await net.grant(owner="B", grantee="A", ae_title="STORESCP", services="store")
        await net.routers["A"].relay("destination", "add", "STORESCP", "--queued")
        with pytest.raises(peers.PeerError):
            await peers.pynetdicom_scu("commitment", net.address("A", "STORESCP"), calling="PYSCU")
        assert '"contexts": 0' in net.routers["A"].output()
