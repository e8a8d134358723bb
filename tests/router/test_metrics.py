"""The Router's rows."""

from relay.metrics.described import Type
from relay.router.metrics import METRICS


def test_names_are_one_of_a_kind_and_carry_their_units() -> None:
    names = [row.name for row in METRICS]
    assert len(set(names)) == len(names)
    for row in METRICS:
        assert row.name.startswith(("relay_", "process_"))
        assert row.name.endswith("_total") is (row.type is Type.COUNTER)
        assert row.words.endswith(".")


def test_labels_are_names_that_this_router_knows_and_words_of_its_own() -> None:
    labels = {label for row in METRICS for label in row.labels}
    assert labels == {
        *("mode", "version", "python", "outcome", "reason", "way", "kind", "state"),
        *("direction", "work", "hospital", "device", "destination"),
        *("command", "end", "method", "resource", "status"),
    }


def test_durations_are_histograms_of_seconds() -> None:
    for row in METRICS:
        assert row.name.endswith("_duration_seconds") is (row.type is Type.HISTOGRAM)
