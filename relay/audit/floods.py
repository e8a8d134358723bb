"""Keeps what anybody can cause, again and again, from filling the audit.

A device that is not granted something tries again each second; a stranger may do so with a
different AE title each time. The first refusal of each kind is an entry at once; those like it are
counted, and told in one entry when their time is over. Beyond a number of different ones they are
counted together. So nothing goes untold, and nobody can push out what was there before.
"""

from collections.abc import Hashable, Iterator

import attrs
import trio

from relay.audit.codes import Kind
from relay.audit.events import AuditEvent, text

# Seconds for which those like one that is told are counted. A person who follows a trail reads
# minutes; a device that tries each second makes one entry a minute of it.
WINDOW = 60.0

# Different ones of a kind in that time that are told one by one: more than a hospital's devices
# cause when its grants are gone, and two million entries in a month at the most, which the space
# bears.
MAXIMUM_DIFFERENT = 30


# What makes events alike; of those that are counted together their kind alone.
_Kind = tuple[Hashable, ...]


@attrs.define(slots=True)
class _Seen:
    first: AuditEvent
    until: float
    more: int = 0


class Floods:
    """What was told within the last WINDOW, and how often it has happened since."""

    def __init__(self) -> None:
        self._seen: dict[_Kind, _Seen] = {}

    def take(self, event: AuditEvent) -> bool:
        """Whether `event` is to be told now; else it is counted."""
        kind: _Kind = (event.kind, event.type, event.why, event.parties, event.subjects)
        if kind not in self._seen and self._different(event.kind) >= MAXIMUM_DIFFERENT:
            kind = (event.kind,)  # all others together, of which the first stands for them
        seen = self._seen.get(kind)
        if seen is None:
            self._seen[kind] = _Seen(event, trio.current_time() + WINDOW)
            return True
        seen.more += 1
        return False

    def _different(self, kind: Kind) -> int:
        """So many that anybody may cause by trying passwords leave the alerts their room."""
        return sum(key[0] is kind for key in self._seen)

    @property
    def due(self) -> float | None:
        """When the next count is to be told, in trio's time."""
        return min((seen.until for seen in self._seen.values()), default=None)

    def over(self, *, all: bool = False) -> Iterator[AuditEvent]:
        """What is to be told of those whose time is over."""
        now = trio.current_time()
        for kind, seen in list(self._seen.items()):
            if seen.until <= now or all:
                del self._seen[kind]
                if seen.more:
                    yield _counted(seen, alike=len(kind) > 1)


def _counted(seen: _Seen, *, alike: bool) -> AuditEvent:
    like = "like this one" if alike else "of several kinds, of which this is the first,"
    words = f"{seen.more} more {like} in {WINDOW:g} s"
    return attrs.evolve(
        seen.first, at=seen.first.at + WINDOW, why=text(f"{words}: {seen.first.why}").rstrip(": ")
    )
