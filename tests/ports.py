"""Ports for servers that tests start: each of the processes that run tests has its own.

They are none of those that the kernel gives to connections that are made (from 32768), so that a
server that is killed gets its own again.
"""

import os
import socket
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"

# As many processes as ever run tests side by side.
WORKERS = 4
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS


class Ports:
    """This process' part of the TCP ports from `first` on, `count` for all; each in its turn."""

    def __init__(self, first: int, count: int) -> None:
        self._count = count // WORKERS
        self._first = first + _worker * self._count
        self._next = os.getpid()  # not where the last run began

    def free(self, *offsets: int) -> int:
        """A port on loopback that nothing listens on now, nor on those at `offsets` from it."""
        while True:
            port = self._first + self._next % self._count
            self._next += 1
            try:
                with ExitStack() as stack:
                    for offset in (0, *offsets):
                        stack.enter_context(socket.socket()).bind((LOOPBACK, port + offset))
            except OSError:
                continue
            return port
