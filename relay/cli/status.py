"""`relay status`: what the running process says of itself."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import click

from relay.cli.context import Command, Invocation, json_option
from relay.cli.control import Control
from relay.cli.output import local_time, print_facts, print_json, size
from relay.config import RouterConfig

# Of the calls that were refused; `relay doctor` has more of them, and says which causes stand.
MOST_REFUSED = 3

# What is a number of bytes.
_BYTES = frozenset({"moved", "stored", "space", "bytes_put", "bytes_got"})


@click.command(cls=Command)
@json_option
@click.pass_obj
def status(invocation: Invocation, as_json: bool) -> None:
    """Show how the running Bridge or Router is doing."""
    config = invocation.load()
    process = Control(config, invocation.file)
    answer = process.get("/v1/status")
    if as_json:
        print_json(answer)
        return
    rows = list(_rows("", _for_people(answer)))
    if isinstance(config, RouterConfig):
        rows += _refused(process.get("/v1/refusals"))
    print_facts(rows)


def _for_people(answer: dict[str, Any]) -> dict[str, Any]:
    """Unix seconds as a time and the uptime, the clocks' difference in tenths of a second; the
    queue and DICOMweb in one line each, and each warning and title that is not published."""
    shown: dict[str, Any] = {}
    for name, value in answer.items():
        if name == "started" and value is not None:
            started = datetime.fromtimestamp(value).astimezone()
            up = datetime.now().astimezone() - started
            shown[name] = started.isoformat(timespec="seconds")
            shown["uptime"] = str(timedelta(seconds=int(up.total_seconds())))
        elif name == "clock_offset" and value is not None:
            shown[name] = f"{value:.1f} s"
        elif name == "dicomweb":
            shown["DICOMweb"] = _dicomweb(value)
        elif name == "queue":
            shown[name] = _queue(value)
            if value["limit"] is not None:
                shown["bandwidth"] = f"{value['limit'] * 8 / 1e6:g} Mbit/s at most, now"
        elif name == "warnings":
            shown |= _numbered("warning", value)
        elif name == "refusals":  # by the Bridge, of AE titles
            shown |= _numbered("not published", value)
        else:
            shown[name] = value
    return shown


def _numbered(name: str, lines: Iterable[str]) -> dict[str, str]:
    return {f"{name} {number}": words for number, words in enumerate(lines, start=1)}


def _refused(refusals: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The last causes for which calls and Move Destinations were refused: GET /v1/refusals."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for row in refusals:
        key = row["calling"], row["called"], row["destination"], row["why"]
        groups.setdefault(key, []).append(row["time"])
    if not groups:
        return [("refused calls", "none that stands")]
    lines = []
    for (calling, called, destination, why), times in groups.items():
        asked = f"asked {called} to move to {destination}" if destination else f"called {called}"
        often = f" {len(times)} times" if len(times) > 1 else ""
        lines.append(f"{local_time(max(times))}, {calling} {asked}{often}: {why}")
    return list(_numbered("refused call", lines[:MOST_REFUSED]).items())


def _queue(queue: dict[str, Any]) -> str:
    words = [f"{queue['waiting']} waiting"]
    if queue["oldest"] is not None:
        words[0] += f" since {local_time(queue['oldest'])}"
    words += [f"{queue[state]} {state}" for state in ("held", "failed") if queue[state]]
    if queue["bytes"]:
        words.append(size(queue["bytes"]))
    if queue["paused"]:
        words.append(f"paused: {' '.join(queue['paused'])}")
    if queue["refusing"]:
        words.append(f"no more accepted: {queue['refusing']}")
    return ", ".join(words)


def _dicomweb(web: dict[str, Any] | None) -> str:
    if web is None:
        return "off"
    words = [*web["urls"], f"{web['tokens']} token{'' if web['tokens'] == 1 else 's'}"]
    if web["open"]:
        words.append("open to this machine without one")
    if web["origins"]:
        words.append(f"for pages of {' '.join(web['origins'])}")
    return ", ".join(words)


def _rows(prefix: str, answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values for people: nested names joined, lists counted out."""
    rows: list[tuple[str, str]] = []
    for name, value in answer.items():
        words = prefix + name.replace("_", " ")
        if isinstance(value, dict):
            rows += _rows(f"{words}: ", value)
        elif name in _BYTES and value is not None:
            rows.append((words, size(value)))
        elif isinstance(value, bool):
            rows.append((words, "yes" if value else "no"))
        elif isinstance(value, list):
            rows.append((words, ", ".join(map(_item, value)) or "-"))
        else:
            rows.append((words, "-" if value is None or value == "" else str(value)))
    return rows


def _item(value: Any) -> str:
    return " ".join(map(str, value.values())) if isinstance(value, dict) else str(value)
