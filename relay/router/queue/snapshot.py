"""The queue at one moment: for each destination how it stands, for people and for Prometheus.

Everything comes from tallies and from what runs, so that it is there at once however much waits.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from relay.errors import SpoolError
from relay.router.queue.destinations import Mode
from relay.router.queue.metrics import DestinationFigures, Snapshot
from relay.router.queue.state import Queue
from relay.spool.items import KEPT, Item, Pause, State, Tally


@attrs.frozen(slots=True, kw_only=True)
class Standing:
    """How one destination stands. `called` is the published title.

    `queued`: what is sent there is queued, from one device at least; else it was once. `oldest` is
    when the oldest object that waits was accepted, in Unix seconds. `trouble` is why the last
    session came to nothing, empty if it did not; `again` when the next one is tried, in Unix
    seconds, if that is not now.
    """

    called: str
    queued: bool
    tallies: Mapping[State, Tally]
    oldest: float | None
    sessions: int
    pause: Pause | None
    trouble: str
    again: float | None = None

    def items(self, state: State) -> int:
        """How many objects are in this state."""
        return self.tallies[state].items if state in self.tallies else 0

    @property
    def bytes(self) -> int:
        """What its files take."""
        return sum(tally.bytes for state, tally in self.tallies.items() if state in KEPT)

    def to_json(self) -> dict[str, Any]:
        """For people and scripts, but for the names that people know it by."""
        return {
            "called": self.called,
            "queued": self.queued,
            **{state.word: self.items(state) for state in State},
            "bytes": {state.word: tally.bytes for state, tally in self.tallies.items()},
            "oldest": self.oldest,
            "sessions": self.sessions,
            "paused": pause_json(self.pause) if self.pause is not None else None,
            "trouble": self.trouble or None,
            "again": self.again,
        }


def pause_json(pause: Pause) -> dict[str, Any]:
    """A pause, without its destination."""
    return {
        "by": "person" if pause.by_person else "device",
        "reason": pause.reason,
        "since": pause.since,
    }


def outlook(queue: Queue, item: Item, pause: Pause | None) -> dict[str, Any]:
    """What an item that waits has before it: its destination's pause or trouble, and when it is
    tried again, in Unix seconds, if that is known. All null for one that does not wait."""
    waits = item.state is State.WAITING
    trouble = queue.couriers.trouble(item.called) if waits else ""
    moments = [item.due, queue.couriers.again(item.called) or 0.0]
    again = max(moments) if waits and pause is None else 0.0
    return {
        "paused": pause_json(pause) if waits and pause is not None else None,
        "trouble": trouble or None,
        "again": again if again > queue.spool.clock() else None,
    }


async def _again(queue: Queue, called: str) -> float | None:
    """When a destination that has something waiting is tried next, in Unix seconds; None: now, or
    it is not known."""
    lane = queue.couriers.again(called)
    if lane is not None:
        return lane
    first = await queue.spool.items.next_due(called)
    return first if first is not None and first > queue.spool.clock() else None


async def standings(queue: Queue) -> list[Standing]:
    """All destinations: those that are set, and those that anything is kept or known of."""
    tallies: dict[str, dict[State, Tally]] = {}
    for tally in await queue.spool.items.counts():
        tallies.setdefault(tally.called, {})[tally.state] = tally
    pauses = {pause.called: pause for pause in await queue.spool.items.pauses()}
    queued = {row.called for row in queue.destinations if row.mode is Mode.QUEUED}
    found = []
    for called in sorted(queued | tallies.keys() | pauses.keys()):
        known = tallies.get(called, {})
        waits = State.WAITING in known
        oldest = await queue.spool.items.oldest(called) if waits else None
        sessions, pause = queue.couriers.sessions(called), pauses.get(called)
        idle = waits and not sessions and pause is None
        found.append(
            Standing(
                called=called,
                queued=called in queued,
                tallies=known,
                oldest=oldest,
                sessions=sessions,
                pause=pause,
                trouble=queue.couriers.trouble(called),
                again=await _again(queue, called) if idle else None,
            )
        )
    return found


def room(queue: Queue) -> dict[str, Any]:
    """What the waiting objects take and may take, in bytes; `refusing`: why none is accepted."""
    objects = queue.spool.objects
    try:
        objects.check()
        refusing = None
    except SpoolError as error:
        refusing = str(error)
    return {
        "used": objects.space.used,
        "maximum": objects.space.maximum,
        "free": objects.space.free(),
        "reserve": objects.space.reserve,
        "refusing": refusing,
    }


async def summary(queue: Queue) -> dict[str, Any]:
    """The whole queue in a few figures: a part of `relay status`."""
    places = await standings(queue)
    oldest = [place.oldest for place in places if place.oldest is not None]
    return {
        "waiting": sum(place.items(State.WAITING) for place in places),
        "held": sum(place.items(State.HELD) for place in places),
        "failed": sum(place.items(State.FAILED) for place in places),
        "bytes": sum(place.bytes for place in places),
        "oldest": min(oldest, default=None),
        "paused": [
            queue.node.names.local(place.called) or place.called
            for place in places
            if place.pause is not None
        ],
        "refusing": room(queue)["refusing"],
        "limit": queue.throttle.limit_now(),
    }


async def figures(queue: Queue) -> Snapshot:
    """What GET /metrics shows."""
    now = queue.spool.clock()
    return Snapshot(
        destinations=[
            DestinationFigures(
                destination=place.called,
                items={state.word: place.items(state) for state in State},
                bytes=place.bytes,
                oldest=max(0.0, now - place.oldest) if place.oldest is not None else 0.0,
            )
            for place in await standings(queue)
        ],
        accepted=queue.statistics.accepted,
        delivered=queue.statistics.delivered,
        failed=queue.statistics.failed,
        duplicates=queue.statistics.duplicates_avoided,
        commits=queue.spool.custody.groups,
        committed=queue.spool.custody.kept,
        spool_bytes=queue.spool.objects.space.used,
        spool_free=queue.spool.objects.space.free(),
        warnings=queue.warnings.counts(),
        webhook_failures=queue.warnings.webhook_failures,
    )
