"""What an association has carried so far, for the people who watch it.

Whoever carries counts here, or is looked at: the two sides of a passthrough count for themselves
(relay.router.side), so that watching them costs them nothing.
"""

from typing import Protocol

import attrs


class Counting(Protocol):
    """One side of a passthrough: how many bytes of PDVs were sent to it."""

    bytes_sent: int


@attrs.define(slots=True, eq=False)
class Traffic:
    """Bytes of PDVs of one association: outward from who calls to who is called, and inward.

    `objects` are those that were handed on one by one, 0 where nobody counts them.
    """

    objects: int = 0
    _outward: int = 0
    _inward: int = 0
    _requestor: Counting | None = None
    _acceptor: Counting | None = None

    @property
    def outward(self) -> int:
        """From who calls to who is called."""
        return self._outward + (self._acceptor.bytes_sent if self._acceptor is not None else 0)

    @property
    def inward(self) -> int:
        """From who is called to who calls."""
        return self._inward + (self._requestor.bytes_sent if self._requestor is not None else 0)

    def count(self, size: int) -> None:
        """`size` bytes more went outward."""
        self._outward += size

    def follow(self, requestor: Counting, acceptor: Counting) -> None:
        """The sides of a passthrough, which count what is sent to each of them."""
        self._requestor, self._acceptor = requestor, acceptor
