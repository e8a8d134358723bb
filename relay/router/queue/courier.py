"""Who goes when: one lane for each destination (relay.router.queue.lane).

A destination's trouble stays its own: each lane has its own pauses and its own number of sessions,
and none waits for another but for the sessions that one Router has in all, which go to who asks
first.
"""

from collections.abc import Collection

import structlog
import trio

from relay.errors import DatabaseError
from relay.router.queue.lane import FAULT_PAUSE, Lane
from relay.router.queue.sessions import MAXIMUM_SESSIONS, Sessions
from relay.router.queue.state import Queue
from relay.spool.items import Batch, Item, Pause

log = structlog.get_logger()


class Couriers:
    """All lanes. `run` is their task, in the Router's nursery."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._lanes: dict[str, Lane] = {}
        self._sessions = Sessions(MAXIMUM_SESSIONS)
        self._nursery: trio.Nursery | None = None
        self._finishing = False

    async def run(self) -> None:
        """Take up what an earlier run left, and go on, for ever."""
        pauses, called = await self._left()
        for pause in pauses:
            self._lane(pause.called).paused = pause
        for title in called:
            self._lane(title)
        async with trio.open_nursery() as nursery:
            for lane in self._lanes.values():
                nursery.start_soon(lane.run)
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # associations that end later find it closed

    async def _left(self) -> tuple[list[Pause], list[str]]:
        """What is paused, and for whom anything waits."""
        items = self._queue.spool.items
        while True:
            try:
                return await items.pauses(), await items.destinations()
            except DatabaseError as error:
                log.error("queue not readable", why=str(error))
                await trio.sleep(FAULT_PAUSE)

    def arrived(
        self,
        batch: Batch,
        accepted: frozenset[tuple[str, str]],
        item: Item | None = None,
        content: bytes | None = None,
    ) -> None:
        """An object of `batch`, whose association may bring the `accepted` pairs, is kept.

        See `Firsts.arrived` for `item` and `content`.
        """
        self._lane(batch.called).arrived(batch, accepted, item, content)

    def coming(self, batch: Batch, accepted: frozenset[tuple[str, str]]) -> None:
        """See `Lane.coming`."""
        self._lane(batch.called).coming(batch, accepted)

    def closed(self, batch: Batch) -> None:
        """Nothing more comes with `batch`."""
        if batch.number or batch.called in self._lanes:
            self._lane(batch.called).closed(batch)

    def discarded(self, items: Collection[bytes]) -> None:
        """Objects of these ids are not wanted any more: none is sent from memory."""
        for lane in self._lanes.values():
            lane.discarded(items)

    def wake(self, called: str | None = None) -> None:
        """It is worth trying at once: a person says so, or the network has come back."""
        lanes = list(self._lanes.values()) if called is None else [self._lane(called)]
        for lane in lanes:
            lane.wake(again=True)

    def network_changed(self) -> None:
        """See `Lane.network_changed`."""
        for lane in self._lanes.values():
            lane.network_changed()

    def finish(self) -> None:
        """The Router stops: see `Lane.finish`."""
        self._finishing = True
        for lane in self._lanes.values():
            lane.finish()

    def stop(self, pause: Pause) -> None:
        """See `Lane.stop`."""
        self._lane(pause.called).stop(pause)

    def resume(self, called: str) -> None:
        """See `Lane.resume`."""
        self._lane(called).resume()

    def sessions(self, called: str) -> int:
        """How many sessions with this destination run now."""
        lane = self._lanes.get(called)
        return lane.sessions if lane is not None else 0

    def trouble(self, called: str) -> str:
        """Why the last session with this destination came to nothing; empty if it did not."""
        lane = self._lanes.get(called)
        return lane.reason if lane is not None else ""

    def again(self, called: str) -> float | None:
        """When this destination is tried again after trouble, in Unix seconds; None: no need."""
        lane = self._lanes.get(called)
        left = lane.left if lane is not None else 0.0
        return self._queue.spool.clock() + left if left else None

    def _lane(self, called: str) -> Lane:
        lane = self._lanes.get(called)
        if lane is None:
            lane = self._lanes[called] = Lane(self._queue, called, self._sessions)
            if self._finishing:
                lane.finish()
            if self._nursery is not None:
                self._nursery.start_soon(lane.run)
        return lane
