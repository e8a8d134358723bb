"""What one hospital knows of another's real devices is what they really accept.

Two Routers and a Bridge; the truth is what a pynetdicom requestor finds at the device itself, and
of DCMTK's storescp what its configuration file says.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import attrs
import pytest
import trio

from relay.dicom import uids
from relay.router.pairs import Pairs
from relay.router.probe import storage_pairs
from relay.router.queue.held import Held, read
from tests.hospitals import two_hospitals
from tests.interop import peers
from tests.interop.kept import kept
from tests.interop.processes import Peer, acceptor
from tests.network import LOOPBACK, POLL, START_DEADLINE, Network

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
IMPLICIT, EXPLICIT = uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_LITTLE_ENDIAN
JPEG, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5"

# Some classes, each with transfer syntaxes of its own.
PROFILE = """
[[TransferSyntaxes]]
[Plain]
TransferSyntax1 = LittleEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[Compressed]
TransferSyntax1 = JPEGBaseline
TransferSyntax2 = RLELossless
[[PresentationContexts]]
[Contexts]
PresentationContext1 = VerificationSOPClass\\Plain
PresentationContext2 = CTImageStorage\\Plain
PresentationContext3 = MRImageStorage\\Compressed
PresentationContext4 = UltrasoundImageStorage\\Compressed
[[Profiles]]
[SOME]
PresentationContexts = Contexts
"""
SOME = {
    *((CT, syntax) for syntax in (IMPLICIT, EXPLICIT)),
    *((sop_class, syntax) for sop_class in (MR, ULTRASOUND) for syntax in (JPEG, RLE)),
}

ALL_PAIRS = [(sop_class, syntax) for sop_class, (syntax,) in storage_pairs()]
COMMITMENT = (uids.STORAGE_COMMITMENT_PUSH_MODEL, IMPLICIT)


@asynccontextmanager
async def choosy_storescp(directory: Path) -> AsyncIterator[Peer]:
    """storescp that takes what PROFILE says."""
    directory.mkdir()
    configuration = directory / "profile.cfg"
    configuration.write_text(PROFILE)

    def command(port: int) -> list[str]:
        return [
            *("storescp", "-v", "-dhl", "--fork", "-aet", "STORESCP", "-od", str(directory)),
            *("-xf", str(configuration), "SOME", str(port)),
        ]

    async with acceptor(command, "STORESCP", directory) as peer:
        yield peer


@attrs.frozen
class Hospitals:
    net: Network
    storescp: Peer
    orthanc: peers.OrthancPeer

    async def known(self, called: str, calling: str = "MODALITY") -> Held:
        """What A holds of a device of B, once it does."""
        with trio.fail_after(START_DEADLINE):
            while (held := self._held().get((called, calling))) is None:
                await trio.sleep(POLL)
        return held

    def _held(self) -> dict[tuple[str, str], Held]:
        database = str(self.net.routers["A"].directory / "data" / "router.db")
        connection = apsw.Connection(database, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return dict(read(connection))
        finally:
            connection.close()


@asynccontextmanager
async def devices(directory: Path) -> AsyncIterator[Hospitals]:
    accepted = {"AcceptedTransferSyntaxes": [IMPLICIT, EXPLICIT, JPEG]}
    async with (
        choosy_storescp(directory / "storescp") as storescp,
        peers.orthanc(directory / "orthanc", settings=accepted) as orthanc,
        two_hospitals(directory, "MODALITY") as net,
    ):
        await net.publish("B", "STORESCP", storescp.port, "store,commit")
        await net.publish("B", "ORTHANC", orthanc.port, "store,commit")
        await net.grant(owner="B", grantee="A", ae_title="STORESCP", services="store")
        await net.grant(owner="B", grantee="A", ae_title="ORTHANC", services="store,commit")
        yield Hospitals(net, storescp, orthanc)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    with kept(lambda: devices(tmp_path_factory.mktemp("knowledge"))) as at:
        yield at


async def test_of_storescp_what_its_configuration_says(at: Hospitals, tmp_path: Path) -> None:
    await at.net.routers["A"].relay("destination", "add", "STORESCP")
    held = await at.known("STORESCP")
    assert set(held.pairs) == SOME
    assert not held.commitment
    found = await peers.pynetdicom_asker(at.storescp, ALL_PAIRS, tmp_path, calling="MODALITY")
    assert set(held.pairs) == found


async def test_of_orthanc_what_it_accepts(at: Hospitals, tmp_path: Path) -> None:
    await at.net.routers["A"].relay("destination", "add", "ORTHANC", "--calling", "MODALITY")
    held = await at.known("ORTHANC")
    found = await peers.pynetdicom_asker(
        at.orthanc, [*ALL_PAIRS, COMMITMENT], tmp_path, calling="MODALITY"
    )
    assert set(held.pairs) == found - {COMMITMENT}
    assert {syntax for _, syntax in held.pairs} == {IMPLICIT, EXPLICIT, JPEG}
    assert held.commitment is (COMMITMENT in found) is True


async def test_a_device_may_declare_what_a_device_test_found(at: Hospitals, tmp_path: Path) -> None:
    b = at.net.routers["B"]
    report = await b.relay("device", "test", "STORESCP", "--json")
    file = tmp_path / "takes.json"
    file.write_text(report)
    # Under a port where nothing listens: nobody asks it any more.
    await b.relay(
        *("device", "add", "DECLARED", LOOPBACK, "1", "--publish", "store"),
        *("--declares", str(file), "--split", "3"),
    )
    await at.net.grant(owner="B", grantee="A", ae_title="DECLARED", services="store")
    await at.net.routers["A"].relay("destination", "add", "DECLARED")
    held = await at.known("DECLARED")
    assert held.pairs == Pairs.of(SOME)
    assert held.split == 3


async def test_people_see_for_whom_it_is_known(at: Hospitals) -> None:
    a = at.net.routers["A"]
    await a.relay("destination", "add", "STORESCP", "--priority", "high")
    await at.known("STORESCP")
    [row] = [r for r in await a.ask("destination", "list") if r["called"] == "STORESCP"]
    assert (row["known"], row["priority"], row["name"]) == (["MODALITY"], "high", "Hospital B")
    await a.relay("destination", "remove", "STORESCP")
    assert "STORESCP" not in await a.relay("destination", "list")
