"""Tried again: until it succeeds, the time is over, or a signed URL is refused too often."""

import pytest
import trio
from trio.testing import MockClock

from relay.errors import ObjectMissing, ProviderError, SignallingError
from relay.tunnel.retry import LONGEST_PAUSE, MAXIMUM_REFUSALS, persist

WINDOW = 20.0


class Store:
    """Fails as told, one error a try; after the last of them, or for ever, as `for_ever` says."""

    def __init__(self, *errors: Exception, for_ever: bool = False) -> None:
        self.errors = list(errors)
        self.for_ever = for_ever
        self.renewed: list[bool] = []
        self.failures = 0

    async def attempt(self, renew: bool) -> str:
        await trio.lowlevel.checkpoint()
        self.renewed.append(renew)
        if not self.errors:
            return "done"
        raise self.errors[0] if self.for_ever else self.errors.pop(0)

    def failed(self) -> None:
        self.failures += 1

    async def persist(self) -> str:
        return await persist(self.attempt, window=WINDOW, failed=self.failed)


async def test_what_succeeds_is_tried_once() -> None:
    store = Store()
    assert await store.persist() == "done"
    assert (store.renewed, store.failures) == ([False], 0)


async def test_what_fails_for_a_while_is_tried_again(autojump_clock: MockClock) -> None:
    store = Store(ProviderError("busy"), SignallingError("no connection"), ObjectMissing("later"))
    assert await store.persist() == "done"
    # Only what another try of the same request cannot better has its URL signed again.
    assert (store.renewed, store.failures) == ([False] * 4, 3)


async def test_a_refused_url_is_signed_again(autojump_clock: MockClock) -> None:
    store = Store(ProviderError("expired", permanent=True))
    assert await store.persist() == "done"
    assert store.renewed == [False, True]


async def test_urls_that_are_refused_again_and_again_are_given_up(
    autojump_clock: MockClock,
) -> None:
    store = Store(ProviderError("no", permanent=True), for_ever=True)
    with pytest.raises(ProviderError, match="no"):
        await store.persist()
    assert store.failures == MAXIMUM_REFUSALS + 1


@pytest.mark.parametrize("error", [ProviderError("down"), ObjectMissing("none")], ids=str)
async def test_the_last_error_is_raised_when_the_time_is_over(
    autojump_clock: MockClock, error: Exception
) -> None:
    store = Store(error, for_ever=True)
    start = trio.current_time()
    with pytest.raises(type(error)):
        await store.persist()
    assert WINDOW < trio.current_time() - start <= WINDOW + LONGEST_PAUSE
    assert store.failures > WINDOW / LONGEST_PAUSE


async def test_a_slow_success_is_one(autojump_clock: MockClock) -> None:
    async def attempt(renew: bool) -> str:
        await trio.sleep(3 * WINDOW)
        return "done"

    assert await persist(attempt, window=WINDOW, failed=lambda: None) == "done"
