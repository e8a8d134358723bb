"""Keys of the spool: each object under a fresh one of its own, all of these under the spool key.

What that protects: a copy of the objects' files, or of the disk, without the spool key shows sizes,
times and AE titles and no image. The key belongs elsewhere for that (a systemd credential, a file
on another disk); where it lies beside the objects it protects nothing but what was copied without
it. Who takes over the running process has the key in any case.
"""

import hashlib
import os
import secrets
from pathlib import Path

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.errors import ObjectDamaged, SpoolError

KEY_FILE = "spool.key"
KEY_SIZE = 32
_NONCE_SIZE = 12
_LABEL = b"relay spool key 1"
_SLIP_LABEL = b"relay spool slip 1"


@attrs.frozen(slots=True)
class SpoolKey:
    """The key that all objects' keys are wrapped with."""

    secret: bytes = attrs.field(repr=False)
    name: bytes = attrs.field(init=False)
    """Eight bytes by which a row remembers with which spool key its own is wrapped."""

    @name.default
    def _name(self) -> bytes:
        return hashlib.sha256(_LABEL + self.secret).digest()[:8]

    def wrap(self, key: bytes, item: bytes) -> bytes:
        """`key`, locked; only as the key of this item does it open again."""
        return self._lock(key, _LABEL + item)

    def unwrap(self, wrapped: bytes, item: bytes) -> bytes:
        """The key that was wrapped. Raises ObjectDamaged."""
        return self._unlock(wrapped, _LABEL + item, "its key does not open with this spool key")

    def seal_slip(self, text: bytes, item: bytes) -> bytes:
        """What is said of an item (relay.spool.slips), locked; it opens as that item's alone."""
        return self._lock(text, _SLIP_LABEL + item)

    def open_slip(self, sealed: bytes, item: bytes) -> bytes:
        """What was sealed. Raises ObjectDamaged."""
        return self._unlock(sealed, _SLIP_LABEL + item, "its slip is not as it was written")

    def _lock(self, text: bytes, label: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_SIZE)
        return nonce + AESGCM(self.secret).encrypt(nonce, text, label)

    def _unlock(self, locked: bytes, label: bytes, otherwise: str) -> bytes:
        nonce, sealed = locked[:_NONCE_SIZE], locked[_NONCE_SIZE:]
        try:
            return AESGCM(self.secret).decrypt(nonce, sealed, label)
        except (InvalidTag, ValueError):
            raise ObjectDamaged(otherwise) from None


def fresh_key() -> bytes:
    """A new object's key."""
    return AESGCM.generate_key(8 * KEY_SIZE)


def load_spool_key(folder: Path, file: Path | None) -> SpoolKey:
    """The spool key in `file`; without one that in `folder`, made now if there is none.

    Raises SpoolError if it cannot be read or is no key.
    """
    path = file or folder / KEY_FILE
    try:
        if file is None and not path.exists():
            _make(path)
        secret = path.read_bytes()
    except OSError as error:
        raise SpoolError(f"spool key {path}: {error.strerror}") from error
    if len(secret) != KEY_SIZE:
        raise SpoolError(f"spool key {path}: {len(secret)} bytes, not {KEY_SIZE} random ones")
    return SpoolKey(secret)


def _make(path: Path) -> None:
    """Write a new key, whole and durable or not at all."""
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, fresh_key())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(new, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
