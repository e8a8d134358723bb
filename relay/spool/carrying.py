"""Objects' files from one spool's folder into another: what a backup and a restore have in common.

A file of the spool is written once, whole, and never changed until it is erased. So on one disk the
other folder gets a second name for it (a hard link), which costs nothing and outlives the first
one; on another disk it is copied.
"""

import errno
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from enum import Enum, auto
from functools import partial
from math import inf
from pathlib import Path

import apsw
import attrs
import structlog
import trio

from relay.database import Database
from relay.errors import ObjectDamaged, SpoolError
from relay.spool.files import File, Files
from relay.spool.segments import file_name, folder_name
from relay.spool.slips import has_slip

log = structlog.get_logger()

# Files that are carried between two words about the progress.
PAGE = 1000

# Files that are carried at once: a copy waits for its disk most of the time.
THREADS = 4

# What is held in memory of a file that is copied.
BLOCK = 1024 * 1024

# Where there are no hard links: another disk, a file system without them or at their limit, or a
# file of another user (protected_hardlinks, proc_sys_fs(5)).
_NO_LINK = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)

Progress = Callable[[int, int], None]
"""Is told how many objects are done, and of how many."""


@attrs.define(slots=True)
class Carried:
    """What became of the files. `size` is theirs in bytes, `missing` the items that have none.

    `damaged` ones are carried, and are shorter than their rows say. `unnoted` ones are in custody
    and have no row yet (relay.spool.slips): the next start makes it.
    """

    linked: int = 0
    copied: int = 0
    size: int = 0
    damaged: int = 0
    unnoted: int = 0
    missing: list[bytes] = attrs.Factory(list)

    @property
    def objects(self) -> int:
        """How many were carried."""
        return self.linked + self.copied


class _How(Enum):
    LINKED = auto()
    COPIED = auto()
    MISSING = auto()


@attrs.frozen(slots=True)
class _Kept:
    """What a row says of its file."""

    folder: int
    item: bytes
    size: int

    @property
    def name(self) -> str:
        return file_name(self.folder, self.item)


async def carry(
    database: Database, source: Path, target: Path, progress: Progress, *, before: float = inf
) -> Carried:
    """Bring the files of all items that `database` keeps from `source` to `target`, synced; and
    those that had no row `before` this time (in Unix seconds), and are in custody by their slips.

    Both are folders of a spool. A file that is not there, or that the disk does not give back, is
    missing. Raises DatabaseError, and SpoolError if one cannot be written.
    """
    carrier = _Carrier(Files(source), Files(target))
    total = await database.run(_count)
    progress(0, total)
    after = (0, b"")
    while page := await database.run(partial(_page, after)):
        after = (page[-1].folder, page[-1].item)
        await carrier.carry(page)
        progress(carrier.done.objects + len(carrier.done.missing), total)
    for folder in await carrier.folders():
        await carrier.carry_unnoted(folder, await database.run(partial(_noted, folder)), before)
    return carrier.done


def _count(connection: apsw.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM item WHERE state < 4").get)


def _page(after: tuple[int, bytes], connection: apsw.Connection) -> list[_Kept]:
    rows = connection.execute(
        "SELECT folder, id, size FROM item WHERE state < 4 AND (folder, id) > (?, ?)"
        " ORDER BY folder, id LIMIT ?",
        (*after, PAGE),
    )
    return [_Kept(*row) for row in rows]


def _noted(folder: str, connection: apsw.Connection) -> set[str]:
    """The names of the files in a folder that have a row, be it over or not."""
    rows = connection.execute("SELECT id FROM item WHERE folder = ?", (int(folder, 16),))
    return {item.hex() for (item,) in rows}


class _Carrier:
    def __init__(self, source: Files, target: Files) -> None:
        self.done = Carried()
        self._source = source
        self._target = target
        self._error: OSError | None = None

    async def carry(self, page: Sequence[_Kept]) -> None:
        """Carry a page of files, and sync the folders that they are in. Raises SpoolError."""
        folders = {kept.name.partition("/")[0] for kept in page}
        try:
            for folder in folders:
                await trio.to_thread.run_sync(self._target.make_folder, folder)
            async with trio.open_nursery() as nursery:
                for start in range(THREADS):
                    nursery.start_soon(self._carry_some, page[start::THREADS])
            if self._error is not None:
                raise self._error
            for folder in folders:
                await trio.to_thread.run_sync(self._target.sync_folder, folder)
        except OSError as error:
            raise SpoolError(f"{self._target.root}: {error.strerror}") from error

    async def folders(self) -> list[str]:
        """The source's folders of objects. Raises SpoolError."""
        try:
            return await trio.to_thread.run_sync(
                lambda: list(map(folder_name, self._source.numbered()))
            )
        except OSError as error:
            raise SpoolError(f"{self._source.root}: {error.strerror}") from error

    async def carry_unnoted(self, folder: str, noted: Collection[str], before: float) -> None:
        """Carry what a folder holds beside that, if it is in custody. Raises SpoolError."""
        try:
            await trio.to_thread.run_sync(self._carry_unnoted, folder, noted, before)
        except OSError as error:
            raise SpoolError(f"{self._target.root}: {error.strerror}") from error

    def _carry_unnoted(self, folder: str, noted: Collection[str], before: float) -> None:
        found = [
            f"{folder}/{name}"
            for name in self._source.names(folder)
            if name not in noted and self._is_in_custody(f"{folder}/{name}", before)
        ]
        if found:
            self._target.make_folder(folder)
            for name in found:
                how, size = self._carry_one(name)
                self.done.unnoted += how is not _How.MISSING
                self.done.size += size
            self._target.sync_folder(folder)

    def _is_in_custody(self, name: str, before: float) -> bool:
        try:
            with closing(self._source.open(name)) as file:
                return file.written < before and has_slip(file)
        except FileNotFoundError:  # delivered and erased meanwhile
            return False
        except OSError as error:
            log.warning("object not carried", name=name, why=f"it cannot be read: {error.strerror}")
            return False

    async def _carry_some(self, some: Sequence[_Kept]) -> None:
        try:
            carried = await trio.to_thread.run_sync(self._carry_in_thread, some)
        except OSError as error:
            self._error = error
            return
        for kept, how, size in carried:
            match how:
                case _How.LINKED:
                    self.done.linked += 1
                case _How.COPIED:
                    self.done.copied += 1
                case _How.MISSING:
                    self.done.missing.append(kept.item)
                    continue
            self.done.size += size
            self.done.damaged += size < kept.size

    def _carry_in_thread(self, some: Sequence[_Kept]) -> list[tuple[_Kept, _How, int]]:
        return [(kept, *self._carry_one(kept.name)) for kept in some]

    def _carry_one(self, name: str) -> tuple[_How, int]:
        """How the file was carried, and its size."""
        target = self._target.root / name
        try:
            os.link(self._source.root / name, target, follow_symlinks=False)
        except FileNotFoundError:
            return _How.MISSING, 0
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return self._copy_one(name)
        return _How.LINKED, target.stat().st_size

    def _copy_one(self, name: str) -> tuple[_How, int]:
        size = 0
        try:
            with (
                closing(self._source.open(name)) as original,
                closing(self._target.create(name)) as copy,
            ):
                while block := _read(original, size):
                    copy.write(block)
                    size += len(block)
                copy.sync()
        except FileNotFoundError:  # erased meanwhile
            return _How.MISSING, 0
        except ObjectDamaged as error:
            log.warning("object not carried", name=name, why=str(error))
            self._target.remove(name)
            return _How.MISSING, 0
        return _How.COPIED, size


def _read(original: File, offset: int) -> bytes:
    """The next of a file. What its disk does not give back is one object's loss, and not the end
    of the others' backup."""
    try:
        return original.read(BLOCK, offset)
    except OSError as error:
        raise ObjectDamaged(f"it cannot be read: {error.strerror}") from error
