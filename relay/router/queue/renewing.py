"""When another hospital is asked what its device takes: for what is new, in time, and anew.

    destination -> due? -> (relay.router.queue.acceptance asks) -> known: a day before it expires
                                \\-> not known, or something is refused: after a pause

A pause ends early when there are better prospects, such as a grant, or a person says so.
"""

from collections import defaultdict
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from relay.errors import DatabaseError
from relay.router.node import Node, unix_time
from relay.router.queue.destinations import DestinationTable, Mode
from relay.router.queue.held import Key
from relay.router.queue.pauses import Pauses

if TYPE_CHECKING:
    from relay.router.queue.acceptance import Acceptance

log = structlog.get_logger()

# Seconds before it expires that knowledge is asked for again: a weekend's outage of the network
# begins on a Friday, and what is known then should last.
RENEWAL = 86400

# Called titles that are asked for at the same time. More only hurry where all are new.
AT_ONCE = 8

# Between two looks at what is due, where nothing has changed.
LOOK = 30.0

# After a failure to learn, and while something is refused: a far Router that is away comes back,
# and a device is mended, within the hour; a probe of it costs its hospital forty associations.
PAUSES = Pauses(first=60.0, factor=2.0, cap=3600.0)

_CONNECTED = "connected"


@attrs.frozen(slots=True)
class Failure:
    """Asking in vain: how often in a row, and when to ask again, by trio's clock.

    `prospects` are those that it had: with better ones it is asked again at once.
    """

    count: int
    again: float
    prospects: frozenset[str]


class Renewal:
    """Asks for what `acceptance` needs, in the background. `failures` are those in vain."""

    def __init__(self, acceptance: "Acceptance") -> None:
        self.failures: dict[Key, Failure] = {}
        self._acceptance = acceptance
        self._busy: set[str] = set()  # called titles
        self._news = trio.Event()

    def look(self) -> None:
        """Something may be due now that was not."""
        self._news.set()

    def ask_soon(self, called: str | None = None) -> None:
        """What is due of `called`, None: of any, is asked for without a pause."""
        for key in [key for key in self.failures if called in (None, key[0])]:
            del self.failures[key]
        self.look()

    async def run(self, node: Node, destinations: DestinationTable) -> None:
        """Learn what destinations need, and renew it in time, for ever.

        The callers of one destination one after the other: each may have its device probed.
        """
        async with trio.open_nursery() as nursery:
            while True:
                changed, self._news = destinations.changed, trio.Event()
                for called, callings in self._due(node, destinations).items():
                    if called not in self._busy and len(self._busy) < AT_ONCE:
                        self._busy.add(called)
                        nursery.start_soon(self._renew, node, called, callings)
                with trio.move_on_after(LOOK):
                    await _either(changed, self._news)

    def _due(self, node: Node, destinations: DestinationTable) -> dict[str, list[str]]:
        """The calling titles to be asked for, by the called one."""
        due: defaultdict[str, list[str]] = defaultdict(list)
        if node.network is None or not node.network.client.connected:
            return due
        ours = [device.published for device in node.devices]
        for row in destinations:
            # The command line calls as the Router itself: it is asked for once that was used.
            itself = [node.ae_title] if self._acceptance.holds(row.called, node.ae_title) else []
            for calling in [row.calling] if row.calling else [*ours, *itself]:
                holds = (
                    row.mode is Mode.QUEUED and destinations.for_call(row.called, calling) is row
                )
                if (
                    holds
                    and self._is_due(node, row.called, calling)
                    and not self._pauses(node, row.called, calling)
                ):
                    due[row.called].append(calling)
        return due

    def _is_due(self, node: Node, called: str, calling: str) -> bool:
        held = self._acceptance.known(node, called, calling, unix_time() + RENEWAL)
        if held is None or held.refused or node.network is None:
            return True
        asked = self._acceptance.granted(called, calling)
        return asked is not None and bool(node.network.directory.granted(called) - asked)

    def _pauses(self, node: Node, called: str, calling: str) -> bool:
        failure = self.failures.get((called, calling))
        return (
            failure is not None
            and failure.again > trio.current_time()
            and _prospects(node, called) <= failure.prospects
        )

    async def _renew(self, node: Node, called: str, callings: list[str]) -> None:
        try:
            for calling in callings:
                await self._renew_one(node, called, calling)
        except Exception:  # it would end this Router, and with it all that others wait for
            log.exception("knowledge not learned", called=called)
        finally:
            self._busy.discard(called)

    async def _renew_one(self, node: Node, called: str, calling: str) -> None:
        key, prospects = (called, calling), _prospects(node, called)
        try:
            await self._acceptance.learn(node, called, calling, anew=True)
        except DatabaseError as error:  # a full disk: may be better the next time
            log.error("knowledge not kept", called=called, calling=calling, why=str(error))
        if self._is_due(node, called, calling):
            count = self.failures[key].count + 1 if key in self.failures else 1
            again = trio.current_time() + PAUSES.next(count)
            self.failures[key] = Failure(count, again, prospects)
            if not self._pauses(node, called, calling):  # they became better meanwhile
                self.look()
        else:
            self.failures.pop(key, None)


def _prospects(node: Node, called: str) -> frozenset[str]:
    """What speaks for an answer, as the Bridge says: grants, and that the Router is there."""
    if node.network is None:
        return frozenset()
    directory = node.network.directory
    there = frozenset({_CONNECTED}) if directory.is_reachable(called) else frozenset()
    return directory.granted(called) | there


async def _either(*events: trio.Event) -> None:
    """Return once one of them is set."""
    async with trio.open_nursery() as nursery:

        async def watch(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(watch, event)
