"""Trying again: what a store or the Bridge fails at, while an association can wait for it."""

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from relay.errors import ObjectMissing, ProviderError, SignallingError

T = TypeVar("T")

# Seconds between tries: what fails for a moment costs little, and a resume window of 20 s has room
# for ten and more.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
# Signed anew each time: an expired URL, a clock that is wrong, a key that changed. More is a no.
MAXIMUM_REFUSALS = 3


async def persist(
    attempt: Callable[[bool], Awaitable[T]], *, window: float, failed: Callable[[], None]
) -> T:
    """What `attempt` gives when it succeeds, tried again and again for `window` seconds.

    `attempt` is told whether to have its URL signed again first, as it is after an answer that
    another try of the same request could not better. `failed` is called for each failure.
    Raises the last ProviderError or SignallingError when the time is over, or a signed URL has been
    refused MAXIMUM_REFUSALS times. A slow success is one, however long it takes.
    """
    start = trio.current_time()
    refusals = 0
    pause = FIRST_PAUSE
    while True:
        try:
            return await attempt(refusals > 0)
        except (ProviderError, SignallingError) as error:
            failed()
            if isinstance(error, ProviderError) and error.permanent:
                # A missing object may only not be visible yet: no refusal.
                refusals += not isinstance(error, ObjectMissing)
            if trio.current_time() - start > window or refusals > MAXIMUM_REFUSALS:
                raise
            await trio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(LONGEST_PAUSE, 2 * pause)
