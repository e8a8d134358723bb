"""`relay doctor`: looks at everything that could be wrong, and says what is and what to do.

It works with the process down too: then it reads the Router's database, and asks the devices
itself.
"""

import os
import shutil
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import click
import trio

from relay import scu
from relay.association import connect
from relay.cli import certificate, output, reach
from relay.cli.associate import status_in_words
from relay.cli.context import Command, Invocation, json_option
from relay.cli.control import Control, NotRunning
from relay.config import BridgeConfig, RouterConfig
from relay.database import open_database
from relay.dicom.negotiation import accepted_contexts, propose, request
from relay.dicom.status import Status
from relay.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from relay.errors import (
    AssociationAborted,
    AssociationRejected,
    ConfigurationError,
    RelayError,
)
from relay.providers import Finding
from relay.router import membership
from relay.router.devices import Device, DeviceTable
from relay.router.schema import DATABASE_FILE, MIGRATIONS
from relay.web.tls import server_tls

# Databases, logs and the Bridge's own store get into trouble together when a disk is full.
LEAST_FREE_SPACE = 1024**3


@click.command(cls=Command)
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check the configuration, the way to the Bridge, the enrolment and every device."""
    findings: list[Finding] = []
    fine = trio.run(_run, ctx.obj, findings, as_json)
    if as_json:
        output.print_json([attrs.asdict(finding) for finding in findings])
    elif fine:
        output.say("all is well")
    if not fine:
        ctx.exit(1)


async def _run(invocation: Invocation, findings: list[Finding], quiet: bool) -> bool:
    """Whether all is in order. Each finding is shown as it is made: some take a while."""
    async for finding in examine(invocation):
        findings.append(finding)
        if not quiet:
            output.print_findings([finding])
    return all(finding.ok for finding in findings)


async def examine(invocation: Invocation) -> AsyncIterator[Finding]:
    """All findings, from what everything stands on to what stands on it."""
    try:
        file, config = invocation.file, invocation.load()
    except ConfigurationError as error:
        yield Finding("configuration", False, str(error))
        return
    yield Finding(f"configuration {file}: {config.mode.value}", True)
    for finding in _data_dir(config.data_dir):
        yield finding
    control = Control(config, file)
    status = None
    try:
        status = control.get("/v1/status")
        yield Finding(f"the {config.mode.value.capitalize()} is running", True)
    except NotRunning as error:
        yield Finding(f"the {config.mode.value.capitalize()} is not running", False, str(error))
    except RelayError as error:
        yield Finding(f"the {config.mode.value.capitalize()} does not answer", False, str(error))
    examiner = (
        _bridge(config, control, status)
        if isinstance(config, BridgeConfig)
        else _router(config, control, status)
    )
    async for finding in examiner:
        yield finding


def _data_dir(path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield Finding(
            f"data_dir {path}",
            False,
            f"{error.strerror}: it is made at the first start, by a user who may write in"
            f" {path.parent}",
        )
        return
    if not stat.S_ISDIR(mode):
        yield Finding(f"data_dir {path}", False, "not a folder")
        return
    open_to_others = mode & 0o077
    yield Finding(
        f"data_dir {path}, for its owner only",
        not open_to_others,
        f"chmod 700 {path}: keys are in it" if open_to_others else "",
    )
    if not os.access(path, os.W_OK):
        yield Finding(f"data_dir {path}", False, "not writable: run this as the user of Relay")
    free = shutil.disk_usage(path).free
    yield Finding(
        f"{output.size(free)} free on its disk",
        free >= LEAST_FREE_SPACE,
        "" if free >= LEAST_FREE_SPACE else "make room: databases stop at a full disk",
    )


# --- the Bridge ---------------------------------------------------------------------------------


async def _bridge(
    config: BridgeConfig, control: Control, status: dict[str, Any] | None
) -> AsyncIterator[Finding]:
    if config.certificate is not None:
        host = urlsplit(config.url).hostname or ""
        for finding in certificate.examine(config.certificate, host):
            yield finding
        if config.private_key is not None:
            yield _key(config.certificate, config.private_key)
    for finding in await trio.to_thread.run_sync(
        lambda: list(reach.bridge(config.url, proxy=None, ca_file=config.certificate))
    ):
        yield finding
    if status is None:
        return
    for provider in control.get("/v1/providers"):
        checked = control.post(f"/v1/providers/{output.quoted(provider['name'])}/check")
        for row in checked["findings"]:
            yield Finding(**row)


def _key(chain: Path, key: Path) -> Finding:
    what = f"private key {key} is the certificate's"
    try:
        server_tls(chain, key)
    except RelayError as error:
        return Finding(what, False, str(error))
    return Finding(what, True)


# --- the Router ---------------------------------------------------------------------------------


async def _router(
    config: RouterConfig, control: Control, status: dict[str, Any] | None
) -> AsyncIterator[Finding]:
    joined, devices = await _known(config)
    if joined is None:
        yield Finding(
            "not enrolled: the way to the Bridge is in the invitation, and not tested before",
            False,
            "ask the Bridge's administrator for an invitation: relay enroll INVITATION",
        )
    else:
        yield Finding(f"enrolled at {joined.url} as {joined.name}", True)
        url = joined.url
        for finding in await trio.to_thread.run_sync(lambda: list(reach.of_router(url, config))):
            yield finding
        if status is not None:
            yield Finding(
                "connected to the Bridge",
                status["connected"],
                "" if status["connected"] else _not_connected(status),
            )
    if not devices:
        yield Finding("no devices yet", True, "relay device add AE_TITLE HOST PORT")
    for device in devices:
        yield await _device(device, config)


def _not_connected(status: dict[str, Any]) -> str:
    why = status.get("last_failure")
    return str(why) if why else "it is being tried: look again in a minute"


async def _known(config: RouterConfig) -> tuple[membership.Membership | None, list[Device]]:
    """What the Router's database says; nothing if there is none yet."""
    path = config.data_dir / DATABASE_FILE
    if not path.exists():
        return None, []
    async with open_database(path, MIGRATIONS) as database:
        return await membership.load(database), list(await DeviceTable.load(database))


async def _device(device: Device, config: RouterConfig) -> Finding:
    """C-ECHO, over TCP, as the Router would."""
    what = f"device {device.ae_title} at {device.host}:{device.port} answers a C-ECHO"
    pairs = [(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN])]
    try:
        try:
            association = await connect(device.host, device.port)
        except AssociationAborted as error:
            if device.services or isinstance(error.__cause__, socket.gaierror):
                raise
            return Finding(f"device {device.ae_title} only calls out: {error}", True)
        try:
            rq = request(device.ae_title, config.ae_title, propose(pairs))
            contexts = accepted_contexts(rq, await scu.negotiate(association, rq))
            for context in contexts.values():
                answered = await scu.echo(association, context)
                if answered != Status.SUCCESS:
                    return Finding(what, False, f"it answered {status_in_words(answered)}")
            await scu.release(association)
        finally:
            await association.aclose()
    except AssociationRejected as error:
        return Finding(
            what,
            False,
            f"{error}: does it know {config.ae_title} and its own name {device.ae_title}?",
        )
    except RelayError as error:
        return Finding(what, False, f"{error}: is it switched on, and its address right?")
    if not contexts:
        return Finding(f"device {device.ae_title} takes associations, but no C-ECHO", True)
    return Finding(what, True)
