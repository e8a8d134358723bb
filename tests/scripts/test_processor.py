"""Processor time by part, whether a process runs, has ended, or has had children."""

import os
import subprocess
import sys

import trio

from scripts.benchmark.processor import (
    CLIENTS,
    Clock,
    forget_peak,
    peak_memory,
    processor_time,
)
from tests.interop import peers
from tests.network import START_DEADLINE

# As long as a few of the clock's ticks; says so, and waits for its input to end.
WORK = """
import sys, time
while time.process_time() < 0.3: pass
print("done", flush=True)
sys.stdin.read()
"""
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {WORK!r}])
"""


async def busy(code: str) -> trio.Process:
    """A process that has worked and waits."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    with trio.fail_after(START_DEADLINE):
        await process.stdout.receive_some()
    return process


async def test_of_a_process_and_of_its_children() -> None:
    for code in (WORK, PARENT):
        process = await busy(code)
        try:
            assert processor_time(process.pid) >= 0.2
        finally:
            await peers.stop(process)


async def test_a_program_that_ran_to_its_end_is_a_client() -> None:
    clock = Clock({"own": [os.getpid()], "none": []})
    clock.start()
    result = await peers.run(sys.executable, "-c", WORK)
    used = clock.read()
    assert result.status == 0
    assert used[CLIENTS] >= 0.2
    assert used["none"] == 0


def test_of_a_process_that_is_gone_there_is_nothing() -> None:
    assert processor_time(2**22 + 1) == 0.0


def test_the_peak_begins_anew() -> None:
    large = bytearray(os.urandom(1 << 16) * 1024)
    high = peak_memory(os.getpid())
    del large
    forget_peak(os.getpid())
    assert peak_memory(os.getpid()) < high
