"""`relay audit`: who moved, asked, changed or was refused what, on a Router or a Bridge."""

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import click

from relay.audit.codes import Kind
from relay.audit.operations import DEFAULT_LIMIT, MAXIMUM_LIMIT
from relay.cli.context import Failure, Group, Invocation, json_option
from relay.cli.control import Control
from relay.cli.output import print_json, print_table, say
from relay.errors import RelayError

_DATES = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"])


# A chain of years, read from a slow disk.
VERIFYING = 3600.0


@click.group(cls=Group)
def audit() -> None:
    """What has happened, as it is kept for those who must account for it."""


def _process(invocation: Invocation) -> Control:
    return Control(invocation.load(), invocation.file)


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `list` and `export` both take."""
    for option in (
        click.option("--until", type=_DATES, help="Before this day or time, of this machine."),
        click.option("--since", type=_DATES, help="From this day or time on."),
        click.option("--who", metavar="NAME", help="A person, or a Router's fingerprint."),
        click.option("--ae-title", metavar="AE_TITLE", help="A device that took part."),
        click.option("--kind", type=click.Choice([kind.word for kind in Kind])),
    ):
        command = option(command)
    return command


def _query(
    kind: str | None,
    ae_title: str | None,
    who: str | None,
    since: datetime | None,
    until: datetime | None,
) -> dict[str, str]:
    given = {
        "kind": kind,
        "ae_title": ae_title,
        "who": who,
        "since": str(since.timestamp()) if since is not None else None,
        "until": str(until.timestamp()) if until is not None else None,
    }
    return {name: value for name, value in given.items() if value is not None}


@audit.command("list")
@_filters
@click.option(
    "--limit",
    type=click.IntRange(1, MAXIMUM_LIMIT),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="So many entries.",
)
@click.option("--before", type=click.IntRange(1), help="Only those with a lower number.")
@json_option
@click.pass_obj
def audit_list(
    invocation: Invocation,
    kind: str | None,
    ae_title: str | None,
    who: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    before: int | None,
    as_json: bool,
) -> None:
    """Show entries, the latest first."""
    query = _query(kind, ae_title, who, since, until) | {"limit": str(limit)}
    if before is not None:
        query["before"] = str(before)
    answer = _process(invocation).get("/v1/audit", **query)
    if as_json:
        print_json(answer["entries"])
        return
    print_table(
        ("number", "time", "what", "outcome", "by"),
        ((e["number"], _time(e["at"]), e["words"], _outcome(e), _by(e)) for e in answer["entries"]),
        empty="nothing of that kind is in the audit",
    )
    if answer["before"] is not None:
        say(f"older ones: --before {answer['before']}")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _outcome(entry: dict[str, Any]) -> str:
    return f"{entry['outcome']}: {entry['why']}" if entry["why"] else str(entry["outcome"])


def _by(entry: dict[str, Any]) -> str:
    """The people in it, or else who asked."""
    people = [p["id"] for p in entry["participants"] if p["person"]]
    return ", ".join(people) or entry["requestor"] or ""


@audit.command("message")
@click.argument("number", type=click.IntRange(1))
@click.pass_obj
def audit_message(invocation: Invocation, number: int) -> None:
    """Print entry NUMBER as a DICOM Audit Message (PS3.15 A.5)."""
    stream = sys.stdout.buffer
    _process(invocation).copy(f"/v1/audit/{number}.xml", stream)
    stream.write(b"\n")


@audit.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@_filters
@click.pass_obj
def audit_export(
    invocation: Invocation,
    file: Path,
    kind: str | None,
    ae_title: str | None,
    who: str | None,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Write entries, the latest first, into FILE as CSV. It is not to be there yet."""
    process = _process(invocation)
    try:
        with file.open("xb") as target:
            process.copy("/v1/audit.csv", target, **_query(kind, ae_title, who, since, until))
    except FileExistsError:
        raise RelayError(f"{file} is there already: an export gets a new file") from None
    except OSError as error:
        raise RelayError(f"{file}: {error.strerror}") from error
    say(f"the audit is in {file}")


@audit.command("verify")
@click.option(
    "--noted",
    metavar="NUMBER:HASH",
    help="An entry as an earlier `verify` has printed it: it is to be the same still.",
)
@json_option
@click.pass_obj
def audit_verify(invocation: Invocation, noted: str | None, as_json: bool) -> None:
    """Check that no entry was changed or removed."""
    query = {"noted": noted} if noted else {}
    process = attrs.evolve(_process(invocation), timeout=VERIFYING)
    found = process.get("/v1/audit/verify", **query)
    if as_json:
        print_json(found)
    elif not found["fault"]:
        say(f"{found['entries']} entries, {found['first']} to {found['last']}, none was changed")
        say(f"note this elsewhere, for the next time: --noted {found['last']}:{found['head']}")
    if found["fault"]:
        raise Failure(
            f"the audit is not whole: {found['fault']}; what stands before it holds, and the"
            " collector or an earlier export may have the rest",
            1,
        )
