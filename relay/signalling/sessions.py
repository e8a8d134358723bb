"""The sessions that a Router holds, across connections."""

import structlog
import trio

from relay.errors import LocalProtocolError, SignallingError
from relay.signalling.limits import REMEMBERED_UNKNOWN
from relay.signalling.messages import (
    MAXIMUM_SESSIONS,
    Announce,
    Answer,
    End,
    EndReason,
    Held,
    InLine,
    Open,
    Refuse,
    SessionMessage,
    encode,
)
from relay.signalling.outbox import Outbox
from relay.signalling.port import Connected, Disconnected, SessionPort
from relay.signalling.recent import Recent
from relay.tracing import number

log = structlog.get_logger()


class Sessions:
    """Gives each session's messages to its port, and the ports' messages to the connection."""

    def __init__(self) -> None:
        self._ports: dict[bytes, SessionPort] = {}
        # Opened to us and not yet attached or refused. They are held already, so that what the
        # caller sends next, and a reconnection, find them.
        self._offered: set[bytes] = set()
        # Attached to be opened by us, and nothing said of them yet: the Bridge cannot know them.
        self._unsaid: set[bytes] = set()
        # The Open or Answer of each session that the other end is not yet known to have.
        self._unheard: dict[bytes, Open | Answer] = {}
        self._outbox: Outbox | None = None
        self._told_unknown = Recent(REMEMBERED_UNKNOWN)

    def __len__(self) -> int:
        return len(self._ports)

    # --- the tunnel's side -----------------------------------------------------------------------

    def attach(self, session: bytes) -> SessionPort:
        """The port of a session that we are about to open, or that was opened to us.

        Raises SignallingError if too many sessions are held.
        """
        if session in self._offered:
            self._offered.remove(session)
            return self._ports[session]
        if session in self._ports:
            raise LocalProtocolError("the session is attached already")
        port = self._hold(session)
        self._unsaid.add(session)
        return port

    def _hold(self, session: bytes) -> SessionPort:
        if len(self._ports) == MAXIMUM_SESSIONS:
            raise SignallingError(f"{MAXIMUM_SESSIONS} sessions are held; no more fit")
        port = self._ports[session] = SessionPort(self, session)
        return port

    def forget(self, port: SessionPort) -> None:
        """Hold that session no longer."""
        if self._ports.get(port.session) is port:
            del self._ports[port.session]
            self._offered.discard(port.session)
            self._unsaid.discard(port.session)
            self._unheard.pop(port.session, None)

    def say(self, message: SessionMessage | Open) -> Outbox | None:
        """Queue a session's message; None when there is no connection."""
        session = message.session
        self._unsaid.discard(session)
        if isinstance(message, Open | Answer) and session in self._ports:
            self._unheard[session] = message
        elif isinstance(message, Refuse | End) and session in self._offered:
            self.forget(self._ports[session])
        outbox = self._outbox
        if outbox is None or not outbox.put(session, message, encode(message)):
            return None
        return outbox

    async def send(self, message: SessionMessage | Open) -> bool:
        """Send a session's message; True once it is being written."""
        outbox = self.say(message)
        if outbox is None:
            await trio.lowlevel.checkpoint()
            return False
        return await outbox.drained(message.session)

    # --- the connection's side -------------------------------------------------------------------

    def connected(self, outbox: Outbox) -> None:
        """A new connection is there: say what we hold, then go on.

        An Open that may have been lost goes before Held: else the Bridge, which may not know the
        session, would take it for a forgotten one. For the same reason a session whose Open is yet
        to be said is not in Held.
        """
        for message in self._unheard.values():
            if isinstance(message, Open):
                # Where many openings leave no room, the Bridge ends the rest as unknown.
                outbox.put_control(encode(message))
        held = tuple(session for session in self._ports if session not in self._unsaid)
        outbox.put_control(encode(Held(held)))
        for session, message in self._unheard.items():
            if isinstance(message, Answer):
                outbox.put(session, message, encode(message))
        self._outbox = outbox
        self._told_unknown = Recent(REMEMBERED_UNKNOWN)
        for port in self._ports.values():
            port.signal(Connected())

    def lost(self) -> None:
        """The connection is no more."""
        if self._outbox is not None:
            self._outbox = None
            for port in self._ports.values():
                port.signal(Disconnected())

    def offer(self, message: Open) -> bool:
        """A session is opened to us; True if it is new and is now held."""
        session = message.session
        if isinstance(answer := self._unheard.get(session), Answer):
            self.say(answer)  # the caller says its Open again: it has not got our Answer
        if session in self._ports:
            return False
        try:
            self._hold(session)
        except SignallingError:
            log.warning("session turned away: too many are held", association=number(session))
            self.say(End(session, EndReason.LIMIT_REACHED))
            return False
        self._offered.add(session)
        return True

    def deliver(self, message: SessionMessage) -> None:
        """Give a session's message to its port. Never waits."""
        session = message.session
        port = self._ports.get(session)
        if port is None:
            # Told once, and never in answer to an End: no two ends can keep each other talking.
            if not isinstance(message, End) and self._told_unknown.add(session):
                self.say(End(session, EndReason.UNKNOWN_SESSION))
            return
        # A callee speaks only when it has the Open; a caller says where it stands before it has the
        # Answer, but can send no chunk.
        if isinstance(self._unheard.get(session), Open) or isinstance(message, InLine | Announce):
            self._unheard.pop(session, None)
        if not port.deliver(message):
            log.warning(
                "session ended: its receiver is too far behind", association=number(session)
            )
            self.say(End(session, EndReason.PROTOCOL_VIOLATION))
            self.forget(port)
        elif isinstance(message, End):
            self.forget(port)
