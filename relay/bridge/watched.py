"""A provider with an eye on it: every call has a deadline, every failure is ours, and counted.

A third party's code is behind it as well as ours: whatever that raises ends here.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import attrs
import structlog
import trio

from relay.errors import ProviderError
from relay.providers import Finding, Provider, ReadsAhead, SignedRequest, StoredObject

T = TypeVar("T")

log = structlog.get_logger()

# Signing is arithmetic, or at most asks the cloud for a key: slower is down.
SIGN_TIMEOUT = 10.0
# Three small requests to a store.
READY_TIMEOUT = 30.0
# One batch of a thousand, before the sweeper's own patience is at its end.
DELETE_TIMEOUT = 45.0
# Failures in a row, of whatever kind, after which new sessions use another store: one may be the
# network's hiccup, and each is followed by a look of our own at once.
FAILURES_TOLERATED = 2


@attrs.define(slots=True, eq=False)
class Health:
    """How a store has been doing. `clock` gives Unix seconds, `changed` is told of each change.

    `worked`: an object was stored, read and deleted once, since the Bridge started.
    """

    store: str
    clock: Callable[[], float]
    changed: Callable[[], None] = lambda: None
    failing: bool = False
    last_failure: str | None = None
    failed_at: int | None = None
    worked: bool = False
    failures: int = 0  # since the Bridge started
    _in_a_row: int = 0
    suspected: trio.Event = attrs.Factory(trio.Event)

    def failed(self, why: str) -> None:
        """The store did not do what it was asked."""
        self._in_a_row += 1
        self.failures += 1
        self.last_failure, self.failed_at = why, int(self.clock())
        self.suspected.set()
        if self._in_a_row >= FAILURES_TOLERATED and not self.failing:
            self.failing = True
            log.error("object store fails; new sessions use the next", store=self.store, why=why)
            self.changed()

    def works(self) -> None:
        """An object was stored, read and deleted."""
        self._in_a_row, self.worked = 0, True
        if self.failing:
            self.failing = False
            log.info("object store works again", store=self.store)
            self.changed()


class WatchedProvider:
    """A `Provider` that hands everything on to another, and tells `health` what failed."""

    _sign_timeout: float | None = SIGN_TIMEOUT

    def __init__(self, name: str, provider: Provider, health: Health) -> None:
        self.name = name
        self.health = health
        self.inner = provider
        self.enforces_size = provider.enforces_size

    async def sign_put(self, name: str, *, size_limit: int, lifetime: int) -> SignedRequest:
        return await self._call(
            self._sign_timeout,
            lambda: self.inner.sign_put(name, size_limit=size_limit, lifetime=lifetime),
        )

    async def sign_get(self, name: str, *, lifetime: int) -> SignedRequest:
        return await self._call(
            self._sign_timeout, lambda: self.inner.sign_get(name, lifetime=lifetime)
        )

    async def sign_delete(self, name: str, *, lifetime: int) -> SignedRequest:
        return await self._call(
            self._sign_timeout, lambda: self.inner.sign_delete(name, lifetime=lifetime)
        )

    async def delete(self, names: Sequence[str]) -> None:
        await self._call(DELETE_TIMEOUT, lambda: self.inner.delete(names))

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        with self._mapped():
            async for stored in self.inner.list(prefix):
                yield stored

    async def ready(self) -> None:
        await self._call(READY_TIMEOUT, self.inner.ready)
        self.health.works()

    async def check(self) -> Sequence[Finding]:
        with self._mapped():
            return await self.inner.check()

    async def _call(self, timeout: float | None, work: Callable[[], Awaitable[T]]) -> T:
        try:
            if timeout is None:
                return await work()
            with trio.move_on_after(timeout):
                return await work()
            raise ProviderError(f"no answer in {timeout:g} s")
        except ProviderError as error:
            self.health.failed(str(error))
            raise
        except Exception as error:
            raise self._strange(error) from error

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except ProviderError as error:
            self.health.failed(str(error))
            raise
        except Exception as error:
            raise self._strange(error) from error

    def _strange(self, error: Exception) -> ProviderError:
        """Whatever a stranger's code raises, as ours: its words are not shown."""
        why = f"{type(error).__name__} in the provider's code"
        self.health.failed(why)
        log.error("provider failed", store=self.name, error=type(error).__name__, at=_at(error))
        return ProviderError(f"object store {self.name}: {why}")


class WatchedAhead(WatchedProvider):
    """As WatchedProvider, over one that can have a reader wait: this Bridge's own.

    It signs in this process, without waiting for anything. With a deadline around each, the three
    signatures of an object took 54 us of processor time, and not 15.
    """

    _sign_timeout = None

    def __init__(self, name: str, provider: Provider, ahead: ReadsAhead, health: Health) -> None:
        super().__init__(name, provider, health)
        self._ahead = ahead

    async def sign_get_ahead(self, name: str, *, lifetime: int, reader: bytes) -> SignedRequest:
        return await self._call(
            self._sign_timeout,
            lambda: self._ahead.sign_get_ahead(name, lifetime=lifetime, reader=reader),
        )


def watch(name: str, provider: Provider, health: Health) -> WatchedProvider:
    """The provider, watched, with all that it can do."""
    if isinstance(provider, ReadsAhead):
        return WatchedAhead(name, provider, provider, health)
    return WatchedProvider(name, provider, health)


def _at(error: BaseException) -> str:
    """Where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "unknown"
