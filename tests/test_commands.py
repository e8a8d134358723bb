"""Processes that tests fork end with whoever wanted them, however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from tests.interop.peers import free_port, run
from tests.network import LOOPBACK, Site, write_configuration

# A start of two interpreters on a busy machine, and the end of three processes.
DEADLINE = 60.0

# Starts a Bridge, says the numbers of it and of the process that forked it, and waits.
_PROGRAM = """
import sys
from tests import commands
bridge = commands.start(["--mode", "bridge", "--config", sys.argv[1]], sys.stderr.buffer)
[(server, _)] = commands._servers.values()
print(server.pid, bridge.pid, flush=True)
sys.stdin.read()
"""


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # ended, and nobody has asked how


@pytest.mark.parametrize("who", ["caller", "server"])
def test_what_is_forked_ends_with(who: str, tmp_path: Path) -> None:
    """The caller or the process that forks is killed: neither can do anything about the rest."""
    port = free_port()
    site = Site("Bridge", "bridge", tmp_path, port)
    listen = f"{LOOPBACK}:{port}"
    values: dict[str, object] = {"url": f"https://{listen}", "listen": listen, "data_dir": "data"}
    write_configuration(site, "bridge", {**values, "behind_proxy": True})
    with (
        site.log.open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(site.configuration)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=Path(__file__).parent.parent,
        ) as caller,
    ):
        try:
            assert caller.stdout is not None
            server, bridge = map(int, caller.stdout.readline().split())
            ends = time.monotonic() + DEADLINE
            while not (tmp_path / "data" / "control.sock").exists():
                assert _runs(bridge), site.output()
                assert time.monotonic() < ends, site.output()
                time.sleep(0.05)
            os.kill({"caller": caller.pid, "server": server}[who], signal.SIGKILL)
            while _runs(server) or _runs(bridge):
                assert time.monotonic() < ends, "still there"
                time.sleep(0.05)
        finally:
            caller.kill()


@pytest.mark.parametrize("port", ["closed", "none"])
async def test_a_program_of_pynetdicoms_ends_as_python_ends_it(port: str) -> None:
    """What it prints, on both outputs, and its exit status: 1 by itself, 2 from argparse."""
    called = str(free_port()) if port == "closed" else port
    command = (sys.executable, "-m", "pynetdicom", "echoscu", LOOPBACK, called)
    alone = await trio.run_process(
        command, capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )
    forked = await run(*command)
    assert (forked.status, forked.output) == (alone.returncode, alone.stdout.decode())
    assert forked.status == (1 if port == "closed" else 2)


async def test_a_file_of_pynetdicoms_has_its_name_its_folder_and_no_relay(tmp_path: Path) -> None:
    file = tmp_path / "device.py"
    file.write_text(
        "import sys, warnings\n"
        "warnings.warn('not to be seen')\n"
        "print(__name__, sys.argv[1:], sys.path[0], 'relay' in sys.modules)\n"
    )
    done = await run(sys.executable, "-W", "ignore", str(file), "a", "b")
    assert done.check().output == f"__main__ ['a', 'b'] {tmp_path} False\n"
