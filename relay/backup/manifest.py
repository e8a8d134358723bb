"""What a backup says of itself: `manifest.json`, the last file of it that is written.

A folder without one is no backup: it was cut short. It lists the files that must be as they were
written, each with its SHA-256.

All this is against damage. Against who can write in the folder there is nothing: whoever has a
backup has the Router, or the Bridge.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from relay.errors import RelayError
from relay.spool.files import Files

MANIFEST_FILE = "manifest.json"

# A dozen lines; a larger file is something else.
MAXIMUM_MANIFEST = 64 * 1024

M = TypeVar("M")


def write(backup: Path, value: Mapping[str, Any]) -> None:
    """Write the file: whole and durable, or not at all. Raises OSError."""
    files, new = Files(backup), f"{MANIFEST_FILE}.new"
    file = files.create(new)
    try:
        file.write(json.dumps(value, indent=2).encode() + b"\n")
        file.sync()
    finally:
        file.close()
    os.rename(backup / new, backup / MANIFEST_FILE)
    files.sync_folder("")
    Files(backup.absolute().parent).sync_folder("")


def read(backup: Path, format: int | str, make: Callable[[dict[str, Any]], M]) -> M:
    """What `make` makes of all but the format, which must be `format`.

    `make` raises ValueError, TypeError or KeyError for what is none. Raises RelayError.
    """
    path = backup / MANIFEST_FILE
    try:
        with path.open("rb") as file:
            source = file.read(MAXIMUM_MANIFEST + 1)
    except FileNotFoundError:
        why = "was it cut short?" if backup.is_dir() else "there is no such folder"
        raise RelayError(f"{backup}: no backup: {MANIFEST_FILE} is missing, {why}") from None
    except OSError as error:
        raise RelayError(f"{path}: {error.strerror}") from error
    if len(source) > MAXIMUM_MANIFEST:
        raise RelayError(f"{path}: larger than {MAXIMUM_MANIFEST} bytes: no manifest of Relay's")
    try:
        value = json.loads(source)
        found = value.pop("format")
        if found == format:
            return make(value)
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise RelayError(
            f"{path}: damaged, or no manifest of Relay's: use another backup"
        ) from None
    if isinstance(found, str) is not isinstance(format, str):
        whose = "a Bridge's" if isinstance(found, str) else "a Router's"
        raise RelayError(f"{path}: {whose} backup: restore it with that table of relay.toml")
    raise RelayError(f"{path}: of another version of Relay: restore it with that one")


def verify(backup: Path, files: Mapping[str, str]) -> None:
    """Blocking: whether all these files are as they were written, by name and SHA-256.

    Raises RelayError for the first that is not.
    """
    for name, sha256 in files.items():
        if digest(backup / name) != sha256:
            raise RelayError(f"{backup / name}: damaged, not as it was written: use another backup")


def digest(path: Path) -> str:
    """Blocking: the SHA-256 of a file in hexadecimal digits. Raises RelayError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RelayError(f"{path}: {error.strerror}") from error
