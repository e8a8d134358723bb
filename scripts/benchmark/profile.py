"""Where the processes spend their time: py-spy beside a run, its samples summed by function."""

import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from tests.network import Site

# Samples a second: enough for a run of seconds, and little beside what is measured.
RATE = 100

# How many of the hottest functions are told.
TOLD = 8


async def profiled(
    sites: list[Site], job: Callable[[], Awaitable[Any]]
) -> dict[str, list[tuple[str, float]]]:
    """Run `job` while py-spy samples each site; for each, its hottest functions and their share."""
    with tempfile.TemporaryDirectory() as directory:
        samplers = [
            (
                site.name,
                Path(directory) / f"{site.pid}.txt",
                await trio.lowlevel.open_process(
                    [
                        *(str(Path(sys.executable).with_name("py-spy")), "record", "--nonblocking"),
                        *("--pid", str(site.pid), "--rate", str(RATE), "--format", "raw"),
                        *("--output", str(Path(directory) / f"{site.pid}.txt")),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                ),
            )
            for site in sites
        ]
        await trio.sleep(1)  # py-spy has read the symbols of its process by then
        await job()
        found = {}
        for name, path, sampler in samplers:
            sampler.send_signal(signal.SIGINT)  # write what was gathered
            with trio.fail_after(30):
                await sampler.wait()
            found[name] = _hottest(path.read_text() if path.exists() else "")
        return found


def _hottest(raw: str) -> list[tuple[str, float]]:
    """(function, share of samples) by innermost frame, from py-spy's collapsed stacks."""
    counts: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        innermost = stack.split(";")[-1].strip()
        if innermost:  # py-spy could not read this one
            counts[innermost] += int(count)
    total = sum(counts.values()) or 1
    return [(where, count / total) for where, count in counts.most_common(TOLD)]
