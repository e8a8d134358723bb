"""Why calls of this hospital's devices were refused, for the people who made them.

A DICOM device hears three numbers (PS3.8 Table 9-21), or a status; the cause is known here. Titles
are those of this hospital, as the device that called has them. What has succeeded since is
forgotten: a call when the called AE title takes one, a Move Destination when a C-MOVE to it passes.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from relay.errors import Refusal as Word
from relay.signalling.messages import EndReason
from relay.tunnel.verdict import words

# What a person looks for was refused a moment ago; older causes are in the log.
MAXIMUM_REFUSALS = 64
# Move Destinations apart: a device that cannot call, and tries each second, would push them out.
MAXIMUM_DESTINATIONS = 64

# Of a Move Destination that is no AE title: what is kept of it, and shown.
MAXIMUM_TITLE = 64

# Causes of which `relay doctor` can see whether they still stand, by the words that they hold.
NO_DEVICE = "is no device of this Router"
NOT_ENROLLED = "this Router is not enrolled"
NO_CONNECTION = "no connection to the Bridge"
NOT_PUBLISHED = "is not published"
NOTHING_GRANTED = "has granted this Router nothing of"
PEER_OFFLINE = "'s Router is not connected to the Bridge"
NOT_KNOWN_YET = "takes is not known yet"
# The same of Move Destinations.
NOT_PUBLISHED_WITH_STORE = "that is not published with store"
NOWHERE = "neither a device of this hospital nor one that another hospital publishes"
NO_SUCH_TITLE = "no such AE title is published"
CALLER_MAY_NOT_STORE = "the caller may not store there"
STORE_NOT_GRANTED = "has not granted this one `store` there"
# What that begins with which befell a call that had come about.
ABORTED = "the association was aborted"
# A device that is switched off, or full: its Router says no more than that to another hospital.
DEVICE_BUSY = "is busy or does not answer its Router"


def explained(cause: str, hospital: str, called: str, calling: str, services: str = "…") -> str:
    """What the Bridge or the far Router says against a call, and what can be done about it.

    `cause` is the tunnel's, which ends with their word; `called` is of `hospital`, `services`
    are those to ask for. Empty where it is no such word.
    """
    said = cause.rpartition(": ")[2]
    if is_not_granted(cause):
        return (
            f"{hospital} {NOTHING_GRANTED} {called}: ask with `relay grant ask {called}"
            f" --services {services}`"
        )
    if said == words(EndReason.CALLEE_OFFLINE):
        return f"{hospital}{PEER_OFFLINE}: is it switched on, and is its network up?"
    if said == words(Word.UNTRUSTED_PEER):
        return f"{hospital} has not verified this Router: give them the contact of `relay status`"
    if said == words(Word.AMBIGUOUS_CALLING):
        return (
            f"{hospital} has another device of the AE title {calling}: give this one another title"
            " in the network with `relay device add … --as AE_TITLE`, or have them name it there"
            f" with `relay alias add LOCAL {calling}`"
        )
    if said == words(Word.BUSY):
        return f"{called} of {hospital} {DEVICE_BUSY}"
    return ""


def is_not_granted(cause: str) -> bool:
    """Whether `cause` is the tunnel's, and ends with the word that nothing is granted."""
    return cause.rpartition(": ")[2] == words(EndReason.NOT_GRANTED)


@attrs.frozen(slots=True)
class Refusal:
    """One call that did not come about, or not to its end. `time` is in Unix seconds.

    With a `destination` it is a C-MOVE in a call, which was refused for that Move Destination.
    """

    time: float
    calling: str
    called: str
    why: str
    destination: str = ""

    def to_json(self) -> dict[str, Any]:
        """What GET /v1/refusals says of it."""
        return attrs.asdict(self)


class Refusals:
    """The last refusals, in memory only."""

    def __init__(self) -> None:
        self.on_move: Callable[[str, str, str, str], None] = lambda *_: None
        """Is told of each C-MOVE that is refused, as `note_move` is."""
        self._calls: deque[Refusal] = deque(maxlen=MAXIMUM_REFUSALS)
        self._moves: deque[Refusal] = deque(maxlen=MAXIMUM_DESTINATIONS)

    def __iter__(self) -> Iterator[Refusal]:
        """The newest first."""
        newest = tuple(reversed(self._calls)), tuple(reversed(self._moves))
        return heapq.merge(*newest, key=lambda refusal: -refusal.time)

    def note(self, calling: str, called: str, why: str) -> None:
        """`called` could not be reached for `calling`, now."""
        self._calls.append(Refusal(time.time(), calling, called, why))

    def note_move(self, calling: str, called: str, destination: str, why: str) -> None:
        """A C-MOVE that `calling` asked of `called` is refused for its `destination`, now."""
        title = destination[:MAXIMUM_TITLE]
        self.on_move(calling, called, title, why)
        self._moves.append(Refusal(time.time(), calling, called, why, title))

    def forget(self, calling: str, called: str) -> None:
        """`calling` has reached `called` now: why it did not before is of no use any more."""
        gone = (calling, called)
        if any((refusal.calling, refusal.called) == gone for refusal in self._calls):
            kept = (r for r in self._calls if (r.calling, r.called) != gone)
            self._calls = deque(kept, maxlen=MAXIMUM_REFUSALS)

    def forget_move(self, calling: str, called: str, destination: str) -> None:
        """A C-MOVE that `calling` asked of `called` goes on, to this `destination`."""
        gone = (calling, called, destination)
        if any((r.calling, r.called, r.destination) == gone for r in self._moves):
            kept = (r for r in self._moves if (r.calling, r.called, r.destination) != gone)
            self._moves = deque(kept, maxlen=MAXIMUM_DESTINATIONS)
