"""The documents keep up with the program: every key, every command, every local link."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest

from relay import config
from relay.bridge import metrics as bridge_metrics
from relay.cli import main
from relay.config import Mode
from relay.metrics import both_modes, process
from relay.metrics.described import Described
from relay.router import metrics as router_metrics
from relay.router.queue.warnings import Kind

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs/configuration.md").read_text()
BOTH_MODES = (*process.METRICS, *both_modes.METRICS)
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]


def commands(group: click.Group, prefix: str = "relay") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}"


@pytest.mark.parametrize("mode", Mode)
def test_every_key_is_in_the_reference_with_its_words(mode: Mode) -> None:
    section = REFERENCE.split(f"### `[{mode.value}]`")[1].split("###")[0]
    for name, key in config.keys(mode).items():
        default = "required" if key.required else f"`{key.default}`" if key.default else "none"
        assert f"| `{name}` | {default} | {key.words} |" in section, name


def test_every_command_is_in_the_reference() -> None:
    assert isinstance(main, click.Group)
    found = list(commands(main))
    assert "relay device add" in found
    for command in found:
        assert f"`{command}" in REFERENCE, command


METRICS = (ROOT / "docs/metrics.md").read_text()


@pytest.mark.parametrize(
    ("section", "rows"),
    [
        ("Both modes", BOTH_MODES),
        ("A Router", [row for row in router_metrics.METRICS if row not in BOTH_MODES]),
        ("A Bridge", [row for row in bridge_metrics.METRICS if row not in BOTH_MODES]),
    ],
)
def test_every_metric_is_documented_where_it_belongs_and_no_other(
    section: str, rows: Sequence[Described]
) -> None:
    text = METRICS.split(f"\n## {section}\n")[1].split("\n## ")[0]
    for metric in rows:
        labels = "".join(f" `{label}`," for label in metric.labels).rstrip(",")
        row = f"| `{metric.name}` | {metric.type.value} |{labels} | {metric.words} |"
        assert row in text, metric.name
    assert re.findall(r"(?m)^\| `(\w+)` \| (?:counter|gauge|histogram) ", text) == [
        metric.name for metric in rows
    ]


def test_no_metric_is_named_that_there_is_not() -> None:
    known = {row.name for row in (*router_metrics.METRICS, *bridge_metrics.METRICS)}
    assert set(re.findall(r"\brelay_[a-z_]+", METRICS)) == {n for n in known if n[:6] == "relay_"}


def test_every_kind_of_warning_is_documented_and_no_other() -> None:
    section = (ROOT / "docs/metrics.md").read_text().split("## Warnings")[1].split("##")[0]
    assert re.findall(r"(?m)^\| `(\w+)` \|", section) == [kind.value for kind in Kind]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_local_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


def peers() -> tuple[list[list[str]], dict[str, str], set[str]]:
    """The table of peers: its rows, the tests by key, the keys of why a cell is empty."""
    section = (ROOT / "docs/conformance.md").read_text().split("## The table of peers")[1]
    lines = section.splitlines()
    table = [line.strip("| ").split("|") for line in lines if line.startswith("|")][2:]
    rows = [[cell.strip() for cell in row] for row in table]
    shown = dict(re.findall(r"^- (\w+): `([^`]+)`$", section, re.MULTILINE))
    return rows, shown, set(re.findall(r"^- (–\d): ", section, re.MULTILINE))


def test_each_cell_of_the_table_of_peers_has_its_test_or_its_reason() -> None:
    rows, shown, empty = peers()
    cells = {cell for row in rows for cell in row[1:]}
    assert all(len(row) == 7 for row in rows)
    assert cells == shown.keys() | empty
    for test in shown.values():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), test
