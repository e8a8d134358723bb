"""Waiting for the queue: until all that one `relay send` has sent is delivered, or never will be.

accepted, with numbers from … to -> counted by state, again and again -> what failed, and why
"""

import time
from collections.abc import Callable, Collection, Iterator
from enum import Enum
from math import inf
from typing import Any

import attrs

from relay.cli.context import Invocation
from relay.cli.control import Control, NotRunning
from relay.cli.router import control
from relay.errors import RelayError
from relay.spool.items import State
from relay.spool.people import PAGE

# Between two looks, in seconds: soon where it is a matter of moments, later where it is not.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
LONGER = 1.3

# A Router that is started anew goes on where it was: so long is its silence nothing to speak of.
PATIENCE = 60.0

# Between two looks at what is in the way of the destination.
STANDING = 10.0

# An object in one of these is not delivered, and will not be by itself.
OVER = (State.FAILED, State.HELD, State.DISCARDED)


class How(Enum):
    """How the waiting ended."""

    SETTLED = "settled"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


@attrs.frozen(slots=True)
class Delivery:
    """What became of what was sent: those that will not be delivered by themselves, with SOP
    Instance UID and why, `held` ones apart; how many wait still, and who has to resume those,
    empty unless their destination is paused."""

    how: How
    undelivered: list[tuple[str, str]]
    waiting: int
    held: list[tuple[str, str]] = attrs.Factory(list)
    paused: str = ""


@attrs.frozen(slots=True)
class Way:
    """The queue that goes to a destination. `called` is its published title."""

    control: Control
    called: str
    calling: str

    def last(self) -> int:
        """The number of what was accepted last, by whomever."""
        return int(self.control.get("/v1/queue/count", called=self.called)["last"])

    def wait(
        self,
        instances: Collection[str],
        after: int,
        timeout: float | None,
        progress: Callable[[int], None],
        tell: Callable[[str], None],
    ) -> Delivery:
        """Return once none of `instances`, accepted behind number `after`, waits; or as `How` says.

        `progress` is given how many are over, `tell` what is in the way. Raises RelayError if the
        Router does not answer for PATIENCE.
        """
        query = {
            "called": self.called,
            "calling": self.calling,
            "after": str(after),
            "until": str(self.last()),
        }
        counts: dict[str, int] = {}
        how = How.SETTLED
        try:
            for counts in self._looks(query, inf if timeout is None else timeout, tell):
                progress(sum(counts[state.word] for state in (State.DELIVERED, *OVER)))
            if counts[State.WAITING.word]:
                how = How.TIMEOUT
        except KeyboardInterrupt:
            how = How.INTERRUPTED
        ours = frozenset(instances)
        found = [
            (state, item["sop_instance"], _why(item))
            for state in OVER
            if counts.get(state.word)
            for item in self._items(query | {"state": state.word})
            if item["sop_instance"] in ours
        ]
        # Another command may have sent to the same device at the same time.
        waiting = counts.get(State.WAITING.word, 0) if counts else len(instances)
        waiting = min(waiting, len(instances) - len(found))
        return Delivery(
            how,
            [(instance, why) for state, instance, why in found if state is not State.HELD],
            waiting,
            [(instance, why) for state, instance, why in found if state is State.HELD],
            self._paused() if waiting else "",
        )

    def _looks(
        self, query: dict[str, str], timeout: float, tell: Callable[[str], None]
    ) -> Iterator[dict[str, int]]:
        """Counts by state, until none waits or the time is over."""
        began = heard = time.monotonic()
        standing, told, pause = began, "", FIRST_PAUSE
        while True:
            now = time.monotonic()
            try:
                counts = self.control.get("/v1/queue/count", **query)
                if counts[State.WAITING.word] and now >= standing:
                    standing = now + STANDING
                    words = self._in_the_way()
                    if words and words != told:
                        tell(words)
                    told = words
            except RelayError:
                if now - heard >= PATIENCE:
                    raise
            else:
                heard = now
                yield counts
                if not counts[State.WAITING.word]:
                    return
            if now - began >= timeout:
                return
            time.sleep(min(pause, began + timeout - now))
            pause = min(pause * LONGER, LONGEST_PAUSE)

    def _in_the_way(self) -> str:
        """Why nothing goes to the destination now; empty if nothing is known to be in the way."""
        place = self._place()
        return paused_in_words(place) or str(place.get("trouble") or "")

    def _paused(self) -> str:
        """That the destination is paused, and by whom; also empty where the Router is away."""
        try:
            return paused_in_words(self._place())
        except RelayError:  # what was heard of it before is told already
            return ""

    def _place(self) -> dict[str, Any]:
        """How the destination stands; empty if nothing is known of it."""
        places = self.control.get("/v1/queue")["destinations"]
        return next((place for place in places if place["called"] == self.called), {})

    def _items(self, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        after: int | None = int(query["after"])
        while after is not None:
            page = self.control.get(
                "/v1/queue/items", **query | {"after": str(after), "limit": str(PAGE)}
            )
            yield from page["items"]
            after = page["next"]


def _why(item: dict[str, Any]) -> str:
    if item["state"] == State.HELD.word and item["reason"]:
        return str(item["reason"])
    return f"{item['state']}: {item['reason']}".removesuffix(": ")


def paused_in_words(place: dict[str, Any]) -> str:
    """By whom and why a destination of GET /v1/queue is paused, and what lets it go on; empty if
    it is not."""
    pause = place.get("paused")
    if pause is None:
        return ""
    who = "a person" if pause["by"] == "person" else "its own answer"
    words = f"paused by {who}, {pause['reason']}".removesuffix(", ")
    return f"{words}; `relay queue resume {place['local']}` lets it go on"


def way_to(invocation: Invocation, ae_title: str) -> Way | None:
    """The queue through which this Router's own objects go to `ae_title`; None: they do not.

    None also where no Router runs, which whoever sends finds out. Raises RelayError.
    """
    process = control(invocation)
    try:
        answer = process.get("/v1/queue/mode", called=ae_title)
    except NotRunning:
        return None
    return Way(process, answer["called"], answer["calling"]) if answer["queued"] else None
