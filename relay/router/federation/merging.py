"""One answer of several: what devices have to say of the same patient, study, series or object.

Which is the same, its key says (`relay.router.federation.identifiers`). Of a study in two archives
nobody has counted the series and objects of both: one may have a copy of the other's, or the other
half. So the counts are left empty (DESIGN §7). Pure.
"""

from collections.abc import Iterator, Mapping

import attrs

from relay.router.federation import attributes
from relay.router.federation.attributes import Attribute
from relay.router.federation.identifiers import Answered, Query
from relay.router.federation.settings import Merging

# Modalities and SOP Classes in Study: of a study in two archives, those of both.
_UNITED = (0x0008_0061, 0x0008_0062)

# Number of Patient Related Studies, Series, Instances; of Study Related Series, Instances; of
# Series Related Instances.
_COUNTS = (0x0020_1200, 0x0020_1202, 0x0020_1204, 0x0020_1206, 0x0020_1208, 0x0020_1209)

# What an answer costs beside its bytes: its key and owners, and their place in a dictionary.
OVERHEAD = 600


def unite(query: Query, first: bytes, second: bytes) -> bytes:
    """The answer of two owners, in the query's syntax: the first's, but for what is of both.

    Raises ValueError for what cannot be read.
    """
    one = attributes.read(first, query.syntax)
    other = attributes.read(second, query.syntax, _UNITED)
    for tag in _UNITED:
        if tag in query.wanted and (values := _values(one, tag) | _values(other, tag)):
            vr = (one.get(tag) or other[tag])[0]
            one[tag] = vr, "\\".join(sorted(values)).encode("latin-1")
    for tag in _COUNTS:
        if tag in one:
            one[tag] = one[tag][0], b""
    return attributes.write(one, query.syntax)


def _values(read: Mapping[int, Attribute], tag: int) -> set[str]:
    return {value for part in attributes.text(read.get(tag)).split("\\") if (value := part.strip())}


@attrs.define(slots=True)
class _Held:
    rank: int
    encoded: bytes  # empty where it has been given away


class Merger:
    """Gathers the answers to one query. `owners` are the titles that have each key."""

    def __init__(self, query: Query, merging: Merging = Merging.MERGED) -> None:
        self.owners: dict[tuple[str, ...], list[str]] = {}
        self.size = 0
        """Bytes that are held, about."""
        self._query = query
        self._streams = merging is Merging.STREAMED
        self._held: dict[tuple[str, ...], _Held] = {}

    def room_for(self, answered: Answered, *, last: bool = False) -> int:
        """By how much `size` may grow with it; `last` as for `add`."""
        return OVERHEAD + (0 if self._streams or last else len(answered.encoded))

    def add(
        self, answered: Answered, source: str, rank: int = 0, *, last: bool = False
    ) -> Answered | None:
        """One more answer, of `source`; gives what is to be passed on at once.

        Streamed that is the answer itself, unless its key was before. Merged it is what all have
        to say of it, where `source` is the `last` that is still being asked. Of several the one of
        the lowest `rank` counts, whichever comes first, so that the same query has the same answer
        the next time.
        """
        owners = self.owners.setdefault(answered.key, [])
        if source not in owners:
            owners.append(source)
        held = self._held.get(answered.key)
        if held is None:
            passes = self._streams or last
            encoded = b"" if passes else answered.encoded
            self._held[answered.key] = _Held(rank, encoded)
            self.size += OVERHEAD + len(encoded)
            return answered if passes else None
        if not held.encoded:
            return None
        if len(owners) > 1:
            self._unite(held, rank, answered.encoded)
        if not last:
            return None
        whole, held.encoded = held.encoded, b""
        self.size -= len(whole)
        return Answered(answered.key, whole)

    def finish(self) -> Iterator[Answered]:
        """What is held, in the order in which it came; each is let go as it is given."""
        for key in list(self._held):
            held = self._held.pop(key)
            self.size -= OVERHEAD + len(held.encoded)
            if held.encoded:
                yield Answered(key, held.encoded)

    def _unite(self, held: _Held, rank: int, encoded: bytes) -> None:
        before = len(held.encoded)
        if rank < held.rank:
            held.encoded, held.rank = unite(self._query, encoded, held.encoded), rank
        else:
            held.encoded = unite(self._query, held.encoded, encoded)
        self.size += len(held.encoded) - before
