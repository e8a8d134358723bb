"""A small graph of how fast data moves, as SVG: drawn here, so that a page needs no script for it.

Two lines over the last fifteen minutes, what left the hospital and what came in. Its colours are
the style sheet's; its words say what is drawn to who does not see it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

WIDTH = 600
HEIGHT = 120

# Below this, in bytes a second, the scale does not go: a line at rest is not to look busy.
LEAST_SCALE = 16 * 1024


@attrs.frozen(slots=True)
class Chart:
    """The graph's parts: `points` of an SVG polyline each, and what the top of the scale is."""

    sent: str
    received: str
    scale: float
    sent_now: float
    received_now: float
    minutes: int
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def empty(self) -> bool:
        """Nothing was measured yet."""
        return not self.sent


def chart(rates: Mapping[str, Any]) -> Chart:
    """The graph of what GET /v1/rates says. The newest is at the right edge."""
    samples: Sequence[Mapping[str, Any]] = rates["samples"]
    slots = rates["maximum"]
    peak = max((max(s["sent"], s["received"]) for s in samples), default=0)
    scale = _scale(peak)
    last = samples[-1] if samples else {"sent": 0, "received": 0}
    return Chart(
        sent=_points([s["sent"] for s in samples], slots, scale),
        received=_points([s["received"] for s in samples], slots, scale),
        scale=scale,
        sent_now=last["sent"],
        received_now=last["received"],
        minutes=round(slots * rates["interval"] / 60),
    )


def _scale(peak: float) -> float:
    """The top of the scale: the next power of two, so that it does not change all the time."""
    scale = float(LEAST_SCALE)
    while scale < peak:
        scale *= 2
    return scale


def _points(values: Sequence[float], slots: int, scale: float) -> str:
    step = WIDTH / max(1, slots - 1)
    first = WIDTH - step * (len(values) - 1)
    # One pixel at the top and bottom, so that a line at the edge is drawn whole.
    room = HEIGHT - 2
    return " ".join(
        f"{first + step * number:.1f},{1 + room * (1 - value / scale):.1f}"
        for number, value in enumerate(values)
    )
