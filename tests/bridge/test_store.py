"""One store's task: open, looked after, closed."""

import pytest
import structlog
import trio
import trio.testing

from relay.bridge.store import LOOK_INTERVAL, RETRY_INTERVAL, Store
from relay.bridge.watched import Health
from relay.errors import ProviderError, Refused
from relay.providers import registry
from relay.providers.registry import Host

from .conftest import NOW
from .stores import FakeKind


@pytest.fixture
def kind(monkeypatch) -> FakeKind:
    kind = FakeKind()
    monkeypatch.setattr(registry, "BUILT_IN", {"fake": kind})
    return kind


@pytest.fixture
def host(tmp_path) -> Host:
    return Host(tmp_path, "https://bridge.example", b"k" * 32, 1)


def store(kind: str = "fake", **settings: str) -> Store:
    return Store("cloud", kind, settings, 1, False, Health("cloud", lambda: NOW))


async def test_opened_and_closed_when_told(kind: FakeKind, host: Host, nursery) -> None:
    held, providers = store(), {}
    await nursery.start(held.hold, host, providers)
    assert list(providers) == ["cloud"]
    assert held.origin == "https://store.example"
    held.closing.set()
    with trio.fail_after(5):
        await held.closed.wait()
    assert providers == {}
    assert held.provider is None
    assert not kind.opened[""].open


async def test_closed_when_the_bridge_stops(kind: FakeKind, host: Host) -> None:
    held, providers = store(), {}
    async with trio.open_nursery() as nursery:
        await nursery.start(held.hold, host, providers)
        nursery.cancel_scope.cancel()
    assert providers == {}
    assert not kind.opened[""].open


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ProviderError("bucket: is needed"), "^bucket: is needed$"),
        (Refused(400, "no"), "^no$"),
        (RuntimeError("a secret"), "^object store cloud: RuntimeError in the code of fake$"),
    ],
)
async def test_what_does_not_open_says_why(
    kind: FakeKind, host: Host, nursery, error: Exception, words: str
) -> None:
    kind.refuses = error
    providers: dict = {}
    with pytest.raises((ProviderError, Refused), match=words):
        await nursery.start(store().hold, host, providers)
    assert providers == {}


async def test_unknown_kind(kind: FakeKind, host: Host, nursery) -> None:
    with pytest.raises(Refused, match="no provider of kind 'floppy'"):
        await nursery.start(store("floppy").hold, host, {})


async def test_store_that_fails_to_close_harms_nobody(kind: FakeKind, host: Host, nursery) -> None:
    kind.fails_to_close = RuntimeError("a secret")
    held = store()
    await nursery.start(held.hold, host, {})
    with structlog.testing.capture_logs() as logs:
        held.closing.set()
        with trio.fail_after(5):
            await held.closed.wait()
        await trio.testing.wait_all_tasks_blocked()
    assert "did not close" in str(logs)
    assert "a secret" not in str(logs)


async def test_an_origin_that_is_none_is_a_store_that_does_not_open(
    kind: FakeKind, host: Host, nursery
) -> None:
    kind.origin = "https://[store"
    providers: dict = {}
    with pytest.raises(ProviderError, match="ValueError in the code of fake"):
        await nursery.start(store().hold, host, providers)
    assert providers == {}


async def test_a_strangers_code_that_ends_by_itself(kind: FakeKind, host: Host, nursery) -> None:
    held, providers = store(), {}
    with structlog.testing.capture_logs() as logs, trio.fail_after(5):
        async with trio.open_nursery() as holding:
            await holding.start(held.hold, host, providers)
            kind.opened[""].crash.set()
    assert providers == {}
    assert not held.closed.is_set()  # it is to be opened again
    assert "ended by itself" in str(logs)
    assert "a secret" not in str(logs)


async def test_looked_after(kind: FakeKind, host: Host, nursery, mock_clock) -> None:
    held = store()
    await nursery.start(held.hold, host, {})
    provider, health = kind.opened[""], held.health

    async def after(seconds: float) -> None:
        mock_clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()

    await after(0)
    provider.error = ProviderError("down")
    await after(LOOK_INTERVAL - 1)
    assert health.last_failure is None
    await after(1)
    assert (health.last_failure, health.failing) == ("down", False)
    await after(RETRY_INTERVAL)
    assert health.failing
    provider.error = None
    await after(RETRY_INTERVAL)
    assert not health.failing


async def test_a_failure_elsewhere_makes_it_look_at_once(
    kind: FakeKind, host: Host, nursery, mock_clock
) -> None:
    held = store()
    await nursery.start(held.hold, host, {})
    await trio.testing.wait_all_tasks_blocked()
    kind.opened[""].error = ProviderError("down")
    assert held.provider is not None
    with pytest.raises(ProviderError):
        await held.provider.delete(["a"])
    await trio.testing.wait_all_tasks_blocked()
    assert held.health.failing
