"""How long things took, in a row of counters: what a scrape shows as a histogram."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

# Seconds. From a small object between two devices of one building to one that waits for a line to
# come back (the resume window is 20 s); each is some 2.5 times the one before.
USUAL = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)


class Histogram:
    """Durations in seconds, counted by the smallest bound that they do not exceed."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float] = USUAL) -> None:
        self.sum = 0.0
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Something has taken so long."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def cumulated(self) -> list[tuple[str, float]]:
        """Each bound as Prometheus writes it, and how many took no longer."""
        bounds = [*map(str, self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True))
