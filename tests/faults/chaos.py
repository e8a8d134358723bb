"""Kills, by a plan that a seed makes: who is killed when, and how long it is away.

    plan = kills(seed, 200, {"near killed": 3, "far killed": 3, "bridge killed": 2})
    chaos = Chaos({"near killed": SiteVictim(net.routers["A"]), ...})
    await chaos.run(plan, struck)        # struck() is called after each

SIGKILL, and of real processes: nothing is flushed, no connection is ended properly. The same seed
gives the same plan; where in a program's work a kill falls depends on the machine.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs
import trio

from tests.faults.links import Link, LinkState
from tests.network import Site
from tests.providers.seaweed import Seaweed

# Between two looks at what came.
POLL = 0.05

# Between two kills so many objects come to their devices, that kills fall into work that goes on:
# mostly a few, sometimes none. Where nothing comes any more the next kill comes all the same.
MOST_OBJECTS = 12
SHARE_UPON_ANOTHER = 0.2
PATIENCE = 10.0

# And then so many seconds.
SHORTEST_CALM, LONGEST_CALM = 0.02, 0.7

# How long somebody is away, in seconds: mostly what a restart takes.
SHORTEST_ABSENCE, LONGEST_ABSENCE = 0.0, 1.0
LONG_ABSENCE = 6.0
SHARE_OF_LONG_ABSENCES = 0.1

# This share is killed a second time while it starts: when it repairs what the first one left.
SHARE_KILLED_AT_START = 0.15
LONGEST_START = 1.2


@attrs.frozen(slots=True)
class Kill:
    """One kill: after how many objects and seconds, of whom, how long away; `at_start`: so long
    into its start it is killed again."""

    number: int
    objects: int
    calm: float
    victim: str
    absence: float
    at_start: float | None


def kills(
    seed: int, count: int, weights: Mapping[str, int], *, objects: int = MOST_OBJECTS
) -> list[Kill]:
    """A plan of `count` kills; `weights`: how often each of the victims is chosen.

    At most `objects` objects come between two. A kill at the start counts as one of them.
    """
    source = random.Random(seed)
    plan: list[Kill] = []
    left = count
    while left:
        at_start = source.uniform(0, LONGEST_START)
        again = source.random() < SHARE_KILLED_AT_START and left > 1
        longest = LONG_ABSENCE if source.random() < SHARE_OF_LONG_ABSENCES else LONGEST_ABSENCE
        plan.append(
            Kill(
                number=len(plan) + 1,
                objects=0 if source.random() < SHARE_UPON_ANOTHER else source.randint(1, objects),
                calm=source.uniform(SHORTEST_CALM, LONGEST_CALM),
                victim=source.choices(list(weights), list(weights.values()))[0],
                absence=source.uniform(SHORTEST_ABSENCE, longest),
                at_start=at_start if again else None,
            )
        )
        left -= 2 if again else 1
    return plan


def strikes(plan: Sequence[Kill]) -> int:
    """How many kills a plan is of, those at the start included."""
    return len(plan) + sum(kill.at_start is not None for kill in plan)


class Victim(Protocol):
    """A process that is killed and started again, or a line that is cut and restored."""

    async def kill(self) -> None:
        """Do it, whatever goes on."""

    async def start(self) -> None:
        """Bring it back, and wait until it is ready."""


@attrs.frozen
class SiteVictim:
    """A Router, or the Bridge with its own store."""

    site: Site

    async def kill(self) -> None:
        await self.site.stop(signal.SIGKILL)

    async def start(self) -> None:
        await self.site.start()


@attrs.frozen
class StoreVictim:
    """An object store that is a process of its own."""

    server: Seaweed

    async def kill(self) -> None:
        await trio.to_thread.run_sync(self.server.server.kill)

    async def start(self) -> None:
        self.server.server.start()
        # Left alone when cancelled: the thread ends when the server is killed.
        await trio.to_thread.run_sync(self.server.wait, abandon_on_cancel=True)


@attrs.frozen
class CutLine:
    """A line that ends what is open, and refuses what is new."""

    link: Link

    async def kill(self) -> None:
        self.link.state = LinkState.DOWN

    async def start(self) -> None:
        self.link.state = LinkState.UP


@attrs.frozen
class SilentLine:
    """A line on which nothing passes, and nothing ends: neither side is told."""

    link: Link

    async def kill(self) -> None:
        self.link.state = LinkState.SILENT

    async def start(self) -> None:
        self.link.state = LinkState.UP


@attrs.frozen(slots=True)
class Blow:
    """One that was struck: what it was, when it fell and when it was over, in Unix seconds."""

    words: str
    fell: float
    over: float


@attrs.define
class Chaos:
    """Carries plans out, and keeps what it has done."""

    victims: Mapping[str, Victim]
    blows: list[Blow] = attrs.field(factory=list)
    always: list[Blow] = attrs.field(factory=list)
    """What goes on all the time."""

    async def run(
        self, plan: Sequence[Kill], struck: Callable[[], object], came: Callable[[], int]
    ) -> None:
        """Carry out `plan`, one kill at a time in each victim, several victims at once.

        Returns when all are up again. `struck` is called once each kill has fallen; `came` says how
        many objects have come to their devices.
        """
        busy = {name: trio.Lock() for name in self.victims}
        async with trio.open_nursery() as nursery:
            for kill in plan:
                enough = came() + kill.objects
                with trio.move_on_after(PATIENCE):
                    while came() < enough:
                        await trio.sleep(POLL)
                await trio.sleep(kill.calm)
                await busy[kill.victim].acquire()  # it is up again
                busy[kill.victim].release()
                await nursery.start(self._strike, kill, busy[kill.victim], struck)

    async def _strike(
        self,
        kill: Kill,
        busy: trio.Lock,
        struck: Callable[[], object],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        victim = self.victims[kill.victim]
        async with busy:
            fell, again = time.time(), None
            await victim.kill()
            struck()
            task_status.started()
            await trio.sleep(kill.absence)
            if kill.at_start is not None:
                with trio.move_on_after(kill.at_start):
                    await victim.start()
                again = time.time()
                await victim.kill()
                struck()
            await victim.start()
            words = kill.victim
            self.blows.append(Blow(words, fell, again or time.time()))
            if again is not None:
                self.blows.append(Blow(f"{words} at start", again, time.time()))

    def words(self) -> str:
        """What was done, counted."""
        counted = Counter(blow.words for blow in self.blows)
        once = [f"{count} × {words}" for words, count in sorted(counted.items())]
        return ", ".join([*(blow.words for blow in self.always), *once])
