"""What a person should know about the queue now, told once when it begins and once when it is over.

A warning is a kind and a key; while it stands, whoever finds the same again changes what it says
and tells nobody anew. It says titles, counts and times, never an object's name or a patient's. It
lives as long as the process: what still stands after a restart is found, and told, again.
"""

import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol

import attrs
import structlog
import trio

log = structlog.get_logger()


class Posts(Protocol):
    """What takes warnings out of the house (`relay.router.queue.webhook.Webhook`)."""

    @property
    def failures(self) -> int:
        """How many never arrived, as far as we know."""

    def post(self, body: Mapping[str, Any]) -> None:
        """Put `body` in line, without waiting."""

    async def run(self) -> None:
        """Take out what is in line, for ever."""


class Kind(Enum):
    """What a warning is about; the value is its name in logs, metrics and webhooks."""

    FAILED = "failed"
    """Objects for a destination were given up: dead letters, for a person to look at."""
    WAITING = "waiting"
    """The oldest object for a destination has waited for longer than `warn_after`."""
    PAUSED = "paused"
    """A destination is paused by its own answer, until a person resumes it."""
    REFUSED = "refused"
    """A destination no longer takes a kind of object that it took before."""
    SPOOL_FULL = "spool_full"
    """No more objects are accepted: `spool_space` or `spool_reserve` is reached."""
    SPOOL_BROKEN = "spool_broken"
    """No more objects are accepted: the disk failed, or objects on it are damaged or missing."""
    DOUBTFUL = "doubtful"
    """After a restore: objects that may have been delivered already wait for a person's word."""
    MOVED = "moved"
    """A destination belongs to another hospital by now than the one that objects were left for."""
    LOCKED = "locked"
    """Objects were locked with another spool key than the one that this Router has."""
    UNREPORTED = "unreported"
    """A device of ours waits for a storage commitment that failed, and could not be told."""
    AUDIT_BEHIND = "audit_behind"
    """The audit's collector lacks entries for a while: it is away, or takes too little."""


@attrs.frozen(slots=True, kw_only=True)
class Warned:
    """One warning that stands. `since` is in Unix seconds; "" and None: does not apply.

    `destination` is the called title, `device` the calling one here, `count` of objects.
    """

    kind: Kind
    key: str
    words: str
    since: float
    destination: str = ""
    device: str = ""
    count: int | None = None

    def to_json(self) -> dict[str, Any]:
        """For people, scripts and the webhook: what does not apply is null."""
        return {
            "warning": self.kind.value,
            "key": self.key,
            "words": self.words,
            "since": self.since,
            "destination": self.destination or None,
            "device": self.device or None,
            "count": self.count,
        }


class Warnings:
    """The warnings that stand.

    `router` gives the name under which the Router tells of them; `webhook` None: in the log only.
    """

    def __init__(
        self,
        router: Callable[[], str],
        webhook: Posts | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._router = router
        self._webhook = webhook
        self._clock = clock
        self._standing: dict[tuple[Kind, str], Warned] = {}

    def begin(
        self,
        kind: Kind,
        key: str,
        words: str,
        *,
        since: float | None = None,
        destination: str = "",
        device: str = "",
        count: int | None = None,
    ) -> None:
        """`key` of `kind` has a trouble, which `words` says: told the first time, kept up to date.

        `since`: when it began, in Unix seconds, if that is known to be before now.
        """
        before = self._standing.get((kind, key))
        if since is None:
            since = before.since if before else self._clock()
        warned = Warned(
            kind=kind,
            key=key,
            words=words,
            since=since,
            destination=destination,
            device=device,
            count=count,
        )
        self._standing[kind, key] = warned
        if before is None:
            self._tell(warned, "begun")

    def over(self, kind: Kind, key: str) -> None:
        """`key` has no such trouble any more; nothing happens if it had none."""
        warned = self._standing.pop((kind, key), None)
        if warned is not None:
            self._tell(warned, "over")

    def standing(self, kind: Kind) -> frozenset[str]:
        """The keys that have this trouble now."""
        return frozenset(key for of, key in self._standing if of is kind)

    def count(self, kind: Kind, key: str) -> int | None:
        """How many objects the warning that stands is about; None: it does not say, or none
        stands."""
        warned = self._standing.get((kind, key))
        return warned.count if warned is not None else None

    def counts(self) -> Mapping[str, int]:
        """How many stand of each kind, all kinds named."""
        counts = {kind.value: 0 for kind in Kind}
        for kind, _ in self._standing:
            counts[kind.value] += 1
        return counts

    def to_json(self) -> list[dict[str, Any]]:
        """All that stand, the oldest first."""
        warned = sorted(self._standing.values(), key=lambda warned: warned.since)
        return [one.to_json() for one in warned]

    @property
    def webhook_failures(self) -> int:
        """How many posts never arrived, as far as we know."""
        return self._webhook.failures if self._webhook else 0

    async def run(self) -> None:
        """Carry what is told to the webhook, for ever."""
        if self._webhook is None:
            await trio.sleep_forever()
        else:
            await self._webhook.run()

    def _tell(self, warned: Warned, state: str) -> None:
        facts = {name: fact for name, fact in warned.to_json().items() if fact is not None}
        if state == "begun":
            log.warning("warning begun", **facts)
        else:
            log.info("warning over", **facts)
        if self._webhook is not None:
            body = {"router": self._router(), "state": state, "time": self._clock()}
            self._webhook.post(body | warned.to_json())
