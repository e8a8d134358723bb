"""What the hub asks of the Bridge: who may come in, and what becomes of sessions.

The hub keeps no state that outlives a connection; all that does is behind this protocol. Calls may
come from many tasks at once. A call may raise any RelayError: it refuses what the Router asked and
its words go into the `Done` that answers (for a session: into the log, and an `End`).
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from relay.errors import SignallingError
from relay.signalling.directory import GrantedRow, ListedRow
from relay.signalling.messages import Direction, EndReason, Open

# (method, url, headers, expires), a row of SlotURLs, Announce and Resigned.
SignedRow = tuple[str, str, tuple[tuple[str, str], ...], int]
# (identity, name, HPKE key statement or b"")
RouterRow = tuple[bytes, str, bytes]
# (grantee's identity, published AE title, services)
GrantRow = tuple[bytes, str, tuple[str, ...]]


class SessionRefused(SignallingError):
    """The Bridge does not let a session be opened, or go on; `reason` is told to its ends."""

    def __init__(self, reason: EndReason, message: str = "") -> None:
        super().__init__(message or reason.name.lower().replace("_", " "))
        self.reason = reason


class Backend(Protocol):
    """The Bridge's registry, as the hub sees it."""

    async def admit(self, router: bytes) -> None:
        """Return if this Router is enrolled and not revoked; else raise Refused."""

    async def publish_key(self, router: bytes, statement: bytes) -> Sequence[str]:
        """Keep the Router's HPKE key; one line for each refusal. Calls Hub.directory_changed."""

    async def publish(self, router: bytes, statements: Sequence[bytes]) -> Sequence[str]:
        """These are all that the Router publishes; one line for each refusal.

        Calls Hub.directory_changed.
        """

    async def grants(self, router: bytes, rows: Sequence[GrantRow]) -> Sequence[str]:
        """These are all grants of the Router; one line for each refusal.

        Calls Hub.granted_changed for it and whom it grants anything, or did.
        """

    async def granted(self, router: bytes) -> Sequence[GrantedRow]:
        """What others grant the Router of what they publish.

        Hub.granted_changed is called when that may have become another.
        """

    async def listing(self) -> Sequence[ListedRow]:
        """All Routers that are not revoked, with what they publish."""

    async def concerns(self, router: bytes) -> frozenset[bytes]:
        """The Router itself, whom it grants anything, and who grants it anything."""

    async def rows(self, routers: Collection[bytes]) -> tuple[Sequence[RouterRow], Sequence[bytes]]:
        """Those of these Routers that are not revoked, and their publication statements."""

    async def owner(self, ae_title: str) -> bytes | None:
        """Who publishes this AE title."""

    async def open(self, caller: bytes, message: Open) -> None:
        """Authorise the session and keep it, in one transaction with the check of revocations.

        The hub has looked before: the session id is new. Raises SessionRefused.
        """

    async def answered(self, session: bytes, answer: bytes) -> None:
        """The callee has answered. May come again with the same answer."""

    async def ended(self, session: bytes, reason: EndReason) -> None:
        """Forget the session and sweep its objects. May come again, or for one unknown."""

    def ends(self, session: bytes) -> tuple[bytes, bytes] | None:
        """(caller, callee); None if there is no such session. Asked for each message: in memory."""

    async def sessions_of(self, router: bytes) -> Sequence[bytes]:
        """The sessions of which the Router is an end."""

    async def put_urls(
        self, router: bytes, session: bytes, direction: Direction, first: int, count: int
    ) -> Sequence[SignedRow]:
        """Signed PUTs for `count` slots from `first`, in order."""

    async def read_urls(
        self, session: bytes, direction: Direction, slot: int
    ) -> tuple[SignedRow, SignedRow | None]:
        """Signed GET and DELETE of a slot; None for what the Bridge deletes by itself."""

    async def ahead_urls(
        self, session: bytes, direction: Direction, first: int, count: int
    ) -> Sequence[tuple[SignedRow, SignedRow | None]]:
        """Signed GETs that may come before their objects, and DELETEs, of `count` slots.

        None at all where the session's store cannot have a reader wait, and no DELETEs where the
        Bridge deletes by itself.
        """

    def opened(self, session: bytes, direction: Direction, slots: int) -> None:
        """The direction's reader has opened what lay in its slots from 0 on, so many. Not waited
        for, said again and again, and no promise of the reader's: the numbers may be any.
        """
