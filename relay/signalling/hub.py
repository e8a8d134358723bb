"""The Bridge's end of signalling: one WebSocket for each Router, and what passes between them.

The hub knows no chunk and no key: it authenticates Routers, passes session messages on between the
two ends of a session, and answers requests out of the Bridge's registry (`Backend`). It keeps
nothing that outlives a connection, so that a restart is only a pause.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import attrs
import structlog
import trio

from relay.errors import ConnectionClosed, RelayError, SignallingError
from relay.identity import Identity
from relay.signalling.authentication import Proven, challenge
from relay.signalling.backend import Backend, GrantRow, RouterRow, SessionRefused, SignedRow
from relay.signalling.conversation import converse, reason
from relay.signalling.directory import GrantedRow, ListedRow
from relay.signalling.dispatch import Dispatcher
from relay.signalling.exchange import Connection, Exchange
from relay.signalling.limits import MAXIMUM_UNAUTHENTICATED, Timeouts
from relay.signalling.messages import Announce, EndReason, InLine, Message
from relay.signalling.transport import Socket, close

__all__ = [
    "Backend",
    "GrantRow",
    "GrantedRow",
    "Hub",
    "HubStatistics",
    "ListedRow",
    "RouterRow",
    "SessionRefused",
    "SignedRow",
    "Socket",
    "Timeouts",
]

log = structlog.get_logger()


@attrs.frozen(slots=True)
class HubStatistics:
    """The hub at this moment, and messages since it began; sizes in bytes.

    `moved` are bytes of sealed chunks since it began, as they were announced or sent in line: what
    a Router says, and repeats where it announces anew.
    """

    connected: int
    unauthenticated: int
    messages: int
    moved: int
    waiting_control_bytes: int
    waiting_session_bytes: int


class Hub:
    """Serves Routers' sockets. `identity` is the Bridge's, `network` its network's 16 bytes."""

    def __init__(
        self,
        identity: Identity,
        network: bytes,
        backend: Backend,
        *,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._identity = identity
        self._network = network
        self._backend = backend
        self._timeouts = timeouts or Timeouts()
        self._exchange = Exchange(backend)
        self._strangers: dict[trio.CancelScope, None] = {}
        self._messages = 0
        # Since it began: messages of Routers by what they say, and connections that were refused.
        self.kinds = Counter[type[Message]]()
        self.refused = 0
        self.on_refused: Callable[[str], None] = lambda why: None
        """Is told why, each time."""
        self._moved = 0

    async def run(self) -> NoReturn:
        """Tell Routers what changes in the directory, for as long as the Bridge runs."""
        await self._exchange.tell_news()
        raise AssertionError("it never ends")

    async def serve(self, socket: Socket, version: str = "") -> None:
        """One connection, from its upgrade to its end. Raises nothing for the peer's faults.

        `version` is that of the Router's Relay, as it says: for people, and for nothing else.
        """
        try:
            proven = await self._authenticate(socket)
            if proven is not None:
                proven[0].version = version
                await self._serve_router(socket, *proven)
        finally:
            await close(socket, self._timeouts.close)

    async def revoke(self, router: bytes) -> None:
        """Close that Router's socket and end its sessions at both ends."""
        await self._exchange.revoke(router)

    async def end_session(self, session: bytes, reason: EndReason) -> None:
        """End a session at both ends: its grant or device was revoked, or it has expired."""
        await self._exchange.end_session(session, reason)

    async def directory_changed(
        self,
        of: bytes,
        *,
        listed: Sequence[ListedRow] = (),
        routers: Sequence[RouterRow] = (),
        publications: Sequence[bytes] = (),
        gone_routers: Sequence[bytes] = (),
        gone_titles: Sequence[str] = (),
    ) -> None:
        """Tell those whom the Router `of` concerns its new rows, and all what is listed or gone."""
        self._exchange.directory_changed(
            of,
            listed=listed,
            routers=routers,
            publications=publications,
            gone_routers=gone_routers,
            gone_titles=gone_titles,
        )

    async def granted_changed(self, routers: Iterable[bytes]) -> None:
        """Tell those of these Routers that are connected whom they have to do with now, and what
        others grant them.
        """
        self._exchange.granted_changed(routers)

    def connected(self) -> frozenset[bytes]:
        """The Routers that are connected and have said which sessions they hold."""
        return self._exchange.connected()

    def versions(self) -> dict[bytes, str]:
        """Of Relay at each Router that is connected, as it says; empty where it does not."""
        return {each.router: each.version for each in self._exchange.connections()}

    @property
    def counted(self) -> tuple[int, int]:
        """`messages` and `moved` of the statistics, for who looks every few seconds."""
        return self._messages, self._moved

    def statistics(self) -> HubStatistics:
        waiting = [connection.outbox.statistics() for connection in self._exchange.connections()]
        return HubStatistics(
            connected=len(self.connected()),
            unauthenticated=len(self._strangers),
            messages=self._messages,
            moved=self._moved,
            waiting_control_bytes=sum(outbox.control_bytes for outbox in waiting),
            waiting_session_bytes=sum(outbox.session_bytes for outbox in waiting),
        )

    async def _authenticate(self, socket: Socket) -> tuple[Connection, Proven] | None:
        """The Router's connection, registered; None if it may not come in."""
        within = self._timeouts.authenticate
        with trio.move_on_after(within) as scope:
            self._strangers[scope] = None
            if len(self._strangers) > MAXIMUM_UNAUTHENTICATED:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                oldest.cancel()
            try:
                proven = await challenge(socket, self._identity, self._network, within)
                admitted = -1
                while admitted != self._exchange.revocations:
                    # Whoever is revoked while the registry is being asked must not slip in.
                    admitted = self._exchange.revocations
                    await self._backend.admit(proven.router)
                return self._exchange.register(proven.router), proven
            except ConnectionClosed as error:
                # A look at whether a WebSocket opens here (`relay doctor`), or a network that
                # failed: nobody has tried to be a Router, so nobody was refused.
                log.debug("connection closed before it said who it is", why=str(error))
                return None
            except RelayError as error:
                log.info("connection refused", why=str(error))
                self.refused += 1
                self.on_refused(str(error))
                return None
            finally:
                self._strangers.pop(scope, None)
        log.info("connection refused", why="it did not say who it is")
        self.refused += 1
        self.on_refused("it did not say who it is")
        return None

    async def _serve_router(self, socket: Socket, connection: Connection, proven: Proven) -> None:
        connection.tell(proven.welcome)
        log.info("router connected", router=connection.name, version=connection.version)
        try:
            with connection.scope:
                async with trio.open_nursery() as nursery:
                    dispatcher = Dispatcher(
                        self._exchange, self._backend, connection, nursery, self._timeouts
                    )

                    async def dispatch(message: Message, frame: bytes) -> None:
                        self._messages += 1
                        self.kinds[type(message)] += 1
                        if isinstance(message, Announce):
                            self._moved += message.size
                        elif isinstance(message, InLine):
                            self._moved += len(message.sealed)
                        await dispatcher.dispatch(message, frame)

                    nursery.start_soon(self._tell, connection)
                    nursery.start_soon(self._expect_held, connection)
                    await converse(socket, connection.outbox, dispatch, self._timeouts)
        except* RelayError as group:
            connection.why = connection.why or reason(group)
        finally:
            self._exchange.unregister(connection)
            log.info("router disconnected", router=connection.name, why=connection.why)

    async def _tell(self, connection: Connection) -> None:
        with trio.move_on_after(self._timeouts.backend) as scope:
            await self._exchange.send_directory(connection)
        if scope.cancelled_caught:
            raise SignallingError("the registry did not give the directory in time")
        await self._exchange.tell_granted(connection, self._timeouts.backend)

    async def _expect_held(self, connection: Connection) -> None:
        await trio.sleep(self._timeouts.held)
        if not connection.ready:
            raise SignallingError("it did not say which sessions it holds")
