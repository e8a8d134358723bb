"""A provider in a package of its own: objects on a "shelf", a small HTTP store with a shared key.

The shelf answers PUT, GET and DELETE of /NAME, and GET of / for a list, where the query holds an
HMAC of what is asked.
"""

import hmac
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import httpx

from relay.errors import ProviderError
from relay.providers import Finding, Provider, SignedRequest, StoredObject
from relay.providers.names import check_object_name
from relay.providers.probe import alive, probe
from relay.providers.registry import Host
from relay.providers.settings import Settings


def signature(key: bytes, method: str, name: str, expires: int, limit: int) -> str:
    """What the shelf expects."""
    return hmac.digest(key, f"{method} {name} {expires} {limit}".encode(), "sha256").hex()


class Shelf:
    """A `relay.providers.Provider` over the shelf at `url`."""

    name = "shelf"
    enforces_size = True

    def __init__(self, url: str, key: bytes, client: httpx.AsyncClient) -> None:
        self._url, self._key, self._client = url.rstrip("/"), key, client

    async def sign_put(self, name: str, *, size_limit: int, lifetime: int) -> SignedRequest:
        return self._sign("PUT", name, lifetime, size_limit)

    async def sign_get(self, name: str, *, lifetime: int) -> SignedRequest:
        return self._sign("GET", name, lifetime)

    async def sign_delete(self, name: str, *, lifetime: int) -> SignedRequest:
        return self._sign("DELETE", name, lifetime)

    async def delete(self, names: Sequence[str]) -> None:
        for request in [self._sign("DELETE", name, 60) for name in names]:
            await self._ask(request)

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        for row in (await self._ask(self._request("GET", "", 60, 0))).json():
            if row["name"].startswith(prefix):
                yield StoredObject(**row)

    async def ready(self) -> None:
        await alive(self, self._client)

    async def check(self) -> Sequence[Finding]:
        return await probe(self, self._client)

    def _sign(self, method: str, name: str, lifetime: int, limit: int = 0) -> SignedRequest:
        check_object_name(name)
        return self._request(method, name, lifetime, limit)

    def _request(self, method: str, name: str, lifetime: int, limit: int) -> SignedRequest:
        expires = int(time.time()) + lifetime
        signed = signature(self._key, method, name, expires, limit)
        url = f"{self._url}/{name}?e={expires}&l={limit}&s={signed}"
        return SignedRequest(method, url, (), expires)

    async def _ask(self, request: SignedRequest) -> httpx.Response:
        try:
            answer = await self._client.request(request.method, request.url, timeout=20)
        except httpx.HTTPError as error:  # whose words may hold the URL
            raise ProviderError(f"shelf: {type(error).__name__}") from None
        if not answer.is_success:
            raise ProviderError(f"shelf: answered {answer.status_code}")
        return answer


@asynccontextmanager
async def open_shelf(host: Host, settings: Mapping[str, str]) -> AsyncIterator[Provider]:
    """The entry point."""
    read = Settings("shelf", settings)
    url, key = read.text("url"), read.secret("key")
    read.done()
    async with host.client() as client:
        yield Shelf(url, key.reveal().encode(), client)
