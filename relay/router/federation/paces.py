"""How long each device takes to answer a query in full, so that the slowest can be begun first.

Where the answers are merged only the last one counts (relay.router.federation.searching). In memory
only, and for a while: what an archive takes changes with its load and with what it is asked.
"""

from collections import OrderedDict

import attrs
import trio

from relay.router.federation.identifiers import Kind

# Devices of many hospitals, for some kinds of queries each; beyond, those that were asked longest
# ago are forgotten.
MAXIMUM_PACES = 4096

# Seconds. A person's queries come within minutes of each other; what an archive took in the night
# says little of the morning.
PACE_LIFE = 3600.0

# What the last query has to say beside all before: enough that two or three make a new order.
WEIGHT = 0.5


@attrs.frozen(slots=True)
class _Pace:
    seconds: float
    until: float  # by trio's clock


class Paces:
    """Seconds from its beginning to its final response, by published AE title and kind of query."""

    def __init__(self, maximum: int = MAXIMUM_PACES) -> None:
        self._maximum = maximum
        self._paces: OrderedDict[tuple[str, Kind], _Pace] = OrderedDict()

    def __len__(self) -> int:
        return len(self._paces)

    def note(self, title: str, kind: Kind, seconds: float) -> None:
        """`title` has answered a query of this `kind` in full in so many `seconds`."""
        key, before = (title, kind), self.of(title, kind)
        if before is not None:
            seconds = before + WEIGHT * (seconds - before)
        self._paces[key] = _Pace(seconds, trio.current_time() + PACE_LIFE)
        self._paces.move_to_end(key)
        if len(self._paces) > self._maximum:
            self._paces.popitem(last=False)

    def of(self, title: str, kind: Kind) -> float | None:
        """How long it takes, as far as is known."""
        pace = self._paces.get((title, kind))
        return pace.seconds if pace is not None and trio.current_time() < pace.until else None
