"""The alert rules and the dashboard keep to the metrics that there are, and to PromQL."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from relay.bridge import metrics as bridge
from relay.cli import main
from relay.metrics.described import Described, Type
from relay.router import metrics as router

ROOT = Path(__file__).parent.parent
ALERTS = ROOT / "docs/alerts.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "docs/grafana-dashboard.json").read_text())
ROWS = {row.name: row for row in (*router.METRICS, *bridge.METRICS)}

# Debian's package prometheus has it; scripts/test installs it.
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here")

DEADLINE = 60


def alerts() -> list[dict[str, str]]:
    """Each rule's lines, as far as this test needs them: there is no parser of YAML here."""
    found = []
    for text in re.split(r"(?m)^      - alert: ", ALERTS.read_text())[1:]:
        name, _, rest = text.partition("\n")
        expression = rest.partition("expr:")[2].partition("\n        for:")[0]
        found.append(
            {
                "alert": name,
                "text": rest,
                "expr": expression.partition("\n        labels:")[0].removeprefix(" >-").strip(),
            }
        )
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of the dashboard and where it is."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:relay|process)_[a-z_]+", expression))


def row_of(name: str) -> Described:
    """The row that a series is of: a histogram has three."""
    for ending in ("_bucket", "_sum", "_count"):
        base = ROWS.get(name.removesuffix(ending))
        if name.endswith(ending) and base is not None and base.type is Type.HISTOGRAM:
            return base
    return ROWS[name]


def check_labels(expression: str) -> None:
    for name, selector in re.findall(r"\b((?:relay|process)_[a-z_]+){([^}]*)}", expression):
        labels = set(re.findall(r"(\w+)\s*[=!]", selector)) - {"instance", "job"}
        assert labels <= set(row_of(name).labels), (name, labels)


def check_rules(rules: list[tuple[str, str]], folder: Path) -> None:
    """Have promtool parse these expressions, as recording rules."""
    lines = ["groups:", "- name: checked", "  rules:"]
    for number, (_, expression) in enumerate(rules):
        lines += [f"  - record: checked:{number}", f"    expr: {json.dumps(expression)}"]
    path = folder / "rules.yml"
    path.write_text("\n".join(lines) + "\n")
    _promtool("check", "rules", str(path))


def _promtool(*arguments: str) -> None:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- alerts ---------------------------------------------------------------------------------------


def test_alerts_are_of_metrics_that_there_are_with_labels_that_they_have() -> None:
    assert len(alerts()) > 20
    for rule in alerts():
        names = names_in(rule["expr"])
        assert names or rule["alert"] == "RelayDown", rule["alert"]
        for name in names:
            row_of(name)
        check_labels(rule["expr"])


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    for rule in alerts():
        text = rule["text"]
        assert re.search(r"severity: (warning|critical)", text), rule["alert"]
        assert re.search(r'summary: "[^"]{20,}"', text), rule["alert"]
        description = text.partition("description:")[2].partition("\n\n")[0]
        assert len(description) > 40, rule["alert"]


def test_alerts_name_commands_that_there_are() -> None:
    assert isinstance(main, click.Group)
    context = click.Context(main)
    for words in re.findall(r"`relay ([a-z ]+)", ALERTS.read_text()):
        command: click.Command | None = main
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            command = command.get_command(context, word)
            assert command is not None, words


@promtool
def test_promtool_takes_the_alerts(tmp_path: Path) -> None:
    _promtool("check", "rules", str(ALERTS))


@promtool
def test_alerts_fire_when_they_should_and_not_else(tmp_path: Path) -> None:
    """Prometheus' own unit tests of rules: series, and what stands after so long."""
    series = {
        'up{job="relay", instance="north"}': "0x60",
        'relay_signalling_connected{instance="north"}': "1 0x60",
        'relay_enrolled{instance="north"}': "1x60",
        'relay_signalling_connected{instance="new"}': "0x60",
        'relay_enrolled{instance="new"}': "0x60",
        'relay_queue_oldest_seconds{instance="north", destination="PACS"}': "0+60x120",
        'relay_warnings{instance="north", kind="spool_full"}': "0 1x60",
        'relay_bridge_provider_up{instance="bridge", provider="s3"}': "0x60",
        'relay_bridge_provider_up{instance="bridge", provider="disk"}': "1x60",
        'relay_associations_total{instance="north", device="unknown", direction="out",'
        ' outcome="rejected"}': "0+1x120",
        'relay_associations_total{instance="north", device="CT", direction="out",'
        ' outcome="rejected"}': "0+1x120",
        'relay_associations_total{instance="north", device="CT", direction="out",'
        ' outcome="released"}': "0+1x120",
    }
    fires = {
        ("RelayDown", "10m"): [{"severity": "critical", "job": "relay", "instance": "north"}],
        ("RelayRouterDisconnected", "4m"): [],
        ("RelayRouterDisconnected", "10m"): [{"severity": "critical", "instance": "north"}],
        ("RelayQueueWaits", "60m"): [],
        ("RelayQueueWaits", "70m"): [
            {"severity": "warning", "instance": "north", "destination": "PACS"}
        ],
        ("RelaySpoolStops", "2m"): [
            {"severity": "critical", "instance": "north", "kind": "spool_full"}
        ],
        ("RelayNoObjectStore", "30m"): [],
        ("RelayObjectStoreDown", "30m"): [
            {"severity": "warning", "instance": "bridge", "provider": "s3"}
        ],
        ("RelayCallsRejected", "40m"): [
            {"severity": "warning", "instance": "north", "device": "unknown"}
        ],
    }
    # What is told is compared word for word, too; the conditions are what this is about.
    bare = re.sub(
        r"(?ms)^        annotations:\n.*?(?=^      - alert:|^  - name:|\Z)", "", ALERTS.read_text()
    )
    (tmp_path / "alerts.yml").write_text(bare)
    document = {
        "rule_files": [str(tmp_path / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in series.items()],
                "promql_expr_test": [],
                "alert_rule_test": [
                    {
                        "eval_time": after,
                        "alertname": name,
                        "exp_alerts": [{"exp_labels": labels} for labels in expected],
                    }
                    for (name, after), expected in fires.items()
                ],
            }
        ],
    }
    path = tmp_path / "tests.yml"
    path.write_text(json.dumps(document))  # JSON is YAML
    _promtool("test", "rules", str(path))


# --- the dashboard --------------------------------------------------------------------------------


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    for title, expression in expressions():
        names = names_in(expression)
        assert names, title
        for name in names:
            row_of(name)
        check_labels(expression)


def test_what_is_grouped_by_is_a_label_of_what_is_shown() -> None:
    for title, expression in expressions():
        labels = {"instance", "job", "le"}.union(*(row_of(n).labels for n in names_in(expression)))
        for by in re.findall(r"by \(([^)]*)\)", expression):
            assert {label.strip() for label in by.split(",")} <= labels, title


def test_panels_lie_beside_each_other_and_have_their_own_number() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_each_variable_is_used_and_each_that_is_used_is_there() -> None:
    text = json.dumps(DASHBOARD["panels"])
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval"}
    assert used == variables
    assert "hospital" in variables


@promtool
def test_promtool_takes_the_dashboard_s_expressions(tmp_path: Path) -> None:
    rules = [
        (title, re.sub(r"\$(router|bridge|hospital)", ".*", text).replace("$__rate_interval", "5m"))
        for title, text in expressions()
    ]
    check_rules(rules, tmp_path)


@promtool
def test_promtool_says_no_to_what_is_no_expression(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_rules([("wrong", "sum by (relay")], tmp_path)
