"""The queue in figures, for Prometheus.

Filled from a snapshot at each scrape: nothing is counted here that is not counted where it happens.
Labels are titles, states and kinds of warnings; docs/metrics.md has every name.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import attrs
from prometheus_client.core import Metric

from relay.metrics.described import Described, Type

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


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """The snapshot in the rows above."""
    places = snapshot.destinations
    yield ITEMS.of(
        {
            (place.destination, state): count
            for place in places
            for state, count in place.items.items()
        },
    )
    yield BYTES.of({(place.destination,): place.bytes for place in places})
    yield OLDEST.of({(place.destination,): place.oldest for place in places})
    yield ACCEPTED.only(snapshot.accepted)
    yield DELIVERED.only(snapshot.delivered)
    yield FAILED.only(snapshot.failed)
    yield DUPLICATES.only(snapshot.duplicates)
    yield COMMITS.only(snapshot.commits)
    yield COMMITTED.only(snapshot.committed)
    yield SPOOL_BYTES.only(snapshot.spool_bytes)
    yield SPOOL_FREE.only(snapshot.spool_free)
    yield WARNINGS.of({(kind,): n for kind, n in snapshot.warnings.items()})
    yield WEBHOOK_FAILURES.only(snapshot.webhook_failures)
