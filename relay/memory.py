"""How the C library keeps memory for a process with threads.

glibc gives each thread an arena of its own, up to eight for each processor, and an arena keeps what
it has grown to once. Here a few threads take turns with buffers of 1 MiB: what one has let go is to
be there for the next.
"""

import ctypes

# mallopt(3). Nobody waits long for the one: what takes time is done between the calls.
_M_ARENA_MAX = -8
ARENAS = 1


def share_memory() -> bool:
    """Let all threads share one arena; before the first thread is begun.

    False where the C library knows nothing of that.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, ARENAS))
