"""Threads for work that blocks, where there is much of it.

`trio.to_thread` does the same with more around it: a turn of the event loop before the thread is
asked, the caller's context, a name for the thread at each call. Where each object is a call to a
thread, these here make a Router take 6% more objects a second (scripts/bench --queue).
"""

import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")

# Seconds for which a thread that has finished a write, a sync or a cipher waits for the interpreter
# at the most, while another one has it: five times for each object on its way to the disk. With
# Python's own 5 ms four senders have a fifth to a quarter fewer objects a second in custody.
SWITCHING = 0.0005

# Whether processors are few, two at the most. A thread has none of its own then: for what it does
# the event loop waits, or another process of this machine; and to hand something over and back, and
# the interpreter to and fro meanwhile, takes as long as to seal half a megabyte. With two, 300 CT
# over 1 Gbit/s and 200 ms take an eighth less time without, and a Router a seventh less processor
# time. With more, which was not measured, a Router's rate ends at its event loop.
FEW_PROCESSORS = len(os.sched_getaffinity(0)) <= 2

# What a thread is asked to do, and the task that waits for it.
_Work = tuple[Callable[[], Any], trio.lowlevel.Task]


def limit_numpy() -> None:
    """Have numpy begin no threads; before it is loaded.

    Its library for linear algebra, which nothing here uses, begins one for each processor.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def share_interpreter() -> None:
    """Let threads of this process take turns as often as their work here needs it."""
    sys.setswitchinterval(SWITCHING)


class Workers:
    """At most `maximum` threads, of which each is begun when it is needed first."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._threads = 0
        self._wanted = 0
        self._work: SimpleQueue[_Work | None] = SimpleQueue()

    @property
    def busy(self) -> bool:
        """Whether anybody waits for a call."""
        return self._wanted > 0

    async def run(self, call: Callable[[], T]) -> T:
        """Return `call()`, made in a thread; what it raises arrives here.

        Cancelled only before it begins: what has been asked for is waited for. Those who ask while
        all threads are busy come in their turn.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._wanted += 1
        try:
            if self._threads < min(self._wanted, self._maximum):
                self._threads += 1
                token = trio.lowlevel.current_trio_token()
                threading.Thread(
                    target=_serve, args=(self._work, token), name="worker", daemon=True
                ).start()
            self._work.put((call, trio.lowlevel.current_task()))
            result: T = await trio.lowlevel.wait_task_rescheduled(_go_on)
            return result
        finally:
            self._wanted -= 1

    def close(self) -> None:
        """Let the threads end, when they have done what is asked of them."""
        for _ in range(self._threads):
            self._work.put(None)
        self._threads, self._work = 0, SimpleQueue()


def _serve(work: "SimpleQueue[_Work | None]", token: trio.lowlevel.TrioToken) -> None:
    while (todo := work.get()) is not None:
        call, task = todo
        result = outcome.capture(call)
        token.run_sync_soon(trio.lowlevel.reschedule, task, result)
        del todo, call, task, result  # none of it is to be held until the next one comes


def _go_on(_: Any) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED
