"""Why calls of this hospital's devices were refused, for the people who made them.

A DICOM device hears three numbers (PS3.8 Table 9-21); the cause is known here. Titles are those of
this hospital, as the device that called has them. What has succeeded since is forgotten.
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import attrs

# What a person looks for was refused a moment ago; older causes are in the log.
MAXIMUM_REFUSALS = 64

# Causes of which `relay doctor` can see whether they still stand, by the words that they hold.
NO_DEVICE = "is no device of this Router"
NOT_ENROLLED = "this Router is not enrolled"
NO_CONNECTION = "no connection to the Bridge"
NOT_PUBLISHED = "is not published"
NOTHING_GRANTED = "has granted this Router nothing of"
PEER_OFFLINE = "'s Router is not connected to the Bridge"
# What those begin with that befell a call which had come about: a C-MOVE in it, and all of it.
REFUSED_DESTINATION = "Move Destination"
ABORTED = "the association was aborted"


@attrs.frozen(slots=True)
class Refusal:
    """One call that did not come about, or not to its end. `time` is in Unix seconds."""

    time: float
    calling: str
    called: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """What GET /v1/refusals says of it."""
        return attrs.asdict(self)


class Refusals:
    """The last refusals, in memory only."""

    def __init__(self) -> None:
        self._kept: deque[Refusal] = deque(maxlen=MAXIMUM_REFUSALS)

    def __iter__(self) -> Iterator[Refusal]:
        """The newest first."""
        return iter(tuple(reversed(self._kept)))

    def note(self, calling: str, called: str, why: str) -> None:
        """`called` could not be reached for `calling`, now."""
        self._kept.append(Refusal(time.time(), calling, called, why))

    def forget(self, calling: str, called: str) -> None:
        """`calling` has reached `called` now: why it did not before is of no use any more."""
        gone = (calling, called)
        kept = [refusal for refusal in self._kept if (refusal.calling, refusal.called) != gone]
        if len(kept) < len(self._kept):
            self._kept = deque(kept, maxlen=MAXIMUM_REFUSALS)
