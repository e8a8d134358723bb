"""The Router's end of signalling: one WebSocket to the Bridge, made anew whenever it is lost.

`run` keeps the connection; everything else may be called at any time from any task. Sessions are
`attach`ed and outlive connections; requests do not.
"""

import random
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

import attrs
import structlog
import trio

from relay.errors import RelayError, SignallingError
from relay.identity import Identity
from relay.signalling.authentication import introduce
from relay.signalling.conversation import converse, reason
from relay.signalling.dial import Dial, websocket_dial
from relay.signalling.limits import MAXIMUM_WAITING_CALLBACKS, Timeouts
from relay.signalling.messages import (
    AheadURLs,
    Announce,
    Answer,
    Ask,
    Directory,
    Done,
    End,
    EndReason,
    Granted,
    InLine,
    Listing,
    Message,
    Open,
    Present,
    Progress,
    Refuse,
    Resigned,
    SessionMessage,
    SlotURLs,
    Withdraw,
)
from relay.signalling.outbox import Outbox
from relay.signalling.port import Connected, Disconnected, SessionPort
from relay.signalling.requests import Reply, Requests
from relay.signalling.sessions import Sessions
from relay.signalling.transport import Socket, close

__all__ = [
    "ClientStatistics",
    "Connected",
    "Disconnected",
    "SessionPort",
    "SignallingClient",
    "Timeouts",
]

log = structlog.get_logger()

# What comes for the Router's own code.
News = Listing | Directory | Granted
_Unasked = Open | News | Ask


@attrs.frozen(slots=True)
class ClientStatistics:
    """The client at this moment, and counts since it began."""

    connected: bool
    connections: int
    sessions: int
    messages: int
    last_failure: str
    round_trip: float | None = None  # to the Bridge and back, seconds, the last that was measured


@attrs.frozen(slots=True)
class _Callbacks:
    connected: Callable[[], Awaitable[None]]
    open: Callable[[Open], Awaitable[None]]
    directory: Callable[[News], Awaitable[None]]
    ask: Callable[[Ask], Awaitable[None]]


class SignallingClient:
    """Speaks to the Bridge `bridge` (its identity) of `network` at `url`, as `identity`.

    `url` is the Bridge's, as invitations hold it; `proxy` is http://[user:password@]host:port, the
    hospital's way out. `dial` replaces how the socket is made.
    """

    def __init__(
        self,
        url: str,
        identity: Identity,
        network: bytes,
        bridge: bytes,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        timeouts: Timeouts | None = None,
        dial: Dial | None = None,
    ) -> None:
        self._identity = identity
        self._network = network
        self._bridge = bridge
        self._timeouts = timeouts or Timeouts()
        self._dial = dial or websocket_dial(url, ssl_context=ssl_context, proxy=proxy)
        self._sessions = Sessions()
        self._requests = Requests()
        self._ready_since: float | None = None
        self._became_ready = trio.Event()
        self._connections = 0
        self._messages = 0
        self._last_failure = ""
        self.clock_offset: float | None = None  # the Bridge's clock less ours, seconds

    @property
    def connected(self) -> bool:
        """Whether session messages go out now."""
        return self._ready_since is not None

    async def wait_connected(self) -> None:
        """Return once `connected`."""
        while not self.connected:
            await self._became_ready.wait()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> ClientStatistics:
        return ClientStatistics(
            self.connected,
            self._connections,
            len(self._sessions),
            self._messages,
            self._last_failure,
            self._requests.round_trip,
        )

    async def request(
        self, build: Callable[[int], Message], deadline: float | None = None
    ) -> Reply:
        """Send what `build` makes of a request number, and wait for its reply.

        Done, whose `refusals` say what was not done; to Slots, Resign, Ahead and Look it is
        SlotURLs, Resigned, AheadURLs and Present, and Done only if they are refused. Raises
        SignallingError if there is no connection, it is lost, or the reply takes longer than
        `deadline` seconds.
        """
        return await self._requests.request(build, deadline or self._timeouts.request)

    def attach(self, session: bytes) -> SessionPort:
        """The port of a session that we are about to open, or that was opened to us.

        Attach before sending Open. Raises SignallingError if too many sessions are held.
        """
        return self._sessions.attach(session)

    async def send(self, message: SessionMessage | Open) -> bool:
        """Send a session message without a port: the Refuse of one that is not attached.

        True once it is being written, False when there is no connection.
        """
        return await self._sessions.send(message)

    async def run(
        self,
        *,
        on_connected: Callable[[], Awaitable[None]],
        on_open: Callable[[Open], Awaitable[None]],
        on_directory: Callable[[News], Awaitable[None]],
        on_ask: Callable[[Ask], Awaitable[None]],
    ) -> NoReturn:
        """Connect, serve the connection, and when it is lost connect again, for ever.

        `on_connected` publishes by `request` on each connection before sessions go on; a RelayError
        of its ends the connection. The others run one at a time and must be brief: what serves a
        session gets a task of its own. `on_open` attaches the session or sends a Refuse.
        """
        callbacks = _Callbacks(on_connected, on_open, on_directory, on_ask)
        send, receive = trio.open_memory_channel[_Unasked](MAXIMUM_WAITING_CALLBACKS)
        pause = self._timeouts.first_pause
        async with trio.open_nursery() as nursery, send, receive:
            nursery.start_soon(self._call_back, receive, callbacks)
            while True:
                lasted = await self._connection(callbacks, send)
                if lasted >= self._timeouts.settled:
                    pause = self._timeouts.first_pause
                # Jittered, so that all Routers of a restarted Bridge do not come at once.
                await trio.sleep(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, self._timeouts.longest_pause)
        raise AssertionError("the loop only ends by an error")

    # --- one connection --------------------------------------------------------------------------

    async def _connection(
        self,
        callbacks: _Callbacks,
        inbox: "trio.MemorySendChannel[_Unasked]",
    ) -> float:
        """From dialling to loss; returns how long it was good, seconds."""
        try:
            async with trio.open_nursery() as nursery:
                with trio.move_on_after(self._timeouts.connect) as scope:
                    socket = await self._dial(nursery)
                if scope.cancelled_caught:
                    raise SignallingError(
                        f"no connection within {self._timeouts.connect:g} s: does a firewall drop"
                        " it, or does the way out go by a proxy?"
                    )
                try:
                    await self._serve(socket, callbacks, inbox)
                finally:
                    await close(socket, self._timeouts.close)
        except* RelayError as group:
            self._last_failure = reason(group)
        finally:
            lasted = self._lose()
        log.warning("no connection to the Bridge", why=self._last_failure, lasted=round(lasted, 1))
        return lasted

    async def _serve(
        self,
        socket: Socket,
        callbacks: _Callbacks,
        inbox: "trio.MemorySendChannel[_Unasked]",
    ) -> None:
        bridge_time = await introduce(
            socket, self._identity, self._network, self._bridge, self._timeouts.authenticate
        )
        self.clock_offset = bridge_time - time.time()
        self._connections += 1
        outbox = Outbox()
        self._requests.connected(outbox)

        async def dispatch(message: Message, frame: bytes) -> None:
            self._messages += 1
            await self._dispatch(message, inbox)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._become_ready, outbox, callbacks)
            await converse(socket, outbox, dispatch, self._timeouts, self._returned)

    def _returned(self, seconds: float) -> None:
        self._requests.round_trip = seconds

    async def _become_ready(self, outbox: Outbox, callbacks: _Callbacks) -> None:
        await callbacks.connected()
        self._sessions.connected(outbox)
        self._ready_since = trio.current_time()
        self._became_ready.set()
        log.info("connected to the Bridge", sessions=len(self._sessions))

    def _lose(self) -> float:
        self._requests.lost()
        self._sessions.lost()
        since, self._ready_since = self._ready_since, None
        if since is None:
            return 0.0
        self._became_ready = trio.Event()
        return trio.current_time() - since

    async def _dispatch(self, message: Message, inbox: "trio.MemorySendChannel[_Unasked]") -> None:
        match message:
            case Answer() | Refuse() | Withdraw() | InLine() | Announce() | Progress() | End():
                self._sessions.deliver(message)
            case Done() | SlotURLs() | Resigned() | AheadURLs() | Present():
                self._requests.reply(message)
            case Listing() | Directory() | Granted():
                await inbox.send(message)
            case Open() if self._sessions.offer(message):
                try:
                    inbox.send_nowait(message)
                except trio.WouldBlock:
                    self._sessions.say(End(message.session, EndReason.LIMIT_REACHED))
            case Open():
                pass  # it was said again, or turned away
            case Ask():
                try:
                    inbox.send_nowait(message)
                except trio.WouldBlock:
                    log.warning("an ask was dropped: too many wait")
            case _:
                raise SignallingError(f"{type(message).__name__} is not the Bridge's to send")

    async def _call_back(
        self,
        receive: "trio.MemoryReceiveChannel[_Unasked]",
        callbacks: _Callbacks,
    ) -> None:
        async for message in receive:
            try:
                match message:
                    case Open():
                        await callbacks.open(message)
                    case Listing() | Directory() | Granted():
                        await callbacks.directory(message)
                    case Ask():
                        await callbacks.ask(message)
            except RelayError as error:
                # What went wrong with one message must not stop what comes after it.
                log.error("not handled", message=type(message).__name__, why=str(error))
                if isinstance(message, Open):
                    self._sessions.say(End(message.session, EndReason.PEER_FORGOT))
