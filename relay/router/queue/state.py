"""The queue of one Router: what its parts share.

    intake -> spool -> couriers -> delivery sessions          what our devices send away
    knowledge, telling, handover                              what peers ask of our devices

The parts that act (relay.router.queue.intake, courier, delivery, commitment) are given a `Queue`;
below it is the spool, which knows no network, and `Node`, which knows no queue.
"""

from collections.abc import Collection, Sequence
from math import inf
from typing import TYPE_CHECKING, Protocol

import attrs
import structlog
import trio

from relay.errors import DatabaseError, SpoolBroken, SpoolError
from relay.router.node import Node
from relay.router.pairs import in_words
from relay.router.queue.acceptance import Acceptance
from relay.router.queue.bandwidth import Throttle
from relay.router.queue.destinations import DestinationTable
from relay.router.queue.knowledge import OwnKnowledge
from relay.router.queue.settings import QueueSettings
from relay.router.queue.waiting import Waiting
from relay.router.queue.warnings import Kind, Warnings
from relay.spool.items import Batch, Change, Item, Pause, State
from relay.spool.spool import Spool

if TYPE_CHECKING:
    from relay.router.queue.commitment import Commitments

log = structlog.get_logger()

# Kinds of objects that a warning names: what fits a line or two.
NAMED = 5


class Couriers(Protocol):
    """What the intake and people tell them (relay.router.queue.courier)."""

    def coming(self, batch: Batch, accepted: frozenset[tuple[str, str]]) -> None: ...

    def arrived(
        self,
        batch: Batch,
        accepted: frozenset[tuple[str, str]],
        item: Item | None = None,
        content: bytes | None = None,
    ) -> None: ...

    def closed(self, batch: Batch) -> None: ...

    def discarded(self, items: Collection[bytes]) -> None: ...

    def wake(self, called: str | None = None) -> None: ...

    def network_changed(self) -> None: ...

    def finish(self) -> None: ...

    def stop(self, pause: Pause) -> None: ...

    def resume(self, called: str) -> None: ...

    def sessions(self, called: str) -> int: ...

    def trouble(self, called: str) -> str: ...

    def again(self, called: str) -> float | None: ...

    async def run(self) -> None: ...


@attrs.define(slots=True)
class Statistics:
    """Counts since this Router was started."""

    accepted: int = 0
    delivered: int = 0
    failed: int = 0
    duplicates_avoided: int = 0  # answered by the far Router from its receipts


@attrs.define(slots=True, eq=False, kw_only=True)
class Queue:
    """Everything that queued delivery needs, of one Router. `couriers` is set once they exist.

    Without `commitments` no storage commitment is accepted.
    """

    node: Node
    spool: Spool
    settings: QueueSettings
    destinations: DestinationTable
    knowledge: OwnKnowledge
    acceptance: Acceptance
    warnings: Warnings
    throttle: Throttle
    couriers: Couriers = attrs.field(init=False)
    commitments: "Commitments | None" = None
    waiting: Waiting = attrs.field(
        default=attrs.Factory(
            lambda self: Waiting(self.node.moves, self.spool.items), takes_self=True
        )
    )
    statistics: Statistics = attrs.field(factory=Statistics)
    refused_at: float = -inf
    """When an object was last refused with A700, by trio's clock."""

    # --- what the parts report ----------------------------------------------------------------

    def accepted(
        self,
        batch: Batch,
        pairs: frozenset[tuple[str, str]],
        item: Item | None = None,
        content: bytes | None = None,
    ) -> None:
        """An object of `batch`, whose association may bring `pairs`, is in custody.

        `item` is its row, which is told in the order of the numbers, and `content` its data set, if
        they are at hand.
        """
        self.statistics.accepted += 1
        self.couriers.arrived(batch, pairs, item, content)

    def no_room(self, error: SpoolError) -> None:
        """An object was refused with A700."""
        self.refused_at = trio.current_time()
        kind = Kind.SPOOL_BROKEN if isinstance(error, SpoolBroken) else Kind.SPOOL_FULL
        self.warnings.begin(kind, "", str(error))

    def settled(self, batch: Batch, changes: Sequence[Change]) -> None:
        """These changes are on the disk."""
        self.waiting.settled(changes)
        if self.commitments is not None:
            self.commitments.wake()
        self.statistics.delivered += sum(c.state is State.DELIVERED for c in changes)
        failed = sum(change.state is State.FAILED for change in changes)
        if failed:
            self.statistics.failed += failed
            known = self.warnings.count(Kind.FAILED, batch.called) or 0
            self.warn_failed(batch.called, known + failed)

    async def refused(self, batch: Batch, pair: tuple[str, str]) -> None:
        """The device refused what it was known to take: nothing of that kind is accepted now."""
        await self.acceptance.refuse(batch.called, batch.calling, pair)
        refused = self.acceptance.refused(batch.called, batch.calling)
        self.warn_refused(batch.called, batch.calling, {*refused, pair})

    async def taken(self, batch: Batch, pairs: Collection[tuple[str, str]]) -> None:
        """The device has taken objects of these kinds: what it refused of them it takes again."""
        try:
            await self.acceptance.lift(batch.called, batch.calling, pairs)
        except DatabaseError as error:  # known until this Router is started anew
            log.error("knowledge not kept", called=batch.called, why=str(error))

    async def pause(self, pause: Pause) -> None:
        """Stop a destination, durably. Raises DatabaseError."""
        await self.spool.items.pause(pause)
        self.couriers.stop(pause)
        if not pause.by_person:
            self.warn_paused(pause)

    async def resume(self, called: str) -> bool:
        """Let a destination go on; whether it was stopped. Raises DatabaseError."""
        stopped = await self.spool.items.resume(called)
        self.couriers.resume(called)
        self.warnings.over(Kind.PAUSED, called)
        return stopped

    # --- what people are told -----------------------------------------------------------------

    def warn_failed(self, called: str, count: int | None = None) -> None:
        """There are dead letters."""
        self.warnings.begin(
            Kind.FAILED,
            called,
            f"objects for {called} cannot be delivered: `relay queue list --state failed` shows"
            " them, and why",
            destination=called,
            count=count,
        )

    def warn_refused(
        self,
        called: str,
        calling: str,
        pairs: Collection[tuple[str, str]],
        count: int | None = None,
    ) -> str:
        """A device does not take what it took; the warning's key. `count` objects are held."""
        key = f"{called} {calling}"
        words = sorted(map(in_words, pairs))
        more = f" and {len(words) - NAMED} more kinds" if len(words) > NAMED else ""
        self.warnings.begin(
            Kind.REFUSED,
            key,
            f"{called} does not accept {', '.join(words[:NAMED])}{more} from {calling} any more:"
            " such objects are held until it does, and not accepted meanwhile; once it is mended,"
            f" `relay queue retry --to {called} --state held` has it asked at once",
            destination=called,
            device=calling,
            count=count,
        )
        return key

    def warn_paused(self, pause: Pause) -> None:
        """The device's own answer has stopped its destination."""
        self.warnings.begin(
            Kind.PAUSED,
            pause.called,
            f"delivery to {pause.called} is stopped: {pause.reason};"
            f" then `relay queue resume {pause.called}`",
            since=pause.since,
            destination=pause.called,
        )
