"""A rate that may be saved up: a token bucket."""

from collections.abc import Callable


class Allowance:
    """`per_second` of something, of which up to `at_once` may be saved up.

    `clock` gives seconds and never goes back (trio.current_time).
    """

    def __init__(self, per_second: float, at_once: float, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._clock = clock
        self._left = at_once
        self._last = clock()

    def take(self) -> bool:
        """Take one; False, and nothing taken, if none is left."""
        self._refill()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def delay(self) -> float:
        """Take one, if need be from the future; the seconds to wait until it is there."""
        self._refill()
        self._left -= 1
        return max(0.0, -self._left / self._per_second)

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(self._at_once, self._left + (now - self._last) * self._per_second)
        self._last = now
