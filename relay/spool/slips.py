"""The slip behind an object's content: what its row is to say, so that one sync keeps both.

    file = content (relay.spool.segments) | slip | end
    slip = nonce, 12 bytes | AES-256-GCM(spool key, nonce, text; label, item)
    text = msgpack of {run, epoch, item: {column: value}, batch: {column: value}}
    end  = name of the spool key, 8 bytes | length of the slip, 4 bytes | MARK, 8 bytes

Rows follow, many in one transaction (relay.spool.custody). What they did not live to hold, the next
start finds here (relay.spool.recovery), and only that: a row knows better, since it changes.
"""

import struct
from typing import Any

import attrs
import msgpack

from relay.dicom.pdu import Buffer
from relay.digest import is_digest
from relay.errors import SpoolFull
from relay.spool.files import File
from relay.spool.items import Batch, Item, State
from relay.spool.vault import SpoolKey

MARK = b"relay/s1"
_END = struct.Struct(f">8sI{len(MARK)}s")

# A command set is what counts, of which the association takes 64 KiB at the most
# (relay.dicom.dimse); the rest is UIDs and AE titles.
MAXIMUM_SLIP = 256 * 1024

# What a row says when it is new. `id` is said by the file's name as well, which the seal is for.
_ITEM = (
    "id", "called", "sop_class", "sop_instance", "transfer_syntax", "command", "length", "digest",
    "key", "key_name", "folder", "size", "accepted", "study",
)  # fmt: skip
_BATCH = ("peer", "called", "calling", "device", "opened", "priority")


@attrs.frozen(slots=True)
class Slip:
    """An object as it was when it came: `run` and `epoch` are those of the Router that took it."""

    run: int
    epoch: int
    batch: Batch
    item: Item

    def encode(self, key: SpoolKey) -> bytes:
        """What is to be written behind the content, its end included."""
        item, batch = self.item, self.batch
        text = msgpack.packb(
            {
                "run": self.run,
                "epoch": self.epoch,
                "item": {column: getattr(item, column) for column in _ITEM},
                "batch": {column: getattr(batch, column) for column in _BATCH},
            }
        )
        slip = key.seal_slip(text, item.id)
        if len(slip) > MAXIMUM_SLIP:
            raise SpoolFull(f"what there is to say of an object takes {len(slip)} bytes")
        return slip + _END.pack(key.name, len(slip), MARK)


@attrs.frozen(slots=True)
class Locked:
    """There is a slip, and this spool key does not open it."""

    key_name: bytes


@attrs.frozen(slots=True)
class Unread:
    """There may be a slip, which the disk does not give back, or which this program does not
    understand; `why` in words."""

    why: str


def read_slip(file: File, item: bytes, key: SpoolKey) -> Slip | Locked | Unread | None:
    """What is behind the content of `item` in its file; None where no whole slip is.

    Blocking. Raises OSError; ObjectDamaged where what is there is not what was written.
    """
    size = file.size
    if size < _END.size:
        return None
    key_name, length, mark = _END.unpack(file.read(_END.size, size - _END.size))
    if mark != MARK or length > min(MAXIMUM_SLIP, size - _END.size):
        return None
    if key_name != key.name:
        return Locked(key_name)
    return _decode(key.open_slip(file.read(length, size - _END.size - length), item))


def has_slip(file: File) -> bool:
    """Whether a file looks as if a slip were at its end. Blocking. Raises OSError."""
    size = file.size
    return size >= _END.size and file.read(len(MARK), size - len(MARK)) == MARK


def _decode(text: Buffer) -> Slip | Unread:
    try:
        said: dict[str, Any] = msgpack.unpackb(text)
        # A newer program may say more, which its own rows would hold.
        told = said["item"]
        if "digest" not in told:  # by an earlier program, which had this one alone
            told["digest"] = told["sha256"]
        if not is_digest(told["digest"]):
            raise ValueError("a digest of a kind that is not known here")
        item = {column: told[column] for column in _ITEM}
        batch = {column: said["batch"][column] for column in _BATCH}
        return Slip(
            said["run"],
            said["epoch"],
            Batch(**batch),
            Item(number=0, batch=0, state=State.WAITING, **item),
        )
    except (ValueError, KeyError, TypeError) as error:
        # It was written so, by another release: whole, answered for, not ours to throw away.
        return Unread(f"its slip cannot be read: {error}")
