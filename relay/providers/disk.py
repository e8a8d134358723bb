"""The Bridge's own object store: files under one folder, served by signed blob URLs.

    <root>/objects/<2 hex of SHA-256(name)>/<name, its slashes as plus signs>
    <root>/incoming/<random>            a PUT under way, linked to its place when it is whole

A chunk lives for minutes and its writer keeps it until it is acknowledged, so nothing is synced to
the disk: after a crash the writer puts it again.
"""

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import attrs
import httpx
import trio

from relay.errors import ObjectMissing, ProviderError, Refused
from relay.providers import Finding, SignedRequest, StoredObject, files
from relay.providers.arrivals import READ_PIECE, Arrival, Arrivals
from relay.providers.names import check_object_name, is_object_name
from relay.providers.probe import probe
from relay.workers import Workers

T = TypeVar("T")

BLOB_PATH = "/v1/blobs/"
# Disk that stays free whatever Relay may use: databases and logs live beside the blobs.
FREE_DISK_FLOOR = 512 * 1024 * 1024
# What of a PUT is held in memory until it is written: what is not larger goes to a thread once.
WRITE_PIECE = 1024 * 1024
# Hex digits of what stands for a session in its requests ahead of time.
SESSION_TAG = 16
# Threads that wait for the disk. More would only wait for each other, and for the interpreter.
MAXIMUM_THREADS = 8
_SIGNATURE_DOMAIN = b"relay/1/blob\0"
_SESSION_DOMAIN = b"relay/1/blob/session\0"


@attrs.frozen(slots=True)
class Blob:
    """An object opened for reading: its size, and its bytes in pieces."""

    size: int
    pieces: Callable[[], AsyncGenerator[bytes, None]]


@attrs.define
class _Usage:
    """Bytes stored, and bytes promised to PUTs under way. Only the trio thread changes them."""

    stored: int = 0
    promised: int = 0


class DiskProvider:
    """A `Provider` over a folder. Made by `open_disk_provider`."""

    name = "disk"
    enforces_size = True

    def __init__(
        self,
        root: Path,
        *,
        base_url: str,
        key: bytes,
        space: int,
        free_floor: int,
        client: Callable[[], httpx.AsyncClient],
        clock: Callable[[], float],
    ) -> None:
        self._objects = root / "objects"
        self._incoming = root / "incoming"
        self._base_url = base_url.rstrip("/")
        self._key = key
        self._space = space
        self._free_floor = free_floor
        self._client = client
        self._clock = clock
        self._usage = _Usage()
        self._free = 0  # what the disk had when it was last asked: with each PUT
        self._workers = Workers(MAXIMUM_THREADS)
        self._arrivals = Arrivals()

    # --- what every provider offers -------------------------------------------------------------

    async def sign_put(self, name: str, *, size_limit: int, lifetime: int) -> SignedRequest:
        """A PUT that creates `name` once; of at most `size_limit` bytes."""
        return self._sign("PUT", name, lifetime, size_limit)

    async def sign_get(self, name: str, *, lifetime: int) -> SignedRequest:
        """A GET of `name`."""
        return self._sign("GET", name, lifetime)

    async def sign_get_ahead(self, name: str, *, lifetime: int, session: bytes) -> SignedRequest:
        """A GET of `name` that waits for it (`relay.providers.ReadsAhead`)."""
        tag = hmac.digest(self._key, _SESSION_DOMAIN + session, "sha256").hex()[:SESSION_TAG]
        return self._sign("GET", name, lifetime, session=tag)

    async def sign_delete(self, name: str, *, lifetime: int) -> SignedRequest:
        """A DELETE of `name`."""
        return self._sign("DELETE", name, lifetime)

    async def delete(self, names: Sequence[str]) -> None:
        """Delete these objects; missing ones are no error."""
        paths = [self._path(name) for name in names]
        self._arrivals.disappoint(names)
        self._usage.stored -= await self._in_thread(partial(files.unlink_all, paths))

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
        findings = [
            Finding(
                f"free disk: {free // 2**20} MiB",
                free > self._free_floor,
                "" if free > self._free_floor else f"free some in {self._objects.parent}",
            ),
            Finding(
                f"blob space: {self._usage.stored // 2**20} of {self._space // 2**20} MiB used",
                self._usage.stored < self._space,
                "" if self._usage.stored < self._space else "raise blob_space",
            ),
        ]
        async with self._client() as client:
            findings.extend(await probe(self, client))
        return findings

    # --- what the blob endpoint needs -----------------------------------------------------------

    def verify(self, method: str, name: str, query: Mapping[str, str]) -> int:
        """Return the size limit of this signed request (0 unless PUT).

        Raises Refused (403) if it was not signed here, was signed for something else, or expired.
        """
        expires, limit, signature = (query.get(part, "") for part in ("e", "l", "s"))
        if not (_is_number(expires) and _is_number(limit) and is_object_name(name)):
            raise Refused(403, "not a signed request of this store")
        session = query.get("a", "")
        expected = self._signature(method, name, int(expires), int(limit), session)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise Refused(403, "signature does not hold")
        if self._clock() >= int(expires):
            raise Refused(403, "signed request has expired")
        return int(limit)

    async def write(self, name: str, stream: AsyncIterable[bytes], length: int) -> None:
        """Store the `length` bytes of `stream` as `name`, all or nothing.

        Raises Refused: 409 if the object exists, 507 without room, 400 if the length lies.
        """
        path = self._path(name)
        if self._usage.stored + self._usage.promised + length > self._space:
            raise await self._no_room(name, "blob space is used up")
        if not (self._has_room(length) or (await self._free_disk() and self._has_room(length))):
            raise await self._no_room(name, "disk is nearly full")
        incoming = self._incoming / secrets.token_hex(16)
        self._usage.promised += length
        try:
            with self._arrivals.arrival(name, length) as arrival:
                try:
                    await self._receive(arrival, stream, incoming)
                    store = partial(files.store, arrival, incoming, path, self._objects)
                    self._free = await self._in_thread(store)
                except FileExistsError:
                    raise Refused(409, "the object exists") from None
                except BaseException:
                    if arrival.descriptor is not None:
                        with trio.CancelScope(shield=True):
                            await self._in_thread(partial(incoming.unlink, missing_ok=True))
                    raise
                self._usage.stored += length
                arrival.end(stored=True)
        finally:
            self._usage.promised -= length

    async def exists(self, name: str) -> bool:
        """Whether the object `name` is stored."""
        return await self._in_thread(self._path(name).exists)

    @asynccontextmanager
    async def open(self, name: str, session: str = "") -> AsyncIterator[Blob]:
        """The object `name`, open for reading; deleting it meanwhile does no harm.

        With `session`, as `sign_get_ahead` has put it into the query's `a`, one that is not there
        is waited for, and read as it arrives. Raises ObjectMissing.
        """
        with self._arrivals.reader(name, session) if session else nullcontext() as reader:
            # Behind the reader, who so misses no PUT that begins while we look.
            try:
                size, first, descriptor = await self._in_thread(
                    partial(files.open_file, self._path(name))
                )
            except FileNotFoundError:
                arrival = await reader.begun() if reader is not None else None
                if arrival is None:
                    raise ObjectMissing("no such object") from None
                yield Blob(arrival.length, partial(arrival.read, self._workers))
                return
        try:
            yield Blob(size, partial(self._pieces, size, first, descriptor))
        finally:
            if descriptor is not None:
                os.close(descriptor)

    async def remove(self, name: str) -> None:
        """Delete one object; a missing one is no error."""
        await self.delete([name])

    @property
    def used(self) -> int:
        """Bytes stored."""
        return self._usage.stored

    # --- inside ---------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Make the folders, drop what a crash left half-way, and count what is stored."""
        prepare = partial(files.prepare, self._objects, self._incoming)
        self._usage.stored = await self._in_thread(prepare)
        await self._free_disk()

    def let_nobody_wait(self) -> None:
        """Answer those who ask ahead of time, and whoever does from now on: the Bridge stops."""
        self._arrivals.close()

    def close(self) -> None:
        """End what `prepare` began."""
        self._arrivals.close()
        self._workers.close()

    async def _receive(
        self, arrival: Arrival, stream: AsyncIterable[bytes], incoming: Path
    ) -> None:
        async for piece in stream:
            if arrival.received + len(piece) > arrival.length:
                raise Refused(400, "body is longer than its Content-Length")
            arrival.add(piece)
            held = arrival.received - arrival.written
            # Readers look through the pieces that are held: a body of tiny ones is not let grow.
            much = held >= WRITE_PIECE or len(arrival.pieces) >= files.MAXIMUM_BUFFERS
            if much and arrival.received < arrival.length:
                await self._in_thread(partial(files.write_out, arrival, incoming))
                arrival.wrote()
        if arrival.received < arrival.length:
            raise Refused(400, "body is shorter than its Content-Length")

    async def _pieces(
        self, size: int, first: bytes, descriptor: int | None
    ) -> AsyncGenerator[bytes, None]:
        offset = len(first)
        if first:
            yield first
        while offset < size:
            assert descriptor is not None
            length = min(READ_PIECE, size - offset)
            piece = await self._in_thread(partial(os.pread, descriptor, length, offset))
            if not piece:
                raise ProviderError("blob file is shorter than it was")
            offset += len(piece)
            yield piece

    async def _no_room(self, name: str, why: str) -> Refused:
        """What to say to a PUT of `name`, for which there is no room: it may be there already."""
        if await self.exists(name):
            return Refused(409, "the object exists")
        return Refused(507, why)

    def _has_room(self, length: int) -> bool:
        return self._free - self._usage.promised - length >= self._free_floor

    async def _free_disk(self) -> int:
        self._free = await self._in_thread(partial(files.free_bytes, self._objects))
        return self._free

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """`work` in a thread; the system's errors, but for what callers look for, as ours."""
        try:
            return await self._workers.run(work)
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            raise ProviderError(f"disk store: {error.strerror}") from error

    def _path(self, name: str) -> Path:
        check_object_name(name)
        folder = hashlib.sha256(name.encode("ascii")).hexdigest()[:2]
        return self._objects / folder / name.replace("/", "+")

    def _sign(
        self, method: str, name: str, lifetime: int, limit: int = 0, session: str = ""
    ) -> SignedRequest:
        check_object_name(name)
        expires = int(self._clock()) + lifetime
        signature = self._signature(method, name, expires, limit, session)
        query = urlencode({"e": expires, "l": limit, "s": signature})
        if session:
            query += f"&a={session}"
        url = f"{self._base_url}{BLOB_PATH}{name}?{query}"
        return SignedRequest(method, url, (), expires)

    def _signature(self, method: str, name: str, expires: int, limit: int, session: str) -> str:
        # Name and method hold no newline, so no two requests share these bytes.
        signed = f"{method}\n{name}\n{expires}\n{limit}"
        if session:
            signed += f"\n{session}"
        return hmac.digest(self._key, _SIGNATURE_DOMAIN + signed.encode(), "sha256").hex()


@asynccontextmanager
async def open_disk_provider(
    root: Path,
    *,
    base_url: str,
    key: bytes,
    space: int,
    free_floor: int = FREE_DISK_FLOOR,
    client: Callable[[], httpx.AsyncClient] = httpx.AsyncClient,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[DiskProvider]:
    """The store in folder `root`, reached by Routers at `base_url`, its URLs signed with `key`.

    It holds at most `space` bytes, and takes nothing that would leave less than `free_floor` bytes
    free on the disk. `client` makes the HTTP client of `check`. Raises ProviderError if the folder
    cannot be used.
    """
    provider = DiskProvider(
        root,
        base_url=base_url,
        key=key,
        space=space,
        free_floor=free_floor,
        client=client,
        clock=clock,
    )
    try:
        await provider.prepare()
        yield provider
    finally:
        provider.close()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 16
