"""How fast things move: what the register of associations has carried, looked at every few seconds.

Nothing is counted for this on the way of the data: the counters are there anyhow, and are read
here. The history is bounded, and as long as a person looks back at what they have just done.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import trio

# Between two looks, in seconds: long enough that chunks and pauses even out, short enough that a
# person who has started something sees it.
INTERVAL = 5.0

# Fifteen minutes.
MAXIMUM_SAMPLES = 180


@attrs.frozen(slots=True)
class Sample:
    """What moved in the interval that ended at `time`, in Unix seconds; bytes a second."""

    time: float
    sent: float
    received: float

    def to_json(self) -> dict[str, Any]:
        """For people."""
        return {"time": self.time, "sent": round(self.sent), "received": round(self.received)}


class Rates:
    """The last fifteen minutes of what `carried` counts: bytes out of the hospital, and in."""

    def __init__(
        self, carried: Callable[[], tuple[int, int]], clock: Callable[[], float] = time.time
    ) -> None:
        self._carried = carried
        self._clock = clock
        self._samples: deque[Sample] = deque(maxlen=MAXIMUM_SAMPLES)

    def to_json(self) -> dict[str, Any]:
        """What GET /v1/rates says: the samples, the oldest first."""
        return {
            "interval": INTERVAL,
            "maximum": MAXIMUM_SAMPLES,
            "samples": [sample.to_json() for sample in self._samples],
        }

    async def run(self) -> None:
        """Look again and again, for ever."""
        before, looked = self._carried(), trio.current_time()
        while True:
            await trio.sleep(INTERVAL)
            now, seconds = self._carried(), trio.current_time() - looked
            sent, received = (
                (after - counted) / seconds for counted, after in zip(before, now, strict=True)
            )
            self._samples.append(Sample(self._clock(), sent, received))
            before, looked = now, trio.current_time()
