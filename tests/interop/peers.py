"""Real DICOM devices as processes on loopback, for every test that needs one.

Acceptors are asynchronous context managers that give a `Peer`; leaving the block ends the process
and its children:

    async with peers.storescp(tmp_path) as peer:
        result = await peers.storescu(peer, file)

Requestors are plain coroutines that run one program to its end and give a `Result`. They all take
a `Peer`, or an `Address` for whatever else listens (a Router, a server in the test itself).

DCMTK runs with TCP_NODELAY=1 (without it each object costs 46 ms, even on loopback) and its
acceptors with `-dhl` where the program has it (otherwise they look the caller's name up first).
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

LOOPBACK = "127.0.0.1"

# A cold start of Orthanc on a busy two-core machine takes some 3 s; nothing here needs more.
START_DEADLINE = 30.0

# After SIGTERM; DCMTK ends at once, Orthanc flushes its index first.
STOP_DEADLINE = 5.0

# One program run as a requestor. Tests that send much say their own.
RUN_DEADLINE = 60.0

# Between two tries of whether a peer accepts yet.
START_POLL = 0.02

# Between looking for a free port and the peer's bind another process may take it.
START_ATTEMPTS = 3

# pynetdicom installs programs by the names of DCMTK's into the environment's own folder, which may
# stand first on the PATH: they are not meant here.
_PATH = os.pathsep.join(
    folder
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
    if folder != sysconfig.get_path("scripts")
)

ENVIRONMENT = {**os.environ, "PATH": _PATH, "TCP_NODELAY": "1"}


class PeerError(Exception):
    """A peer did not start, or a program that had to succeed did not; holds its output."""


@attrs.frozen(slots=True)
class Address:
    """Where a requestor calls."""

    port: int
    ae_title: str
    host: str = LOOPBACK


@attrs.frozen(slots=True)
class Peer:
    """A running acceptor. `directory` holds what it stores, `log` what it prints."""

    port: int
    ae_title: str
    process: trio.Process
    directory: Path
    log: Path
    host: str = LOOPBACK

    def output(self) -> str:
        """What the process has printed so far."""
        return self.log.read_text(errors="replace")

    def stored(self) -> list[Path]:
        """The files in its directory (Part 10 files or bare data sets), in order of their names."""
        return sorted(path for path in self.directory.iterdir() if path.suffix != ".log")


@attrs.frozen(slots=True)
class OrthancPeer:
    """A running Orthanc: its DICOM side, and its REST at `http`."""

    peer: Peer
    http: str

    @property
    def port(self) -> int:
        return self.peer.port

    @property
    def ae_title(self) -> str:
        return self.peer.ae_title

    @property
    def host(self) -> str:
        return self.peer.host

    async def upload(self, file: Path) -> str:
        """Give it a Part 10 file; its own identifier of the instance."""
        async with httpx.AsyncClient(base_url=self.http, trust_env=False) as client:
            answer = await client.post("/instances", content=file.read_bytes())
            answer.raise_for_status()
            identifier: str = answer.json()["ID"]
            return identifier

    async def call(self, modality: str, action: str, body: object) -> Any:
        """Have it act as requestor: `echo`, `store` or `query` of one of its modalities.

        Raises `PeerError` with its answer if that did not work.
        """
        async with httpx.AsyncClient(
            base_url=self.http, trust_env=False, timeout=RUN_DEADLINE
        ) as client:
            answer = await client.post(f"/modalities/{modality}/{action}", json=body)
            if answer.is_error:
                raise PeerError(f"{self.ae_title} {action} {modality}: {answer.text}")
            return answer.json()

    async def instances(self) -> dict[str, bytes]:
        """SOP Instance UID to Part 10 file, of everything that it holds."""
        async with httpx.AsyncClient(base_url=self.http, trust_env=False) as client:
            found = {}
            for row in (await client.get("/instances", params={"expand": ""})).json():
                uid = row["MainDicomTags"]["SOPInstanceUID"]
                found[uid] = (await client.get(f"/instances/{row['ID']}/file")).content
            return found


@attrs.frozen(slots=True)
class Result:
    """One finished program: exit status and everything it printed."""

    command: tuple[str, ...]
    status: int
    output: str

    def check(self) -> "Result":
        """This result; raises `PeerError` with the output if the program failed."""
        if self.status != 0:
            raise PeerError(f"{' '.join(self.command)}\nexit {self.status}\n{self.output}")
        return self


Target = Peer | OrthancPeer | Address


# Ports that the kernel gives to no connection that is made (its own range begins at 32768), a part
# of them for each of the processes that run tests side by side.
FIRST_PORT, PORTS_OF_A_WORKER = 21000, 5000
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ports = itertools.cycle(range(PORTS_OF_A_WORKER))
for _ in range(os.getpid() % PORTS_OF_A_WORKER):  # not where the last run began
    next(_ports)


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    while True:
        port = FIRST_PORT + _worker % 2 * PORTS_OF_A_WORKER + next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        return port


async def _accepts(port: int) -> bool:
    with trio.socket.socket() as probe:
        try:
            await probe.connect((LOOPBACK, port))
        except OSError:
            return False
        return True


async def _await_ready(process: trio.Process, ports: Sequence[int], log: Path) -> None:
    with trio.move_on_after(START_DEADLINE):
        while True:
            if process.poll() is not None:
                raise PeerError(
                    f"{process.args!r} ended with {process.returncode}\n"
                    f"{log.read_text(errors='replace')}"
                )
            if all([await _accepts(port) for port in ports]):
                return
            await trio.sleep(START_POLL)
    raise PeerError(f"{process.args!r} did not listen within {START_DEADLINE} s")


async def stop(process: trio.Process) -> None:
    """End a peer and the children of its process group: SIGTERM, then SIGKILL."""
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            _signal_group(process, signal.SIGTERM)
            with trio.move_on_after(STOP_DEADLINE):
                await process.wait()
        # Also where the leader has ended: its children (`--fork`) may not have.
        _signal_group(process, signal.SIGKILL)
        await process.wait()


def _signal_group(process: trio.Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


@asynccontextmanager
async def _acceptor(
    command: Callable[[int], Sequence[str]],
    ae_title: str,
    directory: Path,
    *,
    further_ports: Sequence[int] = (),
    environment: Mapping[str, str] = ENVIRONMENT,
) -> AsyncIterator[Peer]:
    """Run `command(port)`, wait until `port` and all of `further_ports` accept, and end it."""
    log = directory / f"{ae_title}.log"
    for attempt in range(1, START_ATTEMPTS + 1):
        port = free_port()
        with log.open("wb") as sink:
            process = await trio.lowlevel.open_process(
                command(port),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        try:
            try:
                await _await_ready(process, [port, *further_ports], log)
            except PeerError:
                if attempt == START_ATTEMPTS:
                    raise
                continue
            yield Peer(port, ae_title, process, directory, log)
            return
        finally:
            await stop(process)


@asynccontextmanager
async def storescp(
    directory: Path, *options: str, ae_title: str = "STORESCP"
) -> AsyncIterator[Peer]:
    """DCMTK storescp, one process for each association, writing data exactly as read.

    The files in `directory` are Part 10; `data_set_of` gives the bytes that came over the wire.
    It takes every storage SOP class, private ones too, in every transfer syntax that it knows.
    """
    directory.mkdir(parents=True, exist_ok=True)

    def command(port: int) -> list[str]:
        return [
            *("storescp", "-v", "-dhl", "+B", "+xa", "-pm", "--fork"),
            *("-aet", ae_title, "-od", str(directory), *options, str(port)),
        ]

    async with _acceptor(command, ae_title, directory) as peer:
        yield peer


@asynccontextmanager
async def dcmqrscp(
    directory: Path,
    *options: str,
    ae_title: str = "DCMQRSCP",
    move_destinations: Sequence[Address] = (),
) -> AsyncIterator[Peer]:
    """DCMTK dcmqrscp with one storage area: C-STORE, C-FIND, C-GET, and C-MOVE where it may go.

    `Peer.stored()` holds its index file beside the images.
    """
    storage = directory / "storage"
    storage.mkdir(parents=True, exist_ok=True)
    hosts = [
        f"host{number} = ({address.ae_title}, {address.host}, {address.port})"
        for number, address in enumerate(move_destinations)
    ]
    configuration = directory / "dcmqrscp.cfg"
    configuration.write_text(
        "\n".join(
            [
                "MaxPDUSize = 131072",
                "MaxAssociations = 64",
                *("HostTable BEGIN", *hosts, "HostTable END"),
                *("VendorTable BEGIN", "VendorTable END"),
                "AETable BEGIN",
                f"{ae_title} {storage} RW (10000, 65536mb) ANY",
                "AETable END",
                "",
            ]
        )
    )

    def command(port: int) -> list[str]:
        return [
            *("dcmqrscp", "-v", "-dhl", "+B", "-c", str(configuration)),
            *options,
            str(port),
        ]

    async with _acceptor(command, ae_title, directory) as peer:
        yield attrs.evolve(peer, directory=storage)


@asynccontextmanager
async def orthanc(
    directory: Path,
    *,
    ae_title: str = "ORTHANC",
    modalities: Sequence[Address] = (),
    settings: Mapping[str, object] | None = None,
) -> AsyncIterator[OrthancPeer]:
    """Orthanc with empty storage; `modalities` are whom it knows (for C-MOVE and its own sends).

    Orthanc parses what it stores: compare its objects by UID and attributes, not byte for byte.
    """
    directory.mkdir(parents=True, exist_ok=True)
    http_port = free_port()
    configuration = directory / "orthanc.json"

    def command(port: int) -> list[str]:
        values: dict[str, object] = {
            "Name": ae_title,
            "StorageDirectory": str(directory / "storage"),
            "IndexDirectory": str(directory / "storage"),
            "Plugins": [],
            "HttpPort": http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": ae_title,
            "DicomPort": port,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "UnknownSopClassAccepted": True,
            "TranscodeDicomProtocol": False,
            "DicomModalities": {
                address.ae_title: [address.ae_title, address.host, address.port]
                for address in modalities
            },
            **(settings or {}),
        }
        configuration.write_text(json.dumps(values))
        return ["Orthanc", "--verbose", str(configuration)]

    async with _acceptor(command, ae_title, directory, further_ports=[http_port]) as peer:
        yield OrthancPeer(peer, f"http://{LOOPBACK}:{http_port}")


@asynccontextmanager
async def pynetdicom_scp(
    directory: Path, *options: str, ae_title: str = "PYNETDICOM"
) -> AsyncIterator[Peer]:
    """The acceptor of pynetdicom_scp.py; its `--help` lists what it can be told to do."""
    directory.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).with_name("pynetdicom_scp.py")

    def command(port: int) -> list[str]:
        return [
            *(sys.executable, str(script), "--port", str(port), "--ae-title", ae_title),
            *("--directory", str(directory), *options),
        ]

    async with _acceptor(command, ae_title, directory) as peer:
        yield peer


@asynccontextmanager
async def pynetdicom_holder(
    directory: Path, serve: Path, *options: str, ae_title: str = "HOLDER"
) -> AsyncIterator[Peer]:
    """The archive of pynetdicom_holder.py, that sends what is in `serve` where a C-MOVE says."""
    directory.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).with_name("pynetdicom_holder.py")

    def command(port: int) -> list[str]:
        return [
            *(sys.executable, "-W", "ignore", str(script), "--port", str(port)),
            *("--ae-title", ae_title, "--directory", str(directory), "--serve", str(serve)),
            *options,
        ]

    async with _acceptor(command, ae_title, directory) as peer:
        yield peer


@asynccontextmanager
async def wlmscpfs(
    directory: Path, *options: str, ae_title: str = "WORKLIST"
) -> AsyncIterator[Peer]:
    """DCMTK wlmscpfs: Modality Worklist from the files `*.wl` in `Peer.directory`.

    It answers in the character set of each file.
    """
    files = directory / ae_title
    files.mkdir(parents=True, exist_ok=True)
    (files / "lockfile").touch()

    def command(port: int) -> list[str]:
        return [
            *("wlmscpfs", "-v", "-dhl", "-csk", "-dfp", str(directory)),
            *options,
            str(port),
        ]

    async with _acceptor(command, ae_title, directory) as peer:
        yield attrs.evolve(peer, directory=files)


@asynccontextmanager
async def pynetdicom_tls_scp(
    directory: Path, *options: str, ae_title: str = "PYNETDICOM"
) -> AsyncIterator[Peer]:
    """The acceptor of pynetdicom_tls.py: storage over TLS."""
    directory.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).with_name("pynetdicom_tls.py")

    def command(port: int) -> list[str]:
        return [
            *(sys.executable, str(script), "serve", "--port", str(port)),
            *("--ae-title", ae_title, "--directory", str(directory), *options),
        ]

    async with _acceptor(command, ae_title, directory) as peer:
        yield peer


@asynccontextmanager
async def pynetdicom_services(
    directory: Path, *options: str, ae_title: str = "SERVICES"
) -> AsyncIterator[Peer]:
    """The acceptor of pynetdicom_services.py: worklist, MPPS, commitment, print and their like."""
    directory.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).with_name("pynetdicom_services.py")

    def command(port: int) -> list[str]:
        return [
            *(sys.executable, str(script), "--port", str(port), "--ae-title", ae_title),
            *("--directory", str(directory), *options),
        ]

    async with _acceptor(command, ae_title, directory) as peer:
        yield peer


async def run(*command: str, deadline: float = RUN_DEADLINE) -> Result:
    """Run a program to its end; raises `PeerError` past the deadline. No check of its status."""
    with trio.move_on_after(deadline):
        done = await trio.run_process(
            command,
            stdin=b"",
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            env=ENVIRONMENT,
        )
        return Result(tuple(command), done.returncode, done.stdout.decode(errors="replace"))
    raise PeerError(f"{' '.join(command)} did not end within {deadline} s")


async def echoscu(peer: Target, *options: str, calling: str = "ECHOSCU") -> Result:
    """DCMTK echoscu: one C-ECHO. Unlike the program itself it fails where the C-ECHO did."""
    result = await run(
        *("echoscu", "-v", "-aet", calling, "-aec", peer.ae_title),
        *(*options, peer.host, str(peer.port)),
    )
    # An A-ABORT in place of the response leaves DCMTK 3.6.7's exit status at 0.
    return attrs.evolve(result, status=result.status or "Echo Failed" in result.output)


async def storescu(
    peer: Target,
    *files: Path,
    options: Sequence[str] = (),
    calling: str = "STORESCU",
    deadline: float = RUN_DEADLINE,
) -> Result:
    """DCMTK storescu: C-STORE of Part 10 files, or of all in the folders given.

    It proposes uncompressed syntaxes; say `-xs`, `-xv` and the like for compressed files.
    """
    return await run(
        *("storescu", "-v", "+sd", "+r", "-aet", calling, "-aec", peer.ae_title),
        *(*options, peer.host, str(peer.port), *map(str, files)),
        deadline=deadline,
    )


async def findscu(
    peer: Target, *keys: str, options: Sequence[str] = ("-S",), calling: str = "FINDSCU"
) -> Result:
    """DCMTK findscu with `-k` for each key; Study Root unless told otherwise (`-W` worklist)."""
    query = [part for key in keys for part in ("-k", key)]
    return await run(
        *("findscu", "-v", "-aet", calling, "-aec", peer.ae_title),
        *(*options, *query, peer.host, str(peer.port)),
    )


async def getscu(
    peer: Target,
    directory: Path,
    *keys: str,
    options: Sequence[str] = ("-S",),
    calling: str = "GETSCU",
) -> Result:
    """DCMTK getscu: C-GET into `directory`, data sets exactly as they came."""
    directory.mkdir(parents=True, exist_ok=True)
    query = [part for key in keys for part in ("-k", key)]
    return await run(
        *("getscu", "-v", "+B", "-aet", calling, "-aec", peer.ae_title),
        *("-od", str(directory), *options, *query, peer.host, str(peer.port)),
    )


async def movescu(
    peer: Target,
    destination: str,
    *keys: str,
    options: Sequence[str] = ("-S",),
    calling: str = "MOVESCU",
) -> Result:
    """DCMTK movescu: C-MOVE to `destination`, which is not this program itself."""
    query = [part for key in keys for part in ("-k", key)]
    return await run(
        *("movescu", "-v", "-aet", calling, "-aec", peer.ae_title, "-aem", destination),
        *(*options, *query, peer.host, str(peer.port)),
    )


async def pynetdicom(application: str, peer: Target, *options: str, calling: str) -> Result:
    """One of pynetdicom's own requestors: `echoscu`, `storescu`, `findscu`, `getscu`, ..."""
    return await run(
        *(sys.executable, "-m", "pynetdicom", application, peer.host, str(peer.port)),
        *("-aet", calling, "-aec", peer.ae_title, *options),
    )


# What DCMTK's print programs are told: one printer, and where they keep what was printed.
DCMPSTAT = """
[[GENERAL]]
[APPLICATION]
LogDirectory = {directory}
[PRINT]
Directory = {directory}
[DATABASE]
Directory = {directory}
[NETWORK]
aetitle = DCMPRSCU
[[COMMUNICATION]]
[PRINTER]
Type = LOCALPRINTER
Hostname = {host}
Port = {port}
Aetitle = {ae_title}
Description = a printer
DisplayFormat = 1,1
FilmSizeID = 8INX10IN
MediumType = PAPER
MagnificationType = NONE
Supports12Bit = true
"""


def _dcmpstat(directory: Path, target: Target) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "dcmpstat.cfg"
    configuration.write_text(
        DCMPSTAT.format(
            directory=directory, host=target.host, port=target.port, ae_title=target.ae_title
        )
    )
    return str(configuration)


@asynccontextmanager
async def dcmprscp(directory: Path, *, ae_title: str = "DCMPRSCP") -> AsyncIterator[Peer]:
    """DCMTK dcmprscp: a printer. What it printed is in `directory`: SP_*.dcm, images HG_*.dcm."""
    directory.mkdir(parents=True, exist_ok=True)

    def command(port: int) -> list[str]:
        configuration = _dcmpstat(directory, Address(port, ae_title))
        return ["dcmprscp", "-v", "-c", configuration, "-p", "PRINTER"]

    async with _acceptor(command, ae_title, directory) as peer:
        yield peer


async def dcmprscu(peer: Target, file: Path, directory: Path) -> Result:
    """DCMTK dcmpsprt and dcmprscu: print one image, as the caller DCMPRSCU."""
    configuration = _dcmpstat(directory, peer)
    await run("dcmpsprt", "-c", configuration, "-p", "PRINTER", str(file))
    [film] = directory.glob("SP_*.dcm")
    return await run("dcmprscu", "-v", "-c", configuration, "-p", "PRINTER", str(film))


async def pynetdicom_scu(
    scenario: str, peer: Target, *options: str, calling: str
) -> list[dict[str, Any]]:
    """The steps of a scenario of pynetdicom_scu.py; raises `PeerError` if it did not end."""
    done = await run(
        *(sys.executable, "-W", "ignore", str(Path(__file__).with_name("pynetdicom_scu.py"))),
        *(scenario, peer.host, str(peer.port), "--calling", calling, "--called", peer.ae_title),
        *options,
    )
    steps: list[dict[str, Any]] = json.loads(done.check().output)
    return steps


# File meta information is in Explicit VR Little Endian; these have a 32-bit length (PS3.5 §7.1.2).
LONG_VRS = frozenset({b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF", b"OD", b"OL", b"UC", b"UR"})


def data_set_of(part10: Path | bytes) -> bytes:
    """The data set's bytes of a Part 10 file, exactly as they lie there (PS3.10 §7.1).

    Read element by element, since not every file has a right group length.
    """
    content = part10 if isinstance(part10, bytes) else part10.read_bytes()
    if content[128:132] != b"DICM":
        raise ValueError("not a Part 10 file")
    position = 132
    while content[position : position + 2] == b"\x02\x00":
        if content[position + 4 : position + 6] in LONG_VRS:
            position += 12 + int.from_bytes(content[position + 8 : position + 12], "little")
        else:
            position += 8 + int.from_bytes(content[position + 6 : position + 8], "little")
    return content[position:]
