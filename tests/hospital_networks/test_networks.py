"""Images cross from hospitals whose networks are as hospitals' networks are.

Real processes, each hospital in a network namespace of its own: what there is no route to cannot be
reached, what nobody resolves has no name. DCMTK sends; what arrives is compared byte by byte with
what DCMTK sends to the same device with nothing between.
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from relay.tunnel.store import KEPT_FOR
from tests.hospital_networks.world import (
    BRIDGE_NAME,
    BRIDGE_V4,
    BRIDGE_V6,
    DICOM_PORT,
    HERE,
    STORESCP,
    STORESCU,
    Service,
    World,
    forwarder,
    made_world,
    proxied,
    proxy,
    rest,
    running,
)
from tests.interop import peers
from tests.namespaces import Namespace
from tests.network import POLL, write_configuration

pytestmark = pytest.mark.interop

PROXY_PORT = 3128
TARGET = f"CONNECT {BRIDGE_NAME}:443"

# Stands for the 60 s of real firewalls: longer than the 5 s between the Router's pings, as those
# are. HTTP connections are kept for longer than that, and so are met by it.
IDLE_CUT = 7.0
CUT_DEADLINE = 30.0


@pytest.fixture(scope="module")
def internet6(tmp_path_factory: pytest.TempPathFactory, files: list[Path]) -> Iterator[World]:
    """The same without IPv4."""
    with made_world(tmp_path_factory.mktemp("world6"), files, v4=False) as made:
        yield made


def reaches(machine: Namespace, host: str, port: int) -> bool:
    """Whether a TCP connection comes about."""
    script = f"import socket; socket.create_connection(({host!r}, {port}), 2)"
    command = [*machine.inside, sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def test_the_only_way_out_is_a_proxy_that_wants_a_password(
    internet: World, files: list[Path], tmp_path: Path, here: str
) -> None:
    machine, gate, address = proxied(internet, here)
    (tmp_path / "proxy").write_text(f"http://relay:s%40fe@{address}:{PROXY_PORT}\n")
    assert not reaches(machine, BRIDGE_V4, 443)
    assert not reaches(machine, BRIDGE_NAME, 443), "nobody here knows the name either"
    async with proxy(tmp_path, gate, PROXY_PORT, "--credentials", "relay:s@fe") as gateway:
        secret = f"file:{tmp_path / 'proxy'}"
        async with internet.hospital(here, machine, proxy=secret) as hospital:
            await hospital.join()
            await hospital.send(*files)
            store = (await hospital.status())["store"]
            assert store["puts"] >= len(files)
            assert (store["failures"], store["failing"]) == (0, {})
            assert "s@fe" not in hospital.site.output()
    # By the name, for enrolment, WebSocket and store alike: the proxy looks it up.
    asked = [line for line in gateway.said() if line != "lost a connection"]
    assert len(asked) >= 3
    assert set(asked) == {TARGET}


async def test_a_proxy_that_opens_tls(
    internet: World, files: list[Path], tmp_path: Path, here: str
) -> None:
    machine, gate, address = proxied(internet, here)
    its_own = tmp_path / "proxy-ca.pem"
    options = ("--open-tls", str(its_own), "--trust", str(internet.ca_file))
    url = f"http://{address}:{PROXY_PORT}"
    async with proxy(tmp_path, gate, PROXY_PORT, *options):
        # The Router trusts the proxy's authority, and does not know the Bridge's.
        configuration = {"proxy": url, "ca_file": str(its_own)}
        async with internet.hospital(here, machine, **configuration) as hospital:
            await hospital.join()
            await hospital.send(*files)
            assert (await hospital.status())["store"]["failures"] == 0


@asynccontextmanager
async def behind_nat(
    internet: World, name: str, tmp_path: Path, *options: str
) -> AsyncIterator[tuple[Namespace, Service]]:
    """A machine whose only way out is a NAT, as 203.0.113.N; the NAT."""
    if not Path("/dev/net/tun").exists():
        pytest.skip("no /dev/net/tun")
    machine, outside = internet.machines.add(name), internet.machines["internet"]
    public = f"203.0.113.{10 + len(internet.machines.made)}"
    command = (sys.executable, str(HERE / "nat.py"), machine.name, outside.name, public, *options)
    async with running(tmp_path / "nat.log", None, *command) as nat:
        await nat.says("ready")
        device = f"n{public.rpartition('.')[2]}"
        outside.ip("link", "set", "nat", "name", device)
        outside.ip("link", "set", device, "up")
        outside.ip("route", "add", f"{public}/32", "dev", device)
        machine.ip("addr", "add", "10.0.0.2/24", "dev", "nat")
        machine.ip("link", "set", "nat", "up")
        machine.ip("route", "add", "default", "dev", "nat")
        machine.names({BRIDGE_NAME: BRIDGE_V4})
        yield machine, nat


async def test_behind_nat_without_a_name_server(
    internet: World, files: list[Path], tmp_path: Path, here: str
) -> None:
    async with behind_nat(internet, here, tmp_path) as (machine, _):
        machine.names({})
        async with internet.hospital(here, machine) as hospital:
            # A name that does not resolve is said in one line ...
            answer = await rest(internet.bridge, "POST", "/v1/invitations", {"name": here})
            said = await hospital.site.relay("enroll", answer["invitation"], check=False)
            assert f"no such host: {BRIDGE_NAME}" in said
            assert len(said.strip().splitlines()) == 1
            # ... and a line in /etc/hosts is enough.
            machine.names({BRIDGE_NAME: BRIDGE_V4})
            await hospital.join()
            await hospital.send(*files)
            connections = await peers.run(
                *(*internet.machines["internet"].inside, "ss", "-Htn", "sport = :443")
            )
            assert "203.0.113." in connections.output
            assert "10.0.0.2" not in connections.output
            assert not reaches(internet.machines["internet"], "10.0.0.2", DICOM_PORT)


async def test_idle_connections_that_are_cut_or_forgotten_cost_no_image(
    internet: World, files: list[Path], tmp_path: Path, here: str
) -> None:
    """A proxy cuts, and a firewall forgets, what was idle; the device notices nothing."""
    machine, gate, address = proxied(internet, here)
    idle = str(IDLE_CUT)
    async with AsyncExitStack() as stack:
        cutter = await stack.enter_async_context(proxy(tmp_path, gate, PROXY_PORT, "--idle", idle))
        url = f"http://{address}:{PROXY_PORT}"
        nated, nat = await stack.enter_async_context(
            behind_nat(internet, f"{here}n", tmp_path, "--forget", idle)
        )
        cut = await stack.enter_async_context(internet.hospital(here, machine, proxy=url))
        forgotten = await stack.enter_async_context(internet.hospital(f"{here}N", nated))
        for hospital in (cut, forgotten):
            await hospital.join()
            await hospital.send(files[0])
        with trio.fail_after(CUT_DEADLINE):
            while f"cut {BRIDGE_NAME}:443" not in cutter.said():
                await trio.sleep(POLL)
        await forgets(nat)
        for hospital in (cut, forgotten):
            await hospital.send(files[1])
        for hospital in (cut, forgotten):
            status = await hospital.status()
            assert status["connections"] == 1, "the WebSocket has its pings, and was never idle"
        # Nor was anything tried on the connection that was cut, and waited for.
        assert (await cut.status())["store"]["failures"] == 0


async def forgets(nat: Service) -> None:
    """Wait until a connection is forgotten."""
    with trio.fail_after(CUT_DEADLINE):
        while not any(line.startswith("forgot") for line in nat.said()):
            await trio.sleep(POLL)


@pytest.mark.full
async def test_a_connection_that_a_firewall_forgets_in_a_minute_is_not_tried(
    internet: World, files: list[Path], tmp_path: Path, here: str
) -> None:
    """The Router itself gives up what it does not use, sooner than a firewall forgets it."""
    idle = KEPT_FOR + 3
    async with (
        behind_nat(internet, here, tmp_path, "--forget", str(idle)) as (machine, nat),
        internet.hospital(here, machine) as hospital,
    ):
        await hospital.join()
        await hospital.send(files[0])
        with trio.fail_after(3 * idle):
            while not any(line.startswith("forgot") for line in nat.said()):
                await trio.sleep(POLL)
        await hospital.send(files[1])
        assert (await hospital.status())["store"]["failures"] == 0


async def test_ipv6_only_and_several_addresses(
    internet6: World, files: list[Path], tmp_path: Path, here: str
) -> None:
    """The Bridge's URL is an IPv6 address, and so are the devices'; IPv4 leads nowhere."""
    world = internet6
    machine = world.machine(here)
    machine.route(world.gateway())
    station = world.machine(f"{here}ws", outside=here)
    router, workstation = world.gateway(), world.address()
    addresses = [f"[::]:{DICOM_PORT}", f"0.0.0.0:{DICOM_PORT}", f"127.0.0.1:{DICOM_PORT + 1}"]
    over_v6 = forwarder(DICOM_PORT, router, DICOM_PORT)
    from_elsewhere = forwarder(DICOM_PORT + 2, "::1", DICOM_PORT)
    async with (
        world.hospital(here, machine, listen=addresses) as hospital,
        running(tmp_path / "station.log", station, *over_v6) as forward,
        running(tmp_path / "elsewhere.log", machine, *from_elsewhere) as elsewhere,
    ):
        await forward.listens(DICOM_PORT)
        await elsewhere.listens(DICOM_PORT + 2)
        await hospital.join(caller=workstation)
        await world.receive(station, peers.Address(DICOM_PORT, STORESCP), *files)
        status = await hospital.status()
        assert status["bridge"] == f"https://[{BRIDGE_V6}]:443"
        assert status["store"]["failures"] == 0
        assert {(row["host"], row["port"]) for row in status["listening"]} == {
            ("::", DICOM_PORT),
            ("0.0.0.0", DICOM_PORT),
            ("127.0.0.1", DICOM_PORT + 1),
        }
        # The device's name from another address than its host's is refused over IPv6 too.
        assert not await echoes(machine, DICOM_PORT + 2, STORESCU)
        refusal = (await rest(hospital.site, "GET", "/v1/refusals"))[0]
        assert f"{STORESCU!r} calls from ::1, " in refusal["why"]
        # An IPv4 address in IPv6's clothes is that IPv4 address (RFC 4291 §2.5.5.2).
        mapped = {"ae_title": "MAPPED", "host": "::ffff:127.0.0.1", "services": []}
        await rest(hospital.site, "POST", "/v1/devices", mapped)
        for port in (DICOM_PORT, DICOM_PORT + 1):
            assert await echoes(machine, port, "MAPPED")


async def echoes(machine: Namespace, port: int, calling: str) -> bool:
    """Whether the Router itself answers a C-ECHO of this name, called over IPv4's loopback."""
    router = f"RELAY_{machine.name.rpartition('-')[2]}"[:16]
    command = ("echoscu", "-aet", calling, "-aec", router, "127.0.0.1", str(port))
    return (await peers.run(*machine.inside, *command)).status == 0


# Of a proxy's answers, what the person reads who looks before the enrolment.
ANSWERS = {
    "forbidden": f"have its administrator let CONNECT {BRIDGE_NAME}:443 through",
    "login": "it sends us to login.hospital.test instead (status 302): a login page?",
    "page": "it answers with a page of its own instead of a tunnel",
    "ntlm": "it lets in by Negotiate, NTLM only (407)",
}


async def test_a_page_in_place_of_a_tunnel_is_named(
    internet: World, tmp_path: Path, here: str
) -> None:
    """A captive portal, a block page: one line says what it is, and what to do."""
    machine, gate, address = proxied(internet, here)
    site = internet.site(here, machine)
    answer = await rest(internet.bridge, "POST", "/v1/invitations", {"name": here})
    async with AsyncExitStack() as stack:
        for port, kind in enumerate(ANSWERS, PROXY_PORT):
            await stack.enter_async_context(proxy(tmp_path, gate, port, "--answer", kind))
            url = f"http://{address}:{port}"
            write_configuration(site, "router", internet.keys("RELAY") | {"proxy": url})
            said = await site.relay("doctor", answer["invitation"], check=False)
            assert f"FAIL proxy {address}:{port} makes a tunnel to {BRIDGE_NAME}:443" in said
            assert len([line for line in said.splitlines() if ANSWERS[kind] in line]) == 1
