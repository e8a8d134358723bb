"""Why calls of this hospital's devices were refused, for the people who made them.

A DICOM device hears three numbers (PS3.8 Table 9-21); the cause is known here. Titles are those of
this hospital, as the device that called has them. What has succeeded since is forgotten.
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import attrs

from relay.errors import Refusal as Word
from relay.signalling.messages import EndReason
from relay.tunnel.verdict import words

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
