"""The devices of device.py as processes, and what their tallies say."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from relay.dicom import uids
from relay.router.storage import STORAGE_SOP_CLASSES
from tests.interop.peers import Peer
from tests.interop.processes import acceptor
from tests.network import FULL_SIZE


@attrs.frozen(slots=True)
class Arrival:
    """One time that an object came to a device. `status` None: the device aborted."""

    uid: str
    sha256: str
    kept: bool
    status: str | None
    association: int
    time: float


@attrs.frozen(slots=True)
class TallyingDevice:
    """A running device, and its tally."""

    peer: Peer
    tally: Path

    @property
    def ae_title(self) -> str:
        return self.peer.ae_title

    @property
    def port(self) -> int:
        return self.peer.port

    @property
    def told(self) -> tuple[str, ...]:
        """Options of `relay device add` that say what it takes.

        Else 41 associations find it out, for which pynetdicom needs six seconds of processor time:
        that is for full size.
        """
        if FULL_SIZE:
            return ()
        file = self.tally.with_suffix(".takes")
        file.write_text(
            json.dumps({taken: list(uids.TRANSFER_SYNTAXES) for taken in STORAGE_SOP_CLASSES})
        )
        return ("--declares", str(file))

    def came(self) -> int:
        """How many objects have come."""
        return self.tally.read_bytes().count(b"\n") if self.tally.exists() else 0

    def arrivals(self) -> dict[str, list[Arrival]]:
        """What came, in its order, by SOP Instance UID."""
        found: dict[str, list[Arrival]] = {}
        if self.tally.exists():
            # The last line may be on its way.
            for line in self.tally.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    arrival = Arrival(**json.loads(line))
                    found.setdefault(arrival.uid, []).append(arrival)
        return found


@asynccontextmanager
async def tallying_device(
    directory: Path, ae_title: str, *options: str
) -> AsyncIterator[TallyingDevice]:
    """A device that tallies, with options of device.py."""
    directory.mkdir(parents=True, exist_ok=True)
    tally = directory / f"{ae_title}.jsonl"
    script = str(Path(__file__).with_name("device.py"))

    def command(port: int) -> list[str]:
        return [
            *(sys.executable, "-W", "ignore", script, "--port", str(port)),
            *("--ae-title", ae_title, "--tally", str(tally), *options),
        ]

    async with acceptor(command, ae_title, directory) as peer:
        yield TallyingDevice(peer, tally)
