"""What the network's administrator should know now: worked out from how things stand, when asked.

Nothing is kept: a warning is over when its cause is.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import attrs

from relay.audit.sender import Lagging
from relay.bridge.restored import Restoration

# Of the Bridge's own store: time to make room before PUTs are refused.
NEARLY_FULL = 0.8
# Seconds. A Router that is updated, or whose machine is started anew, is back by then.
AWAY_AFTER = 15 * 60
# Days before a certificate's end. Those that renew themselves do so with 30 days left.
CERTIFICATE_DAYS = 14

_DAY = 24 * 3600


class Kind(Enum):
    """What a warning is about; the value is its name in REST."""

    RESTORED = "restored"
    """The Bridge comes from a backup, and nobody has seen to what was revoked or removed since."""
    STORES_FAILING = "stores_failing"
    """None of the object stores in use works: larger messages wait, and fail."""
    STORE_FAILING = "store_failing"
    """An object store that is in use fails; new sessions use another."""
    STORE_FULL = "store_full"
    """The Bridge's own object store is nearly full."""
    AUDIT_BEHIND = "audit_behind"
    """The audit's collector lacks entries for a while: it is away, or takes too little."""
    ROUTER_AWAY = "router_away"
    """A hospital's Router has not been connected for a while."""
    CERTIFICATE = "certificate"
    """The Bridge's TLS certificate ends soon, or has ended."""


@attrs.frozen(slots=True)
class Warned:
    """One warning: `key` is the store's name or the Router's fingerprint, `since` Unix seconds."""

    kind: Kind
    key: str
    words: str
    since: int | None = None

    def to_json(self) -> dict[str, Any]:
        """For people and scripts."""
        return {
            "warning": self.kind.value,
            "key": self.key,
            "words": self.words,
            "since": self.since,
        }


def standing(
    stores: Iterable[Mapping[str, Any]],
    routers: Iterable[Mapping[str, Any]],
    *,
    used: int,
    space: int | None,
    certificate_ends: int | None,
    restored: Restoration | None,
    lagging: Lagging | None,
    started: int,
    now: int,
) -> list[Warned]:
    """The warnings that stand, the worst first.

    `stores` and `routers` are rows as REST gives them; `used` and `space` are bytes of the Bridge's
    own store; `restored` is a restoration that nobody has confirmed; `lagging` is the audit's
    collector; `certificate_ends`, `started` (of this process) and `now` are in Unix seconds.
    """
    return [
        *_restored(restored),
        *_failing([row for row in stores if row["in_use"]]),
        *_certificate(certificate_ends, now),
        *_full(used, space),
        *_lagging(lagging, now),
        *_away(routers, started, now),
    ]


def _restored(restored: Restoration | None) -> Iterator[Warned]:
    if restored is None:
        return
    made = datetime.fromtimestamp(restored.made, UTC).strftime("%Y-%m-%d %H:%M UTC")
    words = (
        f"This Bridge was restored from the backup of {made}, and what was changed after that is"
        " undone. Routers that were revoked since are let in again: revoke them anew. People and"
        " API tokens that were removed since can come in again: remove them anew. Then say that it"
        " is set right, on the page or by `relay restore --confirm`."
    )
    yield Warned(Kind.RESTORED, "", words, restored.at)


def _failing(in_use: list[Mapping[str, Any]]) -> Iterator[Warned]:
    failing = [row for row in in_use if row["failing"]]
    working = [row["name"] for row in in_use if not row["failing"]]
    for row in failing:
        name, why, at = row["name"], row["last_failure"], row["failed_at"]
        if working:
            words = (
                f"Object store {name} fails: {why}. New sessions use {working[0]}. What is wrong"
                f" with it: `relay provider check {name}`."
            )
            yield Warned(Kind.STORE_FAILING, name, words, at)
        else:
            words = (
                f"Object store {name} fails, and no other works: {why}. Images cannot pass until it"
                " works again: check it, or put another store in use."
            )
            yield Warned(Kind.STORES_FAILING, name, words, at)


def _certificate(ends: int | None, now: int) -> Iterator[Warned]:
    if ends is None or ends - now > CERTIFICATE_DAYS * _DAY:
        return
    words = "The Bridge's TLS certificate has ended: no Router can connect any more."
    if ends > now:
        days = (ends - now) // _DAY
        left = "in less than a day" if not days else "in 1 day" if days == 1 else f"in {days} days"
        words = f"The Bridge's TLS certificate ends {left}; then no Router can connect."
    yield Warned(Kind.CERTIFICATE, "", f"{words} Renew the file, and start the Bridge anew.", None)


def _full(used: int, space: int | None) -> Iterator[Warned]:
    if space is None or used < space * NEARLY_FULL:
        return
    words = (
        f"The Bridge's own object store is {100 * used // space}% full. When it is full, images"
        " wait: raise blob_space, or put a cloud store in use."
    )
    yield Warned(Kind.STORE_FULL, "disk", words, None)


def _lagging(lagging: Lagging | None, now: int) -> Iterator[Warned]:
    if lagging is not None:
        words = f"{lagging.words[0].upper()}{lagging.words[1:]}."
        yield Warned(Kind.AUDIT_BEHIND, "", words, now - int(lagging.lag))


def _away(routers: Iterable[Mapping[str, Any]], started: int, now: int) -> Iterator[Warned]:
    for row in routers:
        seen = row["last_seen"] if row["last_seen"] is not None else row["enrolled"]
        # While the Bridge itself was away, none could be here.
        if row["revoked"] or row["connected"] or now - max(seen, started) < AWAY_AFTER:
            continue
        ever = "is not connected" if row["last_seen"] is not None else "was never connected"
        words = (
            f"The Router of {row['name']} {ever}: nobody reaches its devices. On that machine,"
            " `relay doctor` says why."
        )
        yield Warned(Kind.ROUTER_AWAY, row["fingerprint"], words, seen)
