"""What an object store must offer to carry Relay's sealed chunks.

The Bridge's side only: a Router never sees a provider, only signed requests. Few verbs: three that
sign, one that deletes, one that lists for the sweeper, one that says whether the store works now,
and a check that a person can run.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

import attrs


@attrs.frozen(slots=True)
class SignedRequest:
    """One HTTP request that the store will honour until `expires` (Unix seconds)."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    expires: int


@attrs.frozen(slots=True)
class StoredObject:
    """An object that the store holds: its name, size in bytes, and age (Unix seconds)."""

    name: str
    size: int
    modified: int


@attrs.frozen(slots=True)
class Finding:
    """One result of `Provider.check`: what was tried, whether it held, and what to do if not."""

    what: str
    ok: bool
    advice: str = ""


class Provider(Protocol):
    """A place for ciphertext that lives for minutes.

    Object names hold only `[a-z0-9/._-]` (never `..`), and are chosen by the Bridge.
    All methods raise `ProviderError`, whose words hold no secret and no signed URL.

    `enforces_size` declares whether the store refuses a PUT that is larger than it was signed for.
    Where it does not, a Router can store more than it was allowed; no other Router takes it, since
    a reader takes exactly the size that was announced.
    """

    name: str
    enforces_size: bool

    async def sign_put(self, name: str, *, size_limit: int, lifetime: int) -> SignedRequest:
        """A PUT of at most `size_limit` bytes that creates `name` once, for `lifetime` seconds.

        A store that does not enforce sizes signs it all the same.
        A second PUT to a name that exists is answered 409 or 412 and changes nothing.
        """

    async def sign_get(self, name: str, *, lifetime: int) -> SignedRequest:
        """A GET of `name`, for `lifetime` seconds."""

    async def sign_delete(self, name: str, *, lifetime: int) -> SignedRequest:
        """A DELETE of `name`, for `lifetime` seconds; a missing object is no error."""

    async def delete(self, names: Sequence[str]) -> None:
        """Delete these objects; missing ones are no error."""

    def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """All objects whose names begin with `prefix`, in no particular order."""

    async def ready(self) -> None:
        """Return if an object can be stored now; cheap enough to be asked every minute."""

    async def check(self) -> Sequence[Finding]:
        """Put, get and delete a probe object by the signed requests; warn of what would hurt."""


@runtime_checkable
class ReadsAhead(Protocol):
    """What a provider can do beside, whose requests come to this Bridge: have a reader wait."""

    async def sign_get_ahead(self, name: str, *, lifetime: int, reader: bytes) -> SignedRequest:
        """A GET of `name`, for `lifetime` seconds, that may come before the object does.

        It is answered as soon as the object begins to arrive, and while it does; 204 if it does
        not in some seconds, or if too many wait already, in all or of the Router `reader`.
        """
