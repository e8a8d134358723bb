"""A disk that counts what is asked of it, and fails where it is told to."""

import errno
import os
from collections import Counter
from pathlib import Path

from relay.dicom.pdu import Buffer
from relay.spool.files import File, Files


class Disk(Files):
    """`fail` names operations, and with which error they fail; `done` counts those that did not."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fail: dict[str, int] = {}
        self.done: Counter[str] = Counter()

    def note(self, operation: str) -> None:
        if (number := self.fail.get(operation)) is not None:
            raise OSError(number, os.strerror(number))
        self.done[operation] += 1

    def create(self, name: str) -> File:
        self.note("create")
        return FileOfDisk(super().create(name), self)

    def open(self, name: str) -> File:
        self.note("open")
        return FileOfDisk(super().open(name), self)

    def remove(self, name: str) -> None:
        self.note("remove")
        super().remove(name)

    def make_folder(self, name: str) -> None:
        self.note("make_folder")
        super().make_folder(name)

    def sync_folder(self, name: str) -> None:
        self.note("sync_folder")
        super().sync_folder(name)

    def folders(self) -> list[str]:
        self.note("folders")
        return super().folders()

    def names(self, folder: str) -> list[str]:
        self.note("names")
        return super().names(folder)

    @property
    def contents(self) -> dict[str, int]:
        """The files that hold anything, and their sizes."""
        found = (path for path in self.root.glob("*/*") if path.is_file())
        return {path.name: size for path in found if (size := path.stat().st_size)}


class FileOfDisk(File):
    """A file of that disk, taken over from a plain one."""

    def __init__(self, file: File, disk: Disk) -> None:
        super().__init__(file._descriptor)
        file._descriptor = -1
        self._disk = disk

    def write(self, data: Buffer) -> None:
        if self._disk.fail.get("write") == errno.ENOSPC:
            super().write(memoryview(data)[: len(data) // 2])
        self._disk.note("write")
        super().write(data)

    def sync(self) -> None:
        self._disk.note("sync")
        super().sync()

    def read(self, size: int, offset: int) -> bytes:
        self._disk.note("read")
        return super().read(size, offset)

    def close(self) -> None:
        super().close()
        self._disk.note("close")
