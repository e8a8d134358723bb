"""What waits for one end of one session: in order, bounded, and nothing twice."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from relay.signalling.limits import MAXIMUM_WAITING_IN_LINE, MAXIMUM_WAITING_MESSAGES
from relay.signalling.messages import Announce, Ask, InLine, Message, Progress

T = TypeVar("T")


def _key(message: Message) -> Hashable:
    """Messages with equal keys say the same, or the later one makes the earlier one void."""
    if isinstance(message, (InLine, Announce)):
        return "chunk", message.chunk
    if isinstance(message, Ask):
        return "ask", message.request
    kind: Hashable = type(message).number
    return kind


class Mailbox(Generic[T]):
    """Items of type T, each put under the session message that it stands for.

    `size` is what they take in all, in the caller's measure.

    A chunk is not queued a second time; of Progress only the newest waits. Either way nothing that
    resuming would not bring again is lost.
    """

    def __init__(self) -> None:
        self._items: OrderedDict[Hashable, tuple[T, int, int]] = OrderedDict()
        self._in_line = 0
        self.size = 0

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, message: Message) -> bool:
        """Whether a message that says the same, or its like, waits."""
        return _key(message) in self._items

    def put(self, message: Message, item: T, size: int = 0) -> bool:
        """Queue `item` of `size`; False if no peer within its credit can cause so much."""
        key = _key(message)
        if isinstance(message, Progress):
            # The newest goes last: it may count announcements that were queued in between.
            self.discard(key)
        elif key in self._items:
            return True
        in_line = len(message.sealed) if isinstance(message, InLine) else 0
        if (
            len(self._items) >= MAXIMUM_WAITING_MESSAGES
            or self._in_line + in_line > MAXIMUM_WAITING_IN_LINE
        ):
            return False
        self._items[key] = (item, size, in_line)
        self._in_line += in_line
        self.size += size
        return True

    def replace(self, key: Hashable, item: T) -> None:
        """Queue `item`, which is no message, last, in place of what had the same key."""
        self.discard(key)
        self._items[key] = (item, 0, 0)

    def pop(self) -> T:
        """The item that waits longest."""
        return self._forget(*self._items.popitem(last=False))

    def discard(self, key: Hashable) -> None:
        if key in self._items:
            self._forget(key, self._items.pop(key))

    def _forget(self, _: Hashable, entry: tuple[T, int, int]) -> T:
        item, size, in_line = entry
        self._in_line -= in_line
        self.size -= size
        return item

    def clear(self) -> None:
        self._items.clear()
        self._in_line = self.size = 0
