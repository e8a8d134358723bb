"""Object stores that a test can break, offered as kinds of provider."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from relay.errors import ProviderError
from relay.providers import Finding, SignedRequest, StoredObject
from relay.providers.registry import Host


@attrs.define(slots=False, eq=False)
class FakeProvider:
    """Signs for https://store.example; raises `error`, or hangs, when told."""

    name = "fake"
    enforces_size = False

    error: Exception | None = None
    hangs: bool = False
    findings: list[Finding] = attrs.Factory(list)
    open: bool = True
    origin: str = "https://store.example"
    crash: trio.Event = attrs.Factory(trio.Event)

    async def _do(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        if self.error is not None:
            raise self.error

    async def _sign(self, method: str, name: str) -> SignedRequest:
        await self._do()
        return SignedRequest(method, f"{self.origin}/{name}?{method}", (), 0)

    async def sign_put(self, name: str, *, size_limit: int, lifetime: int) -> SignedRequest:
        return await self._sign("PUT", name)

    async def sign_get(self, name: str, *, lifetime: int) -> SignedRequest:
        return await self._sign("GET", name)

    async def sign_delete(self, name: str, *, lifetime: int) -> SignedRequest:
        return await self._sign("DELETE", name)

    async def delete(self, names: Sequence[str]) -> None:
        await self._do()

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        yield StoredObject("ab/1", 1, 1)
        await self._do()

    async def ready(self) -> None:
        await self._do()

    async def check(self) -> Sequence[Finding]:
        await self._do()
        return self.findings


@attrs.define
class FakeKind:
    """A `ProviderFactory`: keeps what it opened, by the setting `called`."""

    opened: dict[str, FakeProvider] = attrs.Factory(dict)
    refuses: Exception | None = None
    fails_to_close: Exception | None = None
    origin: str = "https://store.example"

    @asynccontextmanager
    async def __call__(
        self, host: Host, settings: Mapping[str, str]
    ) -> AsyncIterator[FakeProvider]:
        if settings.get("secret") == "bad":
            raise ProviderError("secret: does not fit", permanent=True)
        if self.refuses is not None:
            raise self.refuses
        provider = self.opened[settings.get("called", "")] = FakeProvider(origin=self.origin)

        async def work() -> None:
            await provider.crash.wait()
            raise RuntimeError("a secret")

        async with trio.open_nursery() as nursery:  # a provider may have tasks of its own
            nursery.start_soon(work)
            try:
                yield provider
            finally:
                provider.open = False
                nursery.cancel_scope.cancel()
        if self.fails_to_close is not None:
            raise self.fails_to_close
