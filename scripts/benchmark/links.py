"""Lines between two hospitals and a Bridge on one machine: round trip, rate and loss as asked.

Each site is a network namespace. Hospital A and hospital B have a leg to the Bridge's each, and the
way from one to the other leads through the Bridge's, so that the round trip of a line is from A to
B and back for whoever takes it: half of it lies between a hospital and the Bridge. Where the kernel
has netem a leg is a cable with netem at both ends; elsewhere link.c carries it. All use the same
congestion control, and forget what earlier connections taught them of a path.
"""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from tests.hospital_networks.world import running
from tests.interop import peers
from tests.namespaces import Namespace, Namespaces, namespaces
from tests.ports import LOOPBACK

CONGESTION_CONTROL = "cubic"

# Of a queue that drops nothing of one well-behaved flow: rate times round trip, and at least this.
LEAST_QUEUE = 1_000_000

# netem counts its queue in packets.
PACKET = 1500

BRIDGE = "192.0.2.1"
LEGS = {"a": "10.88.1", "b": "10.88.2"}
HOSPITAL_END, BRIDGE_END = "leg", "{}leg"

PINGS = 5
IPERF_PORT = 5201

# A flow has found its window within seconds, but for the longest round trips; they are left out.
IPERF_SECONDS, IPERF_OMITTED = 3, 2


class LinkError(Exception):
    """No such line can be made here; holds what failed."""


@attrs.frozen(slots=True)
class Link:
    """A line: round trip in ms (0: none of this, loopback), rate in Mbit/s, and of a million
    packets from A to B how many are lost."""

    round_trip: int = 0
    rate: int = 0
    loss: int = 0

    @property
    def name(self) -> str:
        if not self.round_trip:
            return "loopback"
        lost = f"-{self.loss / 1e4:g}%" if self.loss else ""
        return f"{self.round_trip}ms-{self.rate}M{lost}"

    @classmethod
    def named(cls, name: str) -> "Link":
        """The inverse of `name`. Raises ValueError."""
        if name == "loopback":
            return cls()
        found = re.fullmatch(r"(\d+)ms-(\d+)M(?:-([\d.]+)%)?", name)
        if not found:
            raise ValueError(f"{name}: no link, as 100ms-1000M, 100ms-1000M-0.1% or loopback is")
        return cls(int(found[1]), int(found[2]), round(float(found[3] or 0) * 1e4))

    @property
    def one_way(self) -> int:
        """From a hospital to the Bridge, in microseconds."""
        return self.round_trip * 1000 // 4

    @property
    def leg_loss(self) -> int:
        """Of a million packets on one leg, a half of what both lose."""
        return self.loss // 2

    @property
    def queue(self) -> int:
        """The queue before each leg, in bytes."""
        return max(LEAST_QUEUE, self.rate * 125 * self.round_trip)


@attrs.frozen(slots=True)
class Place:
    """Where a site's processes run: what stands before a command, and the address for others."""

    inside: tuple[str, ...]
    address: str

    async def run(self, *command: str, deadline: float = 60.0) -> peers.Result:
        """Run a program here to its end."""
        return await peers.run(*self.inside, *command, deadline=deadline)


@attrs.frozen(slots=True)
class Line:
    """Three sites on a link. `emulator` is the process that carries it, if one does."""

    link: Link
    a: Place
    bridge: Place
    b: Place
    kind: str
    emulator: trio.Process | None = None


@asynccontextmanager
async def laid(link: Link, directory: Path) -> AsyncIterator[Line]:
    """Make a line, and take it away at the end. Raises CannotMakeNamespaces, LinkError."""
    if not link.round_trip:
        here = Place((), LOOPBACK)
        yield Line(link, here, here, here, "loopback")
        return
    _allow_congestion_control()
    with namespaces("bridge", *LEGS) as made:
        for namespace in made.made.values():
            namespace.setting("ipv4.tcp_congestion_control", CONGESTION_CONTROL)
            namespace.setting("ipv4.tcp_no_metrics_save", "1")
            namespace.names({socket.gethostname(): LOOPBACK})  # Orthanc asks for it at each object
        made["bridge"].address(f"{BRIDGE}/32")
        made["bridge"].setting("ipv4.ip_forward", "1")
        places = (
            Place(made["a"].inside, f"{LEGS['a']}.2"),
            Place(made["bridge"].inside, BRIDGE),
            Place(made["b"].inside, f"{LEGS['b']}.2"),
        )
        if _has_netem(made["bridge"]):
            for name in LEGS:
                _cable(made, name, link)
            yield Line(link, *places, "netem")
            return
        program = _compiled(directory)
        async with running(directory / "link.log", None, *command(program, made, link)) as emulator:
            await emulator.says("ready")
            for name in LEGS:
                _addresses(made, name)
            yield Line(link, *places, "link.c", emulator.process)


def _allow_congestion_control() -> None:
    """A namespace may choose only of what the machine allows its users; nothing else changes."""
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
    if CONGESTION_CONTROL not in allowed.read_text().split():
        allowed.write_text(f"{allowed.read_text().strip()} {CONGESTION_CONTROL}\n")


def command(program: Path, made: Namespaces, link: Link) -> list[str]:
    """link.c's command line: both legs."""
    words = [str(program), *map(str, (link.one_way, link.rate, link.queue, link.leg_loss))]
    for name in LEGS:
        words += [made[name].name, HOSPITAL_END, made["bridge"].name, BRIDGE_END.format(name)]
    return words


def netem(link: Link, device: str) -> list[str]:
    """`tc`'s words for one end of a leg."""
    limit = (link.queue + link.rate * link.one_way // 8) // PACKET
    words = ["qdisc", "add", "dev", device, "root", "netem", "delay", f"{link.one_way}us"]
    words += ["rate", f"{link.rate}mbit"] if link.rate else []
    words += ["loss", f"{link.leg_loss / 1e4:g}%"] if link.loss else []
    return [*words, "limit", str(max(limit, 1000))]


def _has_netem(namespace: Namespace) -> bool:
    probe = [*namespace.inside, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    if shutil.which("tc") is None:
        return False
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        return False
    subprocess.run([*namespace.inside, "tc", "qdisc", "del", "dev", "lo", "root"], check=True)
    return True


def _cable(made: Namespaces, name: str, link: Link) -> None:
    """A leg of netem: each end delays what it sends. Packets travel alone, for its queue counts
    them and loses them as they come."""
    ends = ((made[name], HOSPITAL_END), (made["bridge"], BRIDGE_END.format(name)))
    (one, near), (other, far) = ends
    one.ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", other.name)
    for namespace, device in ends:
        namespace.ip("link", "set", device, "gso_max_segs", "1")
    _addresses(made, name)
    for namespace, device in ends:
        subprocess.run([*namespace.inside, "tc", *netem(link, device)], check=True)


def _addresses(made: Namespaces, name: str) -> None:
    ends = ((made[name], HOSPITAL_END, 2), (made["bridge"], BRIDGE_END.format(name), 1))
    for namespace, device, last in ends:
        namespace.ip("addr", "add", f"{LEGS[name]}.{last}/24", "dev", device)
        namespace.ip("link", "set", device, "mtu", "1500", "txqueuelen", "10000", "up")
    made[name].route(f"{LEGS[name]}.1")


def _compiled(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "link"
    compiler = shutil.which("cc")
    if compiler is None:
        raise LinkError("no C compiler for link.c (Debian: build-essential), and no netem")
    source = Path(__file__).with_name("link.c")
    done = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LinkError(f"{source.name}: {done.stderr}")
    return program


async def checked(line: Line, directory: Path) -> dict[str, float]:
    """What ping (ms) and one iperf3 flow (Mbit/s) get from A to B. Raises LinkError, PeerError."""
    found: dict[str, float] = {}
    if not line.link.round_trip:
        return found
    target = line.b.address
    if shutil.which("ping"):
        said = await line.a.run("ping", "-q", "-c", str(PINGS), "-i", "0.2", target)
        average = re.search(r"= [\d.]+/([\d.]+)/", said.check().output)
        if average is None:
            raise LinkError(f"ping {target}: {said.output}")
        found["ping"] = float(average[1])
    if shutil.which("iperf3"):
        log = directory / "iperf3.log"
        server = (*line.b.inside, "iperf3", "--server", "--port", str(IPERF_PORT))
        async with running(log, None, *server) as service:
            await service.listens(IPERF_PORT)
            said = await line.a.run(
                *("iperf3", "--client", target, "--port", str(IPERF_PORT), "--json"),
                *("--time", str(IPERF_SECONDS), "--omit", str(IPERF_OMITTED)),
            )
        answer: Any = json.loads(said.check().output)
        found["iperf3"] = answer["end"]["sum_received"]["bits_per_second"] / 1e6
    return found
