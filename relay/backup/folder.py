"""A backup's folder: made whole or not at all, and laid down as the data_dir of another machine.

Until all of it is laid down the identity is an empty file: a process that is started too early, or
after a restore that was cut short, finds no identity and does not run.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from relay.errors import RelayError
from relay.identity import IDENTITY_FILE, Identity, load_identity
from relay.spool.files import Files

# Of a file that is copied, at once.
BLOCK = 1024 * 1024


@contextmanager
def new_folder(target: Path) -> Iterator[None]:
    """A folder that is gone again if its backup does not come about. Raises RelayError."""
    try:
        target.mkdir(mode=0o700)
    except FileExistsError:
        raise RelayError(f"{target} is there already: a backup gets a new folder") from None
    except OSError as error:
        raise RelayError(f"{target}: {error.strerror}") from error
    try:
        yield
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise RelayError(f"{error.filename or target}: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def identity_in(data_dir: Path, needed: Iterable[str], who: str) -> Identity:
    """Whose `data_dir` it is. Raises RelayError if one of the files that `who` needs is missing."""
    try:
        for name in sorted(needed):
            (data_dir / name).stat()
        return load_identity(data_dir)
    except FileNotFoundError as error:
        raise RelayError(
            f"{error.filename} is missing: is this the data_dir of {who} that has run?"
        ) from error
    except PermissionError as error:
        raise RelayError(
            f"{error.filename}: permission denied: run this as the user that runs Relay, or root"
        ) from error


def copy_file(source: Path, target: Path) -> None:
    """Blocking: copy a file, as a new one for its owner only, synced. Raises OSError."""
    with source.open("rb") as original, closing(Files(target.parent).create(target.name)) as copy:
        shutil.copyfileobj(original, copy, BLOCK)
        copy.sync()


@contextmanager
def laying_down(data_dir: Path, who: str) -> Iterator[None]:
    """`data_dir`, as nobody's until the end of the block; if that fails, as it was before.

    `who` is what becomes of it: "a Router". Raises RelayError.
    """
    try:
        was_there = data_dir.exists()
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if names := os.listdir(data_dir):
            raise RelayError(_occupied(data_dir, names, who))
        data_dir.chmod(0o700)
        Files(data_dir).create(IDENTITY_FILE).close()
    except OSError as error:
        raise RelayError(f"{data_dir}: {error.strerror}") from error
    try:
        yield
    except OSError as error:
        _clear(data_dir, itself=not was_there)
        raise RelayError(f"{error.filename or data_dir}: {error.strerror}") from error
    except BaseException:
        _clear(data_dir, itself=not was_there)
        raise


def _occupied(data_dir: Path, names: list[str], who: str) -> str:
    identity = data_dir / IDENTITY_FILE
    if not identity.exists():
        return f"{data_dir} is not empty ({min(names)}): {who} is restored into a new data_dir"
    if identity.stat().st_size:
        there = who.partition(" ")[2]
        return f"{data_dir} has a {there} already: {who} is restored into a new data_dir"
    return (
        f"{data_dir} has a restore that was cut short: remove what is in there, and restore again"
    )


def _clear(data_dir: Path, *, itself: bool) -> None:
    """Remove what was laid down, as far as that goes: what is left says `_occupied`."""
    if itself:
        shutil.rmtree(data_dir, ignore_errors=True)
        return
    # The identity last: an empty one keeps a process from starting on half of itself.
    for path in sorted(data_dir.iterdir(), key=lambda path: path.name == IDENTITY_FILE):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def finish(backup: Path, data_dir: Path, *folders: str) -> None:
    """Blocking: put the identity in its place, with everything else on the disk before it.

    `folders` are those in `data_dir` in which files were made. Raises OSError.
    """
    files, new = Files(data_dir), data_dir / f"{IDENTITY_FILE}.new"
    for folder in folders:
        files.sync_folder(folder)
    copy_file(backup / IDENTITY_FILE, new)
    _hand_over(data_dir)
    os.rename(new, data_dir / IDENTITY_FILE)
    files.sync_folder("")
    Files(data_dir.absolute().parent).sync_folder("")


def _hand_over(data_dir: Path) -> None:
    """Give all of it to the owner of the folder, if root restores for the user that runs Relay."""
    owner = data_dir.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    for folder, folders, names in os.walk(data_dir):
        for name in (*folders, *names):
            os.chown(Path(folder, name), owner.st_uid, owner.st_gid, follow_symlinks=False)
