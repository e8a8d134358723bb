"""What Router and Bridge alike show of people's sign-ins and of the audit."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import Metric

from relay.metrics.described import Described, Type

SIGN_INS = Described(
    "relay_sign_ins_total",
    Type.COUNTER,
    "Sign-ins to the pages: held, refused, or delayed after some that were refused.",
    ("outcome",),
)
RECORDED = Described("relay_audit_events_total", Type.COUNTER, "Events that the audit was told of.")
WAITING = Described(
    "relay_audit_waiting", Type.GAUGE, "Events of the audit that are not on the disk yet."
)
FAILURES = Described(
    "relay_audit_write_failures_total", Type.COUNTER, "Failures to write the audit to the disk."
)
LOST = Described(
    "relay_audit_lost_total", Type.COUNTER, "Events that the audit has lost: the disk takes none."
)
SYSLOG_CONNECTED = Described(
    "relay_audit_syslog_connected", Type.GAUGE, "1: connected to the audit's collector; 0: not."
)
SYSLOG_BEHIND = Described(
    "relay_audit_syslog_behind", Type.GAUGE, "Entries of the audit that its collector has not yet."
)
SYSLOG_LAG = Described(
    "relay_audit_syslog_lag_seconds",
    Type.GAUGE,
    "For how long entries of the audit wait to go to its collector.",
)
SYSLOG_FAILURES = Described(
    "relay_audit_syslog_failures_total",
    Type.COUNTER,
    "Connections to the audit's collector that failed or were lost.",
)
METRICS = (
    *(SIGN_INS, RECORDED, WAITING, FAILURES, LOST),
    *(SYSLOG_CONNECTED, SYSLOG_BEHIND, SYSLOG_LAG, SYSLOG_FAILURES),
)


class Recording(Protocol):
    """How an audit fares (relay.audit.audit.Statistics)."""

    @property
    def recorded(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    @property
    def failures(self) -> int: ...

    @property
    def lost(self) -> int: ...


class Sending(Protocol):
    """How it fares on its way to its collector (relay.audit.sender.Sending)."""

    @property
    def connected(self) -> bool: ...

    @property
    def behind(self) -> int: ...

    @property
    def lag(self) -> float: ...

    @property
    def failures(self) -> int: ...


def sign_in_metrics(counted: Mapping[str, int]) -> Iterator[Metric]:
    """The sign-ins, by their outcome."""
    yield SIGN_INS.of({(outcome,): count for outcome, count in counted.items()})


def audit_metrics(audit: Recording | None, sender: Sending | None) -> Iterator[Metric]:
    """The audit, and its collector where there is one."""
    if audit is not None:
        yield RECORDED.only(audit.recorded)
        yield WAITING.only(audit.waiting)
        yield FAILURES.only(audit.failures)
        yield LOST.only(audit.lost)
    if sender is not None:
        yield SYSLOG_CONNECTED.only(sender.connected)
        yield SYSLOG_BEHIND.only(sender.behind)
        yield SYSLOG_LAG.only(sender.lag)
        yield SYSLOG_FAILURES.only(sender.failures)
