"""What systemd is told: ready, still alive, stopping (sd_notify(3)).

Datagrams to the socket that $NOTIFY_SOCKET names; without one, and so anywhere but in a unit of
Type=notify, nothing is said. Written here since it is a few lines.
"""

import os
import socket
from typing import NoReturn

import structlog
import trio

log = structlog.get_logger()

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"


def tell(state: str) -> None:
    """Tell systemd, if it listens. Nothing depends on whether it does."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.connect(address)
            to.sendall(state.encode())
    except OSError as error:
        log.warning("systemd not told", state=state, why=error.strerror)


class Readiness:
    """A trio.TaskStatus: once the process listens, systemd is told that it is ready."""

    def started(self, value: object = None) -> None:
        """It listens."""
        tell(READY)


def watchdog_interval() -> float | None:
    """How often systemd wants to hear of this process, in seconds; None: it does not."""
    # The one file that needs no Python unpacks itself, and has this as its child.
    mine = (str(os.getpid()), str(os.getppid()))
    if os.environ.get("WATCHDOG_PID", mine[0]) not in mine:
        return None
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 1_000_000 if microseconds > 0 else None


async def keep_alive(interval: float) -> NoReturn:
    """Say that the event loop turns, twice in each `interval` (sd_watchdog_enabled(3)), for ever.

    A loop that no longer turns says nothing, and systemd starts the process anew.
    """
    while True:
        tell(ALIVE)
        await trio.sleep(interval / 2)
