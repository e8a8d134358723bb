"""A whole network of real processes on loopback: a Bridge, its reverse proxy, and Routers.

It is set up the way a person does it, with `relay` on the command line:

    async with network(tmp_path, "A", "B") as net:
        await net.publish("B", "STORESCP", peer.port, "store")
        await net.grant(owner="B", grantee="A", ae_title="STORESCP", services="store")
        await net.device("A", "STORESCU")
        ... a device calls net.address("A", "STORESCP")
"""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio
import trustme

from tests import commands
from tests.interop.peers import Address, free_port
from tests.namespaces import named
from tests.wire import Wire, reverse_proxy

LOOPBACK = "127.0.0.1"

# A process that starts on a busy two-core machine.
START_DEADLINE = 30.0

# One command of the command line, a start of the interpreter included.
COMMAND_DEADLINE = 60.0

# At full size each process starts as a person starts it; otherwise loaded already (tests.commands).
FULL_SIZE = os.environ.get("RELAY_TEST_FULL") == "1"

# Between two looks at whether something has come true.
POLL = 0.05


# The program, as it is in this tree.
PROGRAM = (sys.executable, "-m", "relay")


class NetworkError(Exception):
    """A process did not start, or a command that had to succeed did not; holds its output."""


@attrs.define(slots=True)
class Site:
    """One Relay process: its configuration, its folder, its log.

    `inside` stands before its command and its commands, to run them in a network namespace
    (tests.namespaces). `program` is what they are of, another build of it perhaps.
    """

    name: str
    mode: str
    directory: Path
    port: int
    process: trio.Process | commands.Forked | None = None
    inside: tuple[str, ...] = ()
    program: tuple[str, ...] = PROGRAM

    @property
    def configuration(self) -> Path:
        return self.directory / "relay.toml"

    @property
    def log(self) -> Path:
        return self.directory / "relay.log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def output(self) -> str:
        """Everything that the process has logged."""
        return self.log.read_text(errors="replace")

    def peak_memory(self) -> int:
        """The most resident memory that the process has had, in bytes (VmHWM)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise NetworkError(f"{self.name}: no VmHWM")

    def processor_time(self) -> float:
        """User and system time of the process so far, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def start(self) -> None:
        """Start the process and wait until it answers on its Unix socket."""
        arguments = ["--mode", self.mode, "--config", str(self.configuration)]
        with self.log.open("ab") as sink:
            if self._forks:
                self.process = await trio.to_thread.run_sync(
                    partial(commands.start, arguments, sink, namespace=named(self.inside))
                )
            else:
                self.process = await trio.lowlevel.open_process(
                    [*self.inside, *self.program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        with trio.move_on_after(START_DEADLINE):
            while True:
                if self.process.poll() is not None:
                    break
                if await self._answers():
                    return
                await trio.sleep(POLL)
        raise NetworkError(f"{self.name} did not start\n{self.output()}")

    @property
    def _forks(self) -> bool:
        """Whether the program is loaded already, and need only be forked (tests.commands)."""
        here = not self.inside or named(self.inside) is not None
        return here and self.program == PROGRAM and not FULL_SIZE and commands.forks_serve()

    async def _answers(self) -> bool:
        try:
            stream = await trio.open_unix_socket(self.directory / "data" / "control.sock")
        except OSError:
            return False
        await stream.aclose()
        return True

    async def stop(self, how: signal.Signals = signal.SIGTERM, deadline: float = 15.0) -> int:
        """End the process and give its exit status; SIGKILL where it does not end in time."""
        if self.process is None:
            return 0
        with trio.CancelScope(shield=True):
            if self.process.poll() is None:
                self.process.send_signal(how)
                with trio.move_on_after(deadline):
                    await self.process.wait()
            if self.process.poll() is None:
                self.process.kill()
            status = await self.process.wait()
        self.process = None
        return status

    async def relay(self, *arguments: str, check: bool = True) -> str:
        """Run a command of the command line against this process and give what it prints."""
        status, output, errors = await self._command(
            [*arguments, "--config", str(self.configuration)]
        )
        if check and status != 0:
            raise NetworkError(
                f"relay {' '.join(arguments)}: exit {status}\n"
                f"{output}{errors}\n{self.output()[-4000:]}"
            )
        return output if check else output + errors

    async def _command(self, arguments: list[str]) -> tuple[int, str, str]:
        if self._forks or (not self.inside and self.program == PROGRAM):
            return await trio.to_thread.run_sync(
                commands.run, arguments, COMMAND_DEADLINE, named(self.inside)
            )
        with trio.move_on_after(COMMAND_DEADLINE):
            done = await trio.run_process(
                [*self.inside, *self.program, *arguments],
                stdin=b"",
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            return done.returncode, done.stdout.decode(), done.stderr.decode()
        raise NetworkError(f"relay {' '.join(arguments)} did not end in {COMMAND_DEADLINE} s")

    async def ask(self, *arguments: str) -> Any:
        """What a command prints with `--json`."""
        return json.loads(await self.relay(*arguments, "--json"))

    def rest(self, timeout: float = START_DEADLINE) -> httpx.AsyncClient:
        """A client of its REST; `timeout` is in seconds, for each answer."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.directory / "data" / "control.sock"))
        return httpx.AsyncClient(transport=transport, base_url="http://relay", timeout=timeout)


@attrs.define(slots=True)
class Network:
    """A Bridge and enrolled Routers, running."""

    bridge: Site
    routers: dict[str, Site]
    wire: Wire
    ca_file: Path

    def address(self, hospital: str, ae_title: str) -> Address:
        """Where a device of `hospital` calls the remote `ae_title`: at its own Router."""
        return Address(self.routers[hospital].port, ae_title)

    async def device(self, hospital: str, ae_title: str, *options: str) -> None:
        """Add a device that only calls. Its port is one where nothing listens."""
        await self.routers[hospital].relay("device", "add", ae_title, LOOPBACK, "104", *options)

    async def publish(
        self, hospital: str, ae_title: str, port: int, services: str, *options: str
    ) -> None:
        """Add a device that others may be granted."""
        await self.routers[hospital].relay(
            *("device", "add", ae_title, LOOPBACK, str(port), "--publish", services, *options)
        )

    async def grant(
        self, *, owner: str, grantee: str, ae_title: str, services: str, options: Sequence[str] = ()
    ) -> None:
        """Let hospital `grantee` use these services of `owner`'s device, and wait until seen."""
        await self.routers[owner].relay(
            *("grant", "add", f"Hospital {grantee}", ae_title, "--services", services, *options)
        )
        # The title alone is in the directory as soon as it is published.
        with trio.fail_after(START_DEADLINE):
            while not await self._granted(grantee, ae_title):
                await trio.sleep(POLL)

    async def _granted(self, hospital: str, ae_title: str) -> bool:
        """Whether `hospital` sees that something of this AE title is granted to it."""
        peers = json.loads(await self.routers[hospital].relay("peer", "list", "--json"))
        titles = (title for peer in peers for title in peer["publishes"])
        return any(ae_title == title["ae_title"] and title["granted"] for title in titles)

    async def seen(self, hospital: str, name: str) -> None:
        """Wait until the directory of `hospital` holds a remote device, or another hospital."""
        with trio.fail_after(START_DEADLINE):
            while name not in await self.routers[hospital].relay("peer", "list", "--json"):
                await trio.sleep(POLL)


def write_configuration(site: Site, table: str, values: dict[str, object]) -> None:
    """Make the site's folder and its `relay.toml` of one table."""
    site.directory.mkdir(parents=True, exist_ok=True)
    lines = [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    site.configuration.write_text("\n".join(lines) + "\n")


@asynccontextmanager
async def network(
    directory: Path,
    *hospitals: str,
    record: bool = False,
    tls: bool = False,
    bridge: dict[str, object] | None = None,
    router: dict[str, object] | None = None,
    inside: tuple[str, ...] = (),
    program: tuple[str, ...] = PROGRAM,
) -> AsyncIterator[Network]:
    """Start a Bridge behind a TLS reverse proxy, and an enrolled Router for each hospital.

    `bridge` and `router` are further keys for their configurations. With `record` the proxy keeps
    every byte. With `tls` the Bridge does its own TLS, and nothing is between. `inside` and
    `program` are as in Site. All processes are ended at the end of the block.
    """
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue_cert(LOOPBACK)
    certificate.configure_cert(server_context)
    directory.mkdir(parents=True, exist_ok=True)
    ca_file = directory / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)

    async with AsyncExitStack() as stack:
        site_of = partial(Site, inside=inside, program=program)
        bridge_site = site_of("Bridge", "bridge", directory / "bridge", free_port())
        wire = await stack.enter_async_context(
            reverse_proxy(server_context, bridge_site.port, record=record)
        )
        url = f"https://{LOOPBACK}:{bridge_site.port if tls else wire.port}"
        if tls:
            certificate.private_key_pem.write_to_path(directory / "key.pem")
            certificate.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
            carried: dict[str, object] = {
                "certificate": str(directory / "certificate.pem"),
                "private_key": str(directory / "key.pem"),
            }
        else:
            carried = {"behind_proxy": True}
        write_configuration(
            bridge_site,
            "bridge",
            {
                "url": url,
                "listen": f"{LOOPBACK}:{bridge_site.port}",
                "data_dir": "data",
                "grace_period": 2,
                **carried,
                **(bridge or {}),
            },
        )
        stack.push_async_callback(bridge_site.stop)
        await bridge_site.start()
        net = Network(bridge_site, {}, wire, ca_file)
        for hospital in hospitals:
            site = site_of(f"Hospital {hospital}", "router", directory / hospital, free_port())
            write_configuration(
                site,
                "router",
                {
                    "ae_title": f"RELAY_{hospital}",
                    "listen": f"{LOOPBACK}:{site.port}",
                    "data_dir": "data",
                    "ca_file": str(ca_file),
                    "grace_period": 2,
                    **(router or {}),
                },
            )
            stack.push_async_callback(site.stop)
            await site.start()
            invitation = (await bridge_site.relay("invite", site.name)).split()[-1]
            await site.relay("enroll", invitation)
            net.routers[hospital] = site
        yield net
