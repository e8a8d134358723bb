"""What readers have opened in the Bridge's own store is deleted, without a request of theirs.

A reader says in each Progress how much it has opened (`relay.signalling.messages`). So many names
go in one call of the store, where a DELETE of the reader's for each took a tenth of its Router's
processor time, and more of the Bridge's.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import structlog
import trio

from relay.errors import RelayError
from relay.providers import Provider

log = structlog.get_logger()

# Seconds for which names are gathered: a store that is busy has some ten objects opened in it.
GATHER = 0.1
# Names that wait, in all and of one session: what one deletes in GATHER is far less, and while the
# disk hangs no session takes the room of the others. What finds none is told of again with the
# session's next Progress, and is the sweeper's in the end.
MAXIMUM_WAITING = 16 * 1024
MAXIMUM_OF_SESSION = 1024
# As the sweeper's: a store that takes longer is down.
TIMEOUT = 60.0


class OpenedObjects:
    """Deletes until cancelled what it is given. `on_deleted` learns the names that are gone.

    `has` says whether there is an object of that name: what never was put is not asked of the disk.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        *,
        has: Callable[[str], bool] = lambda name: True,
        on_deleted: Callable[[Sequence[str]], None] = lambda names: None,
    ) -> None:
        self._providers = providers
        self._has = has
        self._on_deleted = on_deleted
        self._waiting: dict[str, list[str]] = {}
        self._of_session: Counter[bytes] = Counter()
        self._woken = trio.Event()

    def room(self, session: bytes) -> int:
        """How many names more may wait that are of this session."""
        waiting = self._of_session
        return min(MAXIMUM_OF_SESSION - waiting[session], MAXIMUM_WAITING - waiting.total())

    def add(self, session: bytes, provider: str, names: Sequence[str]) -> None:
        """Nobody needs these objects of the session in the store `provider` any more.

        They are no more than there is `room` for.
        """
        there = [name for name in names if self._has(name)]
        if not there:
            return
        self._waiting.setdefault(provider, []).extend(there)
        self._of_session[session] += len(there)
        self._woken.set()

    async def run(self) -> NoReturn:
        """Delete what is added, for ever."""
        while True:
            await self._woken.wait()
            await trio.sleep(GATHER)
            self._woken = trio.Event()
            waiting, self._waiting = self._waiting, {}
            self._of_session.clear()
            for name, names in waiting.items():
                provider = self._providers.get(name)
                if provider is not None:  # else it was removed meanwhile, and all that is in it
                    await self._delete(provider, names)

    async def _delete(self, provider: Provider, names: Sequence[str]) -> None:
        """Delete these. What does not go is the sweeper's, when the session has ended."""
        try:
            with trio.fail_after(TIMEOUT):
                await provider.delete(names)
        except (RelayError, trio.TooSlowError) as error:
            why = str(error) or "no answer in time"
            log.warning("opened objects stay", provider=provider.name, count=len(names), why=why)
        else:
            self._on_deleted(names)
