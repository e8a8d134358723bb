"""What the queue's tests stand on."""

from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from relay.workers import Workers


@pytest.fixture
def patient_clock(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Time that passes at once where nothing happens, and stands still while a thread is at work.

    For tests in which rows and objects are written to the disk, however slow that is.
    """
    clock = MockClock(autojump_threshold=0)
    working = [0]

    def watching(run: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(*arguments: Any, **options: Any) -> Any:
            working[0] += 1
            clock.autojump_threshold = inf
            try:
                return await run(*arguments, **options)
            finally:
                working[0] -= 1
                clock.autojump_threshold = inf if working[0] else 0

        return watched

    monkeypatch.setattr(trio.to_thread, "run_sync", watching(trio.to_thread.run_sync))
    monkeypatch.setattr(Workers, "run", watching(Workers.run))
    return clock
