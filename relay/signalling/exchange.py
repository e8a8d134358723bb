"""Who is connected to the hub, and what all of them are told.

The one place where one Router's task touches another Router's connection; nothing here waits for a
socket.
"""

from collections.abc import Hashable, Iterable, Sequence

import attrs
import structlog
import trio

from relay.errors import RelayError, SignallingError
from relay.identity import fingerprint
from relay.signalling.backend import Backend, RouterRow
from relay.signalling.directory import ConnectedRow, directory_parts, granted_message
from relay.signalling.messages import End, EndReason, Granted, Message, encode
from relay.signalling.outbox import Outbox

log = structlog.get_logger()

TAKES_NOTHING = "it does not take what it is sent"


@attrs.define(slots=True, eq=False)
class Connection:
    """One authenticated Router's socket, from Welcome to its loss."""

    router: bytes
    outbox: Outbox = attrs.field(factory=Outbox)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    # It has said which sessions it holds; until then nothing of sessions is sent to it.
    ready: bool = False
    # The others were told that this Router is connected (perhaps of its previous connection).
    shown: bool = False
    # Changes that wait until the snapshot, which may be older, is in the outbox; then None.
    changes: list[bytes] | None = attrs.field(factory=list)
    # Set while what others grant it may be another than what it was told.
    granted_changed: trio.Event = attrs.field(factory=trio.Event)
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


class Exchange:
    """The connections, one for each Router."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._connections: dict[bytes, Connection] = {}
        self._names: dict[bytes, RouterRow] = {}
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
        ends = await self._backend.ends(session)
        if ends is None:
            return
        await self._backend.ended(session, reason)
        log.info("session ended", session=session.hex(), reason=reason.name)
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
                log.error("revoked session", session=session.hex(), why=str(error))

    # --- the directory ---------------------------------------------------------------------------

    async def send_directory(self, connection: Connection) -> None:
        """Send all of the directory, then what changed meanwhile."""
        routers, publications = await self._backend.directory()
        self._names = {row[0]: row for row in routers}
        rows = [self._connected(row) for row in routers]
        for part in directory_parts(whole=True, routers=rows, publications=publications):
            connection.tell(encode(part))
        changes, connection.changes = connection.changes, None
        for frame in changes or ():
            connection.tell(frame)

    async def tell_granted(self, connection: Connection, deadline: float) -> None:
        """Tell the Router what others grant it, now and whenever that changes, for ever.

        Changes that come while the registry is asked are told together. Raises SignallingError if
        it takes longer than `deadline` seconds.
        """
        told = None
        connection.granted_changed.set()
        while True:
            await connection.granted_changed.wait()
            connection.granted_changed = trio.Event()
            with trio.move_on_after(deadline) as scope:
                message = granted_message(await self._backend.granted(connection.router))
            if scope.cancelled_caught:
                raise SignallingError("the registry did not say in time what is granted")
            if message == told:
                continue
            told = message
            # It is whole, so that what waits already says nothing more: whoever changes grants
            # without end must not fill another Router's outbox.
            connection.tell(encode(message), Granted)
            if message.left_out:
                log.warning(
                    "more is granted to a router than it can be told",
                    router=connection.name,
                    left_out=message.left_out,
                )

    def granted_changed(self, routers: Iterable[bytes]) -> None:
        """What others grant these Routers may be another now."""
        for router in routers:
            if (connection := self._connections.get(router)) is not None:
                connection.granted_changed.set()

    def directory_changed(
        self,
        routers: Sequence[RouterRow] = (),
        publications: Sequence[bytes] = (),
        gone_routers: Sequence[bytes] = (),
        gone_titles: Sequence[str] = (),
    ) -> None:
        """Tell every Router what is new and what is gone."""
        self._names.update((row[0], row) for row in routers)
        for router in gone_routers:
            self._names.pop(router, None)
        self._broadcast(
            directory_parts(
                whole=False,
                routers=[self._connected(row) for row in routers],
                publications=publications,
                gone_routers=gone_routers,
                gone_titles=gone_titles,
            )
        )

    def _show(self, router: bytes) -> None:
        """Tell every Router whether this one is connected."""
        if (row := self._names.get(router)) is not None:
            self._broadcast(directory_parts(whole=False, routers=[self._connected(row)]))

    def _connected(self, row: RouterRow) -> ConnectedRow:
        connection = self._connections.get(row[0])
        return (*row, connection is not None and connection.shown)

    def _broadcast(self, messages: Iterable[Message]) -> None:
        for frame in map(encode, messages):
            for connection in self._connections.values():
                if connection.changes is not None:
                    connection.changes.append(frame)
                else:
                    connection.tell(frame)
