"""How a retrieve stands, over all owners: its counters, and what its final response says.

The counters of a C-GET-RSP or C-MOVE-RSP are (0000,1020) to (0000,1023), PS3.7 §9.3.3.2, §9.3.4.2;
the statuses those of PS3.4 Tables C.4-2 and C.4-3.
"""

from collections.abc import Awaitable, Callable, Iterable
from enum import IntEnum

import attrs

from relay.dicom import elements
from relay.dicom.dimse import Status, Tag
from relay.dicom.elements import Encoding
from relay.router.suboperations import COMPLETE_WITH_FAILURES, FAILED_SOP_INSTANCE_UID_LIST

# Failed instances that a response names: what an element with two bytes of length takes
# (PS3.5 §7.1.2), at 64 characters each. The counters say how many there are.
MAXIMUM_NAMED = 1000

MAXIMUM_COMMENT = 64  # PS3.7 §E.1: Error Comment is LO
_MAXIMUM_COUNTER = 0xFFFF  # US

# Instances that are known to be stored, at some 150 bytes each: as many as are planned.
MAXIMUM_CAME = 32768


class Refusal(IntEnum):
    """Why nothing of it could be done (PS3.4 Tables C.4-2 and C.4-3)."""

    UNABLE_TO_COUNT = 0xA701  # nobody could say what there is
    UNABLE_TO_PERFORM = Status.UNABLE_TO_PERFORM_SUBOPERATIONS
    DESTINATION_UNKNOWN = Status.MOVE_DESTINATION_UNKNOWN


@attrs.frozen(slots=True)
class Counts:
    """The sub-operations of a retrieve."""

    remaining: int = 0
    completed: int = 0
    failed: int = 0
    warning: int = 0

    @property
    def total(self) -> int:
        return self.remaining + self.completed + self.failed + self.warning

    def elements(self, *, with_remaining: bool = True) -> dict[int, int]:
        """The four elements of a response; what is over after the final one has no remaining."""
        counters = {
            Tag.NUMBER_OF_REMAINING_SUBOPERATIONS: self.remaining,
            Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS: self.completed,
            Tag.NUMBER_OF_FAILED_SUBOPERATIONS: self.failed,
            Tag.NUMBER_OF_WARNING_SUBOPERATIONS: self.warning,
        }
        if not with_remaining:
            del counters[Tag.NUMBER_OF_REMAINING_SUBOPERATIONS]
        return {tag: min(max(count, 0), _MAXIMUM_COUNTER) for tag, count in counters.items()}


# Is told how far a retrieve is; what it awaits holds the retrieve back.
Progress = Callable[[Counts], Awaitable[None]]


@attrs.frozen(slots=True, kw_only=True)
class Totals:
    """What came of a retrieve. `words`, for people, name devices and no patient."""

    status: int
    counts: Counts = Counts()
    failed_uids: tuple[str, ...] = attrs.field(default=(), repr=False)
    words: str = ""

    @property
    def completed(self) -> int:
        return self.counts.completed

    @property
    def failed(self) -> int:
        return self.counts.failed

    @property
    def warning(self) -> int:
        return self.counts.warning

    def elements(self) -> dict[int, int | str]:
        """Of the final response: counters, and an Error Comment. Its status stands beside them."""
        cancelled = self.status == Status.CANCEL
        said: dict[int, int | str] = dict(self.counts.elements(with_remaining=cancelled))
        if self.words:
            comment = self.words.encode("ascii", "replace").decode()
            said[Tag.ERROR_COMMENT] = comment[:MAXIMUM_COMMENT].strip()
        return said

    def data_set(self, encoding: Encoding) -> bytes:
        """The final response's, with the Failed SOP Instance UID List; empty: it has none.

        PS3.4 §C.4.2.1.4.2, §C.4.3.1.3.2.
        """
        if not self.failed_uids:
            return b""
        value = "\\".join(self.failed_uids).encode("ascii")
        value += b"\0" * (len(value) % 2)
        return elements.encode(FAILED_SOP_INSTANCE_UID_LIST, b"UI", value, encoding)


class Tally:
    """Adds up the sub-operations of one owner after the other.

    What is planned counts as remaining until it is stored, or until nobody is left to ask for it.
    `now` is what the owner that is being asked says meanwhile, on top of what is settled;
    its `remaining` may be negative, where what it has done was planned.
    """

    def __init__(self, planned: Iterable[str] = ()) -> None:
        self.now = Counts()
        self.failed_uids: list[str] = []
        self.came: set[str] = set()
        """Those that are stored, as far as anybody has said which."""
        self.came_unnamed = 0
        """How many others are."""
        self._refused: set[str] = set()
        self._left: dict[str, None] = dict.fromkeys(planned)
        self._completed = self._failed = self._warning = 0
        self._shown = Counts()

    def is_left(self, uid: str) -> bool:
        """Whether this instance is planned, and neither stored nor failed."""
        return uid in self._left

    def complete(
        self, uid: str = "", *, count: int = 1, warning: bool = False, named: bool = True
    ) -> None:
        """`count` instances are stored; `uid` is the one that is planned. `named` False: perhaps
        it is not this one."""
        self._left.pop(uid, None)
        if uid and named and len(self.came) < MAXIMUM_CAME:
            self.came.add(uid)
        else:
            self.came_unnamed += count
        if warning:
            self._warning += count
        else:
            self._completed += count

    def fail(
        self, uid: str = "", *, count: int = 1, named: bool = True, refused: bool = False
    ) -> None:
        """`count` instances will not be stored; `named` False: perhaps it is not this one.

        `refused`: the caller has had it, and does not take it.
        """
        self._left.pop(uid, None)
        if refused and len(self._refused) < MAXIMUM_CAME:
            self._refused.add(uid)
        self._failed += count
        if named:
            self.name(uid)

    @property
    def has_unnamed(self) -> bool:
        """Whether of some that have come, or failed, nobody has said which they are."""
        return self.came_unnamed > 0 or self._failed > len(self.failed_uids)

    def may_come(self, uid: str) -> bool:
        """Whether somebody may be asked for it who has not been: it is not stored, nor refused."""
        return uid not in self.came and uid not in self._refused

    def again(self, uid: str, *, failed: bool) -> None:
        """It is planned once more; `failed`: it may be one of those that have failed unnamed."""
        if uid in self.failed_uids:
            self.failed_uids.remove(uid)
            self._failed -= 1
        elif failed and self._failed > len(self.failed_uids):
            self._failed -= 1
        self._left[uid] = None
        self._shown = attrs.evolve(self._shown, failed=min(self._shown.failed, self._failed))

    def name(self, uid: str) -> None:
        """`uid`, if it is one, is among those that were counted as failed."""
        if uid and len(self.failed_uids) < MAXIMUM_NAMED and uid not in self.failed_uids:
            self.failed_uids.append(uid)

    def counts(self) -> Counts:
        """As they are to be shown: all but the remaining never run backwards.

        An owner may have stored some, and fail; the next one begins with them again.
        """
        now, shown = self.now, self._shown
        self._shown = Counts(
            max(0, len(self._left) + now.remaining),
            max(shown.completed, self._completed + now.completed),
            max(shown.failed, self._failed + now.failed),
            max(shown.warning, self._warning + now.warning),
        )
        return self._shown

    def totals(
        self,
        *,
        cancelled: bool = False,
        refusal: Refusal | None = None,
        words: str = "",
        may_lack: bool = False,
    ) -> Totals:
        """The end of it. `refusal` is the status if nothing at all was stored.

        Where something was, a warning says that there may be more; `may_lack`: it does not.
        """
        counts = self.counts()
        if not cancelled:
            # What an owner said it has stored is stored, also where the next one failed with it.
            total = self._completed + self._failed + self._warning
            failed = max(0, total - counts.completed - counts.warning)
            counts = attrs.evolve(counts, remaining=0, failed=failed)
        status: int = Status.SUCCESS
        if cancelled:
            status = Status.CANCEL
        elif not (counts.completed or counts.warning) and (refusal or counts.failed):
            status = refusal or Refusal.UNABLE_TO_PERFORM
        elif counts.failed or counts.warning or (refusal and not may_lack):
            status = COMPLETE_WITH_FAILURES
        return Totals(
            status=status, counts=counts, failed_uids=tuple(self.failed_uids), words=words
        )
