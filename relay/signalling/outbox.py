"""What waits to be written to one socket: control first, then the sessions in turn.

Putting never blocks, so that whoever reads one socket is never held up by another; what waits is
bounded by what a peer within its credit can cause.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable

import attrs
import trio

from relay.signalling.limits import (
    MAXIMUM_WAITING_CONTROL,
    MAXIMUM_WAITING_SESSIONS,
    MAXIMUM_WAITING_TURNS,
)
from relay.signalling.mailbox import Mailbox
from relay.signalling.messages import Message


@attrs.frozen(slots=True)
class OutboxStatistics:
    """What waits at this moment; sizes in bytes."""

    control_frames: int
    control_bytes: int
    sessions: int
    session_bytes: int


class Outbox:
    """The frames for one socket. One task takes them with `take`; any task puts."""

    def __init__(self) -> None:
        self._control: OrderedDict[Hashable, bytes] = OrderedDict()
        self._control_bytes = 0
        self._sessions: dict[bytes, Mailbox[bytes]] = {}
        self._turns: deque[bytes] = deque()
        self._session_bytes = 0
        self._drained: dict[bytes, trio.Event] = {}
        self._wake = trio.Event()
        self._closed = False

    def put_control(self, frame: bytes, key: Hashable = None) -> bool:
        """Queue a frame that goes before all sessions; False if far too many wait.

        Of frames with the same `key` only the newest waits, in the oldest's place.
        """
        if key is None:
            key = object()
        size = len(frame) - len(self._control.get(key, b""))
        if self._control_bytes + size > MAXIMUM_WAITING_CONTROL:
            return False
        self._control[key] = frame
        self._control_bytes += size
        self._wake.set()
        return True

    def put(self, session: bytes, message: Message, frame: bytes) -> bool:
        """Queue a session's message; False if no peer within its credit can cause so much."""
        if self._session_bytes + len(frame) > MAXIMUM_WAITING_SESSIONS:
            return False
        return self._put(session, message, frame)

    def put_last(self, session: bytes, message: Message, frame: bytes) -> bool:
        """Drop what waits for the session and queue only this: it is over by the Bridge's word.

        It is one small frame, and makes room for itself; False if far too many sessions wait. An
        End that waits already stays, with what goes before it: that is how the session ended.
        """
        if (mailbox := self._sessions.get(session)) is not None:
            if message in mailbox:
                return True
            self._session_bytes -= mailbox.size
            mailbox.clear()
        return self._put(session, message, frame)

    def _put(self, session: bytes, message: Message, frame: bytes) -> bool:
        mailbox = self._sessions.get(session)
        if mailbox is None:
            if len(self._sessions) >= MAXIMUM_WAITING_TURNS:
                return False
            mailbox = Mailbox()
        before = mailbox.size
        if not mailbox.put(message, frame, len(frame)):
            return False
        self._session_bytes += mailbox.size - before
        if session not in self._sessions:
            self._sessions[session] = mailbox
            self._turns.append(session)
        self._wake.set()
        return True

    async def take(self) -> bytes:
        """The next frame to write."""
        while True:
            if self._control:
                _, frame = self._control.popitem(last=False)
                self._control_bytes -= len(frame)
                return frame
            if self._turns:
                return self._take_turn()
            self._wake = trio.Event()
            await self._wake.wait()

    def _take_turn(self) -> bytes:
        session = self._turns.popleft()
        mailbox = self._sessions[session]
        frame = mailbox.pop()
        self._session_bytes -= len(frame)
        if mailbox:
            self._turns.append(session)
        else:
            del self._sessions[session]
            if (drained := self._drained.pop(session, None)) is not None:
                drained.set()
        return frame

    async def drained(self, session: bytes) -> bool:
        """Wait until nothing of the session waits any more; False if the outbox was closed."""
        while session in self._sessions and not self._closed:
            await self._drained.setdefault(session, trio.Event()).wait()
        return not self._closed

    def close(self) -> None:
        """Nothing will be written any more: whoever waits is told."""
        self._closed = True
        for event in self._drained.values():
            event.set()
        self._drained.clear()

    def statistics(self) -> OutboxStatistics:
        return OutboxStatistics(
            len(self._control), self._control_bytes, len(self._sessions), self._session_bytes
        )
