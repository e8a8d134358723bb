"""The content of an object's file: sealed in segments while it is written, opened while it is read.

    file = segment 0 | segment 1 | … | slip
    segment n = AES-256-GCM(key, nonce n of 96 bits, SEGMENT bytes of the data set or what is left)

What there is to say of it, its key, length and SHA-256 among it, is in its row (relay.spool.items),
and until that is written in the slip behind it (relay.spool.slips). It is written by whoever
receives the object and read by whoever delivers it; no object is ever whole in memory.
"""

import errno
import hashlib
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

import attrs
import structlog
import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.dicom.pdu import Buffer
from relay.errors import ObjectDamaged, SpoolError, SpoolFull
from relay.spool.files import File, Files
from relay.spool.space import Space
from relay.workers import Workers

log = structlog.get_logger()

T = TypeVar("T")

# What is sealed, and held in memory, at a time: most objects are one segment, and so one hop to a
# thread. Of even length: a fragment of a data set is (PS3.8 §E.2).
SEGMENT = 1024 * 1024
TAG_SIZE = 16

# Smaller fragments are copied when they come: some senders make them of two bytes, and each that is
# kept as it is takes a hundred.
COPIED = 4096

# What of each data set is looked at for the index (DESIGN §6): group 0008 to 0020 of real images
# take two to ten KiB.
MAXIMUM_PREFIX = 64 * 1024

# What a file that is lost is read with, in whole or in part: not there, or the disk or the file
# system has found it bad. Anything else may pass.
_LOST = frozenset({errno.ENOENT, errno.EIO, errno.EBADMSG, errno.EUCLEAN})


@attrs.frozen(slots=True)
class MadeFile:
    """An empty file for an object, whose name is on the disk, and the key for its content."""

    item: bytes
    folder: int
    file: File
    key: bytes = attrs.field(repr=False)
    wrapped: bytes = attrs.field(repr=False)

    @property
    def name(self) -> str:
        """Where it is, under the spool's folder."""
        return file_name(self.folder, self.item)


@attrs.frozen(slots=True)
class StoredObject:
    """A data set that is on the disk, synced.

    `length` and `sha256` are those of the data set, `size` that of its segments in the file.
    """

    item: bytes
    folder: int
    length: int
    size: int
    sha256: bytes
    key: bytes  # wrapped
    key_name: bytes
    prefix: bytes = attrs.field(repr=False)

    @property
    def name(self) -> str:
        """Where it is, under the spool's folder."""
        return file_name(self.folder, self.item)


class ObjectWriter:
    """One object while it arrives."""

    def __init__(
        self,
        made: "MadeFile",
        files: Files,
        space: Space,
        key_name: bytes,
        workers: Workers,
    ) -> None:
        self.item = made.item
        self.length = 0
        self.content: bytes | None = None
        """The data set, where it is whole in memory still; set by `finish`."""
        self._files = files
        self._space = space
        self._key_name = key_name
        self._workers = workers
        self._made = made
        self._cipher = AESGCM(made.key)
        self._hash = hashlib.sha256()
        self._gathered: list[Buffer] = []
        self._pending = 0
        self._segments = 0
        self._size = 0
        self._prefix = b""
        self._soon = False
        self._alone = False

    async def write(self, fragment: Buffer) -> None:
        """Take more of the data set, which must not change from now on.

        Raises SpoolFull or SpoolBroken; then only `discard`.
        """
        rest = memoryview(fragment)
        while self._pending + len(rest) > SEGMENT:
            taken = SEGMENT - self._pending
            self._gather(rest[:taken])
            rest = rest[taken:]
            await self._workers.run(partial(self._write_segment, self._cut()))
        self._gather(rest)

    def _gather(self, part: memoryview) -> None:
        self._pending += len(part)
        if len(part) >= COPIED:
            self._gathered.append(part)
        elif self._gathered and isinstance(self._gathered[-1], bytearray):
            self._gathered[-1] += part
        else:
            self._gathered.append(bytearray(part))

    async def finish(self, *, soon: bool = True) -> StoredObject:
        """The data set is whole: return once it is on the disk. Raises SpoolFull, SpoolBroken."""
        return await self.finish_with(_as_it_is, soon=soon)

    async def finish_with(
        self, make: Callable[[StoredObject], tuple[T, bytes]], *, soon: bool = True
    ) -> T:
        """As `finish`, with what is to be written behind it; give what `make` gives beside that.

        `make` is called in the thread that writes, before anything is synced. What is read again
        `soon` is left in `content`, if it is one segment. What is not is not kept in memory by the
        system either: a long queue would push out what others need, and fresh memory costs a
        virtual machine more than the writing (with four senders a third of the Router's processor
        time for each object).
        """
        self._soon = soon
        return await self._workers.run(partial(self._write_last, make, self._cut()))

    async def discard(self) -> None:
        """The object is not to be kept: remove what there is of it. Harmless the second time."""
        with trio.CancelScope(shield=True):
            removed = await self._workers.run(self._discard)
        if removed:
            self._space.give_back(self._size)
            self._size = 0

    def _cut(self) -> list[Buffer]:
        """What is gathered, which is to be written now, and has its space from here on.

        Not abandoned when cancelled: whoever removes the file must not race with its making.
        """
        parts, self._gathered = self._gathered, []
        length, self._pending = self._pending, 0
        size = length + TAG_SIZE
        self._space.take(size)
        self._size += size
        self.length += length
        self._alone = not (self._soon or self._workers.busy)
        return parts

    def _write_last(
        self, make: Callable[[StoredObject], tuple[T, bytes]], parts: list[Buffer]
    ) -> T:
        if self._soon and not self._segments:
            self.content = b"".join(parts)
            parts = [self.content]
        self._write_segment(parts)
        made, slip = make(
            StoredObject(
                item=self.item,
                folder=self._made.folder,
                length=self.length,
                size=self._size,
                sha256=self._hash.digest(),
                key=self._made.wrapped,
                key_name=self._key_name,
                prefix=self._prefix,
            )
        )
        self._write(slip)
        try:
            self._made.file.sync()
            if not self._soon:
                self._made.file.forget()
            self._made.file.close()
        except OSError as error:
            raise self._space.unsynced("an object cannot be synced to the disk", error) from error
        return made

    def _write_segment(self, parts: list[Buffer]) -> None:
        """Hash a segment, and put it into the file.

        Side by side where this is alone: a lone object is in custody sooner. Where all processors
        have work, as where it is sent on at once, that would cost 3% of the rate.
        """
        data = parts[0] if len(parts) == 1 else _joined(parts)
        if not self._segments:
            self._prefix = bytes(memoryview(data)[:MAXIMUM_PREFIX])
        if not self._alone:
            self._hash.update(data)
            self._put(data)
            return
        hashing = _hasher.submit(self._hash.update, data)
        try:
            self._put(data)
        finally:
            hashing.result()

    def _put(self, data: Buffer) -> None:
        """Seal and write a segment."""
        sealed = _scratch("sealed", len(data) + TAG_SIZE)
        self._cipher.encrypt_into(_nonce(self._segments), data, None, sealed)
        self._segments += 1
        self._write(sealed)

    def _write(self, data: Buffer) -> None:
        try:
            self._made.file.write(data)
        except OSError as error:
            raise SpoolFull(f"an object cannot be written: {error.strerror}") from error

    def _discard(self) -> bool:
        """Whether nothing is left of it."""
        try:
            self._files.remove(self._made.name)
        except OSError as error:
            log.warning("object not removed", item=self.item.hex(), why=error.strerror)
            return False
        finally:
            with suppress(OSError):  # it says that a write failed, of what is not wanted
                self._made.file.close()
        return True


class ObjectReader:
    """The data set of one object, from its beginning to its end."""

    def __init__(
        self, files: Files, stored: StoredObject, unwrap: Callable[[], bytes], workers: Workers
    ) -> None:
        self._files = files
        self._stored = stored
        self._unwrap = unwrap
        self._workers = workers
        self._open: tuple[File, AESGCM] | None = None

    async def segments(self) -> AsyncGenerator[bytes, None]:
        """Its content, SEGMENT bytes at a time. Raises ObjectDamaged, or SpoolError for a disk
        that does not read now."""
        left = self._stored.length
        number = 0
        while left or not number:
            size = min(left, SEGMENT)
            yield await self._workers.run(partial(self._read_segment, number, size))
            left -= size
            number += 1

    def close(self) -> None:
        """Nothing more is read."""
        if self._open is not None:
            self._open[0].close()

    def _read_segment(self, number: int, size: int) -> bytes:
        """In a thread; the first one opens the file, so that most objects are one hop to it."""
        try:
            if self._open is None:
                cipher = AESGCM(self._unwrap())
                self._open = self._files.open(self._stored.name), cipher
            file, cipher = self._open
            sealed = file.read(size + TAG_SIZE, number * (SEGMENT + TAG_SIZE))
        except OSError as error:
            raise unreadable(error) from error
        if len(sealed) != size + TAG_SIZE:
            raise ObjectDamaged("its file is cut short")
        try:
            return cipher.decrypt(_nonce(number), sealed, None)
        except InvalidTag:
            raise ObjectDamaged("its file is not as it was written") from None


def unreadable(error: OSError) -> SpoolError:
    """What it means that an object's file cannot be opened or read."""
    words = f"its file cannot be read: {error.strerror}"
    return ObjectDamaged(words) if error.errno in _LOST else SpoolError(words)


def _as_it_is(stored: StoredObject) -> tuple[StoredObject, bytes]:
    return stored, b""


def folder_name(folder: int) -> str:
    """The name of a folder for objects."""
    return f"{folder:08x}"


def file_name(folder: int, item: bytes) -> str:
    """Where the file of an item is, under the spool's folder."""
    return f"{folder_name(folder)}/{item.hex()}"


def _joined(parts: list[Buffer]) -> memoryview:
    data = _scratch("plain", sum(map(len, parts)))
    at = 0
    for part in parts:
        data[at : at + len(part)] = part
        at += len(part)
    return data


def _scratch(name: str, size: int) -> memoryview:
    """Memory for one segment, this thread's own: fresh memory costs more than sealing does."""
    if not hasattr(_threads, name):
        setattr(_threads, name, memoryview(bytearray(SEGMENT + TAG_SIZE)))
    memory: memoryview = getattr(_threads, name)
    return memory[:size]


_threads = threading.local()
_hasher = ThreadPoolExecutor(1, "hasher")


def _nonce(segment: int) -> bytes:
    return segment.to_bytes(12, "big")
