"""`relay status`: what the running process says of itself."""

from datetime import datetime, timedelta
from typing import Any

import click
from rich.text import Text

from relay.cli.context import Command, Invocation, json_option
from relay.cli.control import Control
from relay.cli.output import console, local_time, print_json, size
from relay.log import escape


@click.command(cls=Command)
@json_option
@click.pass_obj
def status(invocation: Invocation, as_json: bool) -> None:
    """Show how the running Bridge or Router is doing."""
    answer = Control(invocation.load(), invocation.file).get("/v1/status")
    if as_json:
        print_json(answer)
        return
    rows = list(_rows("", _for_people(answer)))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console().print(Text.assemble((f"{name:<{width}}", "bold"), "  ", escape(value)))


def _for_people(answer: dict[str, Any]) -> dict[str, Any]:
    """Unix seconds as a time and the uptime, the clocks' difference in tenths of a second; the
    queue and DICOMweb in one line each, and each warning."""
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
            for number, words in enumerate(value, start=1):
                shown[f"warning {number}"] = words
        else:
            shown[name] = value
    return shown


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
        elif isinstance(value, bool):
            rows.append((words, "yes" if value else "no"))
        elif isinstance(value, list):
            rows.append((words, ", ".join(map(_item, value)) or "-"))
        else:
            rows.append((words, "-" if value is None or value == "" else str(value)))
    return rows


def _item(value: Any) -> str:
    return " ".join(map(str, value.values())) if isinstance(value, dict) else str(value)
