import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

from relay.cli.demo.processes import DemoError, free_port, listens, processes

# Starts a grandchild, as devices do, and says who it is.
FAMILY = textwrap.dedent(
    """
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)
    """
)


def family(folder: Path) -> int:
    return int((folder / "family.log").read_text() or 0)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def dies(pid: int) -> bool:
    """Whether it is gone soon: who was sent a signal may need a moment on a busy machine."""
    until = time.monotonic() + 10
    while lives(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not lives(pid)


def test_nobody_is_left_of_a_whole_family(tmp_path: Path) -> None:
    with processes(tmp_path) as running:
        running.start("family", [sys.executable, "-c", FAMILY], lambda: family(tmp_path) > 0)
        running.check()
        grandchild = family(tmp_path)
        assert lives(grandchild)
    assert dies(grandchild)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_and_handlers_are_put_back(
    tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    grandchildren = []

    def tell() -> None:
        with processes(tmp_path) as running:
            running.start("family", [sys.executable, "-c", FAMILY], lambda: family(tmp_path) > 0)
            grandchildren.append(family(tmp_path))
            os.kill(os.getpid(), number)
            signal.pause()

    with pytest.raises(KeyboardInterrupt):
        tell()
    assert dies(grandchildren[0])
    assert signal.getsignal(number) == before


def test_what_does_not_start_shows_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such port')"]
    with processes(tmp_path) as running, pytest.raises(DemoError, match="not start") as caught:
        running.start("it", command, lambda: False)
    assert "no such port" in caught.value.details


def test_what_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    with processes(tmp_path) as running:
        running.start("it", ["true"], lambda: True)
        running._running["it"].wait(5)
        with pytest.raises(DemoError, match="it ended with 0"):
            running.check()


def test_a_command_gives_what_it_printed_or_fails_with_it(tmp_path: Path) -> None:
    with processes(tmp_path) as running:
        assert running.run(["sh", "-c", "echo out; echo err >&2"]) == ("out\n", "err\n")
        with pytest.raises(DemoError, match="exit 3") as caught:
            running.run(["sh", "-c", "echo why; exit 3"])
    assert caught.value.details == "why\n"


def test_ports_are_free_until_somebody_listens() -> None:
    import socket

    port = free_port()
    assert not listens(port)
    with socket.create_server(("127.0.0.1", port)):
        assert listens(port)
