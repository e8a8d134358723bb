"""One object store that is set up: a task opens it, asks whether it works, and closes it.

A provider is an asynchronous context manager, perhaps with tasks inside; so it has one task of its
own from the beginning to the end.
"""

from collections.abc import Mapping, MutableMapping
from urllib.parse import urlsplit

import attrs
import structlog
import trio

from relay.bridge.watched import Health, WatchedProvider, watch
from relay.errors import ProviderError, RelayError, leaves
from relay.providers import Provider
from relay.providers.registry import Host, factory

log = structlog.get_logger()

# Seconds. Between two looks at a store that works, and at one that does not.
LOOK_INTERVAL = 60.0
RETRY_INTERVAL = 10.0


@attrs.define(slots=True, eq=False)
class Store:
    """A store. `place` is its turn among those in use, 0 where it is not.

    `provider` is there while it is open; `origin` is scheme, host and port of its signed URLs.
    `closing` is set to have it closed, `closed` when it is.
    """

    name: str
    kind: str
    settings: Mapping[str, str] = attrs.field(repr=False)
    place: int
    leaving: bool
    health: Health
    provider: WatchedProvider | None = None
    origin: str | None = None
    closing: trio.Event = attrs.Factory(trio.Event)
    closed: trio.Event = attrs.Factory(trio.Event)

    async def hold(
        self,
        host: Host,
        providers: MutableMapping[str, Provider],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep the store open, and among `providers`, until `closing` is set.

        Raises ProviderError, Refused if it does not open. A stranger's code may end by itself
        later: then it returns, though nothing is closing.
        """
        try:
            async with factory(self.kind)(host, self.settings) as provider:
                watched = watch(self.name, provider, self.health)
                self.origin = await _origin(watched)
                self.provider = providers[self.name] = watched
                task_status.started()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_look_after, watched)
                    await self.closing.wait()
                    nursery.cancel_scope.cancel()
        except Exception as error:
            if isinstance(error, ExceptionGroup):
                error = next(leaves(error))
            if self.provider is None:
                raise self._not_opened(error) from error
            what = "did not close" if self.closing.is_set() else "ended by itself"
            log.error(f"object store {what}", store=self.name, error=type(error).__name__)
        finally:
            if self.provider is not None:
                self.provider = None
                del providers[self.name]
                if self.closing.is_set():
                    self.closed.set()

    def _not_opened(self, error: Exception) -> RelayError:
        if isinstance(error, RelayError):
            return error
        # A stranger's words may hold anything, the secrets among its settings too.
        return ProviderError(
            f"object store {self.name}: {type(error).__name__} in the code of {self.kind}",
            permanent=True,
        )


async def _look_after(provider: WatchedProvider) -> None:
    """Ask again and again whether the store works: at once after a failure, else every minute."""
    while True:
        provider.health.suspected = trio.Event()
        try:
            await provider.ready()
        except ProviderError as error:
            if not provider.health.failing:  # then it has been said
                log.warning("object store failed", store=provider.name, why=str(error))
            await trio.sleep(RETRY_INTERVAL)
        else:
            with trio.move_on_after(LOOK_INTERVAL):
                await provider.health.suspected.wait()


async def _origin(provider: Provider) -> str | None:
    """Where Routers go for its objects: what a hospital's firewall has to let out."""
    try:
        url = urlsplit((await provider.sign_get("probe/origin", lifetime=60)).url)
    except ProviderError:
        return None  # said where it matters: by its health
    return f"{url.scheme}://{url.netloc}"
