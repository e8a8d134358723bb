"""The file that holds the Bridge's identity: whoever has it is the Bridge."""

import os
from pathlib import Path

from relay.errors import IdentityError
from relay.identity import Identity

IDENTITY_FILE = "identity.key"


def load_identity(data_dir: Path) -> Identity:
    """The identity in `data_dir`, made (mode 0600) at the first start.

    Raises IdentityError for a file that is none, or that others may read.
    """
    path = data_dir / IDENTITY_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    identity = Identity.generate()
    with os.fdopen(descriptor, "wb") as file:
        file.write(identity.seed.hex().encode("ascii") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return identity


def _read(path: Path) -> Identity:
    if path.stat().st_mode & 0o077:
        raise IdentityError(f"{path}: others may read it; chmod 600 it, if nobody has")
    try:
        return Identity.from_seed(bytes.fromhex(path.read_text("ascii").strip()))
    except (ValueError, IdentityError):
        raise IdentityError(f"{path}: not an identity; restore it from a backup") from None
