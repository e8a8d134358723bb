"""`relay doctor` finds what people get wrong most often, each made here for real.

1 the Bridge's address        5 not enrolled, or revoked        8 an AE title that is taken
2 a clock                     6 a device that is not there      9 a caller that is not set up
3 the proxy                   7 a device that does not know us  10 nothing granted
4 the Bridge's certificate    and the machine: ports, disk, folder, store
"""

import datetime
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trustme

from relay.invitation import Invitation
from tests.hospital_networks.world import (
    BRIDGE_NAME,
    BRIDGE_V4,
    DICOM_PORT,
    HERE,
    STORESCP,
    STORESCU,
    Hospital,
    World,
    proxied,
    proxy,
    rest,
    running,
)
from tests.interop import peers
from tests.namespaces import Namespace
from tests.network import POLL, Site, write_configuration

pytestmark = pytest.mark.interop

PROXY_PORT = 3128

# An address of the internet's that no machine has: what is sent there is lost without a word.
NOBODY = "192.0.2.99"

# Longer than a Router takes to find out that its Bridge has gone, and come back.
NOTICED = 40.0


async def doctor(site: Site, *arguments: str) -> str:
    """What `relay doctor` says: its findings, each with its advice on the next line."""
    return await site.relay("doctor", *arguments, check=False)


def fault(said: str, what: str) -> str:
    """The advice below the finding that fails and begins like this."""
    lines = said.splitlines()
    for line, advice in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith(f"FAIL {what}"):
            return advice
    raise AssertionError(f"no FAIL {what} in:\n{said}")


def routed(world: World, name: str) -> Namespace:
    """A machine with a way to the Bridge, and its name."""
    machine = world.machine(name)
    machine.route(world.gateway())
    machine.names({BRIDGE_NAME: BRIDGE_V4})
    return machine


@attrs.frozen
class Invited:
    """A Router that is configured, does not run, and has an invitation."""

    world: World
    site: Site
    invitation: Invitation

    def configure(self, **keys: object) -> None:
        write_configuration(self.site, "router", self.world.keys("RELAY") | keys)

    async def doctor(self, url: str = "") -> str:
        """Before the enrolment, of the invitation, or of one with another URL."""
        changed = attrs.evolve(self.invitation, url=url or self.invitation.url)
        return await doctor(self.site, changed.to_string())


async def invited(world: World, name: str, machine: Namespace) -> Invited:
    answer = await rest(world.bridge, "POST", "/v1/invitations", {"name": name})
    made = Invited(world, world.site(name, machine), Invitation.parse(answer["invitation"]))
    made.configure()
    return made


# --- 1 to 5: the way to the Bridge --------------------------------------------------------------


async def test_1_a_wrong_address_of_the_bridge(internet: World, here: str) -> None:
    person = await invited(internet, here, routed(internet, here))
    said: dict[str, str] = {}

    async def look(url: str) -> None:
        said[url] = await person.doctor(url)

    expected = {
        f"https://{BRIDGE_NAME}:444": "nobody listens there: is it running?",
        "https://brigde.test": "no such host: brigde.test",
        f"https://{NOBODY}": f"does the firewall let HTTPS to {NOBODY} out?",
    }
    async with trio.open_nursery() as nursery:
        for url in expected:
            nursery.start_soon(look, url)
    for url, words in expected.items():
        assert words in fault(said[url], f"Bridge {url}")
    # The same person with the right address: only the enrolment is missing.
    assert f"ok   Bridge https://{BRIDGE_NAME} answers" in await person.doctor()


def chain(folder: Path, authority: trustme.CA, name: str, **how: object) -> Path:
    """A certificate with its key, in one file."""
    path = folder / f"{name}.pem"
    certificate = authority.issue_cert(name, **how)  # type: ignore[arg-type]
    certificate.private_key_and_cert_chain_pem.write_to_path(path)
    return path


async def test_2_and_4_a_wrong_clock_and_certificates_that_do_not_hold(
    internet: World, tmp_path: Path, here: str
) -> None:
    person = await invited(internet, here, routed(internet, here))
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    good = chain(tmp_path, internet.authority, BRIDGE_NAME)
    (tmp_path / "old").mkdir()
    old = chain(tmp_path / "old", internet.authority, BRIDGE_NAME, not_after=yesterday)
    other = chain(tmp_path, internet.authority, "other.test")
    (tmp_path / "unknown").mkdir()
    unknown = chain(tmp_path / "unknown", trustme.CA(), BRIDGE_NAME)
    expected = {
        9001: (good, ["--ahead", "10000"], "clock is 2.8 hours behind", "set up NTP"),
        9002: (old, [], "Bridge", "certificate has expired; it has to be renewed there"),
        9003: (other, [], "Bridge", "is the address right"),
        9004: (unknown, [], "Bridge", "give that authority as ca_file"),
        9005: (good, ["--page"], "Bridge", "what answers is no Bridge (text/html)"),
    }
    async with AsyncExitStack() as stack:
        for port, (certificate, options, _, _) in expected.items():
            command = (sys.executable, str(HERE / "impostor.py"), str(port), *options)
            impostor = await stack.enter_async_context(
                running(
                    tmp_path / f"{port}.log",
                    internet.machines["internet"],
                    *(*command, "--certificate", str(certificate)),
                )
            )
            await impostor.listens(port)
        for port, (_, _, what, words) in expected.items():
            said = await person.doctor(f"https://{BRIDGE_NAME}:{port}")
            assert words in fault(said, what), said


async def test_3_a_proxy_that_is_missing_or_wrong(
    internet: World, tmp_path: Path, here: str
) -> None:
    machine, gate, address = proxied(internet, here)
    person = await invited(internet, here, machine)
    url = f"http://{address}:{PROXY_PORT}"
    said = await person.doctor(f"https://{BRIDGE_V4}")
    assert "give it as `proxy` in relay.toml" in fault(said, f"Bridge https://{BRIDGE_V4}")
    makes = f"proxy {address}:{PROXY_PORT} makes a tunnel to {BRIDGE_NAME}:443"
    person.configure(proxy=url)
    assert "is `proxy` the right host and port?" in fault(await person.doctor(), makes)
    async with proxy(tmp_path, gate, PROXY_PORT, "--credentials", "relay:right"):
        said = fault(await person.doctor(), makes)
        assert "it wants a user name and password (407)" in said
        secret = tmp_path / "secret"
        secret.write_text(url.replace("http://", "http://relay:wrong@"))
        person.configure(proxy=f"file:{secret}")
        whole = await person.doctor()
        assert "it wants another user name or password (407)" in fault(whole, makes)
        assert "wrong" not in whole.replace("asked wrongly", "")
        secret.write_text(url.replace("http://", "http://relay:right@"))
        assert f"ok   {makes}" in await person.doctor()
        said = await person.doctor("https://brigde.test")
        assert "does the proxy know its name?" in fault(said, f"proxy {address}:{PROXY_PORT}")


async def test_5_not_enrolled_and_revoked(internet: World, here: str) -> None:
    machine = routed(internet, here)
    async with internet.hospital(here, machine) as hospital:
        assert "relay enroll INVITATION" in fault(await doctor(hospital.site), "not enrolled")
        await hospital.join()
        fingerprint = (await hospital.status())["fingerprint"]
        await internet.bridge.relay("router", "revoke", fingerprint)
        with trio.fail_after(NOTICED):
            while (await hospital.status())["connected"]:
                await trio.sleep(POLL)
            said = await doctor(hospital.site)
            while "did not let this Router in" not in said:
                said = await doctor(hospital.site)
        advice = fault(said, "connected to the Bridge")
        assert "Revoking is for good" in advice
        assert "new invitation" in advice


async def test_4_a_bridge_looks_at_its_own_certificate_and_key(internet: World) -> None:
    key = internet.directory / "key.pem"
    assert (await doctor(internet.bridge)).endswith("all is well\n")
    key.chmod(0o644)
    assert fault(await doctor(internet.bridge), "private key").strip() == f"chmod o= {key}"
    key.chmod(0o600)
    configuration = internet.bridge.configuration
    before = configuration.read_text()
    configuration.write_text(before.replace(f"https://{BRIDGE_NAME}", f"https://{NOBODY}"))
    said = await doctor(internet.bridge)
    assert f"it is for {BRIDGE_NAME}, " in fault(said, f"certificate is for {NOBODY}")
    configuration.write_text(before)


# --- 6 to 10: devices, titles, callers, grants --------------------------------------------------


@pytest.fixture(scope="module")
def enrolled(internet: World) -> Iterator[Hospital]:
    """A Router that runs and has joined, but is granted nothing. Tests add their own devices."""
    machine = routed(internet, "north")
    site = internet.site("north", machine)
    write_configuration(site, "router", internet.keys("NORTH"))

    async def start() -> None:
        await site.start()
        await hospital.enrol()

    hospital = Hospital(internet, site, machine)
    trio.run(start)
    yield hospital
    trio.run(site.stop)


async def add(
    hospital: Hospital, ae_title: str, *services: str, host: str = "127.0.0.1", port: int = 104
) -> None:
    """As `relay device add` does."""
    entry = {"ae_title": ae_title, "host": host, "port": port, "services": services}
    await rest(hospital.site, "POST", "/v1/devices", entry)


async def remove(hospital: Hospital, *ae_titles: str) -> None:
    """As `relay device remove` does."""
    for ae_title in ae_titles:
        await rest(hospital.site, "DELETE", f"/v1/devices/{ae_title}")


def device(ae_title: str, port: int) -> str:
    return f"device {ae_title} at 127.0.0.1:{port} answers a C-ECHO"


async def test_6_and_7_devices_that_are_not_what_their_entry_says(
    enrolled: Hospital, tmp_path: Path
) -> None:
    scp = str(Path(peers.__file__).with_name("pynetdicom_scp.py"))
    python, folder = sys.executable, str(tmp_path)

    def rejecting(port: int, numbers: str) -> list[str]:
        return [python, scp, "--port", str(port), "--directory", folder, "--reject", numbers]

    impostor = [python, str(HERE / "impostor.py")]
    pair = chain(tmp_path, trustme.CA(), "pacs.test")
    commands = {
        6002: rejecting(6002, "1,1,7"),
        6003: rejecting(6003, "1,1,3"),
        6004: [*impostor, "6004"],
        6005: [*impostor, "6005", "--certificate", str(pair)],
    }
    expected = {
        ("AWAY", 6001): "nothing listens on port 6001",
        ("OTHER", 6002): "its own AE title is not OTHER",
        ("STRANGER", 6003): "enter it there as a remote node, AE title NORTH,",
        ("WEB", 6004): "port 6004 is that of web pages",
        ("SECURE", 6005): "it speaks TLS there: say so of the device (`relay device add SECURE",
    }
    async with AsyncExitStack() as stack:
        for port, command in commands.items():
            running_there = running(tmp_path / f"{port}.log", enrolled.machine, *command)
            service = await stack.enter_async_context(running_there)
            await service.listens(port)
        for title, port in expected:
            await add(enrolled, title, "echo", port=port)
        await add(enrolled, "GONE", "echo", host=NOBODY)
        said = await doctor(enrolled.site)
        for (title, port), words in expected.items():
            assert words in fault(said, device(title, port)), said
            assert f"ok   device {title} is published, and granted to nobody" in said
        assert f"is {NOBODY} right, and does a firewall" in fault(said, f"device GONE at {NOBODY}")
    await remove(enrolled, "GONE", *(title for title, _ in expected))


async def test_8_an_ae_title_that_another_hospital_has_published(enrolled: Hospital) -> None:
    await add(enrolled, STORESCP, "store")
    advice = fault(await doctor(enrolled.site), f"device {STORESCP} is published")
    assert f"{STORESCP} is published by Receiver" in advice
    assert f"relay device add {STORESCP} 127.0.0.1 --as {STORESCP}_" in advice
    await remove(enrolled, STORESCP)


async def call(hospital: Hospital, calling: str, called: str) -> None:
    """A C-ECHO that is refused."""
    command = ("echoscu", "-aet", calling, "-aec", called, "127.0.0.1", str(DICOM_PORT))
    assert (await peers.run(*hospital.machine.inside, *command)).status != 0


async def test_9_callers_that_are_not_set_up_or_call_from_elsewhere(enrolled: Hospital) -> None:
    await call(enrolled, "NOBODY", STORESCP)
    await add(enrolled, "MOVED", host="127.9.9.9")
    await call(enrolled, "MOVED", STORESCP)
    said = await doctor(enrolled.site)
    advice = fault(said, f"NOBODY called {STORESCP}, and was refused")
    assert "is no device of this Router" in advice
    assert "relay device add NOBODY HOST [PORT]" in advice
    advice = fault(said, f"MOVED called {STORESCP}, and was refused")
    assert "relay device add MOVED 127.0.0.1" in advice
    assert "relay device add MOVED 127.9.9.9 --any-address" in advice
    # Mended, and so not named any more.
    await add(enrolled, "NOBODY")
    await add(enrolled, "MOVED")
    said = await doctor(enrolled.site)
    assert "was refused" not in said
    await remove(enrolled, "NOBODY", "MOVED")


async def test_10_nothing_is_granted(enrolled: Hospital) -> None:
    await add(enrolled, STORESCU)
    await call(enrolled, STORESCU, STORESCP)
    await call(enrolled, STORESCU, "NO_SUCH_TITLE")
    said = await doctor(enrolled.site)
    advice = fault(said, f"{STORESCU} called {STORESCP}, and was refused")
    assert "has granted this Router nothing" in advice
    assert f"relay grant ask {STORESCP} --services" in advice
    advice = fault(said, f"{STORESCU} called NO_SUCH_TITLE, and was refused")
    assert "NO_SUCH_TITLE" in advice
    # And on the other side, who asks.
    await enrolled.site.relay("grant", "ask", STORESCP, "--services", "echo")
    receivers = await internet_doctor(enrolled.world)
    assert f"asks for echo of {STORESCP}" in receivers


async def internet_doctor(world: World) -> str:
    """The receiver's own doctor, once it has heard the ask."""
    with trio.fail_after(NOTICED):
        while not await rest(world.receiver, "GET", "/v1/asks"):
            await trio.sleep(POLL)
        return await world.receiver.relay("doctor", check=False)


# --- the machine --------------------------------------------------------------------------------


async def test_ports_that_cannot_be_listened_on(internet: World, tmp_path: Path, here: str) -> None:
    machine = routed(internet, here)
    person = await invited(internet, here, machine)
    command = (sys.executable, str(HERE / "impostor.py"), str(DICOM_PORT))
    async with running(tmp_path / "taken.log", machine, *command) as taken:
        await taken.listens(DICOM_PORT)
        said = await doctor(person.site)
        assert "another program listens there" in fault(said, f"127.0.0.1:{DICOM_PORT} can be")
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin")
    assert setpriv is not None, "util-linux is essential in Debian"
    person.configure(listen=["127.0.0.1:104", "192.0.2.200:11112"])
    unprivileged = (setpriv, "--bounding-set=-net_bind_service", "--")
    site = attrs.evolve(person.site, inside=(*machine.inside, *unprivileged))
    said = await doctor(site)
    assert "CAP_NET_BIND_SERVICE" in fault(said, "127.0.0.1:104 can be listened on")
    assert "no such address" in fault(said, "192.0.2.200:11112 can be listened on")


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A disk of 1 MiB at `path`, full."""
    path.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


async def test_a_full_disk_and_a_folder_that_others_may_read(internet: World, here: str) -> None:
    machine = routed(internet, here)
    person = await invited(internet, here, machine)
    data = person.site.directory / "data"
    with small_disk(data):
        (data / "rubbish").write_bytes(bytes(2**20))
        data.chmod(0o755)
        said = await doctor(person.site)
        assert "make room on the disk" in fault(said, "0 B free")
        assert f"chmod 700 {data}" in fault(said, f"data_dir {data}")
        # A Router that cannot start for want of room leaves a database that says so.
        (data / "router.db").touch()
        assert "is its disk full" in fault(await doctor(person.site), "the Router's database")


async def test_a_store_on_an_address_that_is_not_allowed(
    internet: World, files: list[Path], here: str
) -> None:
    """The Bridge has moved: what it signs is elsewhere than where this Router has enrolled."""
    machine = routed(internet, here)
    async with internet.hospital(here, machine) as hospital:
        await hospital.join()
        await internet.bridge.stop()
        configuration = internet.bridge.configuration
        before = configuration.read_text()
        moved = f"https://{BRIDGE_V4}"
        configuration.write_text(before.replace(f"https://{BRIDGE_NAME}", moved))
        try:
            await internet.bridge.start()
            with trio.fail_after(NOTICED):
                await hospital.reaches_storescp()
            command = ("storescu", "-aet", STORESCU, "-aec", STORESCP, "127.0.0.1", "11112")
            sent = await peers.run(*machine.inside, *command, str(files[0]))
            assert sent.status != 0
            advice = fault(await doctor(hospital.site), f"object store {moved}")
            assert f'add "{moved}" to allowed_origins' in advice
        finally:
            await internet.bridge.stop()
            configuration.write_text(before)
            await internet.bridge.start()
