"""Relay as the benchmarks start it: without what only they have."""

import re
import subprocess
import sys
from importlib import metadata

from scripts.benchmark.installed import PROGRAM


def test_it_is_relay() -> None:
    done = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("relay")


def distributions() -> set[str]:
    """What installing Relay installs, itself among it."""
    found: set[str] = set()
    todo = {"dicom-relay"}
    while todo:
        name = todo.pop()
        found.add(name)
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # required elsewhere: on another system, or by another Python
        for requirement in required:
            if "extra ==" not in requirement:
                todo.add(_normal(re.split(r"[^\w.-]", requirement)[0]))
        todo -= found
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_nothing_is_loaded_but_what_comes_with_relay() -> None:
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from scripts.benchmark import installed\n"
        "installed.leave_out()\n"
        "import relay.cli.run, relay.bridge.app, relay.router.app\n"
        "loaded = {name for name, module in sys.modules.items() if module is not None}\n"
        "print(*{name.partition('.')[0] for name in loaded - before})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert {"relay", "pydicom", "structlog"} <= set(loaded)
    relays = distributions()
    owners = metadata.packages_distributions()
    assert [
        name for name in loaded if name in owners and relays.isdisjoint(map(_normal, owners[name]))
    ] == []
