"""What `relay doctor` says of Move Destinations that were refused, for each device that asked.

A workstation whose C-MOVE is answered A801H shows a number at best (PS3.4 Table C.4-2); which title
it was, and what is to be done about it, its Router knows (GET /v1/refusals): mostly that the
destination is not published with `store`, or that the archive has no entry for it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from relay.cli.doctor_calls import MOST, RECENT, SINCE, Known
from relay.providers import Finding
from relay.router.refusals import (
    CALLER_MAY_NOT_STORE,
    NO_SUCH_TITLE,
    NOT_PUBLISHED_WITH_STORE,
    NOWHERE,
    STORE_NOT_GRANTED,
)
from relay.router.services import Service

_STORE = Service.STORE.value


@attrs.define(slots=True)
class _Refused:
    """One destination that `calling` asked for, of whom, how often and when last, in seconds."""

    calling: str
    destination: str
    why: str
    called: dict[str, None] = attrs.field(factory=dict)
    times: int = 0
    ago: float = RECENT

    @property
    def what(self) -> str:
        often = f" {self.times} times" if self.times > 1 else ""
        minutes = int(self.ago / 60)
        return (
            f"Move Destination {self.destination} was refused (A801H): {self.calling} asked"
            f" {', '.join(self.called)}{often}, {f'{minutes} min ago' if minutes else 'just now'}"
        )


def refused(refusals: Iterable[Mapping[str, Any]], known: Known, now: float) -> Iterator[Finding]:
    """Each destination whose cause is not gone, the newest first. `now`: Unix seconds.

    What visibly stands is said for as long as the Router remembers it.
    """
    for one in _together(refusals, now)[:MOST]:
        stands = _stands(one, known)
        if stands:
            yield Finding(one.what, False, one.why)
        elif stands is None and one.ago <= RECENT:
            yield Finding(one.what, True, f"{one.why} {SINCE}")


def _together(refusals: Iterable[Mapping[str, Any]], now: float) -> list[_Refused]:
    """One for each caller, destination and cause: several archives are asked for one study."""
    found: dict[tuple[str, str, str], _Refused] = {}
    for row in refusals:
        if not row["destination"]:
            continue
        key = row["calling"], row["destination"], row["why"]
        one = found.setdefault(key, _Refused(*key, ago=now - row["time"]))
        one.called[row["called"]] = None
        one.times += 1
    return list(found.values())


def _stands(one: _Refused, known: Known) -> bool | None:
    """Whether the cause is there still; None: that cannot be seen from here."""
    title, why = one.destination, one.why
    device, row = known.device(title), known.published(title)
    if NOT_PUBLISHED_WITH_STORE in why:
        return device is not None and _STORE not in device["services"]
    if NOWHERE in why:
        return device is None and row is None
    if NO_SUCH_TITLE in why:
        return row is None
    if STORE_NOT_GRANTED in why and row is not None:
        return _STORE not in row["granted"]
    if CALLER_MAY_NOT_STORE in why:
        # What is granted may be for another hospital, or for other callers of it.
        return None if known.granted(title, _STORE) else True
    return None
