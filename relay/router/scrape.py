"""What a scrape of a Router shows: its counts and what runs, put into the rows of metrics.

A label says only what this Router knows: a device or a peer that is known no more counts under
"unknown", so that however many come and go there are no more series than that.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import Metric

from relay.dicom.dimse import in_names
from relay.metrics.both_modes import audit_metrics, sign_in_metrics
from relay.metrics.process import process_metrics
from relay.router import metrics
from relay.router.counts import UNKNOWN, Line
from relay.router.live import Side
from relay.router.node import Network, Node
from relay.router.queue.metrics import families
from relay.router.queue.snapshot import figures
from relay.router.queue.state import Queue
from relay.tunnel.totals import Totals

_DIRECTIONS = {Side.CALLER: "out", Side.CALLEE: "in"}
_ENDS = {Side.CALLER: "near", Side.CALLEE: "far"}


async def collect(queue: Queue) -> Iterable[Metric]:
    """Everything that a Router's GET /metrics shows."""
    node = queue.node
    return [
        *process_metrics("router", node.turning),
        *_associations(node),
        *_tunnel(node.network.allowance.totals if node.network is not None else Totals()),
        *_signalling(node.network),
        *_stores(node.network),
        *_services(node),
        *sign_in_metrics(node.counts.sign_ins),
        *audit_metrics(
            node.audit.statistics() if node.audit is not None else None,
            node.audit_sender.statistics() if node.audit_sender is not None else None,
        ),
        *families(await figures(queue)),
    ]


class _Names:
    """What a line's labels say: names of hospitals and titles of devices that are known now."""

    def __init__(self, node: Node) -> None:
        self._hospitals = {"": "", node.identity.fingerprint: node.ae_title}
        self._devices = {device.ae_title for device in node.devices} | {node.ae_title}
        if node.network is not None:
            for peer in node.network.peers:
                self._hospitals[peer.fingerprint] = peer.name or peer.fingerprint
            self._hospitals[node.identity.fingerprint] = node.network.membership.name

    def of(self, line: Line) -> tuple[str, ...]:
        return (
            _DIRECTIONS[line.side],
            line.work.value,
            self._hospitals.get(line.peer, UNKNOWN),
            line.device if line.device in self._devices else UNKNOWN,
        )


def _summed(values: Iterable[tuple[tuple[str, ...], float]]) -> Mapping[tuple[str, ...], float]:
    total: dict[tuple[str, ...], float] = {}
    for labels, value in values:
        total[labels] = total.get(labels, 0.0) + value
    return total


def _associations(node: Node) -> Iterator[Metric]:
    names, counts = _Names(node), node.counts
    live = Counter(names.of(Line.of(entry)) for entry in node.live)
    yield metrics.LIVE.of(live)
    yield metrics.MAXIMUM.only(node.live.maximum)
    yield metrics.ENDED.of(
        _summed(
            ((*names.of(line), outcome, reason), count)
            for (line, outcome, reason), count in counts.ended.items()
        )
    )
    yield metrics.CARRIED.of(
        _summed(
            ((*names.of(line), way), size)
            for line, sizes in counts.carried().items()
            for way, size in zip(("out", "in"), sizes, strict=True)
        )
    )
    commands = in_names(counts.commands)
    yield metrics.MESSAGES.of({(name,): count for name, count in commands.items()})
    yield metrics.STORES.durations({(_ENDS[side],): took for side, took in counts.stores.items()})


def _tunnel(totals: Totals) -> Iterator[Metric]:
    written, read = totals.ways()
    ways = {("sent",): written, ("received",): read}
    yield metrics.SESSIONS.only(totals.live)
    ended = {(reason.name.lower(),): count for reason, count in totals.ended.items()}
    yield metrics.SESSIONS_ENDED.of(ended)
    yield metrics.CHUNKS.of({way: of.chunks for way, of in ways.items()})
    yield metrics.CHUNK_BYTES.of({way: of.sealed_bytes for way, of in ways.items()})
    yield metrics.IN_LINE.of({way: of.in_line for way, of in ways.items()})
    yield metrics.RETRIES.of({way: of.retries for way, of in ways.items()})
    yield metrics.RESUMES.only(totals.resumes)
    yield metrics.UNACKNOWLEDGED.only(totals.unacknowledged_bytes)


def _signalling(network: Network | None) -> Iterator[Metric]:
    yield metrics.ENROLLED.only(network is not None)
    statistics = network.client.statistics() if network is not None else None
    yield metrics.CONNECTED.only(statistics is not None and statistics.connected)
    yield metrics.CONNECTIONS.only(statistics.connections if statistics is not None else 0)
    yield metrics.HEARD.only(statistics.messages if statistics is not None else 0)
    trip = statistics.round_trip if statistics is not None else None
    offset = network.client.clock_offset if network is not None else None
    yield metrics.ROUND_TRIP.of({} if trip is None else {(): trip})
    yield metrics.CLOCK.of({} if offset is None else {(): offset})


def _stores(network: Network | None) -> Iterator[Metric]:
    if network is None:
        return
    statistics = network.objects.statistics()
    yield metrics.REQUESTS.of(
        {
            ("PUT",): statistics.puts,
            ("GET",): statistics.gets,
            ("DELETE",): statistics.deletes,
        }
    )
    yield metrics.FAILURES.only(statistics.failures)
    yield metrics.STORED.of({("sent",): statistics.bytes_put, ("received",): statistics.bytes_got})
    yield metrics.FAILING.only(len(statistics.failing))


def _services(node: Node) -> Iterator[Metric]:
    counts = node.counts
    yield metrics.QUERIES.of({(outcome,): count for outcome, count in counts.queries.items()})
    yield metrics.QUERY_SECONDS.durations({(): counts.query_seconds})
    yield metrics.SOURCES.of(counts.source_failures)
    yield metrics.DICOMWEB.of(counts.requests)
    yield metrics.DICOMWEB_SECONDS.durations(
        {(resource,): took for resource, took in counts.request_seconds.items()}
    )
