"""Which kinds of object store there are: the built-in ones here, others by entry point.

A package offers a kind by an entry point of its name in the group `relay.providers`, that loads to
a `ProviderFactory`. Nothing is imported before it is asked for.
"""

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import cast

import attrs
import httpx

from relay.errors import ProviderError, Refused
from relay.providers import Provider
from relay.providers.arrivals import MAXIMUM_AHEAD
from relay.providers.disk import open_disk_provider
from relay.providers.s3 import S3Provider, S3Settings
from relay.providers.s3form import S3_SETTINGS
from relay.providers.settings import Setting, takes

ENTRY_POINT_GROUP = "relay.providers"


@attrs.frozen(slots=True)
class Host:
    """What the Bridge lends a provider: a folder of its own, its URL, a secret, and whom to trust.

    `space` is how many bytes the folder may hold. `key` is 32 secret bytes that stay the same over
    restarts. `maximum_ahead` is how many of its connections requests may hold that wait for their
    objects.
    """

    folder: Path
    base_url: str
    key: bytes = attrs.field(repr=False)
    space: int
    trust: ssl.SSLContext | None = None
    maximum_ahead: int = MAXIMUM_AHEAD

    def client(self) -> httpx.AsyncClient:
        """An HTTP client for `check`, that sees the network as a Router does."""
        verify = self.trust if self.trust is not None else True
        return httpx.AsyncClient(verify=verify, follow_redirects=False, trust_env=False)


# Opens a store with its own settings, from whatever the administrator entered.
ProviderFactory = Callable[[Host, Mapping[str, str]], AbstractAsyncContextManager[Provider]]


@takes()
@asynccontextmanager
async def _disk(host: Host, settings: Mapping[str, str]) -> AsyncIterator[Provider]:
    if settings:
        raise ProviderError("the disk store takes no settings", permanent=True)
    async with open_disk_provider(
        host.folder,
        base_url=host.base_url,
        key=host.key,
        space=host.space,
        client=host.client,
        maximum_ahead=host.maximum_ahead,
    ) as provider:
        yield provider


@takes(*S3_SETTINGS)
@asynccontextmanager
async def _s3(host: Host, settings: Mapping[str, str]) -> AsyncIterator[Provider]:
    read = S3Settings.read(settings)
    yield S3Provider(read, client=read.client(host.trust))


BUILT_IN: Mapping[str, ProviderFactory] = MappingProxyType({"disk": _disk, "s3": _s3})


def kinds() -> list[str]:
    """The kinds that can be set up here, in alphabetical order."""
    return sorted({*BUILT_IN, *entry_points(group=ENTRY_POINT_GROUP).names})


def factory(kind: str) -> ProviderFactory:
    """What opens a store of this kind; the built-in one where a package offers the same name.

    Raises Refused (400) for a kind that nobody offers, ProviderError if its package fails to load.
    """
    if kind in BUILT_IN:
        return BUILT_IN[kind]
    for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=kind):
        try:
            return cast(ProviderFactory, entry_point.load())
        except Exception as error:  # whatever a stranger's package raises on import
            raise ProviderError(
                f"provider {kind} does not load: {type(error).__name__}", permanent=True
            ) from error
    raise Refused(400, f"no provider of kind {kind!r}: there are {', '.join(kinds())}")


def settings_of(kind: str) -> tuple[Setting, ...] | None:
    """What settings a store of this kind takes; None if its package does not say so.

    Raises as `factory` does.
    """
    said = getattr(factory(kind), "settings", None)
    if said is None:
        return None
    if not isinstance(said, tuple) or not all(isinstance(one, Setting) for one in said):
        raise ProviderError(
            f"provider {kind}: its settings are not those of relay.providers.settings.takes",
            permanent=True,
        )
    return said
