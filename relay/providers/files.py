"""What the Bridge's own store does with its files: each function is one call of a thread."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from relay.providers import StoredObject
from relay.providers.arrivals import READ_PIECE, Arrival

# Buffers that one writev takes (IOV_MAX of Linux).
MAXIMUM_BUFFERS = 1024


def prepare(objects: Path, incoming: Path) -> dict[str, int]:
    """Make the folders, drop what was half-way; what is stored, and its sizes in bytes."""
    objects.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (objects, incoming, *(objects / f"{number:02x}" for number in range(256))):
        folder.mkdir(mode=0o700, exist_ok=True)
    for half in incoming.iterdir():
        half.unlink()
    return {stored.name: stored.size for folder in objects.iterdir() for stored in scan(folder)}


def scan(folder: Path) -> list[StoredObject]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # deleted between the listing and the look
                status = entry.stat(follow_symlinks=False)
                name = entry.name.replace("+", "/")
                found.append(StoredObject(name, status.st_size, int(status.st_mtime)))
    return found


def unlink_all(paths: Sequence[str]) -> tuple[int, OSError | None]:
    """Unlink what is there of `paths`: how many are not there now, and why not the next."""
    for number, path in enumerate(paths):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # as it should be
        except OSError as error:
            return number, error
    return len(paths), None


def write_out(arrival: Arrival, incoming: str) -> None:
    """Write what has come of the PUT, and is not written, to its file."""
    if arrival.descriptor is None:
        arrival.descriptor = os.open(incoming, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    for first in range(0, len(arrival.pieces), MAXIMUM_BUFFERS):
        pieces = arrival.pieces[first : first + MAXIMUM_BUFFERS]
        size = sum(map(len, pieces))
        written = os.writev(arrival.descriptor, pieces)
        if written < size:  # a signal, or the last bytes of the disk: the rest says which
            rest = memoryview(b"".join(pieces))[written:]
            while rest:
                rest = rest[os.write(arrival.descriptor, rest) :]


def store(arrival: Arrival, incoming: str, path: str, objects: str) -> int:
    """Write the rest of a whole PUT and link it to its place; the disk's free bytes then.

    One that was never written before is in memory, and needs its file open no more.
    """
    try:
        write_out(arrival, incoming)
        os.link(incoming, path)
    finally:
        remove(incoming)
        if not arrival.written and arrival.descriptor is not None:
            os.close(arrival.descriptor)
            arrival.descriptor = None
    return free_bytes(objects)


def remove(path: str) -> None:
    """Unlink this, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def open_file(path: str, piece: int = READ_PIECE) -> tuple[int, bytes, int | None]:
    """A file's size, its first piece of at most `piece` bytes, a descriptor if there is more."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        size = os.fstat(descriptor).st_size
        first = os.pread(descriptor, min(piece, size), 0)
    except OSError:
        os.close(descriptor)
        raise
    if len(first) < size:
        return size, first, descriptor
    os.close(descriptor)
    return size, first, None


def free_bytes(folder: str) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
