"""How long somebody waits after passwords that did not hold: per name and per address.

    failures     1  2  3  4  5   6   7   8 ...
    seconds      0  0  1  2  4   8  16  32, and 60 from then on

An attempt that comes too early is refused at once, and told when to come again: nothing is slept,
so that nobody holds a connection by it. An address that has signed in by a name before waits for
its own failures alone: others, who try that name from elsewhere, do not keep its owner out.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import ip_network
from typing import Final

import attrs

from relay.errors import Refused

FREE: Final = 2  # slips of the hand
LONGEST: Final = 60.0
# Failures are forgotten after this: longer than the longest wait, or nobody would ever wait it.
FORGET_AFTER: Final = 900.0
# Each takes some hundred bytes. When one more comes the oldest goes: who floods the table with
# names frees an old one, but not its own address.
MAXIMUM_ENTRIES: Final = 4096


class Delayed(Refused):
    """Too early: come again in `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = int(seconds) + 1
        unit = "second" if self.seconds == 1 else "seconds"
        super().__init__(429, f"too many attempts did not hold: try again in {self.seconds} {unit}")


@attrs.define(slots=True)
class _Failures:
    count: int
    until: float
    last: float


class Delays:
    """`clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[Hashable, _Failures] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def check(self, name: str, address: str) -> None:
        """Raises Delayed where one of the two has to wait."""
        now = self._clock()
        longest = max((self._wait(key, now) for key in self._keys(name, address)), default=0.0)
        if longest > 0:
            raise Delayed(longest)

    def failed(self, name: str, address: str) -> None:
        """A password for `name`, given from `address`, did not hold."""
        now = self._clock()
        for key in self._keys(name, address):
            entry = self._failures.pop(key, None)
            if entry is None or now > entry.last + FORGET_AFTER:
                entry = _Failures(0, now, now)
            entry.count += 1
            entry.last = now
            beyond = entry.count - FREE
            # Bounded before it is raised: who goes on for a year is no overflow.
            entry.until = now + (min(LONGEST, 2.0 ** min(beyond - 1, 16)) if beyond > 0 else 0)
            self._failures[key] = entry
            if len(self._failures) > MAXIMUM_ENTRIES:
                self._failures.popitem(last=False)

    def held(self, name: str, address: str) -> None:
        """A password held: its failures are forgotten, and `address` is known to be its owner's."""
        for key in self._keys(name, address):
            self._failures.pop(key, None)
        self._known.pop((name, address), None)
        self._known[name, address] = None
        if len(self._known) > MAXIMUM_ENTRIES:
            self._known.popitem(last=False)

    def _keys(self, name: str, address: str) -> list[Hashable]:
        keys: list[Hashable] = [("address", _network(address))] if address else []
        return keys if keys and (name, address) in self._known else [*keys, ("name", name)]

    def _wait(self, key: Hashable, now: float) -> float:
        entry = self._failures.get(key)
        return entry.until - now if entry is not None else 0.0


def _network(address: str) -> str:
    """What one person has of addresses: an IPv4 address, or a /64 of IPv6 (RFC 6177)."""
    if ":" not in address:
        return address
    try:
        return str(ip_network(f"{address.partition('%')[0]}/64", strict=False))
    except ValueError:
        return address
