"""What Relay is to reach over distance, and how far the cells say it has.

A ratio is the median of the ratios within each run, in which its two sides came one after the
other.
"""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import attrs

Cell = dict[str, Any]
Cells = Mapping[str, Cell]

ROUTERS = ("Router A", "Router B")


def median(cell: Cell, way: str, key: str) -> float:
    """The median of a figure over the runs. Raises KeyError where it was not measured."""
    return float(statistics.median(run[key] for run in cell["ways"][way]))


def ratio(cell: Cell, way: str, of: str, key: str) -> float:
    """A way's figure as a share of another's."""
    pairs = zip(cell["ways"][way], cell["ways"][of], strict=False)
    return float(statistics.median(one[key] / other[key] for one, other in pairs))


def router_time(cell: Cell, way: str = "relay") -> float:
    """Processor time of the Router that used more, in ms for each MB of objects."""
    seconds = max(
        statistics.median(run["processor"][router] for run in cell["ways"][way])
        for router in ROUTERS
    )
    return float(seconds / cell["bytes"] * 1e9)


def line_share(cell: Cell, way: str = "relay") -> float:
    """What a way puts on the line in steady state, as a share of what iperf3 does."""
    runs = cell["ways"][way]
    sent = [
        run["steady_megabytes_per_second"] * 8 * run["wire_bytes"] / cell["bytes"] for run in runs
    ]
    return float(statistics.median(sent) / cell["line"]["iperf3"])


@attrs.frozen(slots=True)
class Goal:
    """One figure: what it is of, how it is reckoned, where it is to be or below (`at_most`)."""

    words: str
    cells: tuple[str, ...]
    value: Callable[..., float]
    target: float
    at_most: bool = False

    def reached(self, cells: Cells) -> float | None:
        """The figure, or None where a cell or a way of it was not measured."""
        try:
            return self.value(*(cells[name] for name in self.cells))
        except KeyError:
            return None

    def holds(self, value: float) -> bool:
        return value <= self.target if self.at_most else value >= self.target


def _faster(way: str, of: str) -> Callable[[Cell], float]:
    return lambda cell: ratio(cell, of, way, "seconds")


def _as_long(way: str = "relay") -> Callable[[Cell], float]:
    """Time an object in steady state, beside direct."""
    return lambda cell: ratio(cell, "direct", way, "steady_objects_per_second")


def _rate(cell: Cell) -> float:
    return ratio(cell, "relay", "direct", "objects_per_second")


def _steadiness(*cells: Cell) -> float:
    rates = [median(cell, "relay", "steady_objects_per_second") for cell in cells]
    return min(rates) / rates[0]


def _uncompressed(cell: Cell) -> float:
    """Of the line's rate, counted as the objects are."""
    return float(median(cell, "relay", "steady_megabytes_per_second") * 8 / cell["line"]["rate"])


def _round_trips(cell: Cell) -> float:
    return float((median(cell, "relay", "milliseconds") - 10) / cell["line"]["ping"])


def _latency(cell: Cell) -> float:
    return ratio(cell, "relay", "direct", "milliseconds")


def _memory(cell: Cell) -> float:
    runs = cell["ways"]["relay"]
    return float(max(size for run in runs for size in run["memory"].values()) / 2**20)


GIGABIT = tuple(f"{trip}ms-1000M" for trip in (20, 50, 100, 200))

GOALS = (
    Goal(
        "queued CT: times faster than direct",
        ("queued-ct@100ms-1000M",),
        _faster("relay", "direct"),
        12,
    ),
    Goal(
        "queued CT: times faster than direct",
        ("queued-ct@200ms-1000M",),
        _faster("relay", "direct"),
        24,
    ),
    Goal(
        "queued CT: times faster than four direct associations",
        ("queued-ct@100ms-1000M",),
        _faster("relay", "direct-4"),
        3,
    ),
    Goal("queued CT, steady: of what iperf3 gets", ("queued-ct@50ms-100M",), line_share, 0.95),
    Goal(
        "queued CT, steady: of the line, counted uncompressed",
        ("queued-ct@50ms-100M",),
        _uncompressed,
        1.8,
    ),
    Goal(
        "queued MR: times faster than direct",
        ("queued-mr@100ms-100M",),
        _faster("relay", "direct"),
        18,
    ),
    Goal(
        "queued CT: lowest steady rate from 20 to 200 ms, of that at 20 ms",
        tuple(f"queued-ct@{link}" for link in GIGABIT),
        _steadiness,
        0.85,
    ),
    *(
        Goal(
            "confirmed CT, steady: time an object, of direct's",
            (f"confirmed-ct@{link}",),
            _as_long(),
            1.5 if link == GIGABIT[0] else 1.15,
            at_most=True,
        )
        for link in GIGABIT
    ),
    Goal(
        "C-GET: time an object, of direct's", ("get@100ms-1000M",), _as_long(), 1.15, at_most=True
    ),
    Goal(
        "C-MOVE: time an object, of direct's", ("move@100ms-1000M",), _as_long(), 1.15, at_most=True
    ),
    Goal(
        "C-MOVE, destination queued: times faster than direct",
        ("move@100ms-1000M",),
        _faster("relay-queued", "direct"),
        8,
    ),
    Goal(
        "C-ECHO: round trips, 10 ms apart", ("echo@100ms-1000M",), _round_trips, 1.2, at_most=True
    ),
    Goal(
        "C-FIND, 1,000 answers: time, of direct's",
        ("find-1000@100ms-1000M",),
        _latency,
        1,
        at_most=True,
    ),
    Goal("queued CT: rate, of direct's", ("queued-ct@loopback",), _rate, 0.25),
    Goal(
        "queued CT: processor time of a Router, ms for each MB",
        ("queued-ct@100ms-1000M",),
        router_time,
        6,
        at_most=True,
    ),
    Goal(
        "confirmed CT: processor time of a Router, ms for each MB",
        ("confirmed-ct@100ms-1000M",),
        router_time,
        6,
        at_most=True,
    ),
    Goal(
        "large objects, 16 senders: memory of a process, MiB",
        ("large-16@200ms-1000M",),
        _memory,
        200,
        at_most=True,
    ),
)
