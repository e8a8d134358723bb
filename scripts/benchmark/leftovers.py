"""What runs leave on the disk: it stays there until all of them are over, while there is room.

ext4 goes past each inode of a block group that was deleted in the last minutes whenever it creates
a file there (fs/ext4/ialloc.c, recently_deleted). What one way has left, deleted before the turn of
the next, would so be measured as the next one's: 0.1 ms for each file that it creates.

What stays leaves memory, as deleted files do: nobody is to have its pages written out in another
one's turn, nor, on a virtual machine, memory that the host has to find first. DCMTK's storescp made
1,000 objects/s then, in place of 1,700.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Where less is free, what is left is deleted at once. The largest cell needs it for its next run:
# sixteen objects of 1 GiB in the near Router's spool, and as many at the far device.
LEAST_FREE = 40 * 2**30


@contextmanager
def fresh(directory: Path, name: str) -> Iterator[Path]:
    """A folder for one turn, inside of another. It stays, but where there is no room for it."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=directory))
    try:
        yield made
    finally:
        if shutil.disk_usage(made).free < LEAST_FREE:
            shutil.rmtree(made)
        else:
            _forget(made)


def set_aside(paths: Iterable[Path], directory: Path) -> None:
    """Empty a folder of these, as one way has left them, for the next one: into one beside it."""
    with fresh(directory.parent, directory.name) as aside:
        for path in paths:
            path.rename(aside / path.name)


def _forget(directory: Path) -> None:
    """Have what these files hold on the disk, and in memory no more."""
    os.sync()
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
