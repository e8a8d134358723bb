"""`relay apply`: all that people set up from a file, the same however often it is done."""

import json
import tomllib
from pathlib import Path
from typing import Any

import click

from relay.cli.context import Command, Failure, Invocation, json_option
from relay.cli.output import print_json, say
from relay.cli.peer import resolve
from relay.cli.router import control
from relay.errors import Refused

# Some hundred devices with all their grants, written out, are a tenth of this.
MAXIMUM_FILE = 1024 * 1024


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--prune", is_flag=True, help="Remove what lists in FILE do not name.")
@json_option
@click.pass_obj
def apply(invocation: Invocation, file: Path, prune: bool, as_json: bool) -> None:
    """Bring devices, aliases, destinations and grants to what FILE says, and print the changes.

    TOML, or JSON by its name: [[devices]] with ae_title, host, port, services …; [[aliases]] with
    local and published; [[destinations]] with called, calling, mode …; [[grants]] with peer (a name
    or fingerprint), ae_title, services, calling.
    """
    document = _read(file)
    process = control(invocation)
    for index, grant in enumerate(document.get("grants", [])):
        if isinstance(grant, dict) and isinstance(grant.get("peer"), str):
            try:
                grant["peer"] = resolve(process, grant["peer"])["fingerprint"]
            except Refused as error:
                raise Failure(f"{file}: grants[{index}]: {error}", 1) from error
    if prune:
        document["prune"] = True
    try:
        answer = process.post("/v1/apply", document)
    except Refused as error:
        raise Failure(f"{file}: {error}", 1) from error
    changes, refusals = answer["changes"], answer["refusals"]
    if as_json:
        print_json(changes)
    else:
        for change in changes or ["nothing to change"]:
            say(change)
    if refusals:
        raise Failure(f"not published: {'; '.join(refusals)}", 1)


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            source = opened.read(MAXIMUM_FILE + 1)
        if len(source) > MAXIMUM_FILE:
            raise Failure(f"{file}: larger than {MAXIMUM_FILE} bytes", 2)
        text = source.decode()
        document = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise Failure(f"{file}: cannot be read: {error.strerror}", 2) from error
    except (ValueError, RecursionError) as error:
        raise Failure(f"{file}: {error}", 2) from error
    if not isinstance(document, dict) or not isinstance(document.get("grants", []), list):
        raise Failure(f"{file}: expected lists named devices and grants", 2)
    return document
