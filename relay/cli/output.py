"""What commands print: tables for people, JSON for scripts; nothing from a wire comes out raw."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.log import escape
from relay.providers import Finding

# A terminal says how wide it is. A file or a pipe does not, and rows are not to be cut there.
_WIDTH_OFF_A_TERMINAL = 400


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
    """A table, or the line `empty` if there are no rows."""
    table = Table(*map(escape, columns), box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    if table.row_count:
        console().print(table)
    else:
        say(empty)


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
        mark = Text("ok  ", style="green") if finding.ok else Text("FAIL", style="bold red")
        out.print(Text.assemble(mark, " ", escape(finding.what)))
        if finding.advice:
            out.print(Text("     " + escape(finding.advice)))
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
