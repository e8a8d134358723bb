"""File operations of the spool, all in one place: what is durable, and when.

Everything here blocks and is to be called in a thread; a write may be called without one where the
disk is quick (relay.spool.promptly). A file's content is on the disk once `sync` has returned, its
name once its folder was synced too (fsync(2)); nothing else is promised by the system, and nothing
else is relied on. Names are relative to one root, "FOLDER/NAME"; "" is the root itself.
"""

import os
from pathlib import Path

from relay.dicom.pdu import Buffer

# Objects are for nobody but this process.
_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


class File:
    """An open file that is written from its beginning to its end, or read at any place."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def descriptor(self) -> int:
        """Its number in this process; -1 once it is closed."""
        return self._descriptor

    def write(self, data: Buffer) -> None:
        """Append all of `data`. Raises OSError; how much was written then is not known."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        """Return once the content is on the disk. Raises OSError: it may be there or not."""
        os.fsync(self._descriptor)

    def forget(self) -> None:
        """Give back the memory in which the system keeps what is synced: it is not read soon."""
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return os.fstat(self._descriptor).st_size

    @property
    def written(self) -> float:
        """When its content was changed last, in Unix seconds."""
        return os.fstat(self._descriptor).st_mtime

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end."""
        data = b""
        while more := os.pread(self._descriptor, size - len(data), offset + len(data)):
            data += more
        return data

    def close(self) -> None:
        """Harmless the second time, also where the first one raises OSError."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)  # gone even if it fails: its number may be another file's by then


class Files:
    """The files under `root`, a folder that is there already."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, name: str) -> File:
        """A new file. Raises FileExistsError."""
        return File(os.open(self.root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE))

    def open(self, name: str) -> File:
        """A file for reading. Raises FileNotFoundError."""
        return File(os.open(self.root / name, os.O_RDONLY))

    def remove(self, name: str) -> None:
        """Remove a file; harmless where it is gone. After a power cut it may be there again."""
        (self.root / name).unlink(missing_ok=True)

    def make_folder(self, name: str) -> None:
        """Make a folder, durably; harmless where it is there."""
        (self.root / name).mkdir(mode=_FOLDER_MODE, exist_ok=True)
        self.sync_folder("")

    def remove_folder(self, name: str) -> bool:
        """Remove a folder if it is empty; whether it was."""
        try:
            (self.root / name).rmdir()
        except OSError:
            return False
        return True

    def sync_folder(self, name: str) -> None:
        """Return once the names in the folder are on the disk."""
        descriptor = os.open(self.root / name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def folders(self) -> list[str]:
        """The folders in the root, in order."""
        with os.scandir(self.root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def numbered(self) -> list[int]:
        """The folders whose names are numbers, as those of objects are: of eight hex digits."""
        return [int(name, 16) for name in self.folders() if is_hex(name, 8)]

    def names(self, folder: str) -> list[str]:
        """The files in a folder."""
        with os.scandir(self.root / folder) as entries:
            return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]

    def free(self) -> int:
        """Bytes that are free on the disk for this process."""
        disk = os.statvfs(self.root)
        return disk.f_bavail * disk.f_frsize


def is_hex(name: str, length: int) -> bool:
    """Whether a name is so many hex digits, in lower case."""
    return len(name) == length and all(character in "0123456789abcdef" for character in name)
