"""Objects on the disk: each data set a file of its own, in numbered folders.

    folder made, synced -> NAMES files made in it, folder synced -> one of them written, synced

Names are made durable before they are needed, many by one sync, so that an object costs the sync of
its content alone; their keys are made with them. What is in a file is relay.spool.segments'
concern.
"""

import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from math import inf

import structlog
import trio

from relay.errors import ObjectDamaged, SpoolError, SpoolFull
from relay.spool.files import File, Files, is_hex
from relay.spool.promptly import Promptly
from relay.spool.segments import (
    MadeFile,
    ObjectReader,
    ObjectWriter,
    StoredObject,
    file_name,
    folder_name,
    unreadable,
)
from relay.spool.slips import Locked, Slip, Unread, read_slip
from relay.spool.space import Space
from relay.spool.syncs import KernelSyncs, Syncs
from relay.spool.vault import SpoolKey, fresh_key
from relay.workers import Workers

log = structlog.get_logger()

# Files in one folder: enough that a group of commits seldom has two folders to sync, few enough
# for every tool that lists them.
FOLDER_FILES = 4096

# Files that are made at a time, and held open: a thirtieth of a sync for each object. `run` makes
# them ahead, from so few on: no more descriptors than a few devices take.
NAMES = 32
FEW_NAMES = 16

# Files that went to the disk without a thread are closed by whoever makes the next ones, after so
# many seconds at the latest: to close them, and to have the system forget what it keeps of them,
# takes as long as to write a tenth of their content.
CLOSING = 1.0

# Threads that write and read objects. Each keeps a segment's memory to seal in, and holds an
# object's segment. When each kept two, the Router took 208 MiB with 8 and 16 senders of large
# objects, and 199 with 4, for 5% of the rate at which the objects of 16 senders are taken in.
MAXIMUM_THREADS = 4


class Objects:
    """All objects of one spool. Raises SpoolError if its folder cannot be read."""

    def __init__(
        self,
        files: Files,
        key: SpoolKey,
        space: Space,
        syncs: Callable[[Workers], Syncs] = KernelSyncs,
    ) -> None:
        self.key = key
        self._key_name = key.name
        self.space = space
        self._files = files
        self._workers = Workers(MAXIMUM_THREADS)
        self._promptly = Promptly(syncs(self._workers))
        self._folder = max(self._folders(), default=0)
        self._in_folder = FOLDER_FILES  # a run begins with a folder of its own
        self._making = trio.Lock()
        self._ready: deque[MadeFile] = deque()
        self._written: deque[tuple[File, bool]] = deque()  # synced, and open
        self._few = False  # of those that are ready
        self._changed = trio.lowlevel.ParkingLot()

    def check(self) -> None:
        """Whether an object could be accepted. Raises SpoolBroken or SpoolFull."""
        self.space.check()

    async def begin(self) -> ObjectWriter:
        """A new object with an id of its own. Raises SpoolBroken or SpoolFull."""
        self.check()
        if not self._ready:
            await self._make_ready(1)
        made = self._ready.popleft()
        if len(self._ready) < FEW_NAMES:
            self._few = True
            self._changed.unpark_all()
        return ObjectWriter(
            made,
            self._files,
            self.space,
            self._key_name,
            self._workers,
            self._promptly,
            self._put_away,
        )

    def _put_away(self, file: File, soon: bool) -> None:
        """A file is written and synced: closed with others, `soon` read again or not."""
        self._written.append((file, soon))
        if len(self._written) == 1:
            self._changed.unpark_all()

    async def run(self) -> None:
        """Have files ready before they are wanted, and sync and close those that are written, for
        ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._promptly.run)
            nursery.start_soon(self._have_ready)

    async def _have_ready(self) -> None:
        while True:
            due = CLOSING if self._written else inf
            if not self._few:
                with trio.move_on_after(due) as limit:
                    await self._changed.park()
                if limit.cancelled_caught:
                    await self._workers.run(self._close_written)
            if self._few:
                self._few = False
                # What hinders it is said to the sender who needs one and gets none.
                with suppress(SpoolError):
                    await self._make_ready(FEW_NAMES)

    async def _make_ready(self, least: int) -> None:
        """Have `least` files at least. Raises SpoolBroken or SpoolFull."""
        async with self._making:
            if len(self._ready) < least:
                self._ready += await self._workers.run(self._make)

    def _make(self) -> list[MadeFile]:
        """Files for the next objects, whose names are on the disk."""
        self._close_written()
        what = "no files for objects"
        try:
            if self._in_folder >= FOLDER_FILES:
                self._files.make_folder(folder_name(self._folder + 1))
                self._folder, self._in_folder = self._folder + 1, 0
        except OSError as error:
            raise self.space.unsynced(what, error) from error
        made: list[MadeFile] = []
        try:
            for _ in range(NAMES):
                item = os.urandom(16)
                file = self._files.create(file_name(self._folder, item))
                key = fresh_key()
                wrapped = self.key.wrap(key, item)
                made.append(MadeFile(item, self._folder, file, key, wrapped))
        except OSError as error:
            self._unmake(made)
            raise SpoolFull(f"{what}: {error.strerror}") from error
        self._in_folder += len(made)
        try:
            self._files.sync_folder(folder_name(self._folder))
        except OSError as error:
            self._unmake(made)
            raise self.space.unsynced(what, error) from error
        return made

    def _close_written(self) -> None:
        """Blocking, in a thread; two may do it at a time."""
        while True:
            try:
                file, soon = self._written.popleft()
            except IndexError:
                return
            with suppress(OSError):  # closed meanwhile: nobody wants it
                if not soon and file.descriptor >= 0:
                    file.forget()
            try:
                file.close()
            except OSError as error:  # what was synced is on the disk, whatever this says
                log.warning("a file does not close", why=error.strerror)

    def _unmake(self, made: Iterable[MadeFile]) -> None:
        left, why = 0, ""
        for one in made:
            try:
                one.file.close()
                self._files.remove(one.name)
            except OSError as error:
                left, why = left + 1, str(error)
        if left:
            log.warning("empty files not removed", files=left, why=why)

    async def close(self) -> None:
        """Remove what was made and is not needed."""
        made, self._ready = self._ready, deque()
        with trio.CancelScope(shield=True):
            await self._workers.run(partial(self._unmake, made))
            await self._workers.run(self._close_written)
        self._workers.close()

    @asynccontextmanager
    async def reading(self, stored: StoredObject) -> "AsyncIterator[ObjectReader]":
        """The content of an object. Its file is opened by the first read."""
        unwrap = partial(self.key.unwrap, stored.key, stored.item)
        reader = ObjectReader(self._files, stored, unwrap, self._workers)
        try:
            yield reader
        finally:
            reader.close()

    async def remove(self, stored: Iterable[StoredObject]) -> None:
        """Erase files whose rows no longer need them.

        What cannot be removed keeps its space, and is found at the next start.
        """
        with trio.CancelScope(shield=True):  # their rows have changed: this belongs to that
            removed = await self._workers.run(partial(self._remove, list(stored)))
        self.space.give_back(removed)

    def _remove(self, stored: list[StoredObject]) -> int:
        removed = 0
        for one in stored:
            try:
                self._files.remove(one.name)
            except OSError as error:
                log.warning("object not removed", item=one.item.hex(), why=error.strerror)
            else:
                removed += one.size
        return removed

    async def folders(self) -> list[int]:
        """The folders that there are, at the start. Raises SpoolError."""
        return await self._workers.run(self._folders)

    async def compare(self, folder: int, kept: Collection[bytes]) -> tuple[list[str], set[bytes]]:
        """Compare a folder with the rows at the start: `kept` are its items.

        Gives the names of files that no row knows, and the items whose file is missing. Raises
        SpoolError.
        """
        return await self._workers.run(partial(self._compare, folder_name(folder), set(kept)))

    def _compare(self, folder: str, missing: set[bytes]) -> tuple[list[str], set[bytes]]:
        unknown = []
        try:
            for name in self._files.names(folder):
                item = bytes.fromhex(name) if is_hex(name, 32) else b""
                if item in missing:
                    missing.discard(item)
                else:
                    unknown.append(f"{folder}/{name}")
        except FileNotFoundError:
            pass  # the folder itself is missing
        except OSError as error:
            raise SpoolError(f"the spool's folder {folder}: {error.strerror}") from error
        return unknown, missing

    async def slip(self, name: str) -> Slip | Locked | Unread | None:
        """What is behind the content of a file; None where nothing was written to its end.

        Raises ObjectDamaged where it is not what was written; SpoolError where the disk does not
        read now.
        """
        return await self._workers.run(partial(self._slip, name))

    def _slip(self, name: str) -> Slip | Locked | Unread | None:
        item = name.rpartition("/")[2]
        if not is_hex(item, 32):
            return None
        try:
            with closing(self._files.open(name)) as file:
                return read_slip(file, bytes.fromhex(item), self.key)
        except OSError as error:
            if isinstance(problem := unreadable(error), ObjectDamaged):
                return Unread(str(problem))
            raise problem from error

    async def clear(self, folder: int, names: Sequence[str]) -> None:
        """Remove these files of a folder, and the folder if it is empty then. Raises SpoolError."""
        await self._workers.run(partial(self._clear, folder_name(folder), names))

    def _clear(self, folder: str, names: Sequence[str]) -> None:
        try:
            for name in names:
                self._files.remove(name)
            self._files.remove_folder(folder)
        except OSError as error:
            raise SpoolError(f"the spool's folder {folder}: {error.strerror}") from error

    def _folders(self) -> list[int]:
        try:
            return self._files.numbered()
        except OSError as error:
            raise SpoolError(f"the spool's folder: {error.strerror}") from error
