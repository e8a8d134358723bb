"""Who is connected to the hub, and what they are told.

A Router is shown what concerns it: itself, whom it grants anything, who grants it anything, and
whom it sought. Of all the others it gets a listing in brief, which is read and encoded once for
all who come. So what a Router costs when it comes, goes or publishes does not grow with the
network, but for one short frame to each where titles come or go.

The one place where one Router's task touches another Router's connection; nothing here waits for a
socket.
"""

import hashlib
import math
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import NoReturn

import attrs
import structlog
import trio

from relay import tracing
from relay.errors import Refused, RelayError, SignallingError
from relay.identity import fingerprint
from relay.signalling.backend import Backend, RouterRow
from relay.signalling.directory import (
    ConnectedRow,
    ListedRow,
    directory_parts,
    granted_message,
    listing_parts,
)
from relay.signalling.limits import MAXIMUM_SOUGHT
from relay.signalling.messages import MAXIMUM_PRESENT, End, EndReason, Granted, encode
from relay.signalling.outbox import Outbox

log = structlog.get_logger()

# How many Routers are told of a change before others get their turn, and for how long. A frame
# costs 0.1 ms of the core that also passes sessions on: to tell 2,000 takes a second, of which this
# is a quarter.
TOLD_AT_ONCE = 16
TOLD_PAUSE = 0.006

# The listing is read and encoded once for all who come within that, in seconds; what changes
# meanwhile is sent behind it.
LISTING_LIFE = 30.0

TAKES_NOTHING = "it does not take what it is sent"


def _is_due() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


@attrs.define(slots=True, eq=False)
class Connection:
    """One authenticated Router's socket, from Welcome to its loss."""

    router: bytes
    # Of Relay, as the Router says; empty where it does not.
    version: str = ""
    outbox: Outbox = attrs.field(factory=Outbox)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    # It has said which sessions it holds; until then nothing of sessions is sent to it.
    ready: bool = False
    # The others were told that this Router is connected (perhaps of its previous connection).
    shown: bool = False
    # Changes that wait until rows that were read before them are in the outbox; else None.
    changes: list[bytes] | None = attrs.field(factory=list)
    # The Routers whose rows it was sent and whose changes it is told, and how many it sought.
    shows: set[bytes] = attrs.field(factory=set)
    sought: int = 0
    reading: trio.Lock = attrs.field(factory=trio.Lock)
    # Set while what others grant it may be another than what it was told, and whom it has to do
    # with other than whom it is shown; of what it was told the hash, since rows of thousands of
    # Routers take memory.
    granted_changed: trio.Event = attrs.field(factory=_is_due)
    granted_told: bytes = b""
    why: str = ""

    @property
    def name(self) -> str:
        return fingerprint(self.router)

    def close(self, why: str) -> None:
        """End the connection from outside; its own task closes the socket."""
        self.why = self.why or why
        self.scope.cancel()

    def tell(self, frame: bytes, key: Hashable = None) -> None:
        """Queue control. A Router that takes none is closed, and starts afresh.

        Of frames with the same `key` only the newest waits.
        """
        if not self.outbox.put_control(frame, key):
            self.close(TAKES_NOTHING)

    def tell_change(self, frame: bytes) -> None:
        """Queue what is news of the directory, behind what is being read of it."""
        if self.changes is not None:
            self.changes.append(frame)
        else:
            self.tell(frame)


@attrs.frozen(slots=True)
class _News:
    """What is to be told: to all, and to those who are shown the Router `of`."""

    of: bytes
    to_all: tuple[bytes, ...]
    to_some: tuple[bytes, ...]


class Exchange:
    """The connections, one for each Router."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._connections: dict[bytes, Connection] = {}
        # Who is shown a Router: its changes are told to those.
        self._watchers: dict[bytes, set[Connection]] = {}
        self._names: dict[bytes, str] = {}
        self._news: deque[_News] = deque()
        self._is_news = trio.Event()
        # The listing as it was at that time, and what all were told since.
        self._listing: list[bytes] = []
        self._listed_at = -math.inf
        self._since: list[bytes] = []
        self._listing_read = trio.Lock()
        self.revocations = 0

    # --- who is here -----------------------------------------------------------------------------

    def register(self, router: bytes) -> Connection:
        """A new connection of that Router, in place of one it may have: the newer wins."""
        connection = Connection(router)
        if (older := self._connections.get(router)) is not None:
            connection.shown = older.shown
            older.close("a newer connection of this Router took its place")
        self._connections[router] = connection
        return connection

    def unregister(self, connection: Connection) -> None:
        """The connection is over."""
        self._unwatch(connection, frozenset(connection.shows))
        if self._connections.get(connection.router) is not connection:
            return
        del self._connections[connection.router]
        if connection.shown:
            self._show(connection.router)

    def make_ready(self, connection: Connection) -> None:
        """The Router has said what it holds: sessions may go to it now."""
        connection.ready = True
        if not connection.shown:
            connection.shown = True
            self._show(connection.router)

    def ready(self, router: bytes) -> Connection | None:
        """That Router's connection, if sessions may go to it."""
        connection = self._connections.get(router)
        return connection if connection is not None and connection.ready else None

    def connected(self) -> frozenset[bytes]:
        return frozenset(router for router in self._connections if self.ready(router) is not None)

    def connections(self) -> Iterable[Connection]:
        return tuple(self._connections.values())

    # --- sessions --------------------------------------------------------------------------------

    async def end_session(self, session: bytes, reason: EndReason) -> None:
        """End a session by the Bridge's word: what waits for its ends is dropped, both are told."""
        ends = self._backend.ends(session)
        if ends is None:
            return
        await self._backend.ended(session, reason)
        for router in ends:
            self.tell_end(router, session, reason)

    def tell_end(self, router: bytes, session: bytes, reason: EndReason) -> None:
        """Tell one Router that the session is over, if it is connected."""
        if (connection := self._connections.get(router)) is not None:
            message = End(session, reason)
            if not connection.outbox.put_last(session, message, encode(message)):
                connection.close(TAKES_NOTHING)

    async def revoke(self, router: bytes) -> None:
        """Close the Router's socket and end its sessions at both ends, at once.

        The backend admits it no more, and tells the others by `directory_changed`.
        """
        self.revocations += 1
        if (connection := self._connections.get(router)) is not None:
            connection.close("it was revoked")
            self.unregister(connection)
        for session in await self._backend.sessions_of(router):
            try:
                await self.end_session(session, EndReason.REVOKED)
            except RelayError as error:  # the other sessions end all the same
                log.error("revoked session", association=tracing.number(session), why=str(error))

    # --- the directory ---------------------------------------------------------------------------

    async def send_directory(self, connection: Connection) -> None:
        """Send the listing, what others grant the Router and all rows that concern it, then what
        changed meanwhile.

        Grants go before rows: once a title can be called, it is known what is granted of it.
        """
        async with connection.reading:
            for frame in await self._whole_listing():
                connection.tell(frame)
            connection.granted_changed = trio.Event()
            await self._send_granted(connection)
            await self._send_rows(connection, whole=True)
        if connection.shown:  # it was ready before its name was known
            self._show(connection.router)

    async def tell_granted(self, connection: Connection, deadline: float) -> NoReturn:
        """Tell the Router what others grant it whenever that changes, for ever.

        Behind that, the rows of whom this makes its concern. What changed since `send_directory`
        began is told at once; changes that come while the registry is asked are told together.
        Raises SignallingError if it takes longer than `deadline` seconds.
        """
        while True:
            await connection.granted_changed.wait()
            connection.granted_changed = trio.Event()
            with trio.move_on_after(deadline) as scope:
                async with connection.reading:
                    await self._send_granted(connection)
                    await self._send_rows(connection, whole=False)
            if scope.cancelled_caught:
                raise SignallingError("the registry did not say in time what is granted")

    async def seek(self, connection: Connection, ae_title: str) -> None:
        """Show the Router who publishes `ae_title`, from now on. Raises Refused (404, 429)."""
        async with connection.reading:
            owner = await self._backend.owner(ae_title)
            if owner is None:
                raise Refused(404, f"{ae_title!r} is not published")
            if owner in connection.shows:
                return
            if connection.sought == MAXIMUM_SOUGHT:
                raise Refused(429, f"more than {MAXIMUM_SOUGHT} hospitals sought since connecting")
            await self._send_rows(connection, whole=False, also=owner)
            connection.sought += 1

    def present(self) -> tuple[bytes, ...]:
        """The Routers that are connected, as far as a message holds them."""
        return tuple(r for r, c in self._connections.items() if c.shown)[:MAXIMUM_PRESENT]

    def granted_changed(self, routers: Iterable[bytes]) -> None:
        """What others grant these Routers, or they others, may be another now."""
        for router in routers:
            if (connection := self._connections.get(router)) is not None:
                connection.granted_changed.set()

    def directory_changed(
        self,
        of: bytes,
        *,
        listed: Sequence[ListedRow] = (),
        routers: Sequence[RouterRow] = (),
        publications: Sequence[bytes] = (),
        gone_routers: Sequence[bytes] = (),
        gone_titles: Sequence[str] = (),
    ) -> None:
        """Have it told what the Router `of` changed: rows to whom it concerns, the rest to all."""
        gone = directory_parts(whole=False, gone_routers=gone_routers, gone_titles=gone_titles)
        to_all = (*map(encode, gone), *map(encode, listing_parts(whole=False, routers=listed)))
        rows = [self._connected(row) for row in routers]
        to_some = directory_parts(whole=False, routers=rows, publications=publications)
        news = _News(of, to_all, tuple(map(encode, to_some)))
        for router in gone_routers:
            self._names.pop(router, None)
        if news.to_all or news.to_some:
            if not self._is_listing_old:
                self._since.extend(to_all)
            self._news.append(news)
            self._is_news.set()

    async def tell_news(self) -> NoReturn:
        """Tell what has changed, for ever: first whom it concerns, then all, a few at a time."""
        while True:
            await self._is_news.wait()
            self._is_news = trio.Event()
            # Together, so that each Router's turn comes once; and each gets them in their order.
            news, self._news = tuple(self._news), deque()
            concerned = set[Connection]()
            for one in news:
                concerned |= self._watchers.get(one.of, set())
            others: tuple[Connection, ...] = ()
            if any(one.to_all for one in news):
                others = tuple(c for c in self._connections.values() if c not in concerned)
            for number, connection in enumerate((*concerned, *others), start=1):
                for one in news:
                    for frame in one.to_all:
                        connection.tell_change(frame)
                    if one.of in connection.shows:
                        for frame in one.to_some:
                            connection.tell_change(frame)
                if number % TOLD_AT_ONCE == 0:
                    await trio.sleep(TOLD_PAUSE)

    async def _whole_listing(self) -> list[bytes]:
        """The listing of all, and what was told since it was read."""
        async with self._listing_read:
            if self._is_listing_old:
                self._listed_at, self._since = trio.current_time(), []
                try:
                    parts = listing_parts(whole=True, routers=await self._backend.listing())
                except BaseException:
                    self._listed_at = -math.inf
                    raise
                self._listing = list(map(encode, parts))
            return [*self._listing, *self._since]

    @property
    def _is_listing_old(self) -> bool:
        return trio.current_time() - self._listed_at > LISTING_LIFE

    async def _send_granted(self, connection: Connection) -> None:
        """Send what others grant the Router, if it was told something else."""
        message = granted_message(await self._backend.granted(connection.router))
        frame = encode(message)
        if (digest := hashlib.sha256(frame).digest()) == connection.granted_told:
            return
        connection.granted_told = digest
        # It is whole, so that what waits already says nothing more: whoever changes grants without
        # end must not fill another Router's outbox.
        connection.tell(frame, Granted)
        if message.left_out:
            log.warning(
                "more is granted to a router than it can be told",
                router=connection.name,
                left_out=message.left_out,
            )

    async def _send_rows(
        self, connection: Connection, *, whole: bool, also: bytes | None = None
    ) -> None:
        """Send the rows of all that concern the Router and that it is not shown yet.

        Under `connection.reading`.
        """
        new = await self._backend.concerns(connection.router) - connection.shows
        if also is not None:
            new |= {also}
        if not new and not whole:
            return
        # What is told of these from here on comes behind their rows, which are read later; and
        # what was told before goes before them: it may be of a title's owner before this one.
        self._flush(connection)
        connection.changes = []
        connection.shows |= new
        for router in new:
            self._watchers.setdefault(router, set()).add(connection)
        try:
            routers, publications = await self._backend.rows(new)
            self._names.update((row[0], row[1]) for row in routers if row[0] == connection.router)
            rows = [self._connected(row) for row in routers]
            for part in directory_parts(whole=whole, routers=rows, publications=publications):
                connection.tell(encode(part))
        except BaseException:
            # It was not shown them: they are read again when they are sought, or next concern it.
            self._unwatch(connection, new & connection.shows)
            raise
        finally:
            self._flush(connection)

    def _unwatch(self, connection: Connection, routers: Collection[bytes]) -> None:
        """These, which it is shown, are not shown to it any more."""
        connection.shows.difference_update(routers)
        for router in routers:
            watchers = self._watchers[router]
            watchers.discard(connection)
            if not watchers:
                del self._watchers[router]

    def _flush(self, connection: Connection) -> None:
        changes, connection.changes = connection.changes, None
        for frame in changes or ():
            connection.tell(frame)

    def _show(self, router: bytes) -> None:
        """Tell those who are shown this Router whether it is connected.

        Its key is left out, being most of a row: they have it.
        """
        watchers = self._watchers.get(router)
        if not watchers or (name := self._names.get(router)) is None:
            return
        row = self._connected((router, name, b""))
        for frame in map(encode, directory_parts(whole=False, routers=[row])):
            for connection in watchers:
                if connection.router != router:
                    connection.tell_change(frame)

    def _connected(self, row: RouterRow) -> ConnectedRow:
        connection = self._connections.get(row[0])
        return (*row, connection is not None and connection.shown)
