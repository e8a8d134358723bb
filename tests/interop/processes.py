"""DICOM programs as processes: acceptors until their block ends, requestors to their end.

DCMTK's run with TCP_NODELAY=1: without it each object costs 46 ms, even on loopback.
"""

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, Protocol

import attrs
import trio

from tests import commands
from tests.ports import LOOPBACK, Ports

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


# At full size each process starts as a person starts it.
FULL_SIZE = os.environ.get("RELAY_TEST_FULL") == "1"

# The programs of this project that are pynetdicom's for the most part.
PYNETDICOM = {
    "device.py",
    *(path.name for path in Path(__file__).parent.glob("pynetdicom_*.py")),
}


class PeerError(Exception):
    """A peer did not start, or a program that had to succeed did not; holds its output."""


class Target(Protocol):
    """What a requestor may call: a `Peer`, or an `Address` for whatever else listens."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def ae_title(self) -> str: ...


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
    process: trio.Process | commands.Forked
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


_ports = Ports(21_000, 10_000)


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    return _ports.free()


async def _accepts(port: int) -> bool:
    with trio.socket.socket() as probe:
        try:
            await probe.connect((LOOPBACK, port))
        except OSError:
            return False
        return True


async def _await_ready(
    command: Sequence[str],
    process: trio.Process | commands.Forked,
    ports: Sequence[int],
    log: Path,
) -> None:
    with trio.move_on_after(START_DEADLINE):
        while True:
            if process.poll() is not None:
                raise PeerError(
                    f"{command!r} ended with {process.returncode}\n"
                    f"{log.read_text(errors='replace')}"
                )
            if all([await _accepts(port) for port in ports]):
                return
            await trio.sleep(START_POLL)
    raise PeerError(f"{command!r} did not listen within {START_DEADLINE} s")


async def stop(process: trio.Process | commands.Forked) -> None:
    """End a peer and the children of its process group: SIGTERM, then SIGKILL."""
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            _signal_group(process, signal.SIGTERM)
            with trio.move_on_after(STOP_DEADLINE):
                await process.wait()
        # Also where the leader has ended: its children (`--fork`) may not have.
        _signal_group(process, signal.SIGKILL)
        await process.wait()


def _signal_group(process: trio.Process | commands.Forked, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


@asynccontextmanager
async def acceptor(
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
        words = command(port)
        with log.open("wb") as sink:
            process = await _start(words, sink, environment)
        try:
            try:
                await _await_ready(words, process, [port, *further_ports], log)
            except PeerError:
                if attempt == START_ATTEMPTS:
                    raise
                continue
            yield Peer(port, ae_title, process, directory, log)
            return
        finally:
            await stop(process)


def _of_python(command: Sequence[str]) -> list[str] | None:
    """The arguments of a Python that tests.commands forks with pynetdicom loaded, if it is one."""
    if command[0] != sys.executable or not commands.forks_serve() or FULL_SIZE:
        return None
    arguments = list(command[1:])
    program = arguments[2:] if arguments[:2] == ["-W", "ignore"] else arguments
    known = program[:2] == ["-m", "pynetdicom"] or Path(program[0]).name in PYNETDICOM
    return arguments if known else None


async def _start(
    command: Sequence[str], sink: IO[bytes], environment: Mapping[str, str]
) -> trio.Process | commands.Forked:
    """Start it in a session of its own; all that it prints goes to `sink`."""
    if (arguments := _of_python(command)) is not None:
        loaded = commands.Loaded.PYNETDICOM
        return await trio.to_thread.run_sync(
            partial(commands.start, arguments, sink, loaded=loaded, environment=environment)
        )
    return await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sink,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


async def run(*command: str, deadline: float = RUN_DEADLINE) -> Result:
    """Run a program to its end; raises `PeerError` past the deadline. No check of its status."""
    with tempfile.TemporaryFile() as output:
        process = await _start(command, output, ENVIRONMENT)
        try:
            with trio.move_on_after(deadline):
                status = await process.wait()
                output.seek(0)
                return Result(command, status, output.read().decode(errors="replace"))
        finally:
            if process.poll() is None:
                await stop(process)
        output.seek(0)
        printed = output.read().decode(errors="replace")
    raise PeerError(f"{' '.join(command)} did not end within {deadline} s\n{printed}")
