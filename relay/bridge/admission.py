"""Which sessions may be opened: how many, how fast, and by whom to whom.

An early refusal only: the callee's Router decides, by its own grants and what is outstanding. It
keeps what cannot succeed, and what is too much, away from everybody else.
"""

from collections.abc import Callable

import apsw

from relay.bridge.registry import check_enrolled
from relay.errors import Refused
from relay.signalling.allowance import Allowance
from relay.signalling.hub import SessionRefused
from relay.signalling.messages import EndReason

# Sessions that one Router may have opened at once: as many associations as a busy PACS holds.
MAXIMUM_OPENED = 256
# ... and may be an end of, also as the callee: what one Held message can list.
MAXIMUM_HELD = 1024
# Openings a Router may make: a modality that opens an association for each image makes a few a
# second, a PACS that answers moves so some tens; a burst is what a workstation does at login. A
# short association costs the Bridge 9 ms of a core from its opening to its end: this is less than
# half of one, so that no Router alone keeps the others waiting.
OPENS_PER_SECOND = 50.0
OPENS_AT_ONCE = 300


class OpeningRates:
    """How many openings each Router may still make. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._of: dict[bytes, Allowance] = {}

    def check(self, caller: bytes) -> None:
        """Count one opening. Raises SessionRefused if the caller made too many."""
        allowance = self._of.get(caller)
        if allowance is None:
            allowance = Allowance(OPENS_PER_SECOND, OPENS_AT_ONCE, self._monotonic)
            self._of[caller] = allowance
        if not allowance.take():
            raise SessionRefused(EndReason.LIMIT_REACHED, "too many openings a second")


def check_counts(opened: int, held: int) -> None:
    """Raise SessionRefused where another session would be too many.

    The caller has `opened` so many, and its end that is part of the most is part of `held`.
    """
    if opened >= MAXIMUM_OPENED:
        raise SessionRefused(
            EndReason.LIMIT_REACHED, f"the caller has {MAXIMUM_OPENED} sessions open"
        )
    if held >= MAXIMUM_HELD:
        raise SessionRefused(EndReason.LIMIT_REACHED, f"an end is part of {MAXIMUM_HELD} sessions")


def authorise(db: apsw.Connection, caller: bytes, callee: bytes, called: str) -> None:
    """Raise SessionRefused unless the callee publishes `called`, and the caller may call it.

    It may if the callee granted the caller something of that title, or if the caller granted the
    callee something of a device of its own: what the callee's devices ask for there comes back as
    an association of the other direction, the objects that a C-MOVE sends and the N-EVENT-REPORT of
    a storage commitment. Only the callee's Router knows what was asked for.
    """
    try:
        check_enrolled(db, caller)
        check_enrolled(db, callee)
    except Refused as error:
        raise SessionRefused(EndReason.REVOKED, str(error)) from error
    owner = db.execute("SELECT owner FROM publication WHERE ae_title = ?", (called,)).fetchone()
    if owner is None or owner[0] != callee:
        raise SessionRefused(EndReason.NOT_PUBLISHED)
    granted = db.execute(
        """
        SELECT 1 FROM "grant" WHERE owner = ? AND grantee = ? AND ae_title = ? AND services <> '[]'
        UNION ALL
        SELECT 1 FROM "grant" JOIN publication USING (owner, ae_title)
        WHERE owner = ? AND grantee = ? AND "grant".services <> '[]'
        LIMIT 1
        """,
        (callee, caller, called, caller, callee),
    ).fetchone()
    if granted is None:
        raise SessionRefused(EndReason.NOT_GRANTED)
