import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from click.testing import Result

from relay.cli.demo import command
from relay.cli.demo.command import _Story, demo, relay
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
@pytest.mark.timeout(240)
def test_the_whole_demonstration_until_ctrl_c(folder: str) -> None:
    if not all(map(shutil.which, DCMTK.PROGRAMS)):
        pytest.skip("DCMTK is not installed")
    errors = Path(folder, "errors")
    with (
        errors.open("w") as sink,
        subprocess.Popen(
            [*relay(), "demo", "--stay"],
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            env={"PATH": "/usr/bin:/bin", "TMPDIR": folder},
            # As from a terminal: a shell's background job, and all below it, ignores SIGINT.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        ) as running,
    ):
        assert running.stdout is not None
        lines: list[str] = []
        try:
            lines += until(running.stdout, "Commands for a second terminal")
            links = [line.strip() for line in lines if "/first?code=" in line]
            pages = [httpx.get(link, trust_env=False).text for link in links]
        finally:
            running.send_signal(signal.SIGINT)  # as Ctrl-C does; it ends all that it has started
            lines += running.stdout
    shown = "".join(lines)
    assert running.returncode == 0, shown + errors.read_text()
    for words in (
        "sent and stored: ",
        "got through Relay and got directly: ",
        "none is in them",
    ):
        assert words in shown
    assert (shown + errors.read_text()).count("sent and stored: ") == 1, "told once"
    assert "Aborted" not in errors.read_text()
    assert lines[-1] == "no process is left running\n"
    assert len(pages) == 3
    for page in pages:
        assert 'name="password"' in page
    assert processes_in(folder) == []


def until(lines: Iterable[str], beginning: str) -> Iterator[str]:
    """The lines up to the one that begins so, or to the end."""
    for line in lines:
        yield line
        if line.startswith(beginning):
            return


def test_it_runs_the_relay_that_it_is_part_of() -> None:
    assert relay()[0] == sys.executable


def test_interrupted_half_way_it_says_what_is_left(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(story: _Story) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_Story, "tell", interrupted)
    monkeypatch.setattr(command, "installed", lambda devices: None)
    result = run(demo)
    assert result.exit_code == 1
    assert "Aborted" not in result.output
    assert result.stderr.startswith("relay: stopped half way; no process is left running, /")
