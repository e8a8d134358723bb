"""`relay backup` and `relay restore` for a Bridge: what they do, and what they print."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import trio

from relay.bridge.backup import Manifest, back_up
from relay.bridge.restore import Restored, restore
from relay.bridge.warnings import Kind
from relay.cli.control import Control
from relay.cli.output import local_time, print_json, say
from relay.config import BridgeConfig


def back_up_bridge(config: BridgeConfig, file: Path, folder: Path, *, as_json: bool) -> None:
    """Copy the Bridge of `config`, which `file` holds, into the new `folder`. Raises RelayError."""
    manifest = trio.run(partial(back_up, config.data_dir, folder, url=config.url))
    if as_json:
        print_json({"folder": str(folder), **manifest.to_json()})
        return
    say(f"backed the Bridge at {manifest.url} ({manifest.fingerprint}) up into {folder}")
    say(f"  {_count(manifest.routers, 'Router')}, {manifest.revoked} revoked")
    say(f"  not in it: {file} and the files that it names")
    say("  not in it: secrets of object stores that stand in files or in the environment")


def restore_bridge(
    config: BridgeConfig, file: Path, folder: Path, *, revoke: Sequence[str], as_json: bool
) -> None:
    """Lay the Bridge of the backup `folder` down in the data_dir of `config`. Raises RelayError."""
    restored = trio.run(partial(restore, folder, config.data_dir, revoke=revoke))
    if as_json:
        print_json(restored.to_json())
        return
    for line in _report(restored, config, file):
        say(line)


def confirm_restoration(process: Control, *, as_json: bool) -> None:
    """Have the running Bridge warn no more of what its backup had undone. Raises RelayError."""
    warned = any(
        warning["warning"] == Kind.RESTORED.value for warning in process.get("/v1/warnings")
    )
    if warned:
        process.delete("/v1/restoration")
    if as_json:
        print_json({"confirmed": warned})
    elif warned:
        say("confirmed: the Bridge does not warn of its restoration any more")
    else:
        say("nothing to confirm: this Bridge was not restored, or it is confirmed already")


def _report(restored: Restored, config: BridgeConfig, file: Path) -> Iterator[str]:
    manifest: Manifest = restored.manifest
    yield (
        f"restored the Bridge at {manifest.url} ({manifest.fingerprint}) into {config.data_dir}, as"
        f" of {local_time(manifest.made)}"
    )
    if config.url != manifest.url:
        yield f"its url was {manifest.url}, and is {config.url} by {file}: Routers go to the first"
    if restored.withdrawn:
        yield f"{_count(restored.withdrawn, 'open invitation')} taken back: make new ones"
    yield "everybody is signed out"
    for name in restored.revoked:
        yield f"revoked: {name}"
    yield from _still("these Routers are let in", restored.routers, "relay router revoke")
    yield from _still("these people can sign in", restored.people, "relay person remove")
    yield from _still("these API tokens hold", restored.tokens, "relay person token remove")
    yield "a Router that enrolled after the backup is not known: it needs a new data_dir to enroll"
    yield "the Bridge warns of all this until an administrator says that it is set right: on its"
    yield "page, or by relay restore --confirm once it runs"
    yield "never start the old machine's Bridge again: no two may have one identity"
    yield f"start this one: relay --mode bridge --config {file}"


def _still(words: str, rows: Sequence[tuple[str, str]], command: str) -> Iterator[str]:
    if rows:
        yield f"{words}; if one was removed after the backup: {command} …"
        for first, second in rows:
            yield f"  {first}  {second}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
