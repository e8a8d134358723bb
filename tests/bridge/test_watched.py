"""What a provider raises, however strange, becomes ours and is counted; nothing waits for ever."""

import pytest
import structlog
import trio

from relay.bridge.watched import (
    DELETE_TIMEOUT,
    FAILURES_TOLERATED,
    READY_TIMEOUT,
    SIGN_TIMEOUT,
    Health,
    WatchedProvider,
    watch,
)
from relay.errors import ProviderError
from relay.providers import ReadsAhead, SignedRequest

from .conftest import NOW
from .stores import FakeProvider


@pytest.fixture
def changes() -> list[bool]:
    return []


@pytest.fixture
def health(changes: list[bool]) -> Health:
    health = Health("cloud", lambda: NOW, lambda: changes.append(health.failing))
    return health


@pytest.fixture
def inner() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def provider(inner: FakeProvider, health: Health) -> WatchedProvider:
    return WatchedProvider("cloud", inner, health)


VERBS = {
    "sign_put": lambda p: p.sign_put("a", size_limit=1, lifetime=60),
    "sign_get": lambda p: p.sign_get("a", lifetime=60),
    "sign_delete": lambda p: p.sign_delete("a", lifetime=60),
    "delete": lambda p: p.delete(["a"]),
    "ready": lambda p: p.ready(),
    "check": lambda p: p.check(),
}


async def names(provider: WatchedProvider) -> list[str]:
    return [stored.name async for stored in provider.list("a")]


class Waiting(FakeProvider):
    """One that can have a reader wait."""

    async def sign_get_ahead(self, name: str, *, lifetime: int, reader: bytes) -> SignedRequest:
        return await self._sign(reader.decode(), name)


async def test_what_a_provider_can_do_beside_is_handed_on_too(health: Health) -> None:
    plain, waiting = watch("cloud", FakeProvider(), health), watch("cloud", Waiting(), health)
    assert not isinstance(plain, ReadsAhead)
    assert isinstance(waiting, ReadsAhead)
    signed = await waiting.sign_get_ahead("ab", lifetime=60, reader=b"router")
    assert signed.url.endswith("ab?router")


async def test_handed_on(provider: WatchedProvider, health: Health) -> None:
    assert provider.enforces_size is False
    assert (await provider.sign_put("ab", size_limit=1, lifetime=60)).url.endswith("ab?PUT")
    assert [await call(provider) for call in VERBS.values()][3:] == [None, None, []]
    assert await names(provider) == ["ab/1"]
    assert (health.failing, health.last_failure) == (False, None)


@pytest.mark.parametrize("verb", VERBS)
async def test_failures_are_counted_whatever_they_are(
    provider: WatchedProvider, inner: FakeProvider, health: Health, changes: list[bool], verb: str
) -> None:
    inner.error = ProviderError("cloud is down")
    with pytest.raises(ProviderError, match="cloud is down"):
        await VERBS[verb](provider)
    assert not health.failing
    assert health.suspected.is_set()
    inner.error = ZeroDivisionError("a secret")
    with structlog.testing.capture_logs() as logs:
        for _ in range(FAILURES_TOLERATED - 1):
            with pytest.raises(ProviderError, match="ZeroDivisionError in the provider's code"):
                await VERBS[verb](provider)
    assert health.failing
    assert health.failed_at == NOW
    assert not health.worked
    assert changes == [True]
    assert "stores.py" in str(logs)
    assert "a secret" not in str(logs)
    # Only an object that was stored, read and deleted heals.
    inner.error = None
    await VERBS["sign_get"](provider)
    assert health.failing
    await provider.ready()
    assert changes == [True, False]
    assert health.worked
    assert health.last_failure is not None


async def test_listing_that_fails_half_way(
    provider: WatchedProvider, inner: FakeProvider, health: Health
) -> None:
    inner.error = KeyError("x")
    with pytest.raises(ProviderError, match="KeyError"):
        await names(provider)
    assert health.last_failure is not None


@pytest.mark.parametrize(
    ("verb", "timeout"),
    [("sign_put", SIGN_TIMEOUT), ("delete", DELETE_TIMEOUT), ("ready", READY_TIMEOUT)],
)
async def test_nothing_waits_for_ever(
    provider: WatchedProvider, inner: FakeProvider, autojump_clock, verb: str, timeout: float
) -> None:
    inner.hangs = True
    start = trio.current_time()
    with pytest.raises(ProviderError, match="no answer"):
        await VERBS[verb](provider)
    assert trio.current_time() - start == timeout


async def test_failures_apart_are_no_failing_store(
    provider: WatchedProvider, inner: FakeProvider, health: Health
) -> None:
    for _ in range(3 * FAILURES_TOLERATED):
        inner.error = ProviderError("hiccup")
        with pytest.raises(ProviderError):
            await provider.delete(["a"])
        inner.error = None
        await provider.ready()
    assert not health.failing


async def test_what_signs_here_is_watched_as_well(health: Health) -> None:
    inner = Waiting()
    waiting = watch("disk", inner, health)
    inner.error = RuntimeError("a secret")
    with pytest.raises(ProviderError, match="RuntimeError in the provider's code"):
        await waiting.sign_get("ab", lifetime=60)
    inner.error = ProviderError("out of order")
    with pytest.raises(ProviderError, match="out of order"):
        await waiting.sign_put("ab", size_limit=1, lifetime=60)
    assert health.failing
