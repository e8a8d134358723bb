"""Threads share memory: glibc itself is asked how many arenas there are. What is loaded stays."""

import ctypes
import gc
import subprocess
import sys

import pytest

from relay.memory import ARENAS, CIRCLES, SPARE, keep_loaded, seldom_look_for_circles

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


# Half of what lies in one piece is let go, every other buffer: too small for a mapping of its own.
GAPS = """
import sys, trio
from pathlib import Path
from relay import memory
assert memory.share_memory()
memory.LOOK = 0.01
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
held = [bytearray(b"x") * 100_000 for _ in range(int(sys.argv[1]))]
del held[::2]
before = resident()
async def main():
    with trio.move_on_after(0.5):
        await memory.give_back()
trio.run(main)
print(before - resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc's own, since 2.33")
@pytest.mark.parametrize("much", [True, False])
def test_what_lies_free_in_gaps_is_given_back_where_it_is_much(*, much: bool) -> None:
    buffers = SPARE // 100_000 * (4 if much else 1)  # half of which is let go
    command = (sys.executable, "-c", GAPS, str(buffers))
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    given_back = int(result.stdout)
    assert given_back > SPARE if much else given_back < SPARE // 8


def test_what_is_loaded_is_not_looked_through_again() -> None:
    loaded = [sys.modules]
    try:
        keep_loaded()
        assert gc.get_freeze_count() > len(sys.modules)
        assert not any(found is loaded for found in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(found is loaded for found in gc.get_objects())


def test_circles_are_looked_for_where_many_may_have_come() -> None:
    before = gc.get_threshold()
    looked: list[str] = []
    gc.collect()
    try:
        seldom_look_for_circles()
        gc.callbacks.append(lambda phase, info: looked.append(phase))
        held: list[list[object]] = [[] for _ in range(CIRCLES // 2)]
        assert looked == []
        held += [[] for _ in range(CIRCLES)]
        assert looked
    finally:
        gc.callbacks.pop()
        gc.set_threshold(*before)
