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
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import attrs
import httpx
import trio

from relay.errors import ObjectMissing, ProviderError, Refused
from relay.providers import Finding, SignedRequest, StoredObject
from relay.providers.names import check_object_name, is_object_name
from relay.providers.probe import probe

T = TypeVar("T")

BLOB_PATH = "/v1/blobs/"
# Disk that stays free whatever Relay may use: databases and logs live beside the blobs.
FREE_DISK_FLOOR = 512 * 1024 * 1024
# A thread hop costs 0.1 ms: a piece this large makes it small beside the copy.
WRITE_PIECE = 1024 * 1024
READ_PIECE = 256 * 1024

_SIGNATURE_DOMAIN = b"relay/1/blob\0"


@attrs.frozen(slots=True)
class Blob:
    """An object opened for reading: its size, and its bytes in pieces."""

    size: int
    _descriptor: int

    async def pieces(self) -> AsyncIterator[bytes]:
        offset = 0
        while offset < self.size:
            piece = await _in_thread(partial(os.pread, self._descriptor, READ_PIECE, offset))
            if not piece:
                raise ProviderError("blob file is shorter than it was")
            offset += len(piece)
            yield piece


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

    # --- what every provider offers -------------------------------------------------------------

    async def sign_put(self, name: str, *, size_limit: int, lifetime: int) -> SignedRequest:
        """A PUT that creates `name` once; of at most `size_limit` bytes."""
        return self._sign("PUT", name, lifetime, size_limit)

    async def sign_get(self, name: str, *, lifetime: int) -> SignedRequest:
        """A GET of `name`."""
        return self._sign("GET", name, lifetime)

    async def sign_delete(self, name: str, *, lifetime: int) -> SignedRequest:
        """A DELETE of `name`."""
        return self._sign("DELETE", name, lifetime)

    async def delete(self, names: Sequence[str]) -> None:
        """Delete these objects; missing ones are no error."""
        paths = [self._path(name) for name in names]
        self._usage.stored -= await _in_thread(partial(_unlink_all, paths))

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """All objects whose names begin with `prefix`, folder by folder."""
        for folder in await _in_thread(lambda: sorted(self._objects.iterdir())):
            for stored in await _in_thread(partial(_scan, folder)):
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
        expected = self._signature(method, name, int(expires), int(limit))
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
        if await _in_thread(path.exists):
            raise Refused(409, "the object exists")
        if self._usage.stored + self._usage.promised + length > self._space:
            raise Refused(507, "blob space is used up")
        if await self._free_disk() - self._usage.promised - length < self._free_floor:
            raise Refused(507, "disk is nearly full")
        incoming = self._incoming / secrets.token_hex(16)
        self._usage.promised += length
        try:
            await self._receive(incoming, stream, length)
            await _in_thread(partial(os.link, incoming, path))
            self._usage.stored += length
        except FileExistsError:
            raise Refused(409, "the object exists") from None
        finally:
            self._usage.promised -= length
            with trio.CancelScope(shield=True):
                await _in_thread(partial(incoming.unlink, missing_ok=True))

    async def exists(self, name: str) -> bool:
        """Whether the object `name` is stored."""
        return await _in_thread(self._path(name).exists)

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Blob]:
        """The object `name`, open for reading; deleting it meanwhile does no harm.

        Raises ObjectMissing.
        """
        path = self._path(name)
        try:
            descriptor = await _in_thread(partial(os.open, path, os.O_RDONLY | os.O_NOFOLLOW))
        except FileNotFoundError:
            raise ObjectMissing("no such object") from None
        try:
            yield Blob(os.fstat(descriptor).st_size, descriptor)
        finally:
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
        self._usage.stored = await _in_thread(partial(_prepare, self._objects, self._incoming))

    async def _receive(self, path: Path, stream: AsyncIterable[bytes], length: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = await _in_thread(partial(os.open, path, flags, 0o600))
        try:
            received = 0
            waiting = bytearray()
            async for piece in stream:
                received += len(piece)
                if received > length:
                    raise Refused(400, "body is longer than its Content-Length")
                waiting += piece
                if len(waiting) >= WRITE_PIECE:
                    await _in_thread(partial(_write_all, descriptor, bytes(waiting)))
                    waiting.clear()
            if received < length:
                raise Refused(400, "body is shorter than its Content-Length")
            await _in_thread(partial(_write_all, descriptor, bytes(waiting)))
        finally:
            os.close(descriptor)

    async def _free_disk(self) -> int:
        return (await _in_thread(partial(shutil.disk_usage, self._objects))).free

    def _path(self, name: str) -> Path:
        check_object_name(name)
        folder = hashlib.sha256(name.encode("ascii")).hexdigest()[:2]
        return self._objects / folder / name.replace("/", "+")

    def _sign(self, method: str, name: str, lifetime: int, limit: int = 0) -> SignedRequest:
        check_object_name(name)
        expires = int(self._clock()) + lifetime
        query = urlencode(
            {"e": expires, "l": limit, "s": self._signature(method, name, expires, limit)}
        )
        url = f"{self._base_url}{BLOB_PATH}{name}?{query}"
        return SignedRequest(method, url, (), expires)

    def _signature(self, method: str, name: str, expires: int, limit: int) -> str:
        # Name and method hold no newline, so no two requests share these bytes.
        signed = f"{method}\n{name}\n{expires}\n{limit}".encode()
        return hmac.digest(self._key, _SIGNATURE_DOMAIN + signed, "sha256").hex()


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
    await provider.prepare()
    yield provider


async def _in_thread(work: Callable[[], T]) -> T:
    """`work` in a thread; the system's errors, but for what callers look for, as ProviderError."""
    try:
        return await trio.to_thread.run_sync(work)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        raise ProviderError(f"disk store: {error.strerror}") from error


def _prepare(objects: Path, incoming: Path) -> int:
    objects.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (objects, incoming, *(objects / f"{number:02x}" for number in range(256))):
        folder.mkdir(mode=0o700, exist_ok=True)
    for half in incoming.iterdir():
        half.unlink()
    return sum(stored.size for folder in objects.iterdir() for stored in _scan(folder))


def _scan(folder: Path) -> list[StoredObject]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # deleted between the listing and the look
                status = entry.stat(follow_symlinks=False)
                name = entry.name.replace("+", "/")
                found.append(StoredObject(name, status.st_size, int(status.st_mtime)))
    return found


def _unlink_all(paths: Sequence[Path]) -> int:
    """Unlink what is there of `paths`; the bytes that were freed."""
    freed = 0
    for path in paths:
        with suppress(FileNotFoundError):
            size = path.lstat().st_size
            path.unlink()
            freed += size
    return freed


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 16
