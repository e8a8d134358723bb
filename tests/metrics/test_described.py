"""Rows, and what a parser of Prometheus' own reads of them."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from relay.metrics.described import Described, Type, render
from relay.metrics.histogram import Histogram

COUNTER = Described("relay_things_total", Type.COUNTER, "Things.", ("kind",))
GAUGE = Described("relay_now", Type.GAUGE, "Now.")
HISTOGRAM = Described("relay_took_seconds", Type.HISTOGRAM, "Took.", ("end",))


def test_each_type_is_shown_as_it_is() -> None:
    took = Histogram((1.0,))
    took.observe(0.5)
    took.observe(2.0)
    text = render(
        [COUNTER.of({("a",): 3, ("b",): 0}), GAUGE.only(1.5), HISTOGRAM.durations({("x",): took})]
    ).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["relay_things"].type == "counter"
    assert families["relay_things"].documentation == "Things."
    assert [(s.labels["kind"], s.value) for s in families["relay_things"].samples] == [
        ("a", 3),
        ("b", 0),
    ]
    assert [sample.value for sample in families["relay_now"].samples] == [1.5]
    samples = {
        (s.name, s.labels.get("le")): s.value for s in families["relay_took_seconds"].samples
    }
    assert samples == {
        ("relay_took_seconds_bucket", "1.0"): 1,
        ("relay_took_seconds_bucket", "+Inf"): 2,
        ("relay_took_seconds_count", None): 2,
        ("relay_took_seconds_sum", None): 2.5,
    }


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_no_label_can_write_a_line_of_its_own(words: str) -> None:
    shown = render([COUNTER.of({(words,): 1})]).decode().split("\n")
    assert len(shown) == len(render([COUNTER.of({("a",): 1})]).decode().split("\n"))
