"""`relay doctor`: looks at everything that could be wrong, and says what is and what to do.

It works with the process down too: then it reads the Router's database, and asks the devices
itself.
"""

import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import click
import trio

from relay.cli import (
    certificate,
    doctor_calls,
    doctor_devices,
    doctor_machine,
    doctor_moves,
    doctor_web,
    output,
    reach,
)
from relay.cli.context import Command, Failure, Invocation, json_option
from relay.cli.control import Control, NotRunning
from relay.config import BridgeConfig, RouterConfig
from relay.database import open_database
from relay.errors import ConfigurationError, DatabaseError, IdentityError, RelayError
from relay.invitation import Invitation
from relay.providers import Finding
from relay.router import membership
from relay.router.devices import Device, DeviceTable
from relay.router.schema import DATABASE_FILE, MIGRATIONS
from relay.signalling.authentication import NOT_LET_IN
from relay.tunnel.guard import NOT_PUBLIC


@click.command(cls=Command)
@click.argument("invitation", required=False)
@json_option
@click.pass_context
def doctor(ctx: click.Context, invitation: str | None, as_json: bool) -> None:
    """Check the configuration, the way to the Bridge, the enrolment and every device.

    Before the enrolment the INVITATION says which Bridge to look for. It is not used up.
    """
    findings: list[Finding] = []
    try:
        invited = Invitation.parse(invitation) if invitation is not None else None
    except IdentityError as error:
        raise Failure(str(error), 2) from error
    fine = trio.run(_run, ctx.obj, invited, findings, as_json)
    if as_json:
        output.print_json([attrs.asdict(finding) for finding in findings])
    elif fine and any(finding.what == reach.NOT_TOLD for finding in findings):
        output.say(f"all that can be seen is well; {reach.NOT_TOLD}")
    elif fine:
        output.say("all is well")
    if not fine:
        ctx.exit(1)


async def _run(
    invocation: Invocation, invited: Invitation | None, findings: list[Finding], quiet: bool
) -> bool:
    """Whether all is in order. Each finding is shown as it is made: some take a while."""
    async for finding in examine(invocation, invited):
        findings.append(finding)
        if not quiet:
            output.print_findings([finding])
    return all(finding.ok for finding in findings)


async def examine(
    invocation: Invocation, invited: Invitation | None = None
) -> AsyncIterator[Finding]:
    """All findings, from what everything stands on to what stands on it."""
    try:
        file, config = invocation.file, invocation.load()
    except ConfigurationError as error:
        yield Finding("configuration", False, str(error))
        return
    yield Finding(f"configuration {file}: {config.mode.value}", True)
    # With an invitation in hand and nothing done with it, what only the first start brings is due.
    new = invited is not None and not (config.data_dir / DATABASE_FILE).exists()
    for finding in doctor_machine.data_dir(config.data_dir):
        yield _not_yet(finding) if new and not config.data_dir.exists() else finding
    control = Control(config, file)
    status = None
    try:
        status = control.get("/v1/status")
        yield Finding(f"the {config.mode.value.capitalize()} is running", True)
    except NotRunning as error:
        what = f"the {config.mode.value.capitalize()} is not running"
        stopped = Finding(what, False, str(error))
        yield _not_yet(stopped) if new else stopped
        async for finding in doctor_machine.listening(doctor_machine.addresses(config)):
            yield finding
    except RelayError as error:
        yield Finding(f"the {config.mode.value.capitalize()} does not answer", False, str(error))
    examiner = (
        _bridge(config, control, status)
        if isinstance(config, BridgeConfig)
        else _router(config, control, status, invited)
    )
    async for finding in examiner:
        yield finding


def _not_yet(finding: Finding) -> Finding:
    """No fault so far: a step that is still to come."""
    return attrs.evolve(finding, what=f"{finding.what}: not yet", ok=True)


def _warned(warning: Mapping[str, Any], about: str) -> Finding:
    """A row of GET /v1/warnings; its words say what to do. `about` is whom it names."""
    named = f"warning about {about}" if about else "warning"
    return Finding(f"{named}: {warning['warning'].replace('_', ' ')}", False, warning["words"])


# --- the Bridge ---------------------------------------------------------------------------------


async def _bridge(
    config: BridgeConfig, control: Control, status: dict[str, Any] | None
) -> AsyncIterator[Finding]:
    if config.certificate is not None:
        host = urlsplit(config.url).hostname or ""
        for finding in certificate.examine(config.certificate, host):
            yield finding
        if config.private_key is not None:
            yield doctor_machine.key_of(config.certificate, config.private_key)
            yield doctor_machine.private("private key", config.private_key)
    async for finding in reach.bridge(config.url, proxy=None, ca_file=config.certificate):
        yield finding
    if status is None:
        return
    for provider in control.get("/v1/providers"):
        checked = control.post(f"/v1/providers/{output.quoted(provider['name'])}/check")
        for row in checked["findings"]:
            yield Finding(**row | {"what": f"{provider['name']}: {row['what']}"})
    for warning in control.get("/v1/warnings"):
        yield _warned(warning, "")


# --- the Router ---------------------------------------------------------------------------------


async def _router(
    config: RouterConfig,
    control: Control,
    status: dict[str, Any] | None,
    invited: Invitation | None,
) -> AsyncIterator[Finding]:
    try:
        joined, devices = await _known(config)
    except DatabaseError as error:
        yield Finding("the Router's database", False, f"{error}: is its disk full, or read-only?")
        joined, devices = None, []
    else:
        if config.proxy is not None and config.proxy.source.startswith("file:"):
            file = Path(config.proxy.source.removeprefix("file:"))
            yield doctor_machine.private("proxy's password", file)
        async for finding in _network(config, joined, status, invited):
            yield finding
    if not devices:
        yield Finding("no devices yet", True, "relay device add AE_TITLE HOST PORT")
    async for finding in doctor_devices.examine(devices, config):
        yield finding
    for finding in doctor_web.examine(config):
        yield finding
    if status is not None:
        async for finding in _running(config, control, status):
            yield finding


async def _known(config: RouterConfig) -> tuple[membership.Membership | None, list[Device]]:
    """What the Router's database says; nothing if there is none yet. Raises DatabaseError."""
    path = config.data_dir / DATABASE_FILE
    if not path.exists():
        return None, []
    async with open_database(path, MIGRATIONS) as database:
        return await membership.load(database), list(await DeviceTable.load(database))


async def _network(
    config: RouterConfig,
    joined: membership.Membership | None,
    status: dict[str, Any] | None,
    invited: Invitation | None,
) -> AsyncIterator[Finding]:
    """The enrolment, and the way to the Bridge."""
    if joined is not None:
        yield Finding(f"enrolled at {joined.url} as {joined.name}", True)
        url = joined.url
    else:
        if invited is None:
            yield Finding(
                "not enrolled",
                False,
                "ask the Bridge's administrator for an invitation: relay enroll INVITATION; relay"
                " doctor INVITATION looks at the way to its Bridge before",
            )
            return
        yield Finding("not enrolled yet", True, "relay enroll INVITATION")
        url = invited.url
    reached = True
    async for finding in reach.of_router(url, config):
        yield finding
        reached = reached and finding.ok
    if invited is not None:
        yield await _invitation(invited, config, enrolled=joined is not None, reached=reached)
    if joined is not None and status is not None:
        for finding in _connection(status):
            yield attrs.evolve(finding, advice=reach.with_source(finding.advice, config))


async def _invitation(
    invited: Invitation, config: RouterConfig, *, enrolled: bool, reached: bool
) -> Finding:
    """Whether it lets a Router in still; one that is `enrolled` needs none. `reached`: its Bridge
    is."""
    if invited.expires < time.time():
        found = Finding(reach.INVITATION, False, "it has expired: ask for another")
    elif not reached:
        found = Finding(reach.NOT_TOLD, True, "its Bridge has to be reached for that")
    else:
        found = await reach.invitation(invited, config)
    if enrolled and not found.ok:
        words = (
            f"{reach.INVITATION} is no longer good, and this Router, which is enrolled, needs none"
        )
        return Finding(words, True)
    return found


def _connection(status: Mapping[str, Any]) -> list[Finding]:
    """What the running Router says of its own connection."""
    if not status["connected"]:
        return [Finding("connected to the Bridge", False, _not_connected(status))]
    found = [Finding("connected to the Bridge", True)]
    offset = status.get("clock_offset")
    if offset is not None and not (clock := reach.clock(-offset)).ok:
        found.append(clock)
    return found


def _not_connected(status: Mapping[str, Any]) -> str:
    why = str(status.get("last_failure") or "")
    if why.startswith(NOT_LET_IN):
        return (
            f"{why} Ask the Bridge's administrator (relay router list). Revoking is for good: to"
            " come back as a new Router, stop this one, move its data_dir away, start it, and"
            " enroll it with a new invitation"
        )
    return why or "it is being tried: look again in a minute"


async def _running(
    config: RouterConfig, control: Control, status: Mapping[str, Any]
) -> AsyncIterator[Finding]:
    """What only the running Router knows."""
    web = status.get("dicomweb")
    try:
        devices = control.get("/v1/devices")
        refusals = control.get("/v1/refusals")
        warnings = control.get("/v1/warnings")
        grants, asks = control.get("/v1/grants"), control.get("/v1/asks")
        known = doctor_calls.Known(
            devices,
            control.get("/v1/directory") if status["enrolled"] else (),
            control.get("/v1/aliases"),
            grants,
            control.get("/v1/destinations"),
        )
        tokens = control.get("/v1/tokens") if web is not None else ()
    except RelayError as error:
        yield Finding("what the Router knows of its devices", False, str(error))
        return
    for origin, why in status.get("store", {}).get("failing", {}).items():
        yield Finding(f"object store {origin}", False, _store_advice(origin, why))
    for warning in warnings:
        yield _warned(warning, warning["destination"] or warning["device"] or "")
    for finding in doctor_web.running(config, web, tokens, known):
        yield finding
    for finding in doctor_calls.titles(devices):
        yield finding
    async for finding in doctor_calls.recent(refusals, known, time.time()):
        yield finding
    for finding in doctor_moves.refused(refusals, known, time.time()):
        yield finding
    for finding in doctor_calls.unused(devices, grants, asks):
        yield finding


def _store_advice(origin: str, why: str) -> str:
    if NOT_PUBLIC in why:
        return (
            f"{why}: if the Bridge's administrator says that this store is theirs, add"
            f' "{origin}" to allowed_origins in relay.toml, and start again'
        )
    return f"{why}; images do not get through until it works: ask the Bridge's administrator"
