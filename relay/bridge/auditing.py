"""What the Bridge tells its audit (relay.audit): who joined the network, and who was refused.

What people change is told by the operations themselves (relay.audit.changes). Who moves what is
known to the Routers alone, and is in theirs.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import attrs

from relay.audit import happenings
from relay.audit.codes import EventType, Outcome
from relay.audit.events import AuditEvent, Participant


def _unheard(event: AuditEvent) -> None:
    """Nobody keeps it."""


@attrs.define(slots=True, eq=False, kw_only=True)
class Auditing:
    """What makes events of the Bridge whose host is `name`; `record` has them kept."""

    name: str = "bridge"
    record: Callable[[AuditEvent], None] = _unheard

    @property
    def bridge(self) -> Participant:
        """This Bridge."""
        return Participant(self.name)

    def enrolled(self, router: str, hospital: str) -> None:
        """The Router of this fingerprint has joined the network, as that hospital's."""
        self.record(
            happenings.alert(
                EventType.SECURITY_CONFIGURATION,
                self.bridge,
                f"{hospital} has joined the network",
                subject=router,
                performers=[Participant(router, name=hospital)],
                outcome=Outcome.SUCCESS,
            )
        )

    def restored(self, made: int) -> None:
        """This Bridge comes from a backup of that time (Unix seconds): what followed is undone."""
        moment = datetime.fromtimestamp(made, UTC).strftime("%Y-%m-%d %H:%M UTC")
        self.record(
            happenings.alert(
                EventType.SECURITY_CONFIGURATION,
                self.bridge,
                f"this Bridge was restored from the backup of {moment}",
                subject=self.name,
                outcome=Outcome.SUCCESS,
            )
        )

    def enrolment_refused(self, why: str) -> None:
        """Somebody wanted to join the network, and may not."""
        self._refused("an enrolment is refused", why)

    def inquiry_refused(self, why: str) -> None:
        """Somebody asked for whom an invitation is, and did not know the code that it holds."""
        self._refused("somebody asked about an invitation without knowing its code", why)

    def connection_refused(self, why: str) -> None:
        """A connection for signalling did not show that it is a Router of this network."""
        self._refused("a connection of a Router is refused", why)

    def _refused(self, words: str, why: str) -> None:
        self.record(
            happenings.alert(
                EventType.NODE_AUTHENTICATION, self.bridge, words, subject=self.name, why=why
            )
        )
