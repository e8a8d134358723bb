"""Queued delivery between real devices: accepted by the sender's Router, delivered byte for byte.

The senders are answered at home; what is asserted is what crosses the far devices' sockets later.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from relay.dicom.dimse import CommandField
from tests import images
from tests.interop import peers
from tests.interop.both_sockets import Granted, Hospitals, Seen, hospitals
from tests.interop.kept import kept
from tests.interop.test_two_hospitals import STORESCU_OPTION
from tests.tap import Tapped, messages

# From the sender's last answer to the far device's last image.
DELIVERY = 60.0

# From a destination's first line to the knowledge of all devices: nine probes, on a busy machine.
LEARNING = 60.0

_LIST = ("destination", "list")

CALLERS = ["STORESCU", "PYSCU", "ORTHANC_A"]


@attrs.frozen(slots=True)
class There:
    """Hospital A with senders, hospital B with devices that A's objects are queued for."""

    at: Hospitals
    orthanc: peers.OrthancPeer  # of hospital A

    async def settled(self, ae_title: str) -> dict[str, Any]:
        """The device's line of the queue, once nothing waits for it."""
        with trio.fail_after(DELIVERY):
            while True:
                rows = await self.at.net.routers["A"].ask("queue", "list")
                row: dict[str, Any] = next(r for r in rows if r["called"] == ae_title)
                if not row["waiting"]:
                    return row
                await trio.sleep(0.2)


@asynccontextmanager
async def queued(directory: Path) -> AsyncIterator[There]:
    async with (
        peers.storescp(directory / "storescp") as storescp,
        peers.pynetdicom_scp(directory / "pynetdicom") as pynetdicom,
        peers.orthanc(directory / "orthanc_b", ae_title="ORTHANC_B") as orthanc_b,
    ):
        called: dict[str, tuple[peers.Target, list[str]]] = {
            "STORESCP": (storescp, ["echo", "store"]),
            "PYNETDICOM": (pynetdicom, ["echo", "store", "query"]),
            "ORTHANC_B": (orthanc_b, ["echo", "store"]),
        }
        grants = [Granted(title, words) for title, (_, words) in called.items()]
        async with (
            hospitals(directory, called, CALLERS, grants) as at,
            peers.orthanc(
                directory / "orthanc_a",
                ae_title="ORTHANC_A",
                modalities=[at.net.address("A", title) for title in called],
            ) as orthanc_a,
        ):
            router = at.net.routers["A"]
            for title in called:
                await router.relay("destination", "add", title, "--queued")
            # Whoever calls before it is known what the device takes may be told to come again.
            with trio.fail_after(LEARNING):
                while any(len(d["known"]) < len(CALLERS) for d in await router.ask(*_LIST)):
                    await trio.sleep(0.2)
            yield There(at, orthanc_a)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    with kept(lambda: queued(tmp_path_factory.mktemp("queue"))) as there:
        yield there


def stored(tapped: Tapped) -> list[bytes | None]:
    """The data sets of the C-STOREs that one association brought, in order."""
    requested = messages(bytes(tapped.requested))
    return [m.data_set for m in requested if m.field == CommandField.C_STORE_RQ]


def brought(associations: list[Tapped]) -> list[list[bytes | None]]:
    """What each of the associations that brought any objects did."""
    return [objects for tapped in associations if (objects := stored(tapped))]


async def assert_delivered(there: There, seen: Seen, ae_title: str) -> None:
    """What the callers sent reached the device: in their order, each association over its own."""
    row = await there.settled(ae_title)
    sent = brought(seen.near)
    assert sent
    assert {message.status for message in seen.answered()} == {0}
    received = brought(seen.far)
    assert sorted(map(len, received)) == sorted(map(len, sent))
    assert sorted(received) == sorted(sent)
    assert (row["failed"], row["held"]) == (0, 0)


@pytest.mark.parametrize("ae_title", ["STORESCP", "PYNETDICOM", "ORTHANC_B"])
async def test_everyone_sends_and_forgets(there: There, tmp_path: Path, ae_title: str) -> None:
    """DCMTK, pynetdicom and Orthanc to each other: one association in, one out, in order."""
    series = images.make_series(tmp_path, 20, size=128, seed=len(ae_title))
    paths = [image.path for image in series]
    async with there.at.watch(ae_title) as seen:
        (await peers.storescu(seen.address, *paths)).check()
        sent = await peers.pynetdicom("storescu", seen.address, str(tmp_path), calling="PYSCU")
        sent.check()
        await assert_delivered(there, seen, ae_title)
        assert [len(objects) for objects in brought(seen.near)] == [20, 20]
    before = len(there.at.taps[ae_title].associations)
    uploaded = [await there.orthanc.upload(path) for path in paths]
    await there.orthanc.call(ae_title, "store", {"Resources": uploaded})
    await there.settled(ae_title)
    (arrived,) = brought(there.at.taps[ae_title].associations[before:])
    assert len(arrived) == 20


async def test_every_transfer_syntax_arrives_bit_for_bit(there: There) -> None:
    """Data sets at the socket of the calling device equal those at the called device's."""
    groups = images.by_transfer_syntax()
    for syntax, option in STORESCU_OPTION.items():
        files = [image.path for image in groups[syntax]]
        async with there.at.watch("STORESCP") as seen:
            await peers.storescu(seen.address, *files, options=["-nh", option])
            await assert_delivered(there, seen, "STORESCP")


async def test_a_live_echo_and_what_cannot_be_queued(there: There) -> None:
    """C-ECHO comes from the far device; a C-FIND is relayed; what it does not take is refused."""
    async with there.at.watch("PYNETDICOM") as seen:
        (await peers.echoscu(seen.address, calling="STORESCU")).check()
        assert [message.field for message in seen.asked()] == [CommandField.C_ECHO_RQ]
    async with there.at.watch("PYNETDICOM") as seen:
        keys = ("QueryRetrieveLevel=STUDY", "StudyInstanceUID")
        (await peers.findscu(seen.address, *keys, calling="STORESCU")).check()
        assert [message.field for message in seen.asked()] == [CommandField.C_FIND_RQ]
