"""What a scrape of a Bridge shows: its counts and what runs, put into the rows of metrics."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import attrs
from prometheus_client.core import Metric

from relay.bridge import metrics
from relay.bridge.control import Administration
from relay.bridge.metering import BlobTraffic
from relay.bridge.sweeper import Sweeper
from relay.metrics.both_modes import audit_metrics, sign_in_metrics
from relay.metrics.process import process_metrics
from relay.metrics.serving import metrics_handler
from relay.metrics.turning import Turning
from relay.web.operations import TEXT, Operation


@attrs.frozen(slots=True, kw_only=True)
class Watched:
    """What is looked at: `sign_ins` are counts by their outcome."""

    over: Administration
    blobs: BlobTraffic
    sweeper: Sweeper
    sign_ins: Mapping[str, int]
    turning: Turning


def metrics_operation(watched: Watched) -> Operation:
    """GET /metrics."""
    return Operation(
        "GET",
        "/metrics",
        metrics_handler(partial(collect, watched)),
        "This Bridge in figures, for Prometheus.",
        TEXT,
        media="text/plain",
    )


async def collect(watched: Watched) -> Iterable[Metric]:
    """Everything that a Bridge's GET /metrics shows."""
    over = watched.over
    rows = await over.registry.list_routers()
    revoked = sum(bool(row["revoked"]) for row in rows)
    return [
        *process_metrics("bridge", watched.turning),
        *_network(over, len(rows) - revoked, revoked),
        *_stores(over, watched.blobs, await over.stores.describe()),
        *_sweeps(watched.sweeper),
        *sign_in_metrics(watched.sign_ins),
        *audit_metrics(
            over.audit.statistics() if over.audit is not None else None,
            over.audit_sender.statistics() if over.audit_sender is not None else None,
        ),
    ]


def _network(over: Administration, enrolled: int, revoked: int) -> Iterator[Metric]:
    statistics, backend = over.hub.statistics(), over.backend
    states = {"connected": statistics.connected, "enrolled": enrolled, "revoked": revoked}
    yield metrics.ROUTERS.of({(state,): count for state, count in states.items()})
    yield metrics.REFUSED.only(over.hub.refused)
    yield metrics.STRANGERS.only(statistics.unauthenticated)
    yield metrics.SESSIONS.only(len(over.sessions.all()))
    yield metrics.BEGUN.only(backend.begun)
    yield metrics.ENDED.of({(why.name.lower(),): count for why, count in backend.over.items()})
    kinds = over.hub.kinds.items()
    yield metrics.MESSAGES.of({(_word(kind.__name__),): count for kind, count in kinds})
    yield metrics.WAITING.of(
        {
            ("control",): statistics.waiting_control_bytes,
            ("sessions",): statistics.waiting_session_bytes,
        }
    )
    yield metrics.MOVED.only(statistics.moved)


def _stores(
    over: Administration, blobs: BlobTraffic, stores: Iterable[Mapping[str, object]]
) -> Iterator[Metric]:
    yield metrics.BLOBS.of({("PUT",): blobs.puts, ("GET",): blobs.gets, ("DELETE",): blobs.deletes})
    yield metrics.BLOB_BYTES.of({("received",): blobs.bytes_put, ("sent",): blobs.bytes_got})
    yield metrics.BLOB_ERRORS.of({("refused",): blobs.refused, ("failed",): blobs.failed})
    own = over.stores.own
    yield metrics.USED.only(own.used if own is not None else 0)
    yield metrics.SPACE.only(own.space if own is not None else 0)
    yield metrics.PROVIDERS.of({(str(row["name"]),): not row["failing"] for row in stores})
    failures = over.stores.failures()
    yield metrics.PROVIDER_FAILURES.of({(name,): count for name, count in failures.items()})


def _sweeps(sweeper: Sweeper) -> Iterator[Metric]:
    yield metrics.SWEPT.only(sweeper.swept)
    yield metrics.SWEEP_FAILURES.only(sweeper.failures)
    yield metrics.UNSWEPT.only(sweeper.waiting)


def _word(name: str) -> str:
    """A message's class as a label: SlotURLs is slot_urls."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
