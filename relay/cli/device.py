"""`relay device`: the DICOM devices of this hospital."""

import json
from pathlib import Path
from typing import Any, cast

import click

from relay.cli.context import Failure, Group, Invocation, json_option
from relay.cli.output import print_findings, print_json, print_table, quoted, say
from relay.cli.router import SERVICES, both_titles, control, listed, whom, words
from relay.providers import Finding
from relay.router.devices import HIGHEST_SPLIT, Device, MoveVia
from relay.router.entries import differences

# What other Routers are told of a device fits a tenth of this, as JSON too.
MAXIMUM_FILE = 1024 * 1024


@click.group(cls=Group)
def device() -> None:
    """The DICOM devices of this hospital."""


@device.command("add")
@click.argument("ae_title")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535), required=False)
@click.option(
    "--publish",
    "services",
    metavar="SERVICES",
    help=f"Publish it with these services, by commas: {SERVICES}. `none`: it calls out, and nobody"
    " sees it.",
)
@click.option(
    "--as",
    "published_as",
    metavar="AE_TITLE",
    help="The AE title by which the network knows it, where its own is taken there: PACS_NORTH.",
)
@click.option("--maximum-associations", type=int, help="How many it may have open at once.")
@click.option("--place-wait", type=float, help="Seconds for which a call waits for one of them.")
@click.option("--linger", type=float, help="Seconds for which an association to it is kept.")
@click.option("--answer-wait", type=float, help="Seconds to wait for a far association.")
@click.option("--resume-window", type=float, help="Seconds to wait for a lost tunnel.")
@click.option(
    "--any-address/--own-address",
    default=None,
    help="Let its name come from any address, or from its host's only.",
)
@click.option(
    "--user-identity/--no-user-identity",
    default=None,
    help="Let its user identity leave the hospital.",
)
@click.option("--tls/--no-tls", default=None, help="Call it over TLS.")
@click.option("--tls-name", metavar="NAME", help="The name in its certificate, if not its host.")
@click.option(
    "--move-via",
    type=click.Choice([via.value for via in MoveVia]),
    help="Who is the Move Destination that it knows: the device itself, or this Router.",
)
@click.option(
    "--present-as",
    metavar="AE_TITLE",
    help="The one calling AE title under which other hospitals call it; `none`: their own.",
)
@click.option(
    "--split",
    type=click.IntRange(1, HIGHEST_SPLIT),
    help="Over how many associations at once other hospitals' queues may deliver to it.",
)
@click.option(
    "--declares",
    metavar="FILE",
    help="What it takes, for other hospitals' queues, instead of a probe: JSON of SOP classes, each"
    " with a list of transfer syntaxes, or what `relay device test --json` says. `none`: probe it.",
)
@click.option(
    "--federation/--no-federation", default=None, help="Let this hospital's federation ask it."
)
@click.option(
    "--issuer",
    metavar="ISSUER",
    help="Issuer of Patient ID of all its patients; `none`: not one, or not known.",
)
@click.option(
    "--character-set",
    metavar="TERM",
    help="The Specific Character Set of the queries that it understands: 'ISO_IR 100', or several"
    " by backslash; `none`: the caller's own.",
)
@click.option(
    "--get-via-move/--no-get-via-move",
    default=None,
    help="Ask it by C-MOVE what a C-GET asks of it, since it has no C-GET.",
)
@click.pass_obj
def device_add(
    invocation: Invocation,
    /,
    ae_title: str,
    host: str,
    port: int | None,
    services: str | None,
    any_address: bool | None,
    present_as: str | None,
    declares: str | None,
    issuer: str | None,
    character_set: str | None,
    **settings: Any,
) -> None:
    """Add the device AE_TITLE at HOST (PORT 104 unless given), or change it: what is not given
    stays as it was, or as usual."""
    given: dict[str, Any] = settings | {
        "ae_title": ae_title,
        "host": host,
        "port": port,
        "services": _published(services),
        "check_address": None if any_address is None else not any_address,
        "present_as": "" if present_as == "none" else present_as,
        "issuer": "" if issuer == "none" else issuer,
        "character_set": "" if character_set == "none" else character_set,
        "declares": _declared(declares),
    }
    process = control(invocation)
    known = [d for d in process.get("/v1/devices") if d["ae_title"] == ae_title.strip()]
    before = {name: value for d in known for name, value in d.items() if name != "refusal"}
    entry = before | {name: value for name, value in given.items() if value is not None}
    answer = process.post("/v1/devices", entry)
    if answer.get("refusal"):
        raise Failure(f"{ae_title} is set, but not published: {answer['refusal']}", 1)
    title = answer["ae_title"]
    if answer["services"]:
        title = both_titles(title, answer["published_as"])
        advice = f"published with {listed(answer['services'])}; try `relay device test {ae_title}`"
    elif answer["federation"]:
        advice = "not published: it may call out, and this hospital's federation asks it"
    else:
        advice = "not published: it may call out, and nobody sees it"
    say(f"{title} at {answer['host']}:{answer['port']}, {advice}")
    if before:
        say(f"changed: {differences(before, answer) or 'nothing'}")


def _declared(file: str | None) -> dict[str, Any] | None:
    """What `--declares` says; None if it was not given."""
    if file is None:
        return None
    if file.strip().lower() == "none":
        return {}
    try:
        with Path(file).open("rb") as opened:
            document = json.loads(opened.read(MAXIMUM_FILE))
    except OSError as error:
        raise Failure(f"{file}: cannot be read: {error.strerror}", 2) from error
    except (ValueError, RecursionError) as error:
        raise Failure(f"{file}: {error}", 2) from error
    if not isinstance(document, dict):
        raise Failure(f"{file}: expected SOP classes, each with a list of transfer syntaxes", 2)
    declared = document.get("accepted", document)
    if not declared:
        raise Failure(f"{file}: declares nothing; `--declares none` has the device probed", 2)
    return cast(dict[str, Any], declared)


def _published(services: str | None) -> list[str] | None:
    """What `--publish` says; None if it was not given."""
    if services is None:
        return None
    return [] if services.strip().lower() == "none" else words(services)


@device.command("list")
@json_option
@click.pass_obj
def device_list(invocation: Invocation, as_json: bool) -> None:
    """Show all devices."""
    devices = control(invocation).get("/v1/devices")
    if as_json:
        print_json(devices)
        return
    print_table(
        ("AE title", "host", "port", "published as", "services", "associations at most", "besides"),
        (
            (
                d["ae_title"],
                d["host"],
                d["port"],
                _published_as(d),
                d["services"],
                d["maximum_associations"],
                _besides(d),
            )
            for d in devices
        ),
        empty="no devices; add one with `relay device add AE_TITLE HOST PORT`",
    )
    for d in devices:
        if d.get("refusal"):
            say(f"{d['ae_title']} is not published: {d['refusal']}")


def _published_as(d: dict[str, Any]) -> str:
    """The AE title by which the network knows the device; empty if it does not."""
    if d.get("refusal"):
        return "refused"
    return str(d["published_as"]) if d["services"] else ""


_WORTH_SAYING = (
    *("move_via", "present_as", "tls", "tls_name", "linger", "split"),
    *("federation", "issuer", "character_set", "get_via_move"),
)


def _besides(d: dict[str, Any]) -> list[str]:
    """What is set for it and is not as usual."""
    usual = Device(d["ae_title"], d["host"]).to_json()
    return [
        name.replace("_", " ") + ("" if d[name] is True else f" {d[name]}")
        for name in _WORTH_SAYING
        if name in d and d[name] != usual[name]
    ] + (["declares what it takes"] if d.get("declares") else [])


@device.command("test")
@click.argument("ae_title")
@click.option("--all", "everything", is_flag=True, help="List all that it takes.")
@json_option
@click.pass_context
def device_test(ctx: click.Context, ae_title: str, everything: bool, as_json: bool) -> None:
    """C-ECHO the device AE_TITLE and probe what it takes."""
    answer = control(ctx.obj).post(f"/v1/devices/{quoted(ae_title)}/test")
    if as_json:
        print_json(answer)
    else:
        print_findings(Finding(**finding) for finding in answer["findings"])
        if everything:
            # Here, since pydicom takes longer to load than any other command of these takes.
            from pydicom.uid import UID

            print_table(
                ("it stores", "in"),
                (
                    (UID(sop_class).name, [UID(syntax).name for syntax in syntaxes])
                    for sop_class, syntaxes in answer["accepted"].items()
                ),
                empty="it stores nothing that this Router proposed",
            )
    if not all(finding["ok"] for finding in answer["findings"]):
        ctx.exit(1)


@device.command("remove")
@click.argument("ae_title")
@click.pass_obj
def device_remove(invocation: Invocation, ae_title: str) -> None:
    """Forget the device AE_TITLE and what is granted of it; its associations end."""
    answer = control(invocation).delete(f"/v1/devices/{quoted(ae_title)}")
    say(f"{ae_title} removed")
    for g in answer["grants_removed"]:
        say(f"grant {g['id']} removed: {listed(g['services'])} to {whom(g)}")
