"""The demonstration's processes: each in a group of its own, and none left when it ends."""

import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from relay.errors import RelayError

# A process of Python with all its libraries starts in a second or two; a busy machine takes longer.
START_TIME = 30.0
# What `grace_period` in the demonstration's configurations leaves room for.
STOP_TIME = 5.0
# One command: the longest moves all images.
COMMAND_TIME = 120.0
POLL = 0.05

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class DemoError(RelayError):
    """A step of the demonstration failed; `details` is what a program printed."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class Processes:
    """What runs, with one log file each in `folder`. Made by `processes`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], ready: Callable[[], bool]) -> None:
        """Start a process that stays, and wait until `ready`. Raises DemoError."""
        log = self._folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                start_new_session=True,
            )
        self._running[name] = process
        deadline = time.monotonic() + START_TIME
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"{name} did not start: see {log}", _tail(log))
            time.sleep(POLL)

    def check(self) -> None:
        """Raises DemoError if a process has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                log = self._folder / f"{name}.log"
                raise DemoError(f"{name} ended with {process.returncode}: see {log}", _tail(log))

    def run(self, command: Sequence[str], *, show: bool = False) -> tuple[str, str]:
        """Run a command to its end; its stdout and stderr. Raises DemoError unless it exits with 0.

        With `show` its stderr is the person's: a progress bar.
        """
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if show else subprocess.PIPE,
                cwd=self._folder,
                timeout=COMMAND_TIME,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DemoError(f"{shlex.join(command)}: no end in {COMMAND_TIME:.0f} s") from error
        output, errors = (
            (printed or b"").decode(errors="replace") for printed in (done.stdout, done.stderr)
        )
        if done.returncode != 0:
            self.check()
            raise DemoError(
                f"{shlex.join(command)}: exit {done.returncode}", (output + errors)[-2000:]
            )
        return output, errors

    def end(self, name: str) -> None:
        """End one process, as if its plug was pulled."""
        process = self._running.pop(name)
        _signal_group(process, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End all, the last first: politely, then not."""
        for process in reversed(self._running.values()):
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIME
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            # Also where the leader has ended: a device forks a child for each association.
            _signal_group(process, signal.SIGKILL)
            process.wait()
        self._running.clear()


@contextmanager
def processes(folder: Path) -> Iterator[Processes]:
    """Processes that all end with the block, also when a signal ends it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    started = Processes(folder)
    try:
        yield started
    finally:
        # A second Ctrl-C while ending must not leave the rest behind.
        ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        try:
            started.stop()
        finally:
            signal.signal(signal.SIGINT, ignored)
            for number, handler in before.items():
                signal.signal(number, handler)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def free_port() -> int:
    """A TCP port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
