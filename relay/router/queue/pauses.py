"""How long to wait before the next attempt: longer after each failure, never longer than a cap.

The law: after n failures in a row the ceiling is ``min(cap, first * factor ** (n - 1))``, and the
pause is drawn evenly from the upper half of it, [ceiling / 2, ceiling] ("equal jitter").

Why jitter: what failed together (a Bridge that restarted, a line that was cut) must not come back
together, all Routers in the same second. Why equal jitter: the lower bound keeps a device that is
down from being called again at once, as full jitter may do; and a pause depends on the number of
failures alone, which is in the database, while decorrelated jitter needs the pause before it, which
a restarted Router would not have.
"""

import random as _random
from collections.abc import Callable

import attrs

# A moment's trouble costs a moment.
FIRST = 1.0
# A device that was down all night is found within five minutes of its return; calling that often is
# a burden to nobody.
CAP = 300.0
# 1, 2, 4 ... 256: nine failures, some four to nine minutes, until the cap.
FACTOR = 2.0


def _positive(instance: "Pauses", attribute: "attrs.Attribute[float]", value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{attribute.name} must be above 0 and finite")


def _at_least_one(instance: "Pauses", attribute: "attrs.Attribute[float]", value: float) -> None:
    if not 1 <= value < float("inf"):
        raise ValueError(f"{attribute.name} must be at least 1 and finite")


@attrs.frozen(slots=True)
class Pauses:
    """The pauses between attempts; `first` and `cap` in seconds. Pure but for `random`.

    `random` gives floats from [0, 1). Raises ValueError for a pause of nothing, or that shrinks.
    """

    first: float = attrs.field(default=FIRST, validator=_positive)
    factor: float = attrs.field(default=FACTOR, validator=_at_least_one)
    cap: float = attrs.field(default=CAP, validator=_positive)
    random: Callable[[], float] = _random.random

    def ceiling(self, failures: int) -> float:
        """The longest that `next` may give after so many failures in a row, in seconds."""
        if failures < 1:
            raise ValueError("there is no pause before the first failure")
        try:
            grown = self.first * self.factor ** (failures - 1)
        except OverflowError:
            return self.cap
        return min(self.cap, grown)

    def next(self, failures: int) -> float:
        """How long to wait after so many failures in a row (1 or more), in seconds.

        Raises ValueError for less than one.
        """
        half = self.ceiling(failures) / 2
        return half + half * self.random()


# Between attempts of one object alone, which may itself be the trouble: 1, 4, 16, 60 minutes at
# most. They are few (relay.router.queue.statuses), and so have to outlast a device's own bad hour.
ALONE = Pauses(first=60.0, factor=4.0, cap=3600.0)
