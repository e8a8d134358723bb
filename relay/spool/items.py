"""What the spool knows of each object, and of the association that brought it."""

from enum import IntEnum
from typing import Any

import attrs

from relay.spool.segments import StoredObject


class State(IntEnum):
    """How an item stands. Its file is kept in the first three."""

    WAITING = 1  # for its first delivery or the next one
    HELD = 2  # for a person, or for what `Hold` says
    FAILED = 3  # a dead letter: a person retries or discards it
    DELIVERED = 4  # its device has said so, and that is on the disk here
    DISCARDED = 5  # by a person

    @property
    def word(self) -> str:
        """What people call it."""
        return self.name.lower()


KEPT = (State.WAITING, State.HELD, State.FAILED)


class Hold(IntEnum):
    """Why an item is held."""

    NONE = 0
    NOT_ACCEPTED = 1  # the device does not take its kind any more
    DOUBTFUL = 2  # from before a restore: it may have been delivered already
    LOCKED = 3  # the spool key that opens it is not the one there is
    MOVED = 4  # its AE title belongs to another hospital by now


class Priority(IntEnum):
    """Which of several batches to one destination goes first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@attrs.define(slots=True, eq=False, kw_only=True)
class Batch:
    """One association that came in: its objects go out in order, over one association if may be.

    `peer` is the identity of the hospital that the sender meant; `called` and `calling` are
    published AE titles, `device` is the sender's local one. `number` is 0 until the first object
    is kept. Times are Unix seconds.
    """

    peer: bytes
    called: str
    calling: str
    device: str
    opened: float
    priority: Priority = Priority.NORMAL
    number: int = 0
    closed: float | None = None
    run: int = 0
    done: bool = False


@attrs.frozen(slots=True, kw_only=True)
class Item:
    """One object in custody. `number` rises in the order of acceptance."""

    number: int
    id: bytes
    batch: int
    called: str
    state: State
    hold: Hold = Hold.NONE
    due: float = 0.0
    attempts: int = 0
    doubtful: bool = False  # it may have been sent by a run that did not live to note it
    alone: bool = False  # over an association of its own
    status: int | None = None
    reason: str = ""
    sop_class: str
    sop_instance: str = attrs.field(repr=False)
    transfer_syntax: str
    command: bytes = attrs.field(repr=False)  # the C-STORE-RQ, with the network's names
    length: int
    digest: bytes = attrs.field(repr=False)
    key: bytes = attrs.field(repr=False)
    key_name: bytes = attrs.field(repr=False)
    folder: int
    size: int
    accepted: float
    ended: float | None = None
    study: str = attrs.field(repr=False)

    @property
    def pair(self) -> tuple[str, str]:
        """What its presentation context must be: SOP class and transfer syntax."""
        return self.sop_class, self.transfer_syntax

    @property
    def attempted(self) -> bool:
        """It was sent before, or may have been."""
        return self.attempts > 0 or self.doubtful

    @property
    def stored(self) -> StoredObject:
        """Its file."""
        return StoredObject(
            item=self.id,
            folder=self.folder,
            length=self.length,
            size=self.size,
            digest=self.digest,
            key=self.key,
            key_name=self.key_name,
            prefix=b"",
        )

    def to_json(self) -> dict[str, Any]:
        """For people and scripts of this hospital."""
        return {
            "number": self.number,
            "id": self.id.hex(),
            "called": self.called,
            "state": self.state.word,
            "hold": self.hold.name.lower() if self.hold else None,
            "attempts": self.attempts,
            "due": self.due or None,
            "status": f"{self.status:04X}" if self.status is not None else None,
            "reason": self.reason,
            "sop_class": self.sop_class,
            "sop_instance": self.sop_instance,
            "transfer_syntax": self.transfer_syntax,
            "study": self.study,
            "length": self.length,
            "accepted": self.accepted,
            "ended": self.ended,
        }


@attrs.frozen(slots=True, kw_only=True)
class Change:
    """What becomes of an item: the columns that a delivery, or a person, changes."""

    number: int
    state: State
    attempts: int
    hold: Hold = Hold.NONE
    due: float = 0.0
    doubtful: bool = False
    alone: bool = False
    status: int | None = None
    reason: str = ""
    ended: float | None = None


@attrs.frozen(slots=True, kw_only=True)
class Selection:
    """Which items people mean; None is any."""

    called: str | None = None
    calling: str | None = None
    study: str | None = None
    state: State | None = None
    numbers: tuple[int, ...] | None = None
    after: int = 0  # only those accepted later than this number
    until: int | None = None  # and no later than this one


@attrs.frozen(slots=True)
class Tally:
    """How many items of one destination are in one state, and the size of their files in bytes."""

    called: str
    state: State
    items: int
    bytes: int


@attrs.frozen(slots=True)
class Pause:
    """A destination that gets nothing: a person said so, or the device's own answer did."""

    called: str
    by_person: bool
    reason: str
    since: float
