"""`relay directory`: all devices that this hospital may use, and how they fare."""

from collections.abc import Mapping
from typing import Any

import click

from relay.cli.context import Command, Failure, Invocation, json_option
from relay.cli.output import local_time, print_facts, print_json, print_table, say
from relay.cli.router import control
from relay.dicom.uids import TRANSFER_SYNTAXES


@click.command(cls=Command)
@click.argument("ae_title", required=False)
@json_option
@click.pass_obj
def directory(invocation: Invocation, ae_title: str | None, as_json: bool) -> None:
    """Show all devices that this hospital may use: those that others grant it, and its own that
    its federation asks. With an AE_TITLE: what is known of that one, with transfer syntaxes."""
    process = control(invocation)
    rows = process.get("/v1/directory")
    if ae_title is not None:
        _show_one(rows, ae_title, as_json)
        return
    usable = [row for row in rows if row["granted"] or (row["own"] and row["federation"])]
    if as_json:
        print_json(usable)
        return
    print_table(
        (
            *("AE title", "hospital", "federation asks", "state", "granted", "publishes"),
            *("last seen", "last error", "transfer syntaxes"),
        ),
        (
            (
                _title(row),
                row["hospital"],
                row["federation"],
                row["state"],
                row["granted"],
                row["services"],
                _time(row["last_seen"]),
                _error(row),
                len(row["transfer_syntaxes"]) or None,
            )
            for row in usable
        ),
        empty="nothing yet: `relay grant ask AE_TITLE --services query,retrieve` asks another"
        " hospital, `relay device add ... --federation` adds a device of this one",
    )
    others = sum(not row["own"] and not row["granted"] for row in rows)
    if others:
        say(f"{others} more of other hospitals, of which nothing is granted: `relay peer list`")
    if not process.get("/v1/status")["connected"]:
        say("no connection to the Bridge: the states are as last known")


def _show_one(rows: list[dict[str, Any]], ae_title: str, as_json: bool) -> None:
    """The row of the title by which this hospital, or else the network, knows the device."""
    named = [row for row in rows if row["local"] == ae_title]
    named += [row for row in rows if row["ae_title"] == ae_title]
    if not named:
        raise Failure(f"no device {ae_title!r}; `relay peer list` shows what others publish", 1)
    row = named[0]
    if as_json:
        print_json(row)
        return
    shown = {
        "AE title": row["local"] or "none here",
        "in the network": row["ae_title"],
        "hospital": row["hospital"],
        "federation asks": "yes" if row["federation"] else "no",
        "state": row["state"],
        "granted": ", ".join(row["granted"]) or "-",
        "publishes": ", ".join(row["services"]) or "-",
        "last seen": _time(row["last_seen"]) or "-",
        "last error": _error(row) or "-",
        "takes": ", ".join(map(_syntax, row["transfer_syntaxes"])) or "not known",
    }
    print_facts(shown.items())


def _title(row: Mapping[str, Any]) -> str:
    """By which it is called here."""
    if row["local"] is None:
        return f"{row['ae_title']} (no name here: `relay alias add`)"
    return str(row["local"])


def _time(seconds: float | None) -> str:
    return "" if seconds is None else local_time(seconds)


def _error(row: Mapping[str, Any]) -> str:
    if row["last_error"] is None:
        return ""
    return f"{row['last_error']} ({_time(row['last_error_at'])})"


def _syntax(uid: str) -> str:
    """A transfer syntax for people."""
    return TRANSFER_SYNTAXES.get(uid, uid)
