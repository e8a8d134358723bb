"""Which SOP classes a retrieve is about, so that a C-GET can propose to take them (PS3.7 §D.3.3.4).

What is not proposed in an association cannot come over it, and of the pairs of SOP class and
transfer syntax that there are a fraction has room. So devices are asked first what they hold, by
instances; of a series that was looked at already it is remembered, for all callers, since a SOP
class says nothing of anybody. So is who holds it: a viewer asks for hundreds of frames, and each
time a hospital that is away would be waited for. Who may not ask the holder gets nothing by that.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs
import trio

from relay.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from relay.errors import Refused, SourceFailed
from relay.router.devices import Device
from relay.router.dicomweb.media import DEFAULT
from relay.router.federation.federation import Federation
from relay.router.federation.outcomes import told_of
from relay.router.federation.owners import holdings_of, owners_of
from relay.router.federation.sources import Source
from relay.router.federation.targets import Target
from relay.router.storage import STORAGE_SOP_CLASSES

# Series of which it is remembered: a day of a few busy workstations, at some 200 bytes.
MAXIMUM_SERIES: Final = 16384

# Instances of one retrieve that are looked at.
MAXIMUM_INSTANCES: Final = 32768


@attrs.frozen(slots=True)
class Seen:
    """What was seen of a series: its SOP classes, and the titles of who holds some of it."""

    sop_classes: frozenset[str] = frozenset()
    holders: frozenset[str] = frozenset()


class KnownClasses:
    """The SOP classes of series, as far as they were seen, and whose they are."""

    def __init__(self, maximum: int = MAXIMUM_SERIES) -> None:
        self._maximum = maximum
        self._series: OrderedDict[str, Seen] = OrderedDict()

    def note(self, series: str, sop_class: str, holder: str) -> None:
        """`holder` has an object of `series` that is of this SOP class."""
        if not series or not sop_class:
            return
        seen = self._series.get(series, Seen())
        if sop_class not in seen.sop_classes or holder not in seen.holders:
            seen = Seen(seen.sop_classes | {sop_class}, seen.holders | {holder})
        self._series[series] = seen
        self._series.move_to_end(series)
        if len(self._series) > self._maximum:
            self._series.popitem(last=False)

    def of(self, series: str) -> Seen | None:
        """What was seen of `series`; None if nothing was."""
        return self._series.get(series)

    def forget(self, series: str) -> None:
        """What is known of `series` has not served."""
        self._series.pop(series, None)


@attrs.frozen(slots=True)
class Held:
    """What devices hold of a target: SOP classes, none where they do not say which, and instances,
    each with its series. `holders`: the titles of who has a part of it.

    `troubles`: who could not be asked, and why, in words; empty: all could.
    """

    sop_classes: frozenset[str]
    instances: Mapping[str, str]
    holders: frozenset[str]
    troubles: str = ""


async def held_of(
    federation: Federation, caller: Device | None, target: Target, known: KnownClasses
) -> Held:
    """What there is of what `target` names.

    Where those who are remembered to hold the study have nothing of it, all are asked anew: it may
    be elsewhere now, or there too. Raises Refused: 404 where nobody has anything of it, 503 where
    somebody who may could not be asked.
    """
    if target.instances and (seen := known.of(target.series[0])):
        instances = dict.fromkeys(target.instances, target.series[0])
        return Held(seen.sop_classes, instances, seen.holders)
    remembered = federation.found.owners(caller, target.studies[0]).titles
    held = await _survey(federation, caller, target, known)
    if remembered and not (held.instances or held.troubles):
        federation.found.forget(caller, target.studies[0])
        held = await _survey(federation, caller, target, known)
    if not held.instances and held.troubles:
        raise Refused(503, f"not found, but not all could be asked: {held.troubles}")
    if not held.instances:
        raise Refused(404, "no device has it, of those that this caller may ask")
    return held


async def _survey(
    federation: Federation, caller: Device | None, target: Target, known: KnownClasses
) -> Held:
    """What those that hold the study say that they have of `target`."""
    troubles: dict[str, str] = {}
    owners = await owners_of(federation, caller, target.studies, troubles)
    found: set[str] = set()
    instances: dict[str, str] = {}

    async def look(source: Source) -> None:
        try:
            holdings = await holdings_of(federation, caller, source, [target], MAXIMUM_INSTANCES)
        except SourceFailed as error:
            troubles[source.title] = str(error)
            return
        for uid, (_, series, sop_class) in holdings.items():
            instances[uid] = series
            known.note(series, sop_class, source.title)
            found.add(sop_class)

    holders = {source.title: source for sources in owners.values() for source in sources}
    async with trio.open_nursery() as nursery:
        for source in holders.values():
            nursery.start_soon(look, source)
    words = "; ".join(told_of(title, why) for title, why in sorted(troubles.items()))
    return Held(frozenset(found - {""}), instances, frozenset(holders), words)


def contexts(
    sop_classes: Iterable[str], syntaxes: Sequence[str]
) -> list[tuple[str, Sequence[str]]]:
    """What is proposed for these, the likeliest first.

    Each pair alone: an archive then sends each object as it is stored, if that was accepted, and
    converts it only if it was not. Uncompressed ones stand first: all devices have those. Without
    SOP classes all of the standard's are proposed, each in one context, of which a device takes
    what it likes.
    """
    classes = sorted(sop_classes)
    if not classes:
        return [(uid, tuple(syntaxes)) for uid in STORAGE_SOP_CLASSES]
    plain = [uid for uid in (DEFAULT, IMPLICIT_VR_LITTLE_ENDIAN) if uid in syntaxes]
    rows: list[tuple[str, Sequence[str]]] = [
        (uid, (syntax,)) for syntax in plain for uid in classes
    ]
    rows += [(uid, (syntax,)) for syntax in syntaxes if syntax not in plain for uid in classes]
    return rows
