"""What the network's administrator does with the object stores: set up, order, check, remove."""

from pathlib import Path

import click

from relay.cli.bridge import control
from relay.cli.context import Group, Invocation, json_option
from relay.cli.output import local_time, print_findings, print_json, print_table, quoted, say
from relay.providers import Finding


@click.group(cls=Group)
def provider() -> None:
    """The object stores."""


@provider.command("list")
@json_option
@click.pass_obj
def provider_list(invocation: Invocation, as_json: bool) -> None:
    """Show the object stores that are set up, those in use first and in their order."""
    providers = control(invocation).get("/v1/providers")
    if as_json:
        print_json(providers)
        return
    print_table(
        ("name", "kind", "in use", "state", "sessions", "address", "last failure"),
        (
            (
                p["name"],
                p["kind"],
                p["place"] or False,
                _state(p),
                p["sessions"],
                p["origin"],
                _failure(p),
            )
            for p in providers
        ),
        empty="no object store is set up",
    )


@provider.command("add")
@click.argument("name")
@click.argument("kind")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]…")
@click.pass_obj
def provider_add(invocation: Invocation, name: str, kind: str, settings: tuple[str, ...]) -> None:
    """Set up the object store NAME of this KIND (s3, …), not yet in use.

    Give secrets as env:NAME or file:PATH: the Bridge reads them where it runs, and keeps the
    reference alone.
    """
    body = {"name": name, "kind": kind, "settings": dict(map(_setting, settings))}
    control(invocation).post("/v1/providers", body)
    say(f"{name} is set up; put it in use with: relay provider use {name}")


@provider.command("use")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.pass_obj
def provider_use(invocation: Invocation, names: tuple[str, ...]) -> None:
    """Use these object stores for new sessions: the first that works, in the order given.

    One that was not in use is checked first, as `relay provider check` does; one that was and fails
    now is taken, and named.
    """
    process = control(invocation)
    process.post("/v1/providers/use", {"names": list(names)})
    first, *others = names
    then = f"; if it fails: {', '.join(others)}" if others else ""
    say(f"new sessions use {first}{then}")
    for p in process.get("/v1/providers"):
        if p["name"] in names and p["failing"]:
            say(f"{p['name']} fails now: {p['last_failure']}")


@provider.command("remove")
@click.argument("name")
@click.pass_obj
def provider_remove(invocation: Invocation, name: str) -> None:
    """Use the object store NAME for no new session, and forget it when none rests on it."""
    sessions = control(invocation).delete(f"/v1/providers/{quoted(name)}")["sessions"]
    if sessions:
        say(
            f"{name} is used for no new session, and goes when the {sessions} that rest on it are"
            " over and swept"
        )
    else:
        say(f"{name} is removed")


@provider.command("check")
@click.argument("name", default="disk")
@json_option
@click.pass_context
def provider_check(ctx: click.Context, name: str, as_json: bool) -> None:
    """Put, get and delete a probe object in the object store NAME; look for what would hurt."""
    findings = control(ctx.obj).post(f"/v1/providers/{quoted(name)}/check")["findings"]
    if as_json:
        print_json(findings)
        fine = all(finding["ok"] for finding in findings)
    else:
        fine = print_findings(Finding(**finding) for finding in findings)
    if not fine:
        ctx.exit(1)


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        # Only the key: what stands behind may be a secret.
        raise click.UsageError(f"{key[:64]}: expected KEY=VALUE")
    where, colon, path = value.partition(":")
    if where == "file" and colon:
        # The Bridge has another working directory.
        value = f"file:{Path(path).expanduser().absolute()}"
    if key.endswith("_file"):
        value = str(Path(value).expanduser().absolute())
    return key, value


def _state(row: dict[str, object]) -> str:
    if row["leaving"]:
        return "leaving"
    if row["worked"] and not row["failing"]:
        return "works"
    return "not checked" if row["failed_at"] is None else "failing"


def _failure(row: dict[str, object]) -> str | None:
    if row["failed_at"] is None:
        return None
    return f"{local_time(float(str(row['failed_at'])))}: {row['last_failure']}"
