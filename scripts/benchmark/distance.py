"""Two hospitals and a Bridge at a distance: real processes at the three ends of a line."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
import trustme

from scripts.benchmark import work
from scripts.benchmark.installed import PROGRAM
from scripts.benchmark.links import Line
from tests.hospital_networks.world import enrol, rest
from tests.interop.peers import free_port
from tests.network import Site, write_configuration
from tests.ports import LOOPBACK

# What the far hospital's receiver is called by: the Router queues for one, and not for the other.
QUEUED, CONFIRMED = "QUEUED", "CONFIRMED"

# The near hospital's device of that kind, where a C-MOVE sends to.
EVERYTHING = ["echo", "store", "query", "retrieve"]

# Senders at once, and then some.
MAXIMUM_ASSOCIATIONS = 64

# For what two Routers and a Bridge come to know of each other, at the longest round trip.
KNOWING = 60.0
POLL = 0.05

# A delivery that takes longer than this measures a fault, not a rate.
DELIVERY_DEADLINE = 1800.0


@attrs.frozen(slots=True)
class Hospitals:
    """A Router at each hospital of a line and the Bridge between them, enrolled."""

    line: Line
    bridge: Site
    near: Site
    far: Site

    @property
    def sites(self) -> dict[str, Site]:
        return {"Bridge": self.bridge, "Router A": self.near, "Router B": self.far}

    async def device(self, site: Site, ae_title: str, port: int = 104, **more: object) -> None:
        """Add a device beside a Router; one that only calls needs no port."""
        row = {"ae_title": ae_title, "host": LOOPBACK, "port": port, "services": [], **more}
        row["maximum_associations"] = MAXIMUM_ASSOCIATIONS
        await rest(site, "POST", "/v1/devices", row)

    async def publish(self, owner: Site, ae_title: str, port: int) -> None:
        """Let the other hospital use a device for everything, and wait until it sees it."""
        await self.device(owner, ae_title, port, services=EVERYTHING)
        other = self.far if owner is self.near else self.near
        fingerprint = (await rest(other, "GET", "/v1/status"))["fingerprint"]
        grant = {"peer": fingerprint, "ae_title": ae_title, "services": EVERYTHING}
        with trio.fail_after(KNOWING):
            while fingerprint not in await self._known(owner):
                await trio.sleep(POLL)
            await rest(owner, "POST", "/v1/grants", grant)
            while not await self._granted(other, ae_title):
                await trio.sleep(POLL)

    async def queue(self, site: Site, called: str) -> None:
        """Have a Router queue what its devices send to `called`."""
        row = {"called": called, "calling": "", "mode": "queued"}
        await rest(site, "POST", "/v1/destinations", row)

    async def delivered(self, site: Site, called: str) -> None:
        """Return once nothing waits for a device any more."""
        with trio.fail_after(DELIVERY_DEADLINE):
            async with site.rest() as client:
                while True:
                    answer = await client.get("/v1/queue/count", params={"called": called})
                    if not answer.raise_for_status().json()["waiting"]:
                        return
                    await trio.sleep(POLL)

    async def _known(self, site: Site) -> list[str]:
        return [peer["fingerprint"] for peer in await rest(site, "GET", "/v1/peers")]

    async def _granted(self, site: Site, ae_title: str) -> bool:
        rows: list[Any] = await rest(site, "GET", "/v1/directory")
        return any(row["ae_title"] == ae_title and row["connected"] for row in rows)


@asynccontextmanager
async def hospitals(line: Line, directory: Path) -> AsyncIterator[Hospitals]:
    """Start the Bridge, which does its own TLS, and a Router in each hospital; end them."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate = authority.issue_cert(line.bridge.address)
    key = directory / "key.pem"
    key.touch(mode=0o600)
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    port = free_port()
    bridge = Site("Bridge", "bridge", directory / "bridge", port)
    bridge.inside, bridge.program = line.bridge.inside, PROGRAM
    keys = {
        "url": f"https://{line.bridge.address}:{port}",
        "listen": f"{line.bridge.address}:{port}",
        "data_dir": "data",
        "certificate": str(directory / "certificate.pem"),
        "private_key": str(key),
        "grace_period": 2,
    }
    write_configuration(bridge, "bridge", keys)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(bridge.stop)
        await bridge.start()
        routers = []
        for name, place in (("A", line.a), ("B", line.b)):
            site = Site(f"Hospital {name}", "router", directory / name, free_port(), None)
            site.inside, site.program = place.inside, PROGRAM
            keys = {
                "ae_title": f"RELAY_{name}",
                "listen": f"{LOOPBACK}:{site.port}",
                "data_dir": "data",
                "ca_file": str(directory / "ca.pem"),
                "grace_period": 2,
            }
            write_configuration(site, "router", keys)
            stack.push_async_callback(site.stop)
            await site.start()
            await enrol(bridge, site)
            routers.append(site)
        made = Hospitals(line, bridge, *routers)
        await made.device(made.near, work.CALLING)
        yield made
