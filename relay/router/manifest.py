"""What a backup says of itself: `manifest.json`, the last file of it that is written.

A folder without one is no backup: it was cut short. It lists the files that must be as they were
written, each with its SHA-256. The objects are not among them: their rows say what each must be.

All this is against damage. Against who can write in the folder there is nothing: whoever has a
backup has the Router.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs
from attrs.validators import deep_mapping, instance_of

from relay.errors import RelayError
from relay.identity import IDENTITY_FILE
from relay.router.schema import DATABASE_FILE
from relay.spool.files import Files
from relay.spool.schema import DATABASE_FILE as SPOOL_DATABASE
from relay.spool.spool import FOLDER as SPOOL_FOLDER
from relay.spool.vault import KEY_FILE as SPOOL_KEY_FILE

MANIFEST_FILE = "manifest.json"

# Of the folder's layout, and of what the manifest says: another one is another number.
FORMAT = 1

# A dozen lines; a larger file is something else.
MAXIMUM_MANIFEST = 64 * 1024

NEEDED = frozenset({IDENTITY_FILE, DATABASE_FILE, f"{SPOOL_FOLDER}/{SPOOL_DATABASE}"})

_TEXT = instance_of(str)
_COUNT = instance_of(int)


@attrs.frozen(slots=True, kw_only=True)
class Manifest:
    """Of which Router a backup is, when it was made (Unix seconds), and what is in it.

    `bytes` are those of the `objects`, which were `linked` or `copied`. `over`, `lost` and
    `damaged` are as relay.spool.backup has them; `files` are SHA-256 in hexadecimal, by name.
    """

    made: int = attrs.field(validator=_COUNT)
    version: str = attrs.field(validator=_TEXT)
    ae_title: str = attrs.field(validator=_TEXT)
    name: str = attrs.field(validator=_TEXT)
    fingerprint: str = attrs.field(validator=_TEXT)
    objects: int = attrs.field(validator=_COUNT)
    bytes: int = attrs.field(validator=_COUNT)
    linked: int = attrs.field(validator=_COUNT)
    copied: int = attrs.field(validator=_COUNT)
    over: int = attrs.field(validator=_COUNT)
    lost: int = attrs.field(validator=_COUNT)
    damaged: int = attrs.field(validator=_COUNT)
    files: Mapping[str, str] = attrs.field(validator=deep_mapping(_TEXT, _TEXT, instance_of(dict)))

    @property
    def has_spool_key(self) -> bool:
        """Whether the spool key is in the backup."""
        return SPOOL_KEY_FILE in self.files

    def to_json(self) -> dict[str, Any]:
        """What the file holds, and scripts are told."""
        return {"format": FORMAT, **attrs.asdict(self)}

    def write(self, backup: Path) -> None:
        """Write the file: whole and durable, or not at all. Raises OSError."""
        files, new = Files(backup), f"{MANIFEST_FILE}.new"
        file = files.create(new)
        try:
            file.write(json.dumps(self.to_json(), indent=2).encode() + b"\n")
            file.sync()
        finally:
            file.close()
        os.rename(backup / new, backup / MANIFEST_FILE)
        files.sync_folder("")
        Files(backup.absolute().parent).sync_folder("")

    @classmethod
    def read(cls, backup: Path) -> Self:
        """What the backup in this folder says of itself. Raises RelayError."""
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
            raise RelayError(
                f"{path}: larger than {MAXIMUM_MANIFEST} bytes: no manifest of Relay's"
            )
        try:
            value = json.loads(source)
            number = value.pop("format")
            if number == FORMAT:
                return cls(**value)._checked()
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            raise RelayError(
                f"{path}: damaged, or no manifest of Relay's: use another backup"
            ) from None
        raise RelayError(f"{path}: of another version of Relay: restore it with that one")

    def _checked(self) -> Self:
        """Raises ValueError if the files are not those of a Router: names are not to lead away."""
        if self.files.keys() - {SPOOL_KEY_FILE} != NEEDED:
            raise ValueError("files")
        return self

    def verify(self, backup: Path) -> None:
        """Blocking: whether all files are as they were written. Raises RelayError for the first
        that is not."""
        for name, sha256 in self.files.items():
            if digest(backup / name) != sha256:
                raise RelayError(
                    f"{backup / name}: damaged, not as it was written: use another backup"
                )


def digest(path: Path) -> str:
    """Blocking: the SHA-256 of a file in hexadecimal digits. Raises RelayError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RelayError(f"{path}: {error.strerror}") from error
