"""Relay as the benchmarks start it: without what only they have."""

import subprocess
import sys

from scripts.benchmark.installed import PROGRAM


def test_it_is_relay() -> None:
    done = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("relay")


def test_pydicom_does_not_find_what_relay_does_not_depend_on() -> None:
    program = (
        "from scripts.benchmark import installed\n"
        "installed.leave_out()\n"
        "import pydicom.config\n"
        "print(pydicom.config.have_numpy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "False", done.stderr
