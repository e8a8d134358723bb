"""Durations in buckets."""

import pytest

from relay.metrics.histogram import USUAL, Histogram


def test_a_duration_counts_in_each_bucket_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 1.0, 7.0):
        histogram.observe(seconds)
    assert histogram.cumulated() == [("0.1", 2), ("1.0", 4), ("+Inf", 5)]
    assert histogram.count == 5
    assert histogram.sum == pytest.approx(8.65)


def test_an_empty_one_has_all_its_buckets() -> None:
    assert [count for _, count in Histogram().cumulated()] == [0] * (len(USUAL) + 1)
