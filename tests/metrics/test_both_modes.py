"""Sign-ins and the audit, as both modes show them."""

import attrs

from relay.metrics.both_modes import METRICS, audit_metrics, sign_in_metrics
from relay.metrics.described import Type


@attrs.frozen
class Recorded:
    recorded: int = 9
    waiting: int = 1
    failures: int = 2
    lost: int = 3


@attrs.frozen
class Sent:
    connected: bool = True
    behind: int = 4
    lag: float = 1.5
    failures: int = 5


def test_each_figure_is_in_its_row() -> None:
    shown = [*sign_in_metrics({"held": 2}), *audit_metrics(Recorded(), Sent())]
    assert [metric.name for metric in shown] == [row.name.removesuffix("_total") for row in METRICS]
    assert [metric.samples[0].value for metric in shown] == [2, 9, 1, 2, 3, 1, 4, 1.5, 5]
    assert {row.name.endswith("_total") for row in METRICS if row.type is Type.COUNTER} == {True}


def test_without_a_collector_nothing_is_said_of_one() -> None:
    assert list(audit_metrics(None, None)) == []
    assert len(list(audit_metrics(Recorded(), None))) == 4
