"""One session's end of the signalling connection, as the tunnel sees it."""

from typing import Protocol

import attrs
import trio

from relay.errors import LocalProtocolError
from relay.signalling.mailbox import Mailbox
from relay.signalling.messages import Answer, End, EndReason, Open, SessionMessage


@attrs.frozen(slots=True)
class Connected:
    """The connection to the Bridge is there again, and the Bridge knows that we hold the session.

    What was sent before may or may not have arrived: time to say where each flow stands.
    """


@attrs.frozen(slots=True)
class Disconnected:
    """The connection to the Bridge is lost; `send` gives False until Connected."""


class Carrier(Protocol):
    """What a port needs of the client's sessions."""

    async def send(self, message: SessionMessage | Open) -> bool: ...

    def say(self, message: SessionMessage | Open) -> object: ...

    def forget(self, port: "SessionPort") -> None: ...


class SessionPort:
    """Sends and receives one session's messages; made by `SignallingClient.attach`.

    One task receives; any may send. An Open or Answer is sent again on every new connection until
    the other end is known to have it, so that a cut at that moment is only a pause too.
    """

    def __init__(self, carrier: Carrier, session: bytes) -> None:
        self.session = session
        self._carrier = carrier
        self._mailbox: Mailbox[SessionMessage | Connected | Disconnected] = Mailbox()
        self._wake = trio.Event()
        self._answered = False
        self._over = False  # End was received, or sent by aclose
        self._finished = False  # End was given to the receiver

    async def send(self, message: SessionMessage | Open) -> bool:
        """Send; True once it is being written, False when there is no connection or session.

        True is no promise that it arrives: after Connected each end says where it stands. Whoever
        is cancelled here may have sent it.
        """
        if self._over:
            await trio.lowlevel.checkpoint()
            return False
        return await self._carrier.send(message)

    async def receive(self) -> SessionMessage | Connected | Disconnected:
        """The next message of the other end or the Bridge, or what became of the connection.

        After End nothing follows: LocalProtocolError.
        """
        if self._finished:
            raise LocalProtocolError("the session has ended; its port receives nothing more")
        while not self._mailbox:
            self._wake = trio.Event()
            await self._wake.wait()
        item = self._mailbox.pop()
        self._finished = isinstance(item, End)
        return item

    def detach(self) -> None:
        """Receive no more of this session, and say nothing. It is held no longer."""
        self._carrier.forget(self)

    async def aclose(self, reason: EndReason = EndReason.FINISHED) -> None:
        """Tell the Bridge and the other end that the session is over, if they did not, and detach.

        Without a connection nothing is said: the Bridge hears on the next that it is not held.
        """
        if not self._over:
            self._over = True
            self._carrier.say(End(self.session, reason))
        self._carrier.forget(self)
        await trio.lowlevel.checkpoint()

    # --- the client's side -----------------------------------------------------------------------

    def deliver(self, message: SessionMessage) -> bool:
        """Queue what came for the session; never waits.

        False if the receiver is too far behind a peer that keeps to its credit: the session is over
        with PROTOCOL_VIOLATION, and what was queued is dropped.
        """
        if self._over:
            return True
        if isinstance(message, Answer):
            if self._answered:
                return True  # said again after a cut
            self._answered = True
        fits = self._mailbox.put(message, message)
        if not fits:
            self._mailbox.clear()
            message = End(self.session, EndReason.PROTOCOL_VIOLATION)
            self._mailbox.put(message, message)
        self._over = isinstance(message, End)
        self._wake.set()
        return fits

    def signal(self, event: Connected | Disconnected) -> None:
        """Queue what became of the connection; the newest word replaces an older one."""
        if not self._over:
            self._mailbox.replace("connection", event)
            self._wake.set()
