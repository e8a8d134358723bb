"""The demonstration, step by step, with the commands that a person would type."""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import click
import httpx

from relay.cli import certificate, output
from relay.cli.context import Command, Failure
from relay.cli.demo.devices import Tools, installed, studies_in
from relay.cli.demo.images import canaries_in, digest, digests, images, study_of
from relay.cli.demo.processes import DemoError, Processes, free_port, listens, processes
from relay.cli.demo.spy import Spy
from relay.cli.part10 import Part10File
from relay.errors import RelayError
from relay.web.tls import client_tls

HOST = "127.0.0.1"
ARCHIVE, WORKSTATION, REMOTE = "SOUTH_PACS", "NORTH_WS", "SOUTH_WS"
NORTH, SOUTH = "North Hospital", "South Hospital"
NORTH_RELAY, SOUTH_RELAY = "NORTH_RELAY", "SOUTH_RELAY"

# Changes reach the other hospital through the Bridge; a busy machine takes its time.
PROPAGATION_TIME = 20.0


@click.command(cls=Command)
@click.option("--stay", is_flag=True, help="Go on running at the end, until Ctrl-C.")
@click.option("--devices", type=click.Choice(["DCMTK", "pynetdicom"]), help="Whose devices to use.")
def demo(stay: bool, devices: str | None) -> None:
    """Show it all on this machine: a Bridge, two hospitals, two devices, real images."""
    tools = installed(devices)
    folder = Path(tempfile.mkdtemp(prefix="relay-demo-"))
    told = False
    try:
        with processes(folder) as running:
            story = _Story(folder, running, tools)
            try:
                story.tell()
            except RelayError as error:
                for line in getattr(error, "details", "").splitlines():
                    output.say(f"| {line}")
                output.say(f"everything is in {folder}")
                raise
            told = True
            if stay:
                for line in story.to_try():
                    output.say(line)
                while True:
                    time.sleep(1)
                    running.check()
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            output.say("")  # behind the ^C that the terminal shows
        if not told:
            raise Failure(f"stopped half way; no process is left running, {folder} is", 1) from None
    output.say("no process is left running")


@attrs.define(slots=True)
class _Hospital:
    name: str
    folder: Path
    port: int
    pages_port: int = attrs.field(factory=free_port)
    contact: str = ""

    @property
    def configuration(self) -> Path:
        return self.folder / "relay.toml"


class _Story:
    """The steps, and what they found out. Each raises RelayError if it fails."""

    def __init__(self, folder: Path, running: Processes, tools: Tools) -> None:
        self._folder = folder
        self._running = running
        self._tools = tools
        self._bridge = _Hospital("Bridge", folder / "bridge", free_port())
        self._north = _Hospital(NORTH, folder / "north", free_port())
        self._south = _Hospital(SOUTH, folder / "south", free_port())
        self._url = f"https://{HOST}:{self._bridge.port}"
        self._archive_port, self._workstation_port = free_port(), free_port()

    def tell(self) -> None:
        """All of it."""
        output.say(f"Relay's demonstration, in {self._folder}, with {self._tools.name} devices")
        self._start_bridge()
        for hospital, ae_title in ((self._north, NORTH_RELAY), (self._south, SOUTH_RELAY)):
            self._start_router(hospital, ae_title)
        self._exchange_contacts()
        self._start_devices()
        files = images()
        with Spy(self._folder / "bridge/data/stores", self._folder / "seen-by-the-store") as spy:
            self._echo()
            self._send(files)
            self._find(files)
            self._get(files)
            self._move(files)
            self._forget(files)
        self._report(files, spy)

    # --- setting up -----------------------------------------------------------------------------

    def _start_bridge(self) -> None:
        bridge = self._bridge
        bridge.folder.mkdir()
        authority, chain, key = certificate.make(bridge.folder, HOST)
        self._authority = authority
        self._init(
            bridge,
            *("--mode", "bridge", "--url", self._url, "--listen", f"{HOST}:{bridge.port}"),
            *("--certificate", str(chain), "--private-key", str(key)),
            *("--pages", f"{HOST}:{bridge.pages_port}"),
        )
        # Not at its url: no browser trusts an authority that was made just now.
        written = bridge.configuration.read_text(encoding="utf-8")
        at_its_url, apart = "#on_network_port = true", "on_network_port = false"
        bridge.configuration.write_text(written.replace(at_its_url, apart), encoding="utf-8")
        self._start(bridge, "bridge", lambda: answers(f"{self._url}/healthz", authority))
        self._did("Bridge", f"{self._url}, TLS from an authority made just now")

    def _start_router(self, hospital: _Hospital, ae_title: str) -> None:
        hospital.folder.mkdir()
        self._init(
            hospital,
            *("--mode", "router", "--ae-title", ae_title),
            *("--listen", f"{HOST}:{hospital.port}", "--ca-file", str(self._authority)),
            *("--pages", f"{HOST}:{hospital.pages_port}"),
        )
        self._start(hospital, "router", lambda: listens(hospital.port))
        invitation = self._relay(self._bridge, "invite", hospital.name).split()[-1]
        hospital.contact = self._relay(hospital, "enroll", invitation).split()[-1]
        self._did(f"Router of {hospital.name}", f"invited and enrolled; DICOM on {hospital.port}")

    def _exchange_contacts(self) -> None:
        """What the people of two hospitals do by telephone."""
        for here, there in ((self._north, self._south), (self._south, self._north)):
            self._relay(here, "peer", "verify", there.contact)
        self._did("Contacts", "exchanged: both hospitals have verified each other")

    def _start_devices(self) -> None:
        # Of all that others may ask it to send to, the archive knows only its own Router.
        archive = self._tools.archive(
            self._folder / "devices" / ARCHIVE,
            ARCHIVE,
            self._archive_port,
            (SOUTH_RELAY, self._south.port),
        )
        workstation = self._tools.workstation(
            self._folder / "devices" / WORKSTATION, WORKSTATION, self._workstation_port
        )
        self._running.start(ARCHIVE, archive, lambda: listens(self._archive_port))
        self._running.start(WORKSTATION, workstation, lambda: listens(self._workstation_port))
        self._relay(
            self._south,
            *("device", "add", ARCHIVE, HOST, str(self._archive_port)),
            *("--publish", "echo,store,query,retrieve", "--move-via", "router"),
        )
        self._relay(
            self._north,
            *("device", "add", WORKSTATION, HOST, str(self._workstation_port)),
            *("--publish", "echo,store"),
        )
        self._relay(self._south, "device", "test", ARCHIVE)
        self._relay(
            self._south,
            *("grant", "add", NORTH, ARCHIVE, "--services", "echo,store,query,retrieve"),
        )
        self._did("Devices", f"{WORKSTATION} in the north, {ARCHIVE} in the south, tested")
        self._did("Grant", f"the north may echo, store, query and retrieve {ARCHIVE}")
        self._until(lambda: ARCHIVE in self._relay(self._north, "peer", "list", "--json"))

    # --- using it -------------------------------------------------------------------------------

    def _echo(self) -> None:
        command = self._tools.echo(WORKSTATION, ARCHIVE, self._north.port)
        with self._timed("C-ECHO", f"{WORKSTATION} calls {ARCHIVE} on its own Router"):
            self._running.run(command)

    def _send(self, files: Sequence[Part10File]) -> None:
        paths = [str(file.path) for file in files]
        size = output.size(sum(file.size for file in files))
        with self._timed("C-STORE", f"{len(files)} objects, {size}, all answered 0000"):
            self._relay(self._north, "send", ARCHIVE, *paths, show=True)

    def _find(self, files: Sequence[Part10File]) -> None:
        sent = {study_of(file) for file in files}
        with self._timed("C-FIND", f"{len(sent)} studies, those that were sent"):
            printed = self._running.run(
                self._tools.find_studies(WORKSTATION, ARCHIVE, self._north.port)
            )
        found = studies_in("".join(printed))
        if found != sent:
            raise DemoError(f"C-FIND found {len(found)} studies, {len(sent)} were sent")

    def _get(self, files: Sequence[Part10File]) -> None:
        studies = sorted({study_of(file) for file in files})
        with self._timed("C-GET", f"all {len(studies)} studies back to {WORKSTATION}"):
            for study in studies:
                self._running.run(
                    self._tools.get_study(
                        *(WORKSTATION, ARCHIVE, self._north.port, study),
                        self._folder / "got-through-relay",
                    )
                )
        # A PACS may encode anew what it gives out. What it does so without Relay between is what
        # Relay is held to.
        for study in studies:
            self._running.run(
                self._tools.get_study(
                    *(WORKSTATION, ARCHIVE, self._archive_port, study),
                    self._folder / "got-directly",
                )
            )

    def _move(self, files: Sequence[Part10File]) -> None:
        studies = sorted({study_of(file) for file in files})
        words = f"all {len(studies)} studies to {WORKSTATION}; {ARCHIVE} knows its Router only"
        with self._timed("C-MOVE", words):
            for study in studies:
                self._running.run(
                    self._tools.move_study(WORKSTATION, ARCHIVE, self._north.port, study)
                )

    def _forget(self, files: Sequence[Part10File]) -> None:
        """Queued: the device that it is for is switched off while it is sent to."""
        port, folder = free_port(), self._folder / "devices" / REMOTE
        command = self._tools.workstation(folder, REMOTE, port)
        self._running.start(REMOTE, command, lambda: listens(port))
        publish = ("--publish", "echo,store")
        self._relay(self._south, *("device", "add", REMOTE, HOST, str(port)), *publish)
        self._relay(self._south, *("grant", "add", NORTH, REMOTE, "--services", "echo,store"))
        self._until(lambda: REMOTE in self._relay(self._north, "peer", "list", "--json"))
        calling = ("--calling", NORTH_RELAY)  # the command line sends as the Router itself
        self._relay(self._north, "destination", "add", REMOTE, "--queued", *calling)
        self._until(lambda: self._is_known(NORTH_RELAY))
        self._running.end(REMOTE)
        paths = [str(file.path) for file in files]
        words = f"{len(files)} objects for {REMOTE}, which is switched off: accepted"
        with self._timed("Queue", words):
            self._relay(self._north, "send", REMOTE, *paths, show=True)
        self._running.start(REMOTE, command, lambda: listens(port))
        with self._timed("Queue", f"{REMOTE} is on again: all delivered"):
            self._until(lambda: self._delivered() == len(files))

    def _is_known(self, calling: str) -> bool:
        """Whether the north knows what the device takes of this calling AE title."""
        rows = json.loads(self._relay(self._north, "destination", "list", "--json"))
        return any(calling in row["known"] for row in rows)

    def _delivered(self) -> int:
        rows = json.loads(self._relay(self._north, "queue", "list", "--json"))
        return sum(int(row["delivered"]) for row in rows)

    def _until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PROPAGATION_TIME
        while not is_so():
            if time.monotonic() > deadline:
                raise DemoError(f"it took longer than {PROPAGATION_TIME:.0f} s")
            time.sleep(0.2)

    # --- looking at it --------------------------------------------------------------------------

    def _report(self, files: Sequence[Part10File], spy: Spy) -> None:
        sent = {file.sop_instance: digest(file) for file in files}
        stored = digests(self._folder / "devices" / ARCHIVE)
        through = digests(self._folder / "got-through-relay")
        directly = digests(self._folder / "got-directly")
        self._compare("sent and stored", sent, stored)
        queued = digests(self._folder / "devices" / REMOTE)
        moved = digests(self._folder / "devices" / WORKSTATION)
        self._compare("got through Relay and got directly", directly, through)
        if self._tools.bit_preserving:
            self._compare("queued and delivered", sent, queued)
            self._compare("moved through Relay and got directly", directly, moved)
        elif not moved.keys() == queued.keys() == sent.keys():
            raise DemoError(f"of {len(sent)}, {len(moved)} were moved and {len(queued)} delivered")
        if through.keys() != sent.keys():
            raise DemoError(f"{len(through)} of {len(sent)} objects came back")
        objects = spy.objects()
        canaries = sorted(canaries_in(files))
        found = spy.find(canaries)
        if found:
            raise DemoError(f"{len(found)} patient names or IDs stand in the object store")
        seen = output.size(sum(path.stat().st_size for path in objects))
        count, put = self._stored()
        self._did(
            "Object store",
            f"{count} objects, {output.size(put)}, {self._left()} left; what was small went over"
            " signalling",
        )
        self._did(
            "Secrecy",
            f"{len(objects)} of the objects ({seen}) were copied as they passed: of"
            f" {len(canaries)} patient names, IDs and UIDs none is in them",
        )
        output.say("")
        output.say(
            f"look at {self._folder}: configurations, logs, devices, got-through-relay,"
            " got-directly, seen-by-the-store;"
        )
        output.say(f"rm -r {self._folder} when you are done")

    def _compare(self, what: str, one: dict[str, str], other: dict[str, str]) -> None:
        different = [name for name in one if one[name] != other.get(name)]
        if different or one.keys() != other.keys():
            raise DemoError(f"{what}: {len(different)} of {len(one)} data sets differ")
        self._did("Bytes", f"{what}: {len(one)} data sets, each equal byte for byte")

    def _stored(self) -> tuple[int, int]:
        """How many objects both Routers have put, and how many bytes."""
        stores = [
            json.loads(self._relay(hospital, "status", "--json"))["store"]
            for hospital in (self._north, self._south)
        ]
        return sum(store["puts"] for store in stores), sum(store["bytes_put"] for store in stores)

    def _left(self) -> int:
        """How many objects are in the store once everything has been received."""
        store = self._folder / "bridge/data/stores"
        deadline = time.monotonic() + PROPAGATION_TIME
        while left := sum(path.is_file() for path in store.rglob("*")):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        return left

    def to_try(self) -> Iterator[str]:
        """What a person can look at while everything runs: pages, and commands."""
        yield "running until Ctrl-C. The pages, each with a link that works once to sign in:"
        for name, site, address in (
            (NORTH, self._north, f"http://{HOST}:{self._north.pages_port}"),
            (SOUTH, self._south, f"http://{HOST}:{self._south.pages_port}"),
            ("Bridge", self._bridge, f"http://{HOST}:{self._bridge.pages_port}"),
        ):
            yield f"  {name}: {address}"
            yield f"    {self._relay(site, 'person', 'link').split()[-1]}"
        yield "Commands for a second terminal:"
        # Where this Relay is installed need not be on that terminal's PATH.
        relay = Path(sys.executable).parent / "relay"
        north = self._north.configuration
        for command in ("status", f"echo {ARCHIVE}", f"find {ARCHIVE}", "queue list", "doctor"):
            yield f"  {relay} {command} --config {north}"

    # --- how --------------------------------------------------------------------------------------

    def _did(self, what: str, words: str) -> None:
        output.say(f"  {what}: {words}")

    @contextmanager
    def _timed(self, what: str, words: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._did(what, f"{words} ({time.monotonic() - started:.1f} s)")

    def _relay(self, hospital: _Hospital, *arguments: str, show: bool = False) -> str:
        command = [*relay(), *arguments, "--config", str(hospital.configuration)]
        return self._running.run(command, show=show)[0]

    def _init(self, hospital: _Hospital, *arguments: str) -> None:
        self._relay(hospital, "init", *arguments, "--data-dir", "data")

    def _start(self, hospital: _Hospital, mode: str, ready: Callable[[], bool]) -> None:
        command = [*relay(), "--mode", mode, "--config", str(hospital.configuration)]
        self._running.start(hospital.folder.name, command, ready)


def relay() -> list[str]:
    """The command `relay`, whatever the PATH is."""
    return [sys.executable, "-m", "relay"]


def answers(url: str, authority: Path) -> bool:
    """Whether a GET of `url` succeeds."""
    try:
        with httpx.Client(verify=client_tls(authority), trust_env=False) as client:
            return client.get(url).is_success
    except httpx.HTTPError:
        return False
