"""Metrics as rows: name, type, words and labels, of which the scrape and docs/metrics.md are made.

A registry of our own for each scrape: nothing of it is kept between two, and no library's figures
come with it. Names carry their units (https://prometheus.io/docs/practices/naming/).
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TypeVar

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from relay.metrics.histogram import Histogram

# The values of a metric's labels, in their order.
L = TypeVar("L", bound=tuple[str, ...])


class Type(Enum):
    """A counter only grows, until the process starts again; a gauge is what is now; a histogram
    counts durations by how long they were."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@attrs.frozen(slots=True)
class Described:
    """A metric as its scrape and the documentation show it."""

    name: str
    type: Type
    words: str
    labels: tuple[str, ...] = ()

    def of(self, values: Mapping[L, float]) -> Metric:
        """Its samples: a value for each of the labels' values."""
        kind = CounterMetricFamily if self.type is Type.COUNTER else GaugeMetricFamily
        family = kind(self.name, self.words, labels=self.labels)
        for labels, value in values.items():
            family.add_metric(labels, value)
        return family

    def only(self, value: float) -> Metric:
        """Its one sample, for a metric without labels."""
        return self.of({(): value})

    def durations(self, values: Mapping[L, Histogram]) -> Metric:
        """Its samples, for a histogram."""
        family = HistogramMetricFamily(self.name, self.words, labels=self.labels)
        for labels, histogram in values.items():
            family.add_metric(labels, histogram.cumulated(), histogram.sum)
        return family


def render(metrics: Iterable[Metric]) -> bytes:
    """The metrics in Prometheus' text format, as CONTENT_TYPE_LATEST names it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(tuple(metrics)))
    return generate_latest(registry)


@attrs.frozen(slots=True, eq=False)
class _Given(Collector):
    metrics: tuple[Metric, ...]

    def collect(self) -> Iterable[Metric]:
        return self.metrics
