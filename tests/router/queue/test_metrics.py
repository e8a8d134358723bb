"""What a scrape shows, read again by a parser of Prometheus' own."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from relay.metrics.described import Type, render
from relay.router.queue.metrics import METRICS, DestinationFigures, Snapshot, families

FULL = Snapshot(
    destinations=[
        DestinationFigures(
            destination="PACS", items={"waiting": 12, "failed": 3}, bytes=4096, oldest=61.5
        ),
        DestinationFigures(destination="CT", items={"waiting": 0}),
    ],
    accepted=100,
    delivered=85,
    failed=3,
    duplicates=2,
    commits=9,
    committed=31,
    spool_bytes=8192,
    spool_free=2**40,
    warnings={"failed": 1, "waiting": 0},
    webhook_failures=7,
)

Values = dict[tuple[str, tuple[str, ...]], float]


def scraped(text: str) -> Values:
    """Each sample by its name and the values of its labels."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_all_figures_of_a_snapshot_are_there() -> None:
    assert scraped(render(families(FULL)).decode()) == {
        ("relay_queue_items", ("PACS", "waiting")): 12,
        ("relay_queue_items", ("PACS", "failed")): 3,
        ("relay_queue_items", ("CT", "waiting")): 0,
        ("relay_queue_bytes", ("PACS",)): 4096,
        ("relay_queue_bytes", ("CT",)): 0,
        ("relay_queue_oldest_seconds", ("PACS",)): 61.5,
        ("relay_queue_oldest_seconds", ("CT",)): 0,
        ("relay_queue_accepted_total", ()): 100,
        ("relay_queue_delivered_total", ()): 85,
        ("relay_queue_failed_total", ()): 3,
        ("relay_queue_duplicates_total", ()): 2,
        ("relay_spool_commits_total", ()): 9,
        ("relay_spool_committed_total", ()): 31,
        ("relay_spool_bytes", ()): 8192,
        ("relay_spool_free_bytes", ()): 2**40,
        ("relay_warnings", ("failed",)): 1,
        ("relay_warnings", ("waiting",)): 0,
        ("relay_webhook_failures_total", ()): 7,
    }


def test_each_metric_has_its_type_labels_and_words_and_there_is_no_other() -> None:
    """No figures of the process or of Python, which the library has by itself."""
    text = render(families(FULL)).decode()
    shown = {family.name: family for family in text_string_to_metric_families(text)}
    described = {metric.name.removesuffix("_total"): metric for metric in METRICS}
    assert shown.keys() == described.keys()
    for name, metric in described.items():
        family = shown[name]
        assert (family.type, family.documentation) == (metric.type.value, metric.words)
        assert metric.name.endswith("_total") is (metric.type is Type.COUNTER)
        assert {tuple(sample.labels) for sample in family.samples} == {metric.labels}


def test_a_queue_with_nothing_in_it_has_its_totals() -> None:
    values = scraped(render(families(Snapshot())).decode())
    assert values == {
        (name, ()): 0
        for name in (
            *("relay_queue_accepted_total", "relay_queue_delivered_total"),
            *("relay_queue_failed_total", "relay_queue_duplicates_total"),
            *("relay_spool_commits_total", "relay_spool_committed_total"),
            *("relay_spool_bytes", "relay_spool_free_bytes", "relay_webhook_failures_total"),
        )
    }


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_no_title_can_write_a_line_of_its_own(title: str) -> None:
    snapshot = Snapshot(destinations=[DestinationFigures(destination=title, bytes=5)])
    lines = render(families(snapshot)).decode().split("\n")
    assert len([line for line in lines if line.startswith("relay_queue_bytes")]) == 1
    assert len(lines) == len(render(families(Snapshot())).decode().split("\n")) + 2
