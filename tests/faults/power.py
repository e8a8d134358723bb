"""A disk whose power can be cut: under files and SQLite, it keeps only what was synced.

    disk = Disk(folder)
    files = PoweredFiles(disk)
    disk.cut_at(7, Moment.AFTER)            # of the syncs that follow, the seventh is the last
    with until_cut(disk):                   # from then on everything fails: the power is off
        async with open_database(folder / "queue.db", MIGRATIONS, vfs=disk.vfs) as database:
            ...
    disk.lay_out(new_folder, Survival.SUBSET, random.Random(1))
    ... everything is started anew from new_folder

Both layers write through to a real folder, which is what a running process sees, and into one model
of the disk: of each file what was synced and what was written since, of each folder the names that
were synced and the changes since. What fsync(2) does not promise is not relied on: a synced file
whose folder was not synced has no name, and the other way round it has a name and no content.
What was not synced may nevertheless be there, in any part and order (Survival).

SQLite's shared memory (xShm) is passed through to the real `-shm` file, instead of doing without by
exclusive locking: so the database runs in the very mode that the program uses. Nothing is lost by
that: after a crash SQLite does not read that file, but makes it anew from the WAL.
"""

import errno
import itertools
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import TypeVar

import apsw
import attrs
import trio

from relay.dicom.pdu import Buffer
from relay.spool.files import File, Files
from relay.workers import Workers

T = TypeVar("T")

# What a disk writes whole or not at all.
SECTOR = 512

# Of what was not synced, such a part survives where not all of it does.
SURVIVING_SHARE = 0.5


class PowerCut(OSError):
    """The power is off: nothing can be done any more."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the power is off")


class Moment(Enum):
    """When the power goes off: before a sync takes effect, or after it and before it returns.

    FAIL is no cut: the sync fails once, and the system forgets what it could not write, as Linux
    does: what is synced later does not bring it to the disk either.
    """

    BEFORE = auto()
    AFTER = auto()
    FAIL = auto()


class Survival(Enum):
    """What is on the disk of that which was not synced."""

    NOTHING = auto()
    # Of each file the first writes, the last one torn; of each folder the first changes.
    PREFIX = auto()
    # Any sectors of any writes, any changes of names: disks and caches have an order of their own.
    SUBSET = auto()
    EVERYTHING = auto()


def _surviving(since: list[T], survival: Survival, source: random.Random) -> list[T]:
    match survival:
        case Survival.NOTHING:
            return []
        case Survival.PREFIX:
            return since[: source.randint(0, len(since))]
        case Survival.SUBSET:
            return [one for one in since if source.random() < SURVIVING_SHARE]
        case Survival.EVERYTHING:
            return since


@contextmanager
def until_cut(disk: "Disk") -> Iterator[None]:
    """Do something until the power goes off: what is raised from then on ends here.

    A database that is closed without power raises too, which it does not over a layer in C: apsw
    lets no error of Python's get lost. What it cannot raise it reports: that ends here too.
    """
    report = sys.unraisablehook

    def unraisable(what: "sys.UnraisableHookArgs") -> None:
        faulty = disk.off or disk.failed
        if not (faulty and isinstance(what.exc_value, (apsw.IOError, apsw.CantOpenError))):
            report(what)

    sys.unraisablehook = unraisable
    try:
        yield
    except Exception:
        if not disk.off:
            raise
    finally:
        sys.unraisablehook = report


# --- the model ------------------------------------------------------------------------------------


@attrs.define(slots=True, eq=False)
class Content:
    """A file: what is on the disk, and what was done since.

    That is (offset, data) for a write, (size, None) where it was cut or extended.
    """

    synced: bytes = b""
    since: list[tuple[int, bytes | None]] = attrs.field(factory=list)

    def sync(self) -> None:
        self.synced, self.since = self.after(self.since), []

    def forget(self) -> None:
        """The sync has failed."""
        self.since = []

    def after(self, changes: list[tuple[int, bytes | None]]) -> bytes:
        """What was synced, with these changes."""
        content = bytearray(self.synced)
        for offset, data in changes:
            content += bytes(max(0, offset - len(content)))
            if data is None:
                del content[offset:]
            else:
                content[offset : offset + len(data)] = data
        return bytes(content)

    def surviving(self, survival: Survival, source: random.Random) -> bytes:
        """What is there when the power is back."""
        return self.after(_surviving(list(self._sectors()), survival, source))

    def _sectors(self) -> Iterator[tuple[int, bytes | None]]:
        """What was done since, in pieces that a disk does whole or not at all."""
        for offset, data in self.since:
            if data is None:
                yield offset, None
                continue
            start = 0
            while start < len(data):
                end = start + SECTOR - (offset + start) % SECTOR
                yield offset + start, data[start:end]
                start = end


@attrs.define(slots=True, eq=False)
class Folder:
    """A folder: the names that are on the disk, and those that came and went (None) since."""

    synced: "dict[str, Node]" = attrs.field(factory=dict)
    since: "list[tuple[str, Node | None]]" = attrs.field(factory=list)

    def sync(self) -> None:
        self.synced, self.since = self.now(), []

    def forget(self) -> None:
        """The sync has failed."""
        self.since = []

    def now(self) -> "dict[str, Node]":
        """The names as a process sees them."""
        return self._after(self.since)

    def surviving(self, survival: Survival, source: random.Random) -> "dict[str, Node]":
        """The names that are there when the power is back."""
        return self._after(_surviving(self.since, survival, source))

    def _after(self, changes: "list[tuple[str, Node | None]]") -> "dict[str, Node]":
        names = dict(self.synced)
        for name, node in changes:
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node
        return names


Node = Content | Folder


class Disk:
    """The disk that holds `root`, a real folder; what lies in that now has been synced."""

    _numbers = itertools.count()

    def __init__(self, root: Path) -> None:
        self.root = root
        self.off = False
        self.failed = False
        """Whether a sync has failed."""
        self.points: list[str] = []
        """The syncs so far, of files and of folders: what each was of."""
        self.lock = threading.RLock()
        """Held while something is done both to the real folder and to the model."""
        self.vfs = f"power{next(self._numbers)}"
        """The name of the layer for SQLite."""
        self._due: tuple[int, Moment] | None = None
        self._tree = Folder()
        self._notice(self._tree, root)
        self._sync_all(self._tree)
        self._layer = PoweredVFS(self)

    def cut_at(self, point: int, moment: Moment) -> None:
        """Let the power go off, or the sync fail, at the `point`th sync from now, 1 or more."""
        self._due = (len(self.points) + point, moment)

    def cut(self) -> None:
        """Let the power go off now."""
        with self.lock:
            self._notice(self._tree, self.root)
            self.off = True

    def lay_out(self, folder: Path, survival: Survival, source: random.Random) -> None:
        """Make `folder`, and in it what is there when the power is back."""
        assert self.off, "the power is on"
        self._lay_out(self._tree, folder, survival, source)

    # --- for the layers ---------------------------------------------------------------------------

    def check(self) -> None:
        """Raises PowerCut."""
        if self.off:
            raise PowerCut()

    def name(self, path: Path, node: Node | None) -> None:
        """A name is of `node` from now on, or is gone."""
        self._folder(path.parent).since.append((path.name, node))

    def content(self, path: Path) -> Content:
        """The model of a file that is there."""
        folder = self._folder(path.parent)
        self._notice(folder, path.parent)
        node = folder.now()[path.name]
        assert isinstance(node, Content), path
        return node

    def sync_folder(self, path: Path) -> None:
        """Sync the names in a folder. Raises OSError."""
        with self.lock:
            folder = self._folder(path)
            self._notice(folder, path)
            self.sync(folder, path)

    def sync(self, node: Node, path: Path) -> None:
        """Sync something. Raises PowerCut, or OSError where it is to fail."""
        with self.lock:
            self.check()
            self.points.append(str(path.relative_to(self.root)))
            due, moment = self._due or (0, Moment.FAIL)
            if due != len(self.points):
                node.sync()
            elif moment is Moment.FAIL:
                self.failed = True
                node.forget()
                raise OSError(errno.EIO, "this sync was to fail")
            else:
                if moment is Moment.AFTER:
                    node.sync()
                self.cut()
                raise PowerCut()

    # --- the tree ---------------------------------------------------------------------------------

    def _folder(self, path: Path) -> Folder:
        node, at = self._tree, self.root
        for name in path.relative_to(self.root).parts:
            if name not in node.now():
                self._notice(node, at)
            found = node.now()[name]
            assert isinstance(found, Folder), path
            node, at = found, at / name
        return node

    def _notice(self, folder: Folder, path: Path) -> None:
        """Take note of what was made and removed beside the two layers."""
        names = folder.now()
        there = {entry.name for entry in os.scandir(path) if not entry.name.endswith("-shm")}
        folder.since += [(name, None) for name in names.keys() - there]
        for name in sorted(there):
            node = names.get(name)
            if node is None and (path / name).is_dir():
                node = Folder()
            elif node is None and (path / name).is_file():
                node = Content(since=[(0, (path / name).read_bytes())])
            if node is not None and node is not names.get(name):
                folder.since.append((name, node))
            if isinstance(node, Folder):
                self._notice(node, path / name)

    def _sync_all(self, folder: Folder) -> None:
        folder.sync()
        for node in folder.synced.values():
            if isinstance(node, Folder):
                self._sync_all(node)
            else:
                node.sync()

    def _lay_out(
        self, folder: Folder, path: Path, survival: Survival, source: random.Random
    ) -> None:
        path.mkdir(mode=0o700)
        for name, node in sorted(folder.surviving(survival, source).items()):
            if isinstance(node, Folder):
                self._lay_out(node, path / name, survival, source)
            else:
                (path / name).write_bytes(node.surviving(survival, source))
                (path / name).chmod(0o600)


# --- under the spool's files ----------------------------------------------------------------------


class PoweredFile(File):
    """A file on the disk."""

    def __init__(self, descriptor: int, disk: Disk, path: Path, content: Content) -> None:
        super().__init__(descriptor)
        self._disk = disk
        self._path = path
        self._content = content

    def write(self, data: Buffer) -> None:
        with self._disk.lock:
            self._disk.check()
            offset = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            super().write(data)
            self._content.since.append((offset, bytes(data)))

    def sync(self) -> None:
        self._disk.sync(self._content, self._path)

    def read(self, size: int, offset: int) -> bytes:
        self._disk.check()
        return super().read(size, offset)


class PoweredFiles(Files):
    """The files under a folder of the disk, its root if none is said."""

    def __init__(self, disk: Disk, root: Path | None = None) -> None:
        super().__init__(root or disk.root)
        self._disk = disk

    def create(self, name: str) -> File:
        with self._disk.lock:
            self._disk.check()
            descriptor = _taken_over(super().create(name))
            content = Content()
            self._disk.name(self.root / name, content)
            return PoweredFile(descriptor, self._disk, self.root / name, content)

    def open(self, name: str) -> File:
        with self._disk.lock:
            self._disk.check()
            descriptor = _taken_over(super().open(name))
            path = self.root / name
            return PoweredFile(descriptor, self._disk, path, self._disk.content(path))

    def remove(self, name: str) -> None:
        with self._disk.lock:
            self._disk.check()
            super().remove(name)
            self._disk.name(self.root / name, None)

    def make_folder(self, name: str) -> None:
        with self._disk.lock:
            self._disk.check()
            super().make_folder(name)

    def remove_folder(self, name: str) -> bool:
        with self._disk.lock:
            self._disk.check()
            return super().remove_folder(name)

    def sync_folder(self, name: str) -> None:
        self._disk.sync_folder(self.root / name)

    def folders(self) -> list[str]:
        self._disk.check()
        return super().folders()

    def names(self, folder: str) -> list[str]:
        self._disk.check()
        return super().names(folder)


class PoweredSyncs:
    """Syncs that no thread waits for, of files on the disk (relay.spool.syncs.Syncs)."""

    serving = True
    waited = 0.0

    def __init__(self, workers: Workers) -> None:
        pass

    async def sync(self, file: File) -> None:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()  # others write meanwhile, and sync before
            file.sync()

    async def run(self) -> None:
        await trio.sleep_forever()


def _taken_over(file: File) -> int:
    """The descriptor of a file, which that one no longer closes."""
    descriptor, file._descriptor = file._descriptor, -1
    return descriptor


# --- under SQLite ---------------------------------------------------------------------------------

# Of these SQLite syncs the folder after their first sync (its os_unix.c, UNIXFILE_DIRSYNC).
_LOGS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


class PoweredVFS(apsw.VFS):
    """What SQLite does to files, on the disk; named `disk.vfs`."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk.vfs, "")
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if name is None:
            return apsw.VFSFile("", None, flags)  # a temporary file, which nobody finds again
        with self._disk.lock:
            if self._disk.off:
                raise apsw.CantOpenError("the power is off")
            return PoweredVFSFile(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self._disk.lock:
            if self._disk.off:
                raise apsw.IOError("the power is off")
            super().xDelete(filename, False)
            self._disk.name(Path(filename), None)
            if syncdir:
                _sqlite_sync(self._disk.sync_folder, Path(filename).parent)


class PoweredVFSFile(apsw.VFSFile):
    """A file of SQLite's on the disk."""

    def __init__(self, disk: Disk, name: str | apsw.URIFilename, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        self._path = Path(name if isinstance(name, str) else name.filename())
        self._content = disk.content(self._path)
        self._sync_folder = bool(flags[0] & _LOGS and flags[0] & apsw.SQLITE_OPEN_CREATE)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._check()
        return super().xRead(amount, offset)

    def xWrite(self, data: Buffer, offset: int) -> None:
        with self._disk.lock:
            self._check()
            super().xWrite(data, offset)
            self._content.since.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        with self._disk.lock:
            self._check()
            super().xTruncate(newsize)
            self._content.since.append((newsize, None))

    def xSync(self, flags: int) -> None:
        _sqlite_sync(self._disk.sync, self._content, self._path)
        if self._sync_folder:
            _sqlite_sync(self._disk.sync_folder, self._path.parent)
            self._sync_folder = False

    def _check(self) -> None:
        if self._disk.off:
            raise apsw.IOError("the power is off")


def _sqlite_sync(sync: Callable[..., None], *arguments: object) -> None:
    try:
        sync(*arguments)
    except OSError as error:
        raise apsw.IOError(str(error)) from error
