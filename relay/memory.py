"""How a process keeps its memory: the C library for threads, Python for what is there to stay.

glibc gives each thread an arena of its own, up to eight for each processor, and an arena keeps what
it has grown to once. Here a few threads take turns with buffers of 1 MiB: what one has let go is to
be there for the next.

Buffers of different sizes leave gaps. With sixteen senders of large objects and 200 ms between, 30
MiB of a Router's memory lay free in them, and stayed with it when all was over.
"""

import ctypes
import gc
from typing import NoReturn

import trio

# mallopt(3). Nobody waits long for the one: what takes time is done between the calls.
_M_ARENA_MAX = -8
ARENAS = 1

# What may lie free. To give it back takes some ms, in which nobody else can ask for memory, and to
# have it again costs a page fault for each 4 KiB.
SPARE = 16 * 2**20
# Seconds between two looks, which take microseconds.
LOOK = 1.0

# How many objects more a Bridge may have before Python looks for circles among them. Its own 700
# come together by chance: every quarter of a minute where 2,000 Routers talk, and 20,000 within a
# minute. With these some 200 Routers' connections are in circles at the most: 14 MiB.
CIRCLES = 50_000


class _Heap(ctypes.Structure):
    """mallinfo2(3), of glibc since 2.33."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def share_memory() -> bool:
    """Let all threads share one arena; before the first thread is begun.

    False where the C library knows nothing of that.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, ARENAS))


async def give_back() -> NoReturn:
    """Whenever much of the C library's memory lies free, let the system have it."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        await trio.sleep_forever()
    library.mallinfo2.restype = _Heap
    while True:
        await trio.sleep(LOOK)
        if library.mallinfo2().fordblks > SPARE:
            await trio.to_thread.run_sync(library.malloc_trim, 0)


def keep_loaded() -> None:
    """Have what is loaded by now taken for good: no collection looks through it again.

    That is most of a Router's or a small Bridge's objects, and each full collection, for which
    everything else waits, would take some 30 ms longer.
    """
    gc.collect()
    gc.freeze()


def seldom_look_for_circles() -> None:
    """Have Python look for circles of objects that nobody holds only where many may have come.

    It looks through whatever was made since the last time, and everything waits: with 2,000 Routers
    that talk, 65 ms and as much again behind it, every quarter of a minute, and found nothing. What
    a Bridge leaves in circles is some 250 objects, 70 KiB, for each Router that has gone.
    """
    gc.set_threshold(CIRCLES)
