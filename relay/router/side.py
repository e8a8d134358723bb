"""One of the two associations of a passthrough, with what is on its way to it.

What one read or one chunk has brought goes on in one call where the association takes it so.
Answers of the guard's own go between two messages.
"""

from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol, runtime_checkable

import attrs
import trio

from relay.association import Association, Gathering
from relay.dicom.pdu import PDV, AAssociateAC, Atom
from relay.errors import RemoteProtocolError
from relay.signalling.messages import MAXIMUM_IN_LINE

# Refused commands whose answers wait for a message in the other direction to end. A device that
# sends more without reading does not wait for answers at all.
MAXIMUM_REPLIES = 64


class Tunnel(Association, Protocol):
    """What a tunnel can be told beside the atom (relay.tunnel.session)."""

    async def send(
        self, atom: Atom, *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        """`compressible`: of an uncompressed data set. `end_of_message`: its last fragment."""


@runtime_checkable
class GatheringTunnel(Protocol):
    """A tunnel that takes many PDVs in one call."""

    async def send_all(
        self, pdvs: Sequence[PDV], *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        """As `Tunnel.send` of each in turn; `end_of_message`: a message ends with one of them."""


@attrs.frozen(slots=True)
class Passing:
    """A PDV that goes on; see `Verdict`."""

    pdv: PDV
    ends: bool = True
    compressible: bool = False


class Side:
    """One of the two associations, with what is on its way to it."""

    def __init__(self, name: str, association: Association, tunnel: Tunnel | None) -> None:
        self.name = name
        self.association = association
        self.tunnel = tunnel  # the same, where it is one
        self.wants_release = False  # it has sent an A-RELEASE-RQ
        self.asked_release = False  # it has been sent one
        self.over = False
        self.has_waited = False  # for what it said last to go on in its time
        self.bytes_sent = 0
        self._gathering = association if isinstance(association, Gathering) else None
        self._bulk = tunnel if isinstance(tunnel, GatheringTunnel) else None
        self._lock = trio.Lock()
        self._message_open = False
        self._replies: deque[PDV] = deque()

    async def receive(self) -> Sequence[Atom]:
        """What it has said: all that is there, where it can tell."""
        if self._gathering is not None:
            return await self._gathering.receive_some()
        return (await self.association.receive(),)

    async def send(self, atom: Atom) -> None:
        async with self._lock:
            await self.association.send(atom)
            if isinstance(atom, AAssociateAC):  # what it allows may have been asked, and refused
                await self._send_replies()

    async def pass_on(self, passing: Sequence[Passing]) -> None:
        """Send what the guard lets pass; between two messages, also the replies that wait."""
        if not passing:
            return
        try:
            # A lock that is free costs a turn of the event loop where it is waited for.
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()
        try:
            while passing:
                now, passing = self._until_a_reply(passing)
                self._message_open = True
                await self._send_pdvs(now)
                self._message_open = not now[-1].ends
                await self._send_replies()
        finally:
            self._lock.release()

    def _until_a_reply(
        self, passing: Sequence[Passing]
    ) -> tuple[Sequence[Passing], Sequence[Passing]]:
        """Where a reply waits, the rest of the message that is open, and what is behind it."""
        if self._replies:
            for count, each in enumerate(passing, 1):
                if each.ends:
                    return passing[:count], passing[count:]
        return passing, ()

    async def reply(self, pdv: PDV) -> None:
        """Send an answer of the guard's between two messages: now, or when this one has ended.

        Never waits for who is sending now: that may be held up by the very device that waits for us
        to read. Whoever holds the lock sends the replies too.
        """
        if len(self._replies) >= MAXIMUM_REPLIES:
            raise RemoteProtocolError(f"more than {MAXIMUM_REPLIES} refused requests in a row")
        self._replies.append(pdv)
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            return
        try:
            await self._send_replies()
        finally:
            self._lock.release()

    async def _send_replies(self) -> None:
        # After an A-RELEASE-RQ we have nothing more to say there (PS3.8 §7.2.2.1).
        while self._replies and not self._message_open and not self.asked_release:
            await self._send_pdvs((Passing(self._replies.popleft()),))

    async def _send_pdvs(self, passing: Sequence[Passing]) -> None:
        self.bytes_sent += sum(len(each.pdv.fragment) for each in passing)
        if self.tunnel is not None:
            await self._send_to_tunnel(self.tunnel, passing)
        elif self._gathering is not None:
            pdvs = [each.pdv for each in passing]
            await self._gathering.send_all(pdvs, end_of_message=passing[-1].ends)
        else:
            for each in passing:
                await self.association.send(each.pdv, end_of_message=each.ends)

    async def _send_to_tunnel(self, tunnel: Tunnel, passing: Sequence[Passing]) -> None:
        if self._bulk is None:
            for each in passing:
                await tunnel.send(
                    each.pdv, compressible=each.compressible, end_of_message=each.ends
                )
            return
        complete = _goes_at_once(passing)
        for compressible, run in groupby(passing, lambda each: each.compressible):
            alike = list(run)
            await self._bulk.send_all(
                [each.pdv for each in alike],
                compressible=compressible,
                end_of_message=complete and any(each.ends for each in alike),
            )


def _goes_at_once(passing: Sequence[Passing]) -> bool:
    """Whether a message that ends with one of these is not to wait for the end of the next one.

    A pending C-GET-RSP and the next sub-operation's C-STORE-RQ come in one read, with the beginning
    of its data set. Cut there, the object would go in two chunks, the second of which a reader asks
    for only when it has the first: 161 ms an object at 100 ms, and not 122.
    """
    size = sum(len(each.pdv.fragment) for each in passing)
    return passing[-1].ends or size <= MAXIMUM_IN_LINE
