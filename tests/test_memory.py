"""Threads share memory: glibc itself is asked how many arenas there are."""

import ctypes
import subprocess
import sys

import pytest

from relay.memory import ARENAS

# All threads hold what only the C library can give, at the same time.
THREADS = 6
SCRIPT = f"""
import ctypes, sys, threading
from relay.memory import share_memory
if sys.argv[1] == "shared":
    assert share_memory()
there = threading.Barrier({THREADS})
def hold():
    data = bytearray(64 * 1024)
    there.wait()
    del data
threads = [threading.Thread(target=hold) for _ in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


def arenas(how: str) -> int:
    """How many a process has with that many threads."""
    command = (sys.executable, "-c", SCRIPT, how)
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return sum(line.startswith("Arena ") for line in result.stderr.splitlines())


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_stats"), reason="glibc's own")
def test_threads_have_no_memory_of_their_own() -> None:
    assert arenas("alone") > ARENAS
    assert arenas("shared") <= ARENAS
