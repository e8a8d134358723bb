"""A Bridge on one core, and a network of enrolled Routers in processes on the others."""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
import trustme

from relay.bridge.app import DATABASE_FILE
from relay.bridge.enrolment import Enrolment
from relay.bridge.registry import Registry
from relay.bridge.schema import MIGRATIONS, load_network
from relay.database import open_database
from relay.identity import Identity, KeyStatement, Publication
from relay.invitation import EnrolmentRequest
from relay.tunnel.keys import HPKEKeyPair
from scripts.benchmark.bridge_clients import Enrolled, Job
from scripts.benchmark.installed import PROGRAM
from tests.interop.peers import free_port
from tests.network import LOOPBACK, Site, write_configuration

# What a hospital has: an archive, a second one, a worklist, a workstation; and whom it works with.
TITLES = ("PACS", "VNA", "RIS", "WS")
SERVICES = ("echo", "store", "query", "retrieve")
PARTNERS = 8

KEY_LIFETIME = 7 * 24 * 3600

# One step of a client process at two thousand Routers, on a machine that is shared.
STEP_DEADLINE = 600.0


# --- what there is before -------------------------------------------------------------------------


@attrs.frozen(slots=True)
class _Hospital:
    """A Router that is to be enrolled."""

    name: str
    identity: Identity
    key_statement: bytes
    titles: tuple[str, ...]
    publications: tuple[bytes, ...]

    @classmethod
    def draw(cls, number: int, network: bytes) -> "_Hospital":
        identity = Identity.generate()
        key = KeyStatement(
            network, HPKEKeyPair.generate().public, 1, int(time.time()) + KEY_LIFETIME
        )
        titles = tuple(f"{title}{number:05d}" for title in TITLES)
        publications = tuple(
            Publication(network, title, SERVICES, 1).sign(identity) for title in titles
        )
        return cls(f"Hospital {number}", identity, key.sign(identity), titles, publications)


async def enrol(data_dir: Path, url: str, count: int) -> tuple[bytes, bytes, list[Enrolled]]:
    """Enrol Routers in a Bridge's database, by its own rooms: (network, Bridge, Routers)."""
    data_dir.mkdir(parents=True)
    data_dir.chmod(0o700)
    async with open_database(data_dir / DATABASE_FILE, MIGRATIONS) as database:
        bridge, network = await load_network(database, data_dir)
        enrolment = Enrolment(database, bridge, network, url=url, clock=time.time)
        registry = Registry(database, network.network, clock=time.time)
        hospitals = [_Hospital.draw(number, network.network) for number in range(count)]
        enrolled = []
        for number, hospital in enumerate(hospitals):
            invitation = await enrolment.invite(hospital.name)
            request = EnrolmentRequest(
                network.network,
                invitation.invitation_id,
                hospital.identity.public,
                hospital.name,
                hospital.key_statement,
            )
            await enrolment.enrol(
                request.seal(hospital.identity, invitation.code, invitation.bridge)
            )
            await registry.publish(hospital.identity.public, hospital.publications)
            grants = tuple(
                (hospitals[partner].identity.public, title, SERVICES)
                for partner in _partners(number, count)
                for title in hospital.titles
            )
            await registry.grants(hospital.identity.public, grants)
            enrolled.append(
                Enrolled(
                    hospital.identity.seed,
                    hospital.key_statement,
                    hospital.publications,
                    grants,
                    hospital.titles[0],
                )
            )
    return network.network, bridge.public, enrolled


def _partners(number: int, count: int) -> list[int]:
    """With whom a hospital works: those around it, in a ring."""
    near = [*range(-PARTNERS // 2, 0), *range(1, PARTNERS // 2 + 1)]
    return sorted({(number + step) % count for step in near} - {number})


# --- the processes --------------------------------------------------------------------------------


def _cores() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Commands that bind the Bridge to one core, and the clients to the others."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        return (), ()
    others = ",".join(map(str, cores[:-1]))
    return ("taskset", "-c", str(cores[-1])), ("taskset", "-c", others)


@attrs.define(slots=True)
class ClientProcess:
    """A process of Routers."""

    process: trio.Process
    _received: bytearray = attrs.Factory(bytearray)

    async def do(self, what: str, **how: float) -> dict[str, Any]:
        """Have it do something, and give its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        await self.process.stdin.send_all(json.dumps({"do": what, **how}).encode() + b"\n")
        with trio.fail_after(STEP_DEADLINE):
            while b"\n" not in self._received:
                data = await self.process.stdout.receive_some()
                if not data:
                    raise RuntimeError(f"a process of Routers ended at {what!r}")
                self._received += data
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


@attrs.frozen(slots=True)
class Load:
    """A Bridge and its Routers."""

    bridge: Site
    clients: list[ClientProcess]

    async def all(self, what: str, **how: float) -> list[dict[str, Any]]:
        """Have all processes do something at once."""
        answers: list[dict[str, Any]] = []

        async def one(client: ClientProcess) -> None:
            answers.append(await client.do(what, **how))

        async with trio.open_nursery() as nursery:
            for client in self.clients:
                nursery.start_soon(one, client)
        return answers


@asynccontextmanager
async def running(directory: Path, count: int, processes: int) -> AsyncIterator[Load]:
    """A Bridge that knows `count` Routers, and processes that hold them, not yet connected."""
    inside, beside = _cores()
    authority = trustme.CA()
    certificate = authority.issue_cert(LOOPBACK)
    bridge = Site(
        "Bridge", "bridge", directory / "bridge", free_port(), inside=inside, program=PROGRAM
    )
    url = f"https://{LOOPBACK}:{bridge.port}"
    network, identity, enrolled = await enrol(bridge.directory / "data", url, count)
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    write_configuration(
        bridge,
        "bridge",
        {
            "url": url,
            "listen": f"{LOOPBACK}:{bridge.port}",
            "data_dir": "data",
            "certificate": str(directory / "certificate.pem"),
            "private_key": str(directory / "key.pem"),
            "grace_period": 2,
        },
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(bridge.stop)
        await bridge.start()
        clients = []
        for number in range(processes):
            share = enrolled[number * count // processes : (number + 1) * count // processes]
            path = directory / f"clients-{number}"
            Job(
                *(LOOPBACK, bridge.port, str(directory / "ca.pem"), network, identity),
                *(count, min(count, PARTNERS + 1), tuple(share)),
            ).write(path)
            process = await trio.lowlevel.open_process(
                [*beside, sys.executable, "-m", "scripts.benchmark.bridge_clients", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            stack.callback(process.kill)
            clients.append(ClientProcess(process))
        yield Load(bridge, clients)
