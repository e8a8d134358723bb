"""Whose a study is: what searches have found, so that a retrieve need not ask everybody again.

That a device holds a study is true of whoever has said so. That nobody else holds a part of it is
known only where all were asked for it by its UID: a search by name, date or modality may match what
one hospital has of a split study, and not what the other has.
"""

from collections import OrderedDict
from collections.abc import Iterable

import attrs
import trio

from relay.router.devices import Device

# Studies for one caller each: a day of a few busy workstations, at some 300 bytes.
MAXIMUM_STUDIES = 16384

# Seconds. A study is retrieved within minutes of its search, and may move to another archive or be
# added to within a day.
FOUND_LIFE = 3600.0


@attrs.frozen(slots=True)
class Owners:
    """The titles, by their names in this hospital, of who holds a study.

    `whole`: of those that were `asked` nobody else does.
    """

    titles: frozenset[str] = frozenset()
    whole: bool = False
    asked: frozenset[str] = frozenset()
    until: float = 0.0  # by trio's clock

    def are_all_of(self, titles: Iterable[str]) -> bool:
        """Whether no other one of `titles` holds any of it."""
        return self.whole and self.asked.issuperset(titles)


_NOBODY = Owners()


class Found:
    """The owners of studies, for each caller those that it may ask."""

    def __init__(self, maximum: int = MAXIMUM_STUDIES) -> None:
        self._maximum = maximum
        self._owners: OrderedDict[tuple[str, str], Owners] = OrderedDict()

    def __len__(self) -> int:
        return len(self._owners)

    def note(
        self,
        caller: Device | None,
        study: str,
        titles: Iterable[str],
        *,
        whole: bool = False,
        asked: Iterable[str] = (),
    ) -> None:
        """`titles` hold the study of this UID.

        `whole`: they and those of `asked`, all that `caller` may ask, were asked for it by its UID,
        and have answered.
        """
        key, time = _key(caller, study), trio.current_time()
        now, until = frozenset(titles), time + FOUND_LIFE
        if whole:
            self._owners[key] = Owners(now, True, now.union(asked), until)
        elif (before := self._owners.get(key, _NOBODY)).until <= time:
            self._owners[key] = Owners(now, until=until)
        else:
            # That it is whole is no truer for one more word of an owner.
            until = before.until if before.whole else until
            self._owners[key] = Owners(before.titles | now, before.whole, before.asked, until)
        self._owners.move_to_end(key)
        if len(self._owners) > self._maximum:
            self._owners.popitem(last=False)

    def owners(self, caller: Device | None, study: str) -> Owners:
        """Who is known to hold it."""
        owners = self._owners.get(_key(caller, study), _NOBODY)
        return owners if trio.current_time() < owners.until else _NOBODY

    def forget(self, caller: Device | None, study: str) -> None:
        """It is not there, or not all of it: the next one is to ask anew."""
        self._owners.pop(_key(caller, study), None)

    def forget_for_all(self, study: str) -> None:
        """Somebody has more of it since: whoever retrieves it next asks anew."""
        for key in [key for key in self._owners if key[1] == study]:
            del self._owners[key]


def _key(caller: Device | None, study: str) -> tuple[str, str]:
    return ("" if caller is None else caller.ae_title), study
