"""`relay backup` and `relay restore`: a Router into a folder, and out of it on another machine.

For a Bridge, relay.cli.backup_bridge does it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from relay.cli import output
from relay.cli.backup_bridge import back_up_bridge, confirm_restoration, restore_bridge
from relay.cli.bridge import control
from relay.cli.context import Command, Invocation, json_option
from relay.cli.output import local_time, objects, print_json, say
from relay.config import BridgeConfig, RouterConfig
from relay.router.backup import back_up
from relay.router.manifest import Manifest
from relay.router.restore import Restored
from relay.router.restore import restore as restore_router
from relay.spool.carrying import Progress as Told


@click.command(cls=Command)
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def backup(invocation: Invocation, folder: Path, as_json: bool) -> None:
    """Copy this Router with all objects in its queue, or this Bridge, running or not, into FOLDER.

    FOLDER is new. Not in it: the configuration and the files that it names. Run this as the user
    that runs Relay, or root. Whoever has the folder has the Router, or the Bridge: keep it as you
    keep keys.
    """
    config = invocation.load()
    if isinstance(config, BridgeConfig):
        back_up_bridge(config, invocation.file, folder, as_json=as_json)
        return
    with _progress("backing up", quiet=as_json) as told:
        manifest = trio.run(
            partial(
                back_up,
                config.data_dir,
                folder,
                ae_title=config.ae_title,
                key_apart=config.spool_key is not None,
                progress=told,
            )
        )
    if as_json:
        print_json({"folder": str(folder), **manifest.to_json()})
        return
    say(f"backed {_whose(manifest)} up into {folder}")
    for line in _contents(manifest, invocation.file, config):
        say(f"  {line}")


def _whose(manifest: Manifest) -> str:
    name = f"{manifest.name}, " if manifest.name else ""
    return f"{manifest.ae_title} ({name}{manifest.fingerprint})"


def _contents(manifest: Manifest, file: Path, config: RouterConfig) -> Iterator[str]:
    yield f"{objects(manifest.objects)} of the queue, {output.size(manifest.bytes)}"
    if manifest.over:
        yield f"{objects(manifest.over)} delivered or discarded meanwhile: noted as such"
    if manifest.lost:
        yield f"{objects(manifest.lost)} without a file, or with one that cannot be read"
    if manifest.damaged:
        yield f"{objects(manifest.damaged)} damaged: of another size than was written"
    if manifest.linked:
        yield "objects are hard links, on the same disk: copy the folder to another one"
    yield f"not in it: {file} and the files that it names"
    if config.spool_key is not None:
        yield f"not in it: the spool key {config.spool_key}, without which the objects are lost"


@click.command(cls=Command)
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--revoke",
    multiple=True,
    metavar="FINGERPRINT",
    help="Of a Bridge: shut out this Router, which was revoked after the backup; repeatable.",
)
@click.option(
    "--confirm",
    is_flag=True,
    help="Of a restored Bridge that runs, without FOLDER: what was removed since the backup is"
    " removed anew, so that it need not warn of it any more.",
)
@json_option
@click.pass_obj
def restore(
    invocation: Invocation,
    folder: Path | None,
    revoke: tuple[str, ...],
    confirm: bool,
    as_json: bool,
) -> None:
    """Lay the Router or Bridge of a backup FOLDER down in the configuration's data_dir.

    That is empty, or not there yet. Nothing that waited in a Router is sent by itself: it may have
    been delivered since the backup. Run this as the user that runs Relay, or as root with a
    data_dir that is that user's.
    """
    if confirm:
        if folder is not None or revoke:
            raise click.UsageError("--confirm stands alone: it is for a Bridge that runs")
        confirm_restoration(control(invocation), as_json=as_json)
        return
    if folder is None:
        raise click.UsageError("say which FOLDER, or --confirm on a Bridge that was restored")
    config = invocation.load()
    if isinstance(config, BridgeConfig):
        restore_bridge(config, invocation.file, folder, revoke=revoke, as_json=as_json)
        return
    if revoke:
        raise click.UsageError("--revoke is for a Bridge's backup")
    with _progress("restoring", quiet=as_json) as told:
        restored = trio.run(
            partial(restore_router, folder, config.data_dir, key=config.spool_key, progress=told)
        )
    if as_json:
        print_json(_restored_json(restored))
        return
    for line in _report(restored, invocation.file, config):
        say(line)


def _restored_json(restored: Restored) -> dict[str, Any]:
    spool = restored.spool
    return {
        "ae_title": restored.manifest.ae_title,
        "name": restored.manifest.name,
        "fingerprint": restored.manifest.fingerprint,
        "made": restored.manifest.made,
        "epoch": spool.epoch,
        "objects": spool.carried.objects,
        "bytes": spool.carried.size,
        "doubtful": spool.doubtful,
        "failed": spool.failed,
        "missing": len(spool.carried.missing),
        "damaged": spool.carried.damaged,
        "locked": spool.locked,
    }


def _report(restored: Restored, file: Path, config: RouterConfig) -> Iterator[str]:
    manifest, spool = restored.manifest, restored.spool
    yield f"restored {_whose(manifest)} into {config.data_dir}, as of {local_time(manifest.made)}"
    if config.ae_title != manifest.ae_title:
        yield f"its AE title was {manifest.ae_title}, and is {config.ae_title} by {file}"
    if spool.carried.missing:
        yield f"{objects(len(spool.carried.missing))} missing in the backup: failed at the start"
    if spool.carried.damaged:
        yield f"{objects(spool.carried.damaged)} damaged: of another size than was written"
    if spool.locked:
        yield f"{objects(spool.locked)} locked with another spool key than the one there is now"
    yield f"{objects(spool.doubtful)} doubtful: held, since they may have been delivered by now"
    if spool.doubtful:
        yield "  relay queue list --state held       shows them"
        yield "  relay queue retry --state held      asks the other hospitals first, sends the rest"
        yield "  relay queue discard --state held    gives them up (all three take --to, --study …)"
    yield "not here: what was accepted after the backup, and the receipts of what was delivered to"
    yield "your devices since: if another hospital repeats that, they get it twice"
    yield "nobody is signed in; but who was removed since the backup comes in again: look at"
    yield "relay person list, relay person token list and relay token list"
    yield "never start the old machine's Router again: no two may have one identity"
    yield f"start this one: relay --mode router --config {file}"


@contextmanager
def _progress(what: str, *, quiet: bool) -> Iterator[Told]:
    """A bar on stderr while the block lasts, and what moves it."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} objects"),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    ) as progress:
        bar = progress.add_task(what, total=None)

        def told(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        yield told
