"""Objects that go to the disk from the event loop, without a thread.

    begin -> sealed while it comes -> written -> synced by the kernel -> (in custody)

What a thread would do for an object of half a megabyte takes a third of a millisecond; to hand it
over and back costs more, since the interpreter is handed to and fro some twenty times. Four senders
have an eighth more objects a second in custody so.

Only what is one segment at the most goes so, and only while the disk is quick: a write that waits
would hold up everything. A write goes to the system's memory, and waits where the disk is behind;
syncs take long before that.
"""

from math import inf

import trio

from relay.spool.files import File
from relay.spool.sealing import SEGMENT, TAG_SIZE, SegmentSealer
from relay.spool.syncs import Syncs

# Objects that are sealed so at a time: each holds the memory of a segment. Who comes beside them
# goes by a thread; a sender that stops in the middle of an object keeps its place.
MAXIMUM_SEALED = 8
# And of these so many keep it when nobody has one: large objects need no more than their first.
MAXIMUM_KEPT = 4

# Where a sync took longer than this, or the event loop's own write with all around it, in seconds,
# the disk is left to threads for REST.
QUICK_SYNC = 0.1
QUICK_WRITE = 0.05
REST = 5.0


class Promptly:
    """What objects need to go so. `run` is to run meanwhile."""

    def __init__(self, syncs: Syncs) -> None:
        self._syncs = syncs
        self._free: list[memoryview] = []
        self._made = 0
        self._rest_until = -inf

    @property
    def ready(self) -> bool:
        """Whether the disk is quick, and is asked without a thread."""
        if not self._syncs.serving or trio.current_time() < self._rest_until:
            return False
        if self._syncs.waited > QUICK_SYNC:
            self._rest()
            return False
        return True

    def begin(self, key: bytes) -> SegmentSealer | None:
        """What seals an object whose key this is; None where it is to go by a thread."""
        if not self.ready:
            return None
        if not self._free:
            if self._made >= MAXIMUM_SEALED:
                return None
            self._made += 1
            self._free.append(memoryview(bytearray(SEGMENT + TAG_SIZE)))
        return SegmentSealer(key, 0, self._free.pop())

    def end(self, sealer: SegmentSealer) -> None:
        """It is written, or not wanted."""
        if len(self._free) < MAXIMUM_KEPT:
            self._free.append(sealer.memory)
        else:
            self._made -= 1

    def wrote(self, seconds: float) -> None:
        """So long a write has held the event loop."""
        if seconds > QUICK_WRITE:
            self._rest()

    async def sync(self, file: File) -> None:
        """See relay.spool.syncs.Syncs."""
        begun = trio.current_time()
        await self._syncs.sync(file)
        if trio.current_time() - begun > QUICK_SYNC:
            self._rest()

    async def run(self) -> None:
        """Serve, until cancelled."""
        await self._syncs.run()

    def _rest(self) -> None:
        self._rest_until = trio.current_time() + REST
