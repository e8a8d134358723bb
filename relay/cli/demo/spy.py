"""What the object store saw: a second name for each object in the Bridge's own store, as it passes.

Objects live there for milliseconds. A hard link keeps the bytes of one after Relay has deleted it,
and costs the Bridge nothing.
"""

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

# Shorter than it takes to write an object.
PAUSE = 0.0005
# Looking through all folders takes longer, and is for what was not seen on its way in.
LOOKS_BETWEEN_WALKS = 20

# Where the Bridge's own store writes what is on its way in.
INCOMING = "incoming"


class Spy:
    """Watches the folder `store` while a `with` block runs, and keeps objects in `copies`."""

    def __init__(self, store: Path, copies: Path) -> None:
        self._store = store
        self._copies = copies
        self._seen: set[int] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        copies.mkdir(parents=True)

    def __enter__(self) -> "Spy":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        incoming = list(self._store.rglob(INCOMING))
        looks = 0
        while not self._done.wait(PAUSE):
            for folder in incoming:
                for name in os.listdir(folder):
                    self._keep(Path(folder, name))
            looks += 1
            if looks % LOOKS_BETWEEN_WALKS == 0:
                for walked, _, names in os.walk(self._store):
                    for name in names:
                        self._keep(Path(walked, name))

    def _keep(self, path: Path) -> None:
        with suppress(FileNotFoundError, FileExistsError):
            number = path.stat().st_ino
            if number not in self._seen:
                # The link keeps the inode alive: its number is not given out again.
                os.link(path, self._copies / str(number))
                self._seen.add(number)

    def objects(self) -> list[Path]:
        """All that was seen and holds anything."""
        return [path for path in sorted(self._copies.iterdir()) if path.stat().st_size]

    def find(self, words: Iterable[bytes]) -> list[bytes]:
        """Which of `words` stand in any object."""
        contents = [path.read_bytes() for path in self.objects()]
        return [word for word in words if any(word in content for content in contents)]
