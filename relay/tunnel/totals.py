"""What all sessions of one Router have done together, for whoever watches it.

A session counts for itself (its writer and its reader); it is looked at when somebody asks, and
once more when it is over.
"""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

import attrs

from relay.signalling.messages import EndReason


class Flow(Protocol):
    """One direction of a session (relay.tunnel.reader.ReaderStatistics)."""

    @property
    def chunks(self) -> int: ...

    @property
    def sealed_bytes(self) -> int: ...

    @property
    def in_line(self) -> int: ...

    @property
    def retries(self) -> int: ...


class Writing(Flow, Protocol):
    """The one that is written here (relay.tunnel.writer.WriterStatistics)."""

    @property
    def unacknowledged_bytes(self) -> int: ...


class Both(Protocol):
    """Both of one session (relay.tunnel.flows.TunnelStatistics)."""

    @property
    def writer(self) -> Writing: ...

    @property
    def reader(self) -> Flow: ...


@attrs.frozen(slots=True)
class Way:
    """One way through the tunnels: chunks, their sealed bytes, those in line, what was repeated."""

    chunks: int = 0
    sealed_bytes: int = 0
    in_line: int = 0
    retries: int = 0

    def __add__(self, other: "Way") -> "Way":
        return Way(*map(sum, zip(attrs.astuple(self), attrs.astuple(other), strict=True)))


class Totals:
    """Counts since the Router started. `resumes`: sessions that went on after a lost connection."""

    def __init__(self) -> None:
        self.ended = Counter[EndReason]()
        self.resumes = 0
        self._live: list[Callable[[], Both]] = []
        self._written = self._read = Way()

    def begun(self, statistics: Callable[[], Both]) -> None:
        """A session is opened or answered; `statistics` are its own."""
        self._live.append(statistics)

    def over(self, statistics: Callable[[], Both], reason: EndReason | None) -> None:
        """It is over; None: nobody has said why."""
        self._live.remove(statistics)
        written, read = _ways(statistics())
        self._written += written
        self._read += read
        self.ended[EndReason.PEER_FORGOT if reason is None else reason] += 1

    @property
    def live(self) -> int:
        """How many sessions there are now."""
        return len(self._live)

    @property
    def unacknowledged_bytes(self) -> int:
        """Sealed bytes that are on their way to other hospitals now."""
        return sum(statistics().writer.unacknowledged_bytes for statistics in self._live)

    def ways(self) -> tuple[Way, Way]:
        """What was sent, and what was received."""
        written, read = self._written, self._read
        for statistics in self._live:
            more = _ways(statistics())
            written, read = written + more[0], read + more[1]
        return written, read


def _ways(statistics: Both) -> tuple[Way, Way]:
    return _way(statistics.writer), _way(statistics.reader)


def _way(flow: Flow) -> Way:
    return Way(flow.chunks, flow.sealed_bytes, flow.in_line, flow.retries)
