"""The associations that run now, and on what each one rests.

Whatever a person takes away (a grant, a device, a peer's binding) must end the associations that
rest on it within five seconds (DESIGN §3). Each entry therefore brings a question, "may this still
go on?", that is asked again after every change.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import attrs
import structlog
import trio

from relay.router.passthrough import Ending

log = structlog.get_logger()


def number(session: bytes) -> str:
    """What log lines call an association by: its session in hexadecimal, shortened."""
    return session.hex()[:12]


class Side(Enum):
    """Which end of the session this Router holds."""

    CALLER = "caller"  # a device of ours called out
    CALLEE = "callee"  # a peer called a device of ours


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
        }


def log_ending(entry: LiveAssociation, ending: Ending) -> None:
    """The one line that tells how an association went."""
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
        seconds=round(trio.current_time() - entry.started, 3),
    )


class LiveRegister:
    """All live associations of this Router; also those that wait for a place, or linger.

    `maximum` is how many may run at once in total (relay.router.places).
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self._entries: list[LiveAssociation] = []
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
        looked at.
        """
        self._entries.append(entry)
        if not entry.still_permitted():
            self._revoke(entry)
        try:
            with entry.scope:
                yield entry
        finally:
            self._entries.remove(entry)
            self._left.unpark_all()

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
