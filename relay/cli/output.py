"""What commands print: tables for people, JSON for scripts; nothing from a wire comes out raw."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import click
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from relay.log import escape
from relay.providers import Finding

# A terminal says how wide it is. A file or a pipe does not, and rows are not to be cut there: no
# row is as long as this.
_WIDTH_OFF_A_TERMINAL = 10_000

# Between columns.
_GAP = 2


def console() -> Console:
    """A console on stdout, as it is now (a test may have put another in its place)."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OFF_A_TERMINAL)


def say(text: str) -> None:
    """One line."""
    click.echo(escape(text))


def print_json(value: Any) -> None:
    """`value` as indented JSON, ASCII only."""
    click.echo(json.dumps(value, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table, or the line `empty` if there are no rows.

    A terminal that is too narrow gets its cells wrapped between words. Where not even the longest
    words have room beside each other, each row is written below another, with its columns' names.
    """
    heads = [Text(escape(name), style="bold") for name in columns]
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        say(empty)
        return
    out = console()
    widths = _widths(out, [heads, *cells])
    if widths is None:
        for number, row in enumerate(cells):
            if number:
                out.print()
            _print_below(out, list(zip(heads, row, strict=True)))
        return
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for head, width in zip(heads, widths, strict=True):
        table.add_column(head, width=width)
    for row in cells:
        table.add_row(*row)
    out.print(table)


def _widths(out: Console, rows: Sequence[Sequence[Text]]) -> list[int] | None:
    """How wide each column is to be on `out`; None where no word may be as long as it is."""
    measures = [[Measurement.get(out, out.options, cell) for cell in row] for row in rows]
    columns = list(zip(*measures, strict=True))
    widths = [max(measure.maximum for measure in column) for column in columns]
    least = [max(measure.minimum for measure in column) for column in columns]
    while (excess := sum(widths) + _GAP * (len(widths) - 1) - out.width) > 0:
        # Who has most to give up gives up first, until another has as much.
        spare = [width - minimum for width, minimum in zip(widths, least, strict=True)]
        widest = spare.index(max(spare))
        if spare[widest] == 0:
            return None
        others = max((given for at, given in enumerate(spare) if at != widest), default=0)
        widths[widest] -= min(excess, max(1, spare[widest] - others))
    return widths


def print_facts(rows: Iterable[tuple[str, str]]) -> None:
    """A name and a value on each line, the values below each other."""
    _print_below(
        console(), [(Text(escape(name), style="bold"), Text(escape(value))) for name, value in rows]
    )


def _print_below(out: Console, rows: Sequence[tuple[Text, Text]]) -> None:
    width = max((name.cell_len for name, _ in rows), default=0)
    for name, value in rows:
        padded = name.copy()
        padded.pad_right(width + _GAP - name.cell_len)
        _print_hanging(out, padded, value)


def _print_hanging(out: Console, head: Text, value: Text) -> None:
    """`value` behind `head`, and what has no room on the line below its beginning.

    A word that is longer than a line is left to the terminal, so that it can be copied whole.
    """
    room = out.width - head.cell_len
    words = max(map(cell_len, value.plain.split()), default=0)
    lines = [value] if words > room else list(value.wrap(out, room)) or [value]
    for number, line in enumerate(lines):
        line.rstrip()
        before = head if number == 0 else Text(" " * head.cell_len)
        out.print(Text.assemble(before, line), soft_wrap=True)


def _cell(value: object) -> Text:
    if value is None or value == "":
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, (list, tuple, set, frozenset)):
        return Text(escape(", ".join(map(str, value))) or "-")
    return Text(escape(str(value)))


def print_findings(findings: Iterable[Finding]) -> bool:
    """Each finding on a line with what to do below it; whether all were in order."""
    fine = True
    out = console()
    for finding in findings:
        mark = Text("ok   ", style="green") if finding.ok else Text("FAIL ", style="bold red")
        _print_hanging(out, mark, Text(escape(finding.what)))
        if finding.advice:
            _print_hanging(out, Text("     "), Text(escape(finding.advice)))
        fine = fine and finding.ok
    return fine


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def objects(count: int) -> str:
    """So many objects, in words."""
    return f"{count} object{'' if count == 1 else 's'}"


def local_time(seconds: float) -> str:
    """Unix seconds as this machine's people read them."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M %Z")


def quoted(segment: str) -> str:
    """`segment` for a URL's path: an AE title may hold a slash, a question mark or spaces."""
    return quote(segment, safe="")
