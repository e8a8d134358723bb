"""The disk's share of custody, without any network: a program of its own, measured from memory.

    python -m scripts.benchmark.custody two-syncs|one-sync|relay DIRECTORY KEEPERS FOLDER

`two-syncs` and `one-sync` do with the disk what custody needs and nothing else: files made 32 at a
time, their folder synced once for all of them; for each object BLAKE3, AES-256-GCM, write, fsync.
With `two-syncs`, the usual pattern, its row is then committed (WAL, FULL), with those of all that
wait by then. With `one-sync`, which is custody's, what the row will say is written behind the
object, and one commit each GATHERING follows, for which nobody waits. `relay` is Relay's own code
for that, from a data set in memory to the object in custody, and in the end its row. All keep the
Part 10 files of FOLDER KEEPERS times, so many at once and each keeper one at a time, as a sender
without an asynchronous window has it; the seconds that takes are printed.
"""

import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import apsw
import trio
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.dicom.dimse import CommandField, request
from relay.dicom.negotiation import AcceptedContext
from relay.router.queue.keeping import item_of
from relay.spool.custody import GATHERING
from relay.spool.items import Batch
from relay.spool.objects import NAMES
from relay.spool.segments import TAG_SIZE
from relay.spool.spool import Spool, open_spool
from relay.workers import share_interpreter
from scripts.benchmark import leftovers
from tests import images
from tests.images import Image

# What a row holds beside its name and digest: command set, UIDs, key, times.
ROW = b"x" * 640

# An object as it waits in memory.
Loaded = tuple[Image, bytes]


# --- the pattern ----------------------------------------------------------------------------------


class Pattern:
    """One folder and one database, and threads that write to them.

    `waits`: no thread goes on to its next object before the row of this one is committed.
    """

    def __init__(self, directory: Path, objects: list[Loaded], *, waits: bool) -> None:
        self._waits = waits
        self._directory = directory
        self._todo = iter(objects)
        self._largest = max(len(data) for _, data in objects)
        self._connection = apsw.Connection(str(directory / "rows.db"))
        self._connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE row (id BLOB UNIQUE, digest BLOB, rest BLOB)")
        self._folder = os.open(directory, os.O_RDONLY)
        self._taking, self._making, self._committing = (threading.Lock() for _ in range(3))
        self._over = threading.Event()
        self._made: list[tuple[bytes, int]] = []
        self._pending: list[tuple[bytes, bytes, bytes]] = []

    def run(self, keepers: int) -> None:
        """Keep everything."""
        threads = [threading.Thread(target=self._keep) for _ in range(keepers)]
        committing = threading.Thread(target=self._commit_from_time_to_time)
        for thread in (*threads, committing):
            thread.start()
        for thread in threads:
            thread.join()
        self._over.set()
        committing.join()
        for _, descriptor in self._made:
            os.close(descriptor)
        os.close(self._folder)
        self._connection.close()

    def _keep(self) -> None:
        # Once: fresh memory for each object costs more.
        memory = memoryview(bytearray(self._largest + TAG_SIZE))
        while True:
            with self._taking:
                image, data = next(self._todo, (None, b""))
            if image is None:
                return
            name, file = self._file()
            rest = memory[: len(data) + TAG_SIZE]
            AESGCM(AESGCM.generate_key(256)).encrypt_into(bytes(12), data, None, rest)
            digest = blake3(data).digest()
            while rest:
                rest = rest[os.write(file, rest) :]
            if not self._waits:
                os.write(file, ROW)
            os.fsync(file)
            os.close(file)
            with self._taking:
                self._pending.append((name, digest, ROW))
            if self._waits:
                self._commit()

    def _file(self) -> tuple[bytes, int]:
        with self._making:
            if not self._made:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                for _ in range(NAMES):
                    name = secrets.token_bytes(16)
                    path = self._directory / name.hex()
                    self._made.append((name, os.open(path, flags, 0o600)))
                os.fsync(self._folder)
            return self._made.pop()

    def _commit_from_time_to_time(self) -> None:
        """What nobody waits for, and once more at the end."""
        while not self._over.wait(GATHERING):
            self._commit()
        self._commit()

    def _commit(self) -> None:
        """Whoever comes first commits for all that wait."""
        with self._committing:
            with self._taking:
                rows, self._pending = self._pending, []
            if rows:  # else somebody has taken them along
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("INSERT INTO row VALUES (?, ?, ?)", rows)
                self._connection.execute("COMMIT")


# --- Relay's own ----------------------------------------------------------------------------------


async def relay(directory: Path, objects: list[Loaded], keepers: int) -> float:
    """Seconds in which Relay's custody keeps everything."""
    todo = iter(objects)
    async with (
        open_spool(directory, space=2**50, reserve=0) as spool,
        trio.open_nursery() as running,
    ):
        running.start_soon(spool.objects.run)
        running.start_soon(spool.custody.run)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(keepers):
                nursery.start_soon(_keep, spool, todo)
        await spool.custody.flush()
        elapsed = time.perf_counter() - began
        running.cancel_scope.cancel()
    return elapsed


async def _keep(spool: Spool, todo: Iterator[Loaded]) -> None:
    """One keeper: the steps of relay.router.queue.taking, without what is around them."""
    batch = Batch(peer=bytes(32), called="PACS", calling="CT", device="CT", opened=time.time())
    for number, (image, data) in enumerate(todo, start=1):
        context = AcceptedContext(1, image.sop_class, image.transfer_syntax)
        command = request(
            CommandField.C_STORE_RQ, number & 0x7FFF, image.sop_class, image.sop_instance
        )
        writer = await spool.objects.begin()
        await writer.write(data)

        make = partial(item_of, batch, context, command, accepted=spool.clock())
        await spool.custody.finish(batch, writer, make, soon=False)


# --- the program ----------------------------------------------------------------------------------


def main() -> None:
    share_interpreter()
    way, where, keepers, folder = sys.argv[1:]
    found = [images.read(file) for file in sorted(Path(folder).iterdir())]
    objects = [(image, image.data_set()) for image in found] * int(keepers)
    with leftovers.fresh(Path(where), way) as directory:
        if way != "relay":
            pattern = Pattern(directory, objects, waits=way == "two-syncs")
            began = time.perf_counter()
            pattern.run(int(keepers))
            elapsed = time.perf_counter() - began
        else:
            elapsed = trio.run(relay, directory, objects, int(keepers))
    print(elapsed)


if __name__ == "__main__":
    main()
