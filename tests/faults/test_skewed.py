"""A clock that is wrong is wrong for the whole program, and for nothing else."""

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SKEWED = str(Path(__file__).with_name("skewed.py"))


def test_a_program_sees_the_wrong_time(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text(
        "import sys, time\ndef now(clock=time.time): return clock()\nprint(now(), *sys.argv[1:])\n"
    )
    command = [sys.executable, SKEWED, "3600", sys.executable, "-m", "clock", "a", "b"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    told, *arguments = done.stdout.split()
    assert abs(float(told) - time.time() - 3600) < 60
    assert arguments == ["a", "b"]


def test_relay_asks_no_other_clock() -> None:
    """What the time is, as opposed to how long something took.

    Commands run with the tests' own clock, and a bandwidth limit asks what a wall clock shows.
    """
    others = re.compile(
        r"time_ns|datetime\.now|utcnow|gmtime\(\)|localtime\(\)|from time import|CURRENT_TIME"
        r"|strftime\('%s', 'now'\)"
    )
    wrong = [
        f"{path.relative_to(ROOT)}: {found.group()}"
        for path in (ROOT / "relay").rglob("*.py")
        for found in others.finditer(path.read_text())
        if path.parent.name != "cli" and path.name != "bandwidth.py"
    ]
    assert not wrong
