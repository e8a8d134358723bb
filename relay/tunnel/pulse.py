"""When a session's end speaks, and when it takes the other for lost (DESIGN §5, "Resume").

An end says where it stands as chunks come and are consumed, on each connection, every 2 s while
something is outstanding, and now and then when nothing is, so that a peer that is gone is missed
also while a device takes its time to respond.
"""

import math
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio
from trio.lowlevel import ParkingLot

from relay.errors import SessionEnded

RESUME_INTERVAL = 2.0
IDLE_INTERVAL = 5.0
# What goes unheard when nothing is outstanding: four times in a row.
IDLE_LIMIT = 4 * IDLE_INTERVAL
# A chunk that is opened is mostly consumed at once: both are told in one message.
PROGRESS_DELAY = 0.005
# Behind the end of a message the other one speaks, and behind that the next message comes: with 5
# ms what is said of the one lies just before the other, at both ends and at the Bridge, and a
# confirmed CT over 50 ms took 0.5 ms more.
UNHURRIED_DELAY = 0.02
# What was said so long ago is no longer on its way.
ARRIVED = 0.5


class Pulse:
    """Calls `say` when it is time; `run` raises SessionEnded when the peer was not heard.

    `say` sends a Progress and tells whether it went out. `outstanding` tells whether something
    waits for the peer. `window` is the resume window in seconds.
    """

    def __init__(
        self,
        say: Callable[[], Awaitable[bool]],
        outstanding: Callable[[], bool],
        *,
        window: float,
        connected: bool,
    ) -> None:
        self._say = say
        self._outstanding = outstanding
        self._window = window
        now = trio.current_time()
        self._disconnected_since = math.inf if connected else now
        self._outstanding_since = math.inf
        self._heard = now
        self._said = -math.inf
        self._due = math.inf
        self._changed = ParkingLot()
        self._peer_owes_words = False

    def want(self, unhurried: bool = False) -> None:
        """There is something to say; `unhurried`: nothing waits for it."""
        due = trio.current_time() + (UNHURRIED_DELAY if unhurried else PROGRESS_DELAY)
        if due < self._due:
            self._due = due
            self._changed.unpark_all()

    def want_again(self) -> None:
        """The peer does not know what was said, unless that is still on its way."""
        if trio.current_time() - self._said > ARRIVED:
            self.want()

    def heard(self) -> None:
        """The peer has spoken."""
        self._heard = trio.current_time()

    def begin(self) -> None:
        """The session stands: from now on the peer is to be heard."""
        self._peer_owes_words = True
        self.heard()
        self.want()

    def connected(self) -> None:
        """The connection to the Bridge is there again."""
        self._disconnected_since = math.inf
        self.want()

    def disconnected(self) -> None:
        """The connection to the Bridge is lost."""
        self._disconnected_since = trio.current_time()

    async def run(self) -> NoReturn:
        """Speak now, and from now on when it is time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            while True:
                self._due = math.inf
                if await self._say():
                    self._said = trio.current_time()
                while (due := self._due) > trio.current_time():
                    with trio.move_on_at(due):
                        await self._changed.park()

    async def _watch(self) -> NoReturn:
        while True:
            await trio.sleep(min(RESUME_INTERVAL, self._window / 4))
            now = trio.current_time()
            outstanding = self._outstanding()
            self._outstanding_since = min(self._outstanding_since, now) if outstanding else math.inf
            if now - self._disconnected_since > self._window:
                raise SessionEnded(f"no connection to the Bridge for {self._window:g} s")
            if self._peer_owes_words:
                if now - max(self._heard, self._outstanding_since) > self._window:
                    raise SessionEnded(f"the far Router was not heard for {self._window:g} s")
                if now - self._heard > max(self._window, IDLE_LIMIT):
                    raise SessionEnded("the far Router is gone")
            if outstanding or now - self._said >= IDLE_INTERVAL:
                self.want()


class Stall:
    """Notices that announcements do not arrive although both ends hear each other.

    A Bridge that passes on only what keeps a session alive would else keep it for ever, and a
    peer's Router likewise. `window` is the resume window: each end may be away for that long, one
    after the other.
    """

    def __init__(self, window: float) -> None:
        self._limit = 2 * window
        self._received = 0
        self._since = math.inf

    def see(self, announced: int, received: int) -> None:
        """Where a flow stands now. Raises SessionEnded."""
        now = trio.current_time()
        if received >= announced:
            self._since = math.inf
        elif received > self._received or self._since == math.inf:
            self._since = now
        self._received = received
        if now - self._since > self._limit:
            raise SessionEnded(f"announcements do not arrive for {self._limit:g} s")
