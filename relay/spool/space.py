"""Whether an object more can be accepted: is there room, and can the disk be trusted?"""

import errno
import time
from collections.abc import Callable

import structlog

from relay.errors import SpoolBroken, SpoolError, SpoolFull
from relay.spool.files import Files

log = structlog.get_logger()

# What opening a file fails with where the process or the machine has too much open, and what no
# write or sync fails with: nothing is unknown then, and it passes.
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

# Seconds for which a look at the disk holds; what we write meanwhile is subtracted. To look is a
# system call that lets other threads have the interpreter: three for each object were a tenth of
# the event loop's time. Others who write to the disk take some ten MiB in that time.
LOOK = 0.05


class Space:
    """How much the objects that are kept may take in all, and how much of the disk must stay free.

    `maximum`, `reserve` and `used` are bytes.
    """

    def __init__(
        self,
        files: Files,
        maximum: int,
        reserve: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.maximum = maximum
        self.reserve = reserve
        self.used = 0
        self.broken = ""
        """Why nothing can be accepted any more, until the Router was started anew."""
        self.held_off = ""
        """Why nothing can be accepted now."""
        self._files = files
        self._clock = clock
        self._seen, self._looked = 0, -LOOK

    def free(self) -> int:
        """Bytes that are free on the disk."""
        now = self._clock()
        if now - self._looked >= LOOK:
            self._seen, self._looked = self._files.free(), now
        return self._seen

    def check(self, wanted: int = 0) -> None:
        """Whether `wanted` bytes more can be accepted. Raises SpoolBroken or SpoolFull."""
        self.check_disk()
        if self.used + wanted > self.maximum:
            raise SpoolFull(f"the spool holds {self.used} bytes of at most {self.maximum}")
        free = self.free()
        if free - wanted < self.reserve:
            raise SpoolFull(f"{free} bytes are free on the spool's disk, {self.reserve} must stay")

    def check_disk(self) -> None:
        """Whether the disk can be trusted. Raises SpoolBroken; SpoolFull where it cannot now."""
        if self.broken:
            raise SpoolBroken(self.broken)
        if self.held_off:
            raise SpoolFull(self.held_off)

    def take(self, size: int) -> None:
        """Count `size` bytes before they are written. Raises SpoolBroken or SpoolFull."""
        self.check(size)
        self.used += size
        self._seen -= size

    def give_back(self, size: int) -> None:
        """They are not written, or their file is gone."""
        self.used -= size

    def hold_off(self, why: str) -> None:
        """What was accepted is not noted as it should be: nothing more is, until `go_on`."""
        if not self.held_off:
            log.error("spool held off: nothing is accepted until rows can be written", why=why)
        self.held_off = why

    def go_on(self) -> None:
        """There is room again."""
        self.held_off = ""

    def break_off(self, why: str) -> SpoolBroken:
        """A write's outcome is not known: nothing more is accepted. Gives the error to raise."""
        if not self.broken:
            log.error("spool broken: nothing is accepted until the next start", why=why)
        self.broken = self.broken or why
        return SpoolBroken(self.broken)

    def unsynced(self, what: str, error: OSError) -> SpoolError:
        """A sync has failed, or did not come about. Gives the error to raise."""
        why = f"{what}: {error.strerror}"
        return SpoolFull(why) if error.errno in _PASSING else self.break_off(why)
