"""The Bridge's own object store: files under one folder, served by signed blob URLs.

    <root>/objects/<2 hex of SHA-256(name)>/<name, its slashes as plus signs>
    <root>/incoming/<random>            a PUT under way, linked to its place when it is whole

A chunk lives for minutes and its writer keeps it until it is acknowledged, so nothing is synced to
the disk: after a crash the writer puts it again.
"""

import hashlib
import os
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Sequence,
)
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

import attrs
import httpx
import trio

from relay.errors import ObjectMissing, ProviderError, Refused
from relay.providers import Finding, SignedRequest, StoredObject, files
from relay.providers.arrivals import MAXIMUM_AHEAD, Arrival, Arrivals
from relay.providers.blob_urls import BlobURLs
from relay.providers.names import check_object_name
from relay.providers.probe import probe
from relay.workers import Workers

T = TypeVar("T")

# Disk that stays free whatever Relay may use: databases and logs live beside the blobs.
FREE_DISK_FLOOR = 512 * 1024 * 1024
# Threads that wait for the disk. More would only wait for each other, and for the interpreter.
MAXIMUM_THREADS = 8


@attrs.frozen(slots=True)
class Blob:
    """An object opened for reading: its size, its bytes in pieces, and what closes it again."""

    size: int
    pieces: Callable[[], AsyncGenerator[bytes, None]]
    close: Callable[[], None]


@attrs.define
class _Usage:
    """Bytes stored, and bytes promised to PUTs under way. Only the trio thread changes them."""

    stored: int = 0
    promised: int = 0


class DiskProvider:
    """A `Provider` over a folder. Made by `open_disk_provider`.

    What is stored is known from the start on and kept in mind, so that the disk is not asked for
    what is not there.
    """

    name = "disk"
    enforces_size = True

    def __init__(
        self,
        root: Path,
        *,
        urls: BlobURLs,
        space: int,
        free_floor: int,
        client: Callable[[], httpx.AsyncClient],
        maximum_ahead: int = MAXIMUM_AHEAD,
    ) -> None:
        self._root = str(root)
        self._objects = root / "objects"
        self._incoming = root / "incoming"
        self._numbers = count()
        self._urls = urls
        self._space = space
        self._free_floor = free_floor
        self._client = client
        self._sizes: dict[str, int] = {}  # of what is stored
        self._usage = _Usage()
        self._free = 0  # what the disk had when it was last asked: with each PUT
        self._workers = Workers(MAXIMUM_THREADS)
        self._arrivals = Arrivals(maximum_ahead)
        self._deleting: set[str] = set()

    # --- what every provider offers -------------------------------------------------------------

    async def sign_put(self, name: str, *, size_limit: int, lifetime: int) -> SignedRequest:
        """A PUT that creates `name` once; of at most `size_limit` bytes."""
        return self._urls.sign("PUT", name, lifetime, size_limit)

    async def sign_get(self, name: str, *, lifetime: int) -> SignedRequest:
        """A GET of `name`."""
        return self._urls.sign("GET", name, lifetime)

    async def sign_get_ahead(self, name: str, *, lifetime: int, reader: bytes) -> SignedRequest:
        """A GET of `name` that waits for it (`relay.providers.ReadsAhead`)."""
        return self._urls.sign("GET", name, lifetime, reader=reader)

    async def sign_delete(self, name: str, *, lifetime: int) -> SignedRequest:
        """A DELETE of `name`."""
        return self._urls.sign("DELETE", name, lifetime)

    async def delete(self, names: Sequence[str]) -> None:
        """Delete these objects; missing ones are no error."""
        for name in names:
            check_object_name(name)
        self._arrivals.forget(names)
        # Not there for anybody from here on, whatever comes while the disk is at it.
        sizes = {name: self._sizes.pop(name) for name in names if name in self._sizes}
        if not sizes:
            return
        self._deleting.update(sizes)
        whole = tuple(sizes)
        try:
            paths = [self._path(name) for name in sizes]
            gone, error = await self._in_thread(partial(files.unlink_all, paths))
            for name in list(sizes)[:gone]:
                self._usage.stored -= sizes.pop(name)
            if error is not None:
                raise _failed(error)
        finally:
            self._deleting.difference_update(whole)
            self._sizes.update(sizes)  # what could not be deleted is still there

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """All objects whose names begin with `prefix`, folder by folder."""
        for folder in await self._in_thread(lambda: sorted(self._objects.iterdir())):
            for stored in await self._in_thread(partial(files.scan, folder)):
                if stored.name.startswith(prefix):
                    yield stored

    async def ready(self) -> None:
        """Raise ProviderError if the disk is full, or all of the space used.

        Not over HTTP: a Bridge need not be able to reach itself by its own URL.
        """
        if self._usage.stored >= self._space:
            raise ProviderError("blob space is used up: raise blob_space")
        if await self._free_disk() <= self._free_floor:
            raise ProviderError(f"disk is nearly full: free some in {self._objects.parent}")

    async def check(self) -> Sequence[Finding]:
        """Put, get and delete a probe over this Bridge's own URL; say how much room there is."""
        free = await self._free_disk()
        stored, space = self._usage.stored / 2**30, self._space / 2**30
        findings = [
            Finding(
                f"free disk: {free / 2**30:.1f} GiB",
                free > self._free_floor,
                "" if free > self._free_floor else f"free some in {self._objects.parent}",
            ),
            Finding(
                f"blob space: {stored:.1f} of {space:.1f} GiB used",
                self._usage.stored < self._space,
                "" if self._usage.stored < self._space else "raise blob_space",
            ),
        ]
        async with self._client() as client:
            findings.extend(await probe(self, client))
        return findings

    # --- what the blob endpoint needs -----------------------------------------------------------

    def verify(self, method: str, name: str, query: bytes) -> tuple[int, str]:
        """What a request was signed for (`relay.providers.blob_urls.BlobURLs.verify`)."""
        return self._urls.verify(method, name, query)

    async def write(self, name: str, stream: AsyncIterable[bytes], length: int) -> None:
        """Store the `length` bytes of `stream` as `name`, all or nothing.

        Raises Refused: 409 if the object exists or is being deleted, 507 without room, 400 if the
        length lies.
        """
        check_object_name(name)
        if name in self._sizes or name in self._deleting:
            raise Refused(409, "the object exists")
        if self._usage.stored + self._usage.promised + length > self._space:
            raise Refused(507, "blob space is used up")
        if not (self._has_room(length) or (await self._free_disk() and self._has_room(length))):
            raise Refused(507, "disk is nearly full")
        incoming = f"{self._root}/incoming/{next(self._numbers)}"
        self._usage.promised += length
        arrival = self._arrivals.begin(name, length)
        stored = False
        try:
            await self._receive(arrival, stream, incoming)
            store = partial(
                files.store, arrival, incoming, self._path(name), f"{self._root}/objects"
            )
            self._free = await self._in_thread(store)
            if name in self._deleting:
                # Put again behind what is being deleted: it would outlive that, which whoever
                # counts what is stored takes for the end of them both.
                with trio.CancelScope(shield=True):
                    await self._in_thread(partial(files.remove, self._path(name)))
                raise Refused(409, "the object exists")
            self._usage.stored += length
            self._sizes[name] = length
            stored = True
        except FileExistsError:  # another PUT of the same name was faster
            raise Refused(409, "the object exists") from None
        except BaseException:
            if arrival.descriptor is not None:
                with trio.CancelScope(shield=True):
                    await self._in_thread(partial(files.remove, incoming))
            raise
        finally:
            self._usage.promised -= length
            self._arrivals.over(arrival, stored=stored)

    def has(self, name: str) -> bool:
        """Whether the object `name` is stored."""
        return name in self._sizes

    async def open(self, name: str) -> Blob:
        """The object `name`, open for reading; deleting it meanwhile does no harm.

        Raises ObjectMissing.
        """
        if name not in self._sizes:
            raise ObjectMissing("no such object")
        if (arrival := self._arrivals.in_memory(name)) is not None:
            return self._arriving(arrival)
        try:
            piece = self._arrivals.memory.piece
            opened = await self._in_thread(partial(files.open_file, self._path(name), piece))
        except FileNotFoundError:  # deleted meanwhile
            raise ObjectMissing("no such object") from None
        size, first, descriptor = opened
        pieces = partial(self._pieces, size, first, descriptor)
        return Blob(size, pieces, _nothing if descriptor is None else partial(os.close, descriptor))

    async def open_ahead(self, name: str, reader: str, gone: Callable[[], Awaitable[None]]) -> Blob:
        """As `open`, but one that is not there is waited for, and read as it arrives.

        `reader` is the tag that `verify` gave. ObjectMissing where it does not begin to come, and
        once `gone` returns: whoever asked is not there any more.
        """
        if name in self._sizes:
            return await self.open(name)
        waiting = self._arrivals.reader(name, reader)
        if waiting is None:
            raise ObjectMissing("no such object yet")
        try:
            arrival = await waiting.begun(gone)
        finally:
            waiting.leave()
        if arrival is None:
            raise ObjectMissing("no such object yet")
        return self._arriving(arrival, held=True)

    async def remove(self, name: str) -> None:
        """Delete one object; a missing one is no error."""
        await self.delete([name])

    @property
    def used(self) -> int:
        """Bytes stored."""
        return self._usage.stored

    @property
    def space(self) -> int:
        """Bytes that may be stored."""
        return self._space

    # --- inside ---------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Make the folders, drop what a crash left half-way, and learn what is stored."""
        prepare = partial(files.prepare, self._objects, self._incoming)
        self._sizes = await self._in_thread(prepare)
        self._usage.stored = sum(self._sizes.values())
        await self._free_disk()

    def let_nobody_wait(self) -> None:
        """Answer those who ask ahead of time, and whoever does from now on: the Bridge stops."""
        self._arrivals.close()

    def close(self) -> None:
        """End what `prepare` began."""
        self._arrivals.close()
        self._workers.close()

    async def _receive(self, arrival: Arrival, stream: AsyncIterable[bytes], incoming: str) -> None:
        async for piece in stream:
            if arrival.received + len(piece) > arrival.length:
                raise Refused(400, "body is longer than its Content-Length")
            arrival.add(piece)
            # Readers look through the pieces that are held: a body of tiny ones is not let grow.
            many = len(arrival.pieces) >= files.MAXIMUM_BUFFERS
            # The last is written with what ends the PUT, where memory has room for that.
            if self._arrivals.crowd(arrival) or (many and arrival.received < arrival.length):
                await self._in_thread(partial(files.write_out, arrival, incoming))
                arrival.wrote()
        if arrival.received < arrival.length:
            raise Refused(400, "body is shorter than its Content-Length")

    def _arriving(self, arrival: Arrival, *, held: bool = False) -> Blob:
        if not held:
            arrival.hold()
        return Blob(arrival.length, partial(arrival.read, self._workers), arrival.release)

    async def _pieces(
        self, size: int, first: bytes, descriptor: int | None
    ) -> AsyncGenerator[bytes, None]:
        offset, piece, memory = 0, first, self._arrivals.memory
        while offset < size:
            if offset:
                assert descriptor is not None
                length = min(memory.piece, size - offset)
                piece = await self._in_thread(partial(os.pread, descriptor, length, offset))
            if not piece:
                raise ProviderError("blob file is shorter than it was")
            offset += len(piece)
            with memory.holding(len(piece)):
                yield piece

    def _has_room(self, length: int) -> bool:
        return self._free - self._usage.promised - length >= self._free_floor

    async def _free_disk(self) -> int:
        self._free = await self._in_thread(partial(files.free_bytes, str(self._objects)))
        return self._free

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """`work` in a thread; the system's errors, but for what callers look for, as ours."""
        try:
            return await self._workers.run(work)
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            raise _failed(error) from error

    def _path(self, name: str) -> str:
        """Where the object lies. The name was checked, or is one of those that are stored."""
        folder = hashlib.sha256(name.encode("ascii")).hexdigest()[:2]
        return f"{self._root}/objects/{folder}/{name.replace('/', '+')}"


@asynccontextmanager
async def open_disk_provider(
    root: Path,
    *,
    base_url: str,
    key: bytes,
    space: int,
    free_floor: int = FREE_DISK_FLOOR,
    client: Callable[[], httpx.AsyncClient] = httpx.AsyncClient,
    maximum_ahead: int = MAXIMUM_AHEAD,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[DiskProvider]:
    """The store in folder `root`, reached by Routers at `base_url`, its URLs signed with `key`.

    It holds at most `space` bytes, and takes nothing that would leave less than `free_floor` bytes
    free on the disk. `client` makes the HTTP client of `check`. `maximum_ahead` requests may wait
    for their objects at once. Raises ProviderError if the folder cannot be used.
    """
    provider = DiskProvider(
        root,
        urls=BlobURLs(base_url, key, clock),
        space=space,
        free_floor=free_floor,
        client=client,
        maximum_ahead=maximum_ahead,
    )
    try:
        await provider.prepare()
        yield provider
    finally:
        provider.close()


def _failed(error: OSError) -> ProviderError:
    return ProviderError(f"disk store: {error.strerror}")


def _nothing() -> None:
    """What there is to close of an object that was read at once."""
