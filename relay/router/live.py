"""The associations that run now, and on what each one rests.

Whatever a person takes away (a grant, a device, a peer's binding) must end the associations that
rest on it within five seconds (DESIGN §3). Each entry therefore brings a question, "may this still
go on?", that is asked again after every change.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from typing import Any

import attrs
import structlog
import trio

from relay import tracing
from relay.dicom.dimse import in_names
from relay.errors import AssociationRejected, HandshakeError
from relay.router.passthrough import Ending, How
from relay.router.traffic import Traffic
from relay.router.witness import Witness
from relay.tunnel.handshake import Purpose

log = structlog.get_logger()

# What a person who looks for an association that is over has made a moment ago; older ones are in
# the log.
MAXIMUM_FINISHED = 64


def number(session: bytes) -> str:
    """What log lines call an association by: its session in hexadecimal, shortened."""
    return tracing.number(session)


class Side(Enum):
    """Which end of the session this Router holds."""

    CALLER = "caller"  # a device of ours called out
    CALLEE = "callee"  # a peer called a device of ours


class Work(Enum):
    """What an association is for."""

    RELAYED = "relayed"  # two devices speak to each other
    QUEUED = "queued"  # a device of ours sends, and its own Router takes it in
    DELIVERY = "delivery"  # what was taken in goes to its device
    KNOWLEDGE = "knowledge"  # one Router asks another what a device there takes
    FEDERATION = "federation"  # the federation is asked, or asks a device of ours
    LOCAL = "local"  # objects go from a device of ours to this Router, or to another of ours

    @classmethod
    def of(cls, purpose: Purpose) -> "Work":
        """What a session of this purpose is for."""
        return _WORK[purpose]


_WORK = {
    Purpose.ASSOCIATION: Work.RELAYED,
    Purpose.DELIVERY: Work.DELIVERY,
    Purpose.KNOWLEDGE: Work.KNOWLEDGE,
}

# Which of them cross the line to another hospital.
_CROSSING = frozenset({Work.RELAYED, Work.DELIVERY, Work.KNOWLEDGE})


@attrs.define(slots=True, eq=False)
class LiveAssociation:
    """One association that crosses this Router."""

    number: str  # of its session, as `number` has it
    side: Side
    device: str  # our device's AE title
    calling: str
    called: str
    peer: str  # fingerprint of the other Router's identity
    still_permitted: Callable[[], bool]
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    started: float = attrs.field(factory=trio.current_time)
    revoked: bool = False
    work: Work = Work.RELAYED
    traffic: Traffic = attrs.field(factory=Traffic)
    witness: Witness = attrs.field(factory=Witness)
    ending: Ending | None = None
    messages: Counter[int] = attrs.field(factory=Counter)  # by Command Field, as far as judged

    def to_json(self) -> dict[str, Any]:
        """What GET /v1/associations says."""
        return {
            "id": self.number,
            "side": self.side.value,
            "device": self.device,
            "calling": self.calling,
            "called": self.called,
            "peer": self.peer,
            "seconds": round(trio.current_time() - self.started, 1),
            "work": self.work.value,
            "bytes_outward": self.traffic.outward,
            "bytes_inward": self.traffic.inward,
            "objects": self.traffic.objects,
        }

    def finished(self) -> dict[str, Any]:
        """What GET /v1/associations/recent says, of one that is over now."""
        ending = self.ending
        return self.to_json() | {
            "ended": time.time(),
            "how": ending.how.value if ending is not None else None,
            "why": ending.why if ending is not None else "",
            "revoked": self.revoked,
        }


def log_ending(entry: LiveAssociation, ending: Ending) -> None:
    """The one line that tells how an association went; it is kept with `entry` too."""
    entry.ending = ending
    log.info(
        "relayed association ended",
        association=entry.number,
        side=entry.side.value,
        calling=entry.calling,
        called=entry.called,
        peer=entry.peer,
        how=ending.how.value,
        by=ending.by,
        numbers=ending.numbers,
        why=ending.why,
        bytes_outward=ending.bytes_outward,
        bytes_inward=ending.bytes_inward,
        messages=in_names(entry.messages),
        seconds=round(trio.current_time() - entry.started, 3),
    )


class LiveRegister:
    """All live associations of this Router; also those that wait for a place, or linger.

    `maximum` is how many may run at once in total (relay.router.places).
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self._entries: list[LiveAssociation] = []
        self._finished: deque[dict[str, Any]] = deque(maxlen=MAXIMUM_FINISHED)
        self._gone = (0, 0)  # what those that are over have carried, out of the hospital and in
        self.on_begun: Callable[[LiveAssociation], None] = lambda entry: None
        self.on_ended: Callable[[LiveAssociation], None] = lambda entry: None
        self._left = trio.lowlevel.ParkingLot()

    def __iter__(self) -> Iterator[LiveAssociation]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def hold(self, entry: LiveAssociation) -> Iterator[LiveAssociation]:
        """Keep `entry` in the register, and in its cancel scope, for the length of the block.

        When it is no longer permitted the block is cancelled; whoever opened the associations in
        it aborts them on the way out. So also at once, for what was taken away while the call was
        looked at. What is logged in it carries the association's number.
        """
        self._entries.append(entry)
        self.on_begun(entry)
        if not entry.still_permitted():
            self._revoke(entry)
        rejected = False
        try:
            with _story(entry), entry.scope:
                yield entry
        except (AssociationRejected, HandshakeError):
            rejected = True  # whoever tells the caller so counts it
            raise
        except Exception:
            entry.ending = entry.ending or Ending(How.ABORTED, "router")
            raise
        finally:
            self._entries.remove(entry)
            entry.witness.close()
            if not rejected:
                self.on_ended(entry)
            self._finished.append(entry.finished())
            self._gone = _added(self._gone, entry)
            self._left.unpark_all()

    @property
    def finished(self) -> list[dict[str, Any]]:
        """Those that ended last, the newest first, as people see them."""
        return list(reversed(self._finished))

    def carried(self) -> tuple[int, int]:
        """Bytes that went to other hospitals and that came from them, since this Router began."""
        total = self._gone
        for entry in self._entries:
            total = _added(total, entry)
        return total

    def end_all(self) -> None:
        """End whatever runs: the Router stops."""
        for entry in self._entries:
            entry.scope.cancel()

    async def wait_empty(self) -> None:
        """Return once no association runs."""
        while self._entries:
            await self._left.park()

    def recheck(self) -> int:
        """End what is no longer permitted; returns how many."""
        ended = [e for e in self._entries if not e.revoked and not e.still_permitted()]
        for entry in ended:
            self._revoke(entry)
        return len(ended)

    @staticmethod
    def _revoke(entry: LiveAssociation) -> None:
        entry.revoked = True
        entry.scope.cancel()
        log.info(
            "association no longer permitted",
            association=entry.number,
            side=entry.side.value,
            device=entry.device,
            peer=entry.peer,
        )


def _story(entry: LiveAssociation) -> AbstractContextManager[None]:
    """The first line of an association's story, and its number on all others."""
    return tracing.about(
        entry.number,
        "association begun",
        side=entry.side.value,
        work=entry.work.value,
        device=entry.device,
        calling=entry.calling,
        called=entry.called,
        peer=entry.peer,
    )


def _added(total: tuple[int, int], entry: LiveAssociation) -> tuple[int, int]:
    """`total` with what `entry` has carried out of the hospital and in."""
    if entry.work not in _CROSSING:
        return total
    to_called, to_caller = entry.traffic.outward, entry.traffic.inward
    out, into = (to_called, to_caller) if entry.side is Side.CALLER else (to_caller, to_called)
    return total[0] + out, total[1] + into
