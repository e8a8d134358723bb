"""Two hospitals between which everything is queued, and what is asked of the near one's queue."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from scripts.benchmark import small, work
from scripts.benchmark.installed import PROGRAM
from tests.interop.peers import Address
from tests.network import Network, Site, network

# Between two looks at whether a delivery is over: each costs the Router that is measured some 2 ms.
POLL = 0.1

# A delivery that takes longer than this measures a fault, not a rate.
DELIVERY_DEADLINE = 3600.0

# For one answer about some hundred thousand objects, while everything shares the machine.
ASKING = 60.0


@attrs.frozen(slots=True)
class QueueSite:
    """Hospital A, which queues for hospital B's devices."""

    net: Network

    @classmethod
    @asynccontextmanager
    async def running(
        cls, directory: Path, devices: Mapping[str, int]
    ) -> AsyncIterator["QueueSite"]:
        """Both, with `devices` of B by AE title and port."""
        async with network(directory, "A", "B", tls=True, program=PROGRAM) as net:
            site = cls(net)
            await net.device("A", work.CALLING, "--maximum-associations", "64")
            for ae_title, port in devices.items():
                await net.publish("B", ae_title, port, "echo,store")
                await net.grant(owner="B", grantee="A", ae_title=ae_title, services="echo,store")
                await site.near.relay("destination", "add", ae_title, "--queued")
            yield site

    @property
    def near(self) -> Site:
        return self.net.routers["A"]

    @property
    def far(self) -> Site:
        return self.net.routers["B"]

    def address(self, ae_title: str) -> Address:
        """Where a device of A calls `ae_title`."""
        return self.net.address("A", ae_title)

    async def learn(self, ae_title: str) -> None:
        """Send a device something, and wait until it has it: what it takes is known then."""
        await small.send(self.address(ae_title), 0, 1)
        await self.delivered(ae_title)

    async def ask(self, path: str, **query: str) -> Any:
        """What the near Router's REST answers."""
        async with self.near.rest(ASKING) as client:
            answer = await client.get(path, params=query)
            return answer.raise_for_status().json()

    async def waiting(self, ae_title: str) -> int:
        """How many objects wait for a device."""
        counts = await self.ask("/v1/queue/count", called=ae_title)
        return int(counts["waiting"])

    async def delivered(self, ae_title: str) -> None:
        """Return once nothing waits for a device any more."""
        with trio.fail_after(DELIVERY_DEADLINE):
            async with self.near.rest(ASKING) as client:
                while True:
                    answer = await client.get("/v1/queue/count", params={"called": ae_title})
                    if not answer.raise_for_status().json()["waiting"]:
                        return
                    await trio.sleep(POLL)


def resident_memory(site: Site) -> int:
    """The resident memory of a process now, in bytes (VmRSS)."""
    for line in Path(f"/proc/{site.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{site.name}: no VmRSS")
