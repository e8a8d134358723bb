"""Why calls of this hospital's devices were refused, for the people who made them.

A DICOM device hears three numbers (PS3.8 Table 9-21); the cause is known here.
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import attrs

# What a person looks for was refused a moment ago; older causes are in the log.
MAXIMUM_REFUSALS = 64


@attrs.frozen(slots=True)
class Refusal:
    """One call that did not come about. `time` is in Unix seconds."""

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
