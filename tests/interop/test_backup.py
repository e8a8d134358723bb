"""A Router is lost, and another takes its place from a backup: no object is lost, none comes twice.

Two hospitals of real processes; the far device is a real one that tallies what comes to it, behind
a line that can be cut.
"""

import hashlib
import re
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from blake3 import blake3

from relay.spool.items import KEPT, Selection, State
from relay.spool.receipts import DAY, HORIZON
from relay.spool.spool import open_spool
from tests import images
from tests.faults.devices import TallyingDevice, tallying_device
from tests.faults.links import Link, LinkState, link
from tests.interop import peers
from tests.network import Network, NetworkError, Site, network

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

FAR = "FAR"

# For what takes seconds on a busy machine: probes, retries after pauses, a session's end.
DEADLINE = 60.0
POLL = 0.1


@attrs.frozen
class There:
    """Hospital A, whose objects for B's device are queued; the line is before the device."""

    net: Network
    device: TallyingDevice
    line: Link

    @property
    def near(self) -> Site:
        return self.net.routers["A"]

    async def send(self, series: Sequence[images.Image]) -> None:
        """All of it, as it is in the files, is answered 0000 by the near Router."""
        await self.near.relay("send", FAR, *(str(image.path) for image in series))


@asynccontextmanager
async def hospitals(directory: Path, *options: str) -> AsyncIterator[There]:
    async with (
        tallying_device(directory, FAR, *options) as device,
        link(peers.Address(device.port, FAR)) as line,
        network(directory / "net", "A", "B") as net,
    ):
        await net.publish("B", FAR, line.port, "echo,store", *device.told)
        await net.grant(owner="B", grantee="A", ae_title=FAR, services="echo,store")
        await net.routers["A"].relay("destination", "add", FAR, "--queued")
        there = There(net, device, line)
        first = images.make_series(directory, 1, size=128, seed=99)
        await until(lambda: accepted(there, first))
        await until(lambda: counts(there.near, delivered=1))
        yield there


async def accepted(there: There, series: Sequence[images.Image]) -> bool:
    """Nothing is, before the near Router knows what the device takes."""
    try:
        await there.send(series)
    except NetworkError:
        return False
    return True


async def until(holds: Callable[[], Any]) -> None:
    with trio.fail_after(DEADLINE):
        while not await holds():
            await trio.sleep(POLL)


async def states(site: Site) -> dict[str, int]:
    """How many objects for the device are in each state."""
    (place,) = await site.ask("queue", "list")
    return {state.word: int(place[state.word]) for state in State}


async def counts(site: Site, **wanted: int) -> bool:
    found = await states(site)
    return all(found[word] == count for word, count in wanted.items())


def forgotten(data_dir: Path) -> int:
    """How many receipts the far Router holds whose origin has said that it knows."""
    database = data_dir / "spool" / "queue.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (found,) = connection.execute(
            "SELECT count(*) FROM receipt WHERE until < ?", (time.time() + HORIZON + DAY,)
        ).fetchone()
    return int(found)


async def not_sent_again(site: Site) -> int:
    """How many objects the far Router was asked about first, and had a receipt of."""
    async with site.rest() as client:
        text = (await client.get("/metrics")).text
    (value,) = re.findall(r"(?m)^relay_queue_duplicates_total (\S+)$", text)
    return int(float(value))


def another(old: Site, directory: Path) -> Site:
    """Another machine, with the configuration of the old one and nothing else."""
    site = Site(old.name, "router", directory, old.port)
    directory.mkdir()
    site.configuration.write_text(old.configuration.read_text())
    return site


async def test_what_was_delivered_after_the_backup_is_not_delivered_again(tmp_path: Path) -> None:
    async with hospitals(tmp_path, "--slow", "0.5") as there:
        near, device = there.near, there.device
        before = set(device.arrivals())
        series = images.make_series(tmp_path, 12, size=128)
        there.line.state = LinkState.DOWN
        await there.send(series)
        backup = tmp_path / "backup"
        made = await near.ask("backup", str(backup))
        assert (made["objects"], made["over"], made["lost"]) == (12, 0, 0)

        # Half of it is delivered, and the far Router told to forget some of that; then it is gone.
        there.line.state = LinkState.UP

        async def half() -> bool:
            far = there.net.routers["B"].directory / "data"
            return len(device.arrivals()) - len(before) >= 6 and forgotten(far) >= 3

        await until(half)
        await near.stop(signal.SIGKILL)

        new = another(near, tmp_path / "new")
        there.net.routers["A"] = new
        said = await new.relay("restore", str(backup))
        assert "12 objects doubtful" in said
        assert "never start the old machine's Router again" in said
        try:
            await new.start()

            async def connected() -> bool:
                return bool((await new.ask("status"))["connected"])

            await until(connected)
            # Nothing waits: nothing can leave by itself.
            assert await counts(new, waiting=0, held=12)
            items = (await new.ask("queue", "list", "--state", "held"))["items"]
            assert {item["hold"] for item in items} == {"doubtful"}
            assert all("delivered since the backup of" in item["reason"] for item in items)

            await new.relay("queue", "retry", "--state", "held")
            await until(lambda: counts(new, delivered=13))
            assert await not_sent_again(new) >= 6
            arrivals = device.arrivals()
            for image in series:
                (arrival,) = arrivals[image.sop_instance]
                assert arrival.kept
                assert arrival.sha256 == hashlib.sha256(image.data_set()).hexdigest()

            # It goes on as the Router that it was.
            later = images.make_series(tmp_path, 2, size=128, seed=2)
            await there.send(later)
            await until(lambda: counts(new, delivered=15))
        finally:
            await new.stop()


async def test_a_backup_while_objects_stream_in_and_out(tmp_path: Path) -> None:
    async with hospitals(tmp_path, "--slow", "0.05") as there:
        series = images.make_series(tmp_path, 120, size=128)
        made = []
        async with trio.open_nursery() as nursery:
            for part in range(3):
                nursery.start_soon(there.send, series[part::3])
            for number in range(4):

                async def more(least: int = 20 * (number + 1)) -> bool:
                    return sum((await states(there.near)).values()) >= least

                await until(more)
                acknowledged = sum((await states(there.near)).values())
                backup = tmp_path / f"backup{number}"
                answer = await there.near.ask("backup", str(backup))
                assert (answer["lost"], answer["damaged"]) == (0, 0)
                made.append((backup, acknowledged))
        for number, (backup, acknowledged) in enumerate(made):
            site = another(there.near, tmp_path / f"new{number}")
            answer = await site.ask("restore", str(backup))
            assert (answer["missing"], answer["damaged"], answer["locked"]) == (0, 0, 0)
            await whole(site.directory / "data", at_least=acknowledged)
        await until(lambda: counts(there.near, waiting=0))


async def whole(data_dir: Path, *, at_least: int) -> None:
    """Each object that was accepted by then is there, and what is kept of it is what was sent."""
    async with open_spool(data_dir, space=2**40, reserve=0) as spool:
        items = await spool.items.select(Selection())
        assert len(items) >= at_least
        for item in items:
            assert "lost" not in item.reason
            if item.state in KEPT:
                async with spool.objects.reading(item.stored) as reader:
                    content = b"".join([segment async for segment in reader.segments()])
                assert b"\x01" + blake3(content).digest() == item.digest
