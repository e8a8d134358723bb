"""The queue in figures, for Prometheus: GET /metrics on the control socket.

A registry of its own, filled from a snapshot at each scrape: nothing is counted here that is not
counted where it happens, and no library's own figures come with it. Labels are titles, states and
kinds of warnings; docs/metrics.md has every name.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from enum import Enum
from types import MappingProxyType

import attrs
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response


class Type(Enum):
    """A counter only grows, until the Router starts again; a gauge is what is now."""

    COUNTER = "counter"
    GAUGE = "gauge"


@attrs.frozen(slots=True)
class Described:
    """A metric as its scrape and the documentation show it."""

    name: str
    type: Type
    words: str
    labels: tuple[str, ...] = ()


ITEMS = Described(
    "relay_queue_items",
    Type.GAUGE,
    "Objects by destination and state.",
    ("destination", "state"),
)
BYTES = Described(
    "relay_queue_bytes",
    Type.GAUGE,
    "What the objects take that are not delivered yet, by destination.",
    ("destination",),
)
OLDEST = Described(
    "relay_queue_oldest_seconds",
    Type.GAUGE,
    "For how long the oldest object waits, by destination; 0: none waits.",
    ("destination",),
)
ACCEPTED = Described(
    "relay_queue_accepted_total",
    Type.COUNTER,
    "Objects that a sender was told are safe here.",
)
DELIVERED = Described(
    "relay_queue_delivered_total", Type.COUNTER, "Objects that their destination has stored."
)
FAILED = Described(
    "relay_queue_failed_total",
    Type.COUNTER,
    "Objects that were given up and wait for a person.",
)
DUPLICATES = Described(
    "relay_queue_duplicates_total",
    Type.COUNTER,
    "Objects that their destination was not given again, because it had them from an attempt whose"
    " answer was lost.",
)
COMMITS = Described(
    "relay_spool_commits_total",
    Type.COUNTER,
    "How often objects were committed to the disk, those that came together in one.",
)
COMMITTED = Described(
    "relay_spool_committed_total", Type.COUNTER, "Objects that were committed to the disk."
)
SPOOL_BYTES = Described("relay_spool_bytes", Type.GAUGE, "What all waiting objects take.")
SPOOL_FREE = Described(
    "relay_spool_free_bytes", Type.GAUGE, "What is free on the disk of the waiting objects."
)
WARNINGS = Described("relay_warnings", Type.GAUGE, "Warnings that stand, by kind.", ("kind",))
WEBHOOK_FAILURES = Described(
    "relay_webhook_failures_total",
    Type.COUNTER,
    "Posts to the webhook that never arrived, as far as this Router knows.",
)

METRICS = (
    *(ITEMS, BYTES, OLDEST),
    *(ACCEPTED, DELIVERED, FAILED, DUPLICATES),
    *(COMMITS, COMMITTED),
    *(SPOOL_BYTES, SPOOL_FREE, WARNINGS, WEBHOOK_FAILURES),
)

_NOTHING: Mapping[str, int] = MappingProxyType({})


@attrs.frozen(slots=True, kw_only=True)
class DestinationFigures:
    """What is queued for one called title: objects by state, bytes, seconds."""

    destination: str
    items: Mapping[str, int] = _NOTHING
    bytes: int = 0
    oldest: float = 0.0


@attrs.frozen(slots=True, kw_only=True)
class Snapshot:
    """The queue at one moment; totals count from the start of the process."""

    destinations: Sequence[DestinationFigures] = ()
    accepted: int = 0
    delivered: int = 0
    failed: int = 0
    duplicates: int = 0
    commits: int = 0
    committed: int = 0
    spool_bytes: int = 0
    spool_free: int = 0
    warnings: Mapping[str, int] = _NOTHING
    webhook_failures: int = 0


SnapshotSource = Callable[[], Awaitable[Snapshot]]


def render(snapshot: Snapshot) -> bytes:
    """The snapshot in Prometheus' text format, as CONTENT_TYPE_LATEST names it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(snapshot))
    return generate_latest(registry)


def metrics_route(snapshot: SnapshotSource) -> Callable[[Request], Awaitable[Response]]:
    """What answers GET /metrics from `snapshot`, which is asked anew each time."""

    async def metrics(request: Request) -> Response:
        return Response(render(await snapshot()), headers={"content-type": CONTENT_TYPE_LATEST})

    return metrics


@attrs.frozen(slots=True, eq=False)
class _Figures(Collector):
    snapshot: Snapshot

    def collect(self) -> Iterator[Metric]:
        snapshot = self.snapshot
        places = snapshot.destinations
        yield _family(
            ITEMS,
            {
                (place.destination, state): count
                for place in places
                for state, count in place.items.items()
            },
        )
        yield _family(BYTES, {(place.destination,): place.bytes for place in places})
        yield _family(OLDEST, {(place.destination,): place.oldest for place in places})
        yield _family(ACCEPTED, {(): snapshot.accepted})
        yield _family(DELIVERED, {(): snapshot.delivered})
        yield _family(FAILED, {(): snapshot.failed})
        yield _family(DUPLICATES, {(): snapshot.duplicates})
        yield _family(COMMITS, {(): snapshot.commits})
        yield _family(COMMITTED, {(): snapshot.committed})
        yield _family(SPOOL_BYTES, {(): snapshot.spool_bytes})
        yield _family(SPOOL_FREE, {(): snapshot.spool_free})
        yield _family(WARNINGS, {(kind,): n for kind, n in snapshot.warnings.items()})
        yield _family(WEBHOOK_FAILURES, {(): snapshot.webhook_failures})


def _family(described: Described, values: Mapping[tuple[str, ...], float]) -> Metric:
    kind = CounterMetricFamily if described.type is Type.COUNTER else GaugeMetricFamily
    family = kind(described.name, described.words, labels=described.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
