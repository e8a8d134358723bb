"""A Bridge on an internet of its own, a hospital that receives, and hospitals with bad networks.

    with world(tmp_path) as w:
        async with w.hospital("A", namespace, proxy="http://...") as hospital:
            await hospital.join()
            await hospital.send(file)

Every machine is a network namespace (tests.namespaces). The Bridge is `bridge.test`, which nobody
knows who is not told: no name server answers anywhere.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme

from tests.interop import peers
from tests.namespaces import CannotMakeNamespaces, Namespace, Namespaces, namespaces
from tests.network import POLL, START_DEADLINE, Site, write_configuration

HERE = Path(__file__).parent

BRIDGE_NAME = "bridge.test"
# The documentation's networks (RFC 5737, RFC 3849): nobody's, and no route leads out of the tests.
BRIDGE_V4 = "192.0.2.1"
BRIDGE_V6 = "2001:db8::1"
BRIDGE_PORT = 443

DICOM_PORT = 11112
STORESCP_PORT = 104
STORESCP_V6_PORT = 105
STORESCP = "STORESCP"
STORESCU = "STORESCU"


@attrs.frozen(slots=True)
class Service:
    """A process of the tests' own, and what it says."""

    process: trio.Process
    log: Path
    inside: Namespace | None = None

    def said(self) -> list[str]:
        """Its lines so far."""
        return self.log.read_text(errors="replace").splitlines()

    async def says(self, words: str) -> None:
        """Wait for a line that begins like this."""
        with trio.fail_after(START_DEADLINE):
            while not any(line.startswith(words) for line in self.said()):
                assert self.process.poll() is None, self.said()
                await trio.sleep(POLL)

    async def listens(self, port: int) -> None:
        """Wait until its machine listens on a TCP port, on any address."""
        with trio.fail_after(START_DEADLINE):
            while not self._has_listener(port):
                assert self.process.poll() is None, self.said()
                await trio.sleep(POLL)

    def _has_listener(self, port: int) -> bool:
        if self.inside is not None and _network_of(self.process.pid) == _network_of(os.getpid()):
            return False  # `ip netns exec` has not gone there yet
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self.process.pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state = line.split()[:4]
                if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                    return True
        return False


async def launch(log: Path, inside: Namespace | None, *command: str) -> Service:
    """Start a process, in a namespace or where the tests are."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = await trio.lowlevel.open_process(
            [*(inside.inside if inside is not None else ()), *command],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=peers.ENVIRONMENT,
            start_new_session=True,
        )
    return Service(process, log, inside)


def _network_of(pid: int) -> str:
    """Which network namespace a process is in."""
    return os.readlink(f"/proc/{pid}/ns/net")


@asynccontextmanager
async def running(log: Path, inside: Namespace | None, *command: str) -> AsyncIterator[Service]:
    """`launch`, for the length of the block."""
    service = await launch(log, inside, *command)
    try:
        yield service
    finally:
        await peers.stop(service.process)


@asynccontextmanager
async def proxy(
    directory: Path, inside: Namespace, port: int, *options: str
) -> AsyncIterator[Service]:
    """The proxy of proxy.py on all addresses of a machine, listening."""
    command = (sys.executable, str(HERE / "proxy.py"), str(port), *options)
    async with running(directory / f"proxy{port}.log", inside, *command) as service:
        await service.listens(port)
        yield service


def forwarder(port: int, host: str, target: int) -> tuple[str, ...]:
    """The command of forward.py."""
    return (sys.executable, str(HERE / "forward.py"), str(port), host, str(target))


async def rest(site: Site, method: str, path: str, body: object = None) -> Any:
    """What a running process answers on its Unix socket."""
    async with site.rest() as client:
        answer = await client.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json()


async def enrol(bridge: Site, router: Site) -> None:
    """As `relay invite` there and `relay enroll` here do; until the Router is connected."""
    answer = await rest(bridge, "POST", "/v1/invitations", {"name": router.name})
    await rest(router, "POST", "/v1/enrolment", {"invitation": answer["invitation"]})
    with trio.fail_after(START_DEADLINE):
        while not (await rest(router, "GET", "/v1/status"))["connected"]:
            await trio.sleep(POLL)


@attrs.frozen(slots=True)
class Hospital:
    """One Router, its machine, and a device that calls."""

    world: "World"
    site: Site
    machine: Namespace

    async def enrol(self) -> None:
        """Join the network, and see what the receiver publishes."""
        await enrol(self.world.bridge, self.site)
        with trio.fail_after(START_DEADLINE):
            await self.reaches_storescp()

    async def reaches_storescp(self) -> None:
        """Wait until we are connected, and the receiver's Router too."""
        while not (await self.status())["connected"] or not await self._sees_storescp():
            await trio.sleep(POLL)

    async def join(self, caller: str = "127.0.0.1") -> None:
        """Enrol, add a device that calls from there, and be granted the receiver's STORESCP."""
        world = self.world
        await self.enrol()
        fingerprint = (await self.status())["fingerprint"]
        device = {"ae_title": STORESCU, "host": caller, "services": []}
        await rest(self.site, "POST", "/v1/devices", device)
        with trio.fail_after(START_DEADLINE):
            while fingerprint not in [p["fingerprint"] for p in await self._peers_of_receiver()]:
                await trio.sleep(POLL)
        grant = {"peer": fingerprint, "ae_title": STORESCP, "services": ["echo", "store"]}
        await rest(world.receiver, "POST", "/v1/grants", grant)

    async def _peers_of_receiver(self) -> Any:
        return await rest(self.world.receiver, "GET", "/v1/peers")

    async def _sees_storescp(self) -> bool:
        rows = await rest(self.site, "GET", "/v1/directory")
        return any(row["ae_title"] == STORESCP and row["connected"] for row in rows)

    async def status(self) -> Any:
        """Its Router's own."""
        return await rest(self.site, "GET", "/v1/status")

    async def send(self, *files: Path, host: str = "127.0.0.1") -> None:
        """DCMTK's storescu to our own Router; what arrives is byte for byte what it sent."""
        await self.world.receive(self.machine, peers.Address(DICOM_PORT, STORESCP, host), *files)


@attrs.define(slots=True)
class World:
    """What all hospitals of a test have in common."""

    directory: Path
    machines: Namespaces
    v4: bool
    authority: trustme.CA
    bridge: Site
    receiver: Site
    expected: dict[str, bytes] = attrs.field(factory=dict)
    services: list[Service] = attrs.field(factory=list)
    _numbers: int = 1

    @property
    def ca_file(self) -> Path:
        """The private authority of the Bridge's certificate."""
        return self.directory / "ca.pem"

    @property
    def stored(self) -> Path:
        """Where the receiver's device keeps what came."""
        return self.directory / "stored"

    async def receive(self, caller: Namespace, at: peers.Address, *files: Path) -> None:
        """Have `files` sent from a machine, and compare what came with what DCMTK sends."""
        for path in self.stored.iterdir():
            path.unlink()
        result = await peers.run(
            *(*caller.inside, "storescu", "-v", "-aet", STORESCU, "-aec", at.ae_title),
            *(at.host, str(at.port), *map(str, files)),
        )
        assert result.status == 0, f"{result.output[-2000:]}\n{self.receiver.output()[-3000:]}"
        came = sorted(peers.data_set_of(path) for path in self.stored.iterdir())
        assert came == sorted(self.expected[path.name] for path in files)

    @asynccontextmanager
    async def hospital(
        self, name: str, machine: Namespace, **configuration: object
    ) -> AsyncIterator[Hospital]:
        """A Router on a machine, not yet enrolled; `configuration` are further keys."""
        site = self.site(name, machine)
        write_configuration(site, "router", self.keys(f"RELAY_{name}"[:16]) | configuration)
        try:
            await site.start()
            yield Hospital(self, site, machine)
        finally:
            await site.stop()

    def site(self, name: str, machine: Namespace) -> Site:
        """A Router on a machine that is not configured and does not run."""
        directory = self.directory / name
        return Site(f"Hospital {name}", "router", directory, DICOM_PORT, inside=machine.inside)

    def keys(self, ae_title: str) -> dict[str, object]:
        """The configuration of an ordinary Router here."""
        return {
            "ae_title": ae_title,
            "listen": f"127.0.0.1:{DICOM_PORT}",
            "data_dir": "data",
            "ca_file": str(self.ca_file),
            "grace_period": 2,
        }

    def machine(self, name: str, *, outside: str = "internet") -> Namespace:
        """One more machine on a cable to `outside`, without a route any further."""
        machine = self.machines.add(name)
        self._numbers += 1
        number = self._numbers
        network = f"10.77.{number}.0/24" if self.v4 else f"fd77:0:0:{number}::/64"
        self.machines.cable(outside, name, network)
        return machine

    def gateway(self) -> str:
        """The address of the other end of the last `machine`'s cable."""
        return f"10.77.{self._numbers}.1" if self.v4 else f"fd77:0:0:{self._numbers}::1"

    def address(self) -> str:
        """The last `machine`'s own address on it."""
        return f"10.77.{self._numbers}.2" if self.v4 else f"fd77:0:0:{self._numbers}::2"

    async def _start_storescp(self, there: Namespace) -> None:
        """The receiver's device; over IPv6 by a forwarder."""
        scp = await launch(
            self.directory / "storescp.log",
            there,
            *("storescp", "-dhl", "+B", "+xa", "-pm", "--fork"),
            *("-aet", STORESCP, "-od", str(self.stored), str(STORESCP_PORT)),
        )
        self.services.append(scp)
        await scp.listens(STORESCP_PORT)
        if not self.v4:
            command = forwarder(STORESCP_V6_PORT, "127.0.0.1", STORESCP_PORT)
            forward = await launch(self.directory / "forward.log", there, *command)
            self.services.append(forward)
            await forward.listens(STORESCP_V6_PORT)


@contextmanager
def world(directory: Path, files: Sequence[Path], *, v4: bool = True) -> Iterator[World]:
    """Make all of it; `files` are what hospitals are going to send.

    Without `v4` there is IPv6 only, and the Bridge's URL and the receiver's device are addresses.
    Plain functions, so that one world serves the tests of a whole module, each with a trio of its
    own. Raises CannotMakeNamespaces.
    """
    with namespaces() as machines:
        made = trio.run(_open, directory, machines, files, v4)
        try:
            yield made
        finally:
            trio.run(_close, made)


async def _open(directory: Path, machines: Namespaces, files: Sequence[Path], v4: bool) -> World:
    internet = machines.add("internet")
    internet.address(f"{BRIDGE_V6}/128")
    internet.names({BRIDGE_NAME: BRIDGE_V4 if v4 else BRIDGE_V6})
    if v4:
        internet.address(f"{BRIDGE_V4}/32")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    stored = directory / "stored"
    stored.mkdir()
    made = World(
        directory,
        machines,
        v4,
        authority,
        bridge=Site("Bridge", "bridge", directory / "bridge", BRIDGE_PORT, inside=internet.inside),
        receiver=Site("Receiver", "router", directory / "receiver", DICOM_PORT),
    )
    there = made.machine("receiver")
    there.route(made.gateway())
    there.names({BRIDGE_NAME: BRIDGE_V4} if v4 else {})
    made.receiver.inside = there.inside
    write_configuration(made.receiver, "router", made.keys("RELAY_R"))
    _configure_bridge(made)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.bridge.start)
            nursery.start_soon(made.receiver.start)
            nursery.start_soon(made._start_storescp, there)
        for path in files:
            made.expected[path.name] = await _unrelayed(there, path, stored)
        await enrol(made.bridge, made.receiver)
        host, port = ("127.0.0.1", STORESCP_PORT) if v4 else ("::1", STORESCP_V6_PORT)
        device = {"ae_title": STORESCP, "host": host, "port": port, "services": ["echo", "store"]}
        await rest(made.receiver, "POST", "/v1/devices", device)
    except BaseException:
        await _close(made)
        raise
    return made


def _configure_bridge(made: World) -> None:
    directory = made.directory
    certificate = made.authority.issue_cert(BRIDGE_NAME, BRIDGE_V4, BRIDGE_V6)
    key = directory / "key.pem"
    key.touch(mode=0o600)
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    keys = {
        "url": f"https://{BRIDGE_NAME}" if made.v4 else f"https://[{BRIDGE_V6}]:{BRIDGE_PORT}",
        "listen": [f"[::]:{BRIDGE_PORT}", *([f"0.0.0.0:{BRIDGE_PORT}"] if made.v4 else [])],
        "data_dir": "data",
        "certificate": str(directory / "certificate.pem"),
        "private_key": str(key),
        "grace_period": 2,
    }
    write_configuration(made.bridge, "bridge", keys)


async def _unrelayed(there: Namespace, path: Path, stored: Path) -> bytes:
    """What DCMTK makes of a file, with nothing of Relay's between: the data set's bytes."""
    result = await peers.run(
        *(*there.inside, "storescu", "-aet", STORESCU, "-aec", STORESCP),
        *("127.0.0.1", str(STORESCP_PORT), str(path)),
    )
    result.check()
    (came,) = stored.iterdir()
    data_set = peers.data_set_of(came)
    came.unlink()
    return data_set


async def _close(made: World) -> None:
    await made.receiver.stop()
    await made.bridge.stop()
    for service in made.services:
        await peers.stop(service.process)


@contextmanager
def made_world(directory: Path, files: list[Path], *, v4: bool = True) -> Iterator[World]:
    """A world; where it cannot be made, the test is skipped (in CI: fails)."""
    try:
        with world(directory, files, v4=v4) as made:
            yield made
    except CannotMakeNamespaces as error:
        pytest.skip(str(error))


def proxied(world: World, name: str) -> tuple[Namespace, Namespace, str]:
    """The Router's machine, on a cable to the proxy's and to nothing else; the proxy's machine;
    and the proxy's address."""
    gate = world.machine(f"{name}gate")
    gate.route(world.gateway())
    gate.names({BRIDGE_NAME: BRIDGE_V4})
    router = world.machine(name, outside=f"{name}gate")
    return router, gate, world.gateway()
