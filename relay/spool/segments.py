"""The content of an object's file: sealed in segments while it is written, opened while it is read.

    file = segment 0 | segment 1 | … | slip
    segment n = AES-256-GCM(key, nonce n of 96 bits, SEGMENT bytes of the data set or what is left)

What there is to say of it, its key, length and digest among it, is in its row (relay.spool.items),
and until that is written in the slip behind it (relay.spool.slips). It is written by whoever
receives the object and read by whoever delivers it; no object is ever whole in memory.
"""

import errno
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import attrs
import structlog
import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.dicom.pdu import Buffer
from relay.digest import begin
from relay.errors import ObjectDamaged, SpoolError, SpoolFull
from relay.spool.files import File, Files
from relay.spool.promptly import Promptly
from relay.spool.sealing import SEGMENT, TAG_SIZE, SegmentSealer, nonce
from relay.spool.space import Space
from relay.workers import Workers

log = structlog.get_logger()

T = TypeVar("T")

# Smaller fragments are copied when they come: some senders make them of two bytes, and each that is
# kept as it is takes a hundred.
COPIED = 4096

# What comes in larger pieces comes from no association, but is there already: of that threads take
# half as much again, which have all of it to do and nothing to wait for.
PIECE = 512 * 1024

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

    `length` and `digest` are those of the data set, `size` that of its segments in the file.
    """

    item: bytes
    folder: int
    length: int
    size: int
    digest: bytes
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
        made: MadeFile,
        files: Files,
        space: Space,
        key_name: bytes,
        workers: Workers,
        promptly: Promptly,
        put_away: Callable[[File, bool], None],
    ) -> None:
        """`put_away` is given the file once it is synced, and whether it is read again soon."""
        self.item = made.item
        self.length = 0
        self.content: bytes | None = None
        """The data set, where it is whole in memory still; set by `finish`."""
        self._files = files
        self._space = space
        self._key_name = key_name
        self._workers = workers
        self._promptly = promptly
        self._put_away = put_away
        self._made = made
        self._digest = begin()
        self._gathered: list[Buffer] = []
        self._pending = 0
        # The first segment, where that is sealed while it comes, and how many parts of it are.
        self._sealer = promptly.begin(made.key)
        self._sealed = 0
        self._segments = 0
        self._size = 0
        self._prefix = b""
        self._soon = False

    async def write(self, fragment: Buffer) -> None:
        """Take more of the data set, which must not change from now on.

        Raises SpoolFull or SpoolBroken; then only `discard`.
        """
        if len(fragment) > PIECE and not self._gathered:
            self._leave_sealer()
        rest = memoryview(fragment)
        while self._pending + len(rest) > SEGMENT:
            taken = SEGMENT - self._pending
            self._gather(rest[:taken])
            rest = rest[taken:]
            await self._workers.run(partial(self._write_segment, self._cut()))
            self._leave_sealer()
        self._gather(rest)

    def _gather(self, part: memoryview) -> None:
        self._pending += len(part)
        if len(part) >= COPIED:
            self._gathered.append(part)
        elif self._gathered and isinstance(self._gathered[-1], bytearray):
            self._gathered[-1] += part
        else:
            self._gathered.append(bytearray(part))
        if self._sealer is not None:
            # The last one may grow, where it is small.
            whole = len(self._gathered) - isinstance(self._gathered[-1], bytearray)
            self._seal_gathered(self._sealer, whole)

    def _seal_gathered(self, sealer: SegmentSealer, parts: int) -> None:
        """Digest and seal what is gathered, up to so many parts of it."""
        for part in self._gathered[self._sealed : parts]:
            self._digest.update(part)
            sealer.add(part)
        self._sealed = max(self._sealed, parts)

    async def finish(self, *, soon: bool = True) -> StoredObject:
        """The data set is whole: return once it is on the disk. Raises SpoolFull, SpoolBroken."""
        return await self.finish_with(_as_it_is, soon=soon)

    async def finish_with(
        self, make: Callable[[StoredObject], tuple[T, bytes]], *, soon: bool = True
    ) -> T:
        """As `finish`, with what is to be written behind it; give what `make` gives beside that.

        `make` is called by whoever writes, a thread or this one, before anything is synced. What is
        read again `soon` is left in `content`, if it is one segment. What is not is not kept in
        memory by the system either: a long queue would push out what others need, and fresh memory
        costs a virtual machine more than the writing (with four senders a third of the Router's
        processor time for each object).
        """
        self._soon = soon
        try:
            if self._sealer is None or not self._promptly.ready:
                return await self._workers.run(partial(self._write_last, make, self._cut()))
            await trio.lowlevel.checkpoint_if_cancelled()
            return await self._finish_promptly(make)
        finally:
            self._leave_sealer()

    async def _finish_promptly(self, make: Callable[[StoredObject], tuple[T, bytes]]) -> T:
        begun = time.perf_counter()
        made = self._write_whole(make, self._cut())
        self._promptly.wrote(time.perf_counter() - begun)
        self._leave_sealer()
        try:
            await self._promptly.sync(self._made.file)
        except OSError as error:
            raise self._unsynced(error) from error
        self._put_away(self._made.file, self._soon)
        return made

    async def discard(self) -> None:
        """The object is not to be kept: remove what there is of it. Harmless the second time."""
        with trio.CancelScope(shield=True):
            removed = await self._workers.run(self._discard)
        self._leave_sealer()
        if removed:
            self._space.give_back(self._size)
            self._size = 0

    def _cut(self) -> list[Buffer]:
        """What is gathered, which is to be written now, and has its space from here on.

        Not abandoned when cancelled: whoever removes the file must not race with its making.
        """
        parts = self._gathered
        size = self._pending + TAG_SIZE
        self._space.take(size)
        if self._sealer is not None:
            self._seal_gathered(self._sealer, len(parts))
        self._size += size
        self.length += self._pending
        self._gathered, self._pending = [], 0
        return parts

    def _write_last(
        self, make: Callable[[StoredObject], tuple[T, bytes]], parts: list[Buffer]
    ) -> T:
        made = self._write_whole(make, parts)
        try:
            self._made.file.sync()
            if not self._soon:
                self._made.file.forget()
            self._made.file.close()
        except OSError as error:
            raise self._unsynced(error) from error
        return made

    def _write_whole(
        self, make: Callable[[StoredObject], tuple[T, bytes]], parts: list[Buffer]
    ) -> T:
        """Write what is left, and what `make` wants behind it."""
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
                digest=self._digest.digest(),
                key=self._made.wrapped,
                key_name=self._key_name,
                prefix=self._prefix,
            )
        )
        self._write(slip)
        return made

    def _unsynced(self, error: OSError) -> SpoolError:
        return self._space.unsynced("an object cannot be synced to the disk", error)

    def _write_segment(self, parts: list[Buffer]) -> None:
        """Digest and seal a segment, where that is not done, and put it into the file."""
        if not self._segments:
            self._prefix = _beginning(parts)
        if self._sealer is not None:
            self._write(self._sealer.end())
        else:
            sealer = SegmentSealer(self._made.key, self._segments, _scratch())
            for part in parts:
                self._digest.update(part)
                sealer.add(part)
            self._write(sealer.end())
        self._segments += 1

    def _leave_sealer(self) -> None:
        """What it has sealed is written, or not wanted. In the event loop, as its beginning was."""
        sealer, self._sealer = self._sealer, None
        if sealer is not None:
            self._promptly.end(sealer)

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
            return cipher.decrypt(nonce(number), sealed, None)
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


def _beginning(parts: list[Buffer]) -> bytes:
    """What the index is made of."""
    beginning = bytearray()
    for part in parts:
        beginning += memoryview(part)[: MAXIMUM_PREFIX - len(beginning)]
        if len(beginning) == MAXIMUM_PREFIX:
            break
    return bytes(beginning)


def _scratch() -> memoryview:
    """Memory to seal a segment in, this thread's own: fresh memory costs more than sealing does."""
    if not hasattr(_threads, "memory"):
        _threads.memory = memoryview(bytearray(SEGMENT + TAG_SIZE))
    memory: memoryview = _threads.memory
    return memory


_threads = threading.local()
