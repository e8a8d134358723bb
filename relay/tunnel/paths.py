"""What the paths to other hospitals carried when they were last used.

A flow doubles what is on its way in each round trip until its path is full: over 200 ms that is
most of a second of each delivery. What the one before has found out need not be found out again
(TCP keeps as much: RFC 9040 §3). It is where a delivery begins, and no more than that: from the
first arrivals on it follows what they say (relay.tunnel.window).

A value that is too high puts into the store, and into the line's queue, what waits there longer,
within the Router's budget; one that is too low costs the round trips that it was to spare.
"""

import attrs
import trio

from relay.tunnel.window import Path

# Seconds for which a path is remembered: lines are changed, and shared by other people at noon.
LIFE = 3600.0
# Hospitals; the one that was delivered to the longest ago is forgotten first.
MAXIMUM_PATHS = 1024
# A flow that has carried less than so many times what was in flight was not long enough at its full
# rate to say that the path carries less than it did: a few objects never fill it.
TELLING = 4


@attrs.frozen(slots=True)
class _Known:
    path: Path
    since: float  # by trio's clock


class Paths:
    """One Router's, by the identity of the Router at the other end."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}  # what was found last stands last

    def recall(self, peer: bytes) -> Path | None:
        """What the path to `peer` carried; None: not known, or too long ago."""
        known = self._known.get(peer)
        if known is None or known.since + LIFE < trio.current_time():
            return None
        return known.path

    def remember(self, peer: bytes, path: Path, carried: int) -> None:
        """A flow to `peer` is over that has found `path`, and has carried so many bytes."""
        before = self.recall(peer)
        less = before is not None and path.in_flight < before.in_flight
        if before is not None and less and carried < TELLING * before.in_flight:
            return
        self._known.pop(peer, None)
        self._known[peer] = _Known(path, trio.current_time())
        if len(self._known) > MAXIMUM_PATHS:
            del self._known[next(iter(self._known))]
