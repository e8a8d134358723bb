"""What a Router's backup says of itself, in its `manifest.json` (relay.backup.manifest).

The objects are not among the files: their rows say what each must be.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs
from attrs.validators import deep_mapping, instance_of

from relay.audit.entries import DATABASE_FILE as AUDIT_FILE
from relay.backup import manifest
from relay.identity import IDENTITY_FILE
from relay.router.schema import DATABASE_FILE
from relay.spool.schema import DATABASE_FILE as SPOOL_DATABASE
from relay.spool.spool import FOLDER as SPOOL_FOLDER
from relay.spool.vault import KEY_FILE as SPOOL_KEY_FILE

# Of the folder's layout, and of what the manifest says: another one is another number.
FORMAT = 1

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
        manifest.write(backup, self.to_json())

    @classmethod
    def read(cls, backup: Path) -> Self:
        """What the backup in this folder says of itself. Raises RelayError."""
        return manifest.read(backup, FORMAT, lambda value: cls(**value)._checked())

    def _checked(self) -> Self:
        """Raises ValueError if the files are not those of a Router: names are not to lead away."""
        if self.files.keys() - {SPOOL_KEY_FILE, AUDIT_FILE} != NEEDED:
            raise ValueError("files")
        return self

    def verify(self, backup: Path) -> None:
        """Blocking: whether all files are as they were written. Raises RelayError for the first
        that is not."""
        manifest.verify(backup, self.files)
