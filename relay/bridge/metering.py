"""How much of the Bridge's own store each Router uses.

Only of that one: what goes to a cloud does not pass here, and a cloud counts for itself.

Objects' names say nothing about their owners, so what was signed for whom is remembered here while
it is stored. A restart forgets; the sweeper ends that within minutes.
"""

from collections.abc import AsyncIterable, Awaitable, Callable, Sequence

import attrs

from relay.errors import Refused
from relay.providers.disk import Blob, DiskProvider

# Sealed bytes of one Router in the store at once: 256 sessions of four chunks of 4 MiB each. One
# Router cannot use up the store for the others.
MAXIMUM_STORED = 4 * 1024 * 1024 * 1024


class Meter:
    """Bytes of each Router that are stored or on their way, and the owner of each name signed."""

    def __init__(self, maximum: int = MAXIMUM_STORED) -> None:
        self._maximum = maximum
        self._owners: dict[str, bytes] = {}
        self._sizes: dict[str, int] = {}  # of what is stored
        self._used: dict[bytes, int] = {}

    def signed(self, name: str, router: bytes) -> None:
        """A PUT of `name` was signed for this Router."""
        self._owners.setdefault(name, router)

    def charge(self, name: str, size: int) -> bytes | None:
        """Count a PUT, whatever others of this name are under way, and say for whom.

        `stored` or `failed` follows. Raises Refused (507) if that Router has no room left.
        """
        router = self._owners.get(name)
        if router is None:
            return None
        used = self.used_by(router) + size
        if used > self._maximum:
            raise Refused(507, "this Router has too much in the store")
        self._used[router] = used
        return router

    def stored(self, name: str, router: bytes | None, size: int) -> None:
        """The PUT that was charged to `router` is stored."""
        if name not in self._owners:
            self.failed(router, size)
        elif router is not None:
            self._sizes[name] = self._sizes.get(name, 0) + size

    def failed(self, router: bytes | None, size: int) -> None:
        """The PUT that was charged to `router` is not stored."""
        if router is not None:
            self._used[router] -= size

    def release(self, names: Sequence[str], forget: bool = False) -> None:
        """These objects are gone, or were never stored; with `forget` they will not come again."""
        for name in names:
            size = self._sizes.pop(name, 0)
            router = self._owners.get(name)
            if router is not None and size:
                self._used[router] -= size
            if forget:
                self._owners.pop(name, None)

    def used_by(self, router: bytes) -> int:
        """Bytes that this Router has stored, or is storing."""
        return self._used.get(router, 0)

    def used(self) -> dict[bytes, int]:
        """As `used_by`, of each Router that ever stored anything since the Bridge started."""
        return dict(self._used)


@attrs.define(slots=True, eq=False)
class BlobTraffic:
    """What the Bridge's own store was asked since it started; of PUTs that were not kept, those
    `refused` for want of room, and those that `failed` on the way."""

    puts: int = 0
    gets: int = 0
    deletes: int = 0
    refused: int = 0
    failed: int = 0
    bytes_put: int = 0
    bytes_got: int = 0


class MeteredStore:
    """The disk provider behind the blob endpoint, with every PUT counted.

    `store` gives it, or None while it is not set up: the administrator may remove it.
    """

    def __init__(self, store: Callable[[], DiskProvider | None], meter: Meter) -> None:
        self._find = store
        self._meter = meter
        self.traffic = BlobTraffic()

    @property
    def _store(self) -> DiskProvider:
        store = self._find()
        if store is None:
            raise Refused(404, "this Bridge has no store of its own")
        return store

    def verify(self, method: str, name: str, query: bytes) -> tuple[int, str]:
        return self._store.verify(method, name, query)

    async def write(self, name: str, stream: AsyncIterable[bytes], length: int) -> None:
        store = self._store
        try:
            router = self._meter.charge(name, length)
        except Refused:
            self.traffic.refused += 1
            if store.has(name):  # put again, by one that got no answer
                raise Refused(409, "the object exists") from None
            raise
        try:
            await store.write(name, stream, length)
        except BaseException:
            self.traffic.failed += 1
            self._meter.failed(router, length)
            raise
        self._meter.stored(name, router, length)
        self.traffic.puts += 1
        self.traffic.bytes_put += length

    async def open(self, name: str) -> Blob:
        return self._read(await self._store.open(name))

    async def open_ahead(self, name: str, reader: str, gone: Callable[[], Awaitable[None]]) -> Blob:
        return self._read(await self._store.open_ahead(name, reader, gone))

    def _read(self, blob: Blob) -> Blob:
        self.traffic.gets += 1
        self.traffic.bytes_got += blob.size
        return blob

    async def remove(self, name: str) -> None:
        await self._store.remove(name)
        self.traffic.deletes += 1
        self._meter.release([name])
