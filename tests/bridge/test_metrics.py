"""The Bridge's rows."""

from relay.bridge.metrics import METRICS
from relay.metrics.described import Type


def test_names_are_one_of_a_kind_and_carry_their_units() -> None:
    names = [row.name for row in METRICS]
    assert len(set(names)) == len(names)
    for row in METRICS:
        assert row.name.startswith(("relay_", "process_"))
        assert row.name.endswith("_total") is (row.type is Type.COUNTER)
        assert row.words.endswith(".")


def test_no_label_names_a_person_or_a_hospital() -> None:
    labels = {label for row in METRICS for label in row.labels}
    assert labels == {
        *("mode", "version", "python", "state", "reason", "kind", "what", "method", "way"),
        *("provider", "outcome"),
    }
