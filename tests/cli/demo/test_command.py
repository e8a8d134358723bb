import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.cli.demo.command import _Story, relay
from relay.cli.demo.devices import DCMTK


def processes_in(folder: str) -> list[str]:
    """Command lines that name the folder: what the demonstration would have left behind."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if folder in words:
            found.append(words)
    return found


@pytest.fixture
def folder() -> Iterator[str]:
    """A short name: the path of a Unix socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        yield folder


@pytest.mark.interop
def test_the_whole_demonstration(folder: str) -> None:
    if not all(map(shutil.which, DCMTK.PROGRAMS)):
        pytest.skip("DCMTK is not installed")
    done = subprocess.run(
        [*relay(), "demo"],
        capture_output=True,
        text=True,
        timeout=110,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": folder},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "sent and stored: ",
        "got through Relay and got directly: ",
        "none is in them",
        "no process is left running",
    ):
        assert words in done.stdout
    assert done.stdout.count("sent and stored: ") == 1, "told once"
    assert processes_in(folder) == []


def test_it_runs_the_relay_that_it_is_part_of() -> None:
    assert relay()[0] == sys.executable


def test_off_a_terminal_progress_stays_off_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = _Story(tmp_path, None, None)  # type: ignore[arg-type]
    story._did("Bytes", "sent and stored")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "  Bytes: sent and stored\n")
