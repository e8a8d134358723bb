"""When each device was last heard, by whoever called it, and why not by the federation since.

In memory only, for people: what a device does now it says when it is asked next.
"""

import time
from collections import OrderedDict
from typing import Any

import attrs

# Devices of many hospitals; beyond, those that were asked longest ago are forgotten.
MAXIMUM_STATES = 1024

# Of the words of a failure: a line on a page.
MAXIMUM_WORDS = 300


@attrs.frozen(slots=True)
class State:
    """Times in Unix seconds; `error` is empty where the last word was a good one."""

    seen: float | None = None
    error: str = ""
    failed: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What people are shown."""
        return {
            "last_seen": self.seen,
            "last_error": self.error or None,
            "last_error_at": self.failed,
        }


class States:
    """What was last heard, by published AE title."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, State] = OrderedDict()

    def seen(self, title: str) -> None:
        """`title` has answered, now."""
        self._keep(title, State(seen=time.time()))

    def failed(self, title: str, words: str) -> None:
        """`title` could not be asked, or has stopped answering, now. `words` name no patient."""
        seen = self._states.get(title, State()).seen
        self._keep(title, State(seen, words[:MAXIMUM_WORDS], time.time()))

    def to_json(self, title: str) -> dict[str, Any]:
        """`last_seen`, `last_error` and `last_error_at` of `title`; null where there is none."""
        return self._states.get(title, State()).to_json()

    def _keep(self, title: str, state: State) -> None:
        self._states[title] = state
        self._states.move_to_end(title)
        if len(self._states) > MAXIMUM_STATES:
            self._states.popitem(last=False)
