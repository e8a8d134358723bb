"""Whether the event loop turns, and how late it is: what health, systemd and metrics rest on.

Everything in a process of Relay runs in one event loop. What holds it up, holds up every
association; what stops it, stops the process, however alive it looks from outside.
"""

from collections import deque
from collections.abc import Callable
from typing import NoReturn

import trio

# Seconds. Two looks a second cost nothing, and find what a device would notice.
INTERVAL = 0.5
# Of how many looks the worst one counts: those of a minute, which is how often Prometheus asks.
REMEMBERED = int(60 / INTERVAL)


class Turning:
    """Looks at the event loop for as long as `run` does. `on_turn` is called at each look."""

    def __init__(self, on_turn: Callable[[], None] = lambda: None) -> None:
        self._on_turn = on_turn
        self._delays: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def delay(self) -> float:
        """By how many seconds it was late at the most, in the last minute."""
        return max(self._delays, default=0.0)

    async def run(self) -> NoReturn:
        """Look, for ever."""
        while True:
            due = trio.current_time() + INTERVAL
            await trio.sleep_until(due)
            self._delays.append(max(0.0, trio.current_time() - due))
            self._on_turn()
