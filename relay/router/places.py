"""Places: how many associations a device has at once, and who waits for one.

A device takes only so many associations at a time, some of them one (`maximum_associations`); the
calls that it makes have as many places again. A call that finds none waits in line for `place_wait`
seconds. A place that frees is given to one who waits, at once:

- Whose hospital has the fewest places of that device; among equals, who came first. So a peer that
  sends without end does not push out another's single call, and each peer's calls keep their order.
- Of a device that several hospitals may call, one of them alone has three quarters of the places at
  the most (of four or more): the rest is free for the others even if its associations never end.
- Of all places of this Router, peers have three quarters: our own devices can always call out.

Lines are bounded. Where that of a device is full, the hospital with the most calls in it loses its
newest one to a hospital that has fewer; where all lines together are, the longest loses its newest
to a shorter one.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from types import TracebackType
from typing import Protocol

import attrs
import trio

from relay.dicom.rejection import LOCAL_LIMIT_EXCEEDED, rejected
from relay.errors import AbortReason, AbortSource, AssociationAborted
from relay.router.live import Side

# Of all associations, what peers cannot take: this hospital's own devices can always call out.
OWN_SHARE = 1 / 4

# Of a device's places, what one peer cannot take while others may call the device too. Rounded
# down: where a device has three places or fewer, none lies idle for somebody who may never call.
OTHERS_SHARE = 1 / 4

# Calls that wait for one device. Each keeps a connection or a session, and at the end of a longer
# line nobody is served within a device's patience.
MAXIMUM_WAITING = 32

# ... and for all devices together, so that those that do not answer keep no other from being
# called: fewer than the openings that a Router looks at beside the associations that run
# (relay.router.network.SPARE_OPENINGS).
MAXIMUM_WAITING_IN_ALL = 48


@attrs.frozen(slots=True, kw_only=True)
class Claim:
    """Who asks for a place, and within which limit."""

    side: Side
    device: str  # our device's AE title
    peer: str  # fingerprint of the other hospital's Router
    maximum: int  # associations of the device on this side
    shared: bool = False  # whether other hospitals may call the device too
    # What would be proposed to the device: who would use a lingering association of that kind.
    proposal: Hashable | None = None

    @property
    def line(self) -> tuple[Side, str]:
        """Claims for the same places wait in the same line."""
        return self.side, self.device


class Keepsake(Protocol):
    """What may come with a place: an association that is open already (relay.router.linger)."""

    def abandoned(self, place: "Place") -> None:
        """Who was given it does not want it: whoever kept it has it again, and its place."""


@attrs.define(slots=True, eq=False)
class Place:
    """The right to one association, until `free`. As a context manager it frees on the way out."""

    claim: Claim
    _places: "Places | None"
    kept: Keepsake | None = None

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.free()

    def free(self) -> None:
        """Give it back; whoever is next has it at once. Harmless the second time.

        One that came with a `kept` association goes back to who kept that, until it is taken out
        (None): the device counts its associations, whoever has them.
        """
        if self._places is None:
            return
        if self.kept is not None:
            self.kept.abandoned(self.hand_on())
            return
        places, self._places = self._places, None
        places.freed(self)

    def hand_on(self, kept: Keepsake | None = None, claim: Claim | None = None) -> "Place":
        """The same place in other hands, with what is `kept`; freeing this one does nothing."""
        assert self._places is not None, "a place that was freed or handed on"
        places, self._places = self._places, None
        return places.replaced(self, Place(claim or self.claim, places, kept))


@attrs.define(slots=True, eq=False)
class _Waiter:
    claim: Claim
    settled: trio.Event = attrs.field(factory=trio.Event)
    place: Place | None = None
    pushed_out: str = ""  # for whom
    left: bool = False  # the caller went away


class Places:
    """The places of all devices of a Router, `maximum` in all, and their lines."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._taken: list[Place] = []
        self._waiting: list[_Waiter] = []  # in order of arrival
        # Called with each claim that begins to wait: somebody may have a place to give up.
        self.on_waiting: Callable[[Claim], None] = lambda claim: None

    def __len__(self) -> int:
        """Places that are taken."""
        return len(self._taken)

    @property
    def waiting(self) -> int:
        """Calls that wait, for all devices together."""
        return len(self._waiting)

    def take_now(self, claim: Claim) -> Place | None:
        """A place, if there is one. Who waits is never overtaken: they wait since there is none."""
        return self._give(claim) if self._admits(claim) else None

    async def take(self, claim: Claim, wait: float, left: Callable[[], Awaitable[object]]) -> Place:
        """A place, now or within `wait` seconds.

        `left` returns when the caller has gone away. Raises AssociationRejected (transient, local
        limit exceeded; PS3.8 Table 9-21) when no place comes in time or the line is full, and
        AssociationAborted when the caller has left.
        """
        await trio.lowlevel.checkpoint()
        place = self.take_now(claim)
        if place is not None:
            return place
        if wait <= 0:
            raise rejected(
                LOCAL_LIMIT_EXCEEDED,
                f"{claim.device!r} has its maximum of associations, and calls of it do not wait",
            )
        waiter = self._stand_in_line(claim)
        try:
            await self._wait(waiter, wait, left)
        except BaseException:
            if waiter.place is not None:
                waiter.place.free()  # given in the moment in which its caller was cancelled
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if waiter.left:
            if waiter.place is not None:
                waiter.place.free()
            raise AssociationAborted(
                AbortSource.SERVICE_USER,
                AbortReason.NOT_SPECIFIED,
                f"the caller left while it waited for a place of {claim.device!r}",
            )
        if waiter.place is None:
            raise self._refusal(waiter, wait)
        return waiter.place

    async def _wait(
        self, waiter: _Waiter, wait: float, left: Callable[[], Awaitable[object]]
    ) -> None:
        async def watch() -> None:
            await left()
            waiter.left = True
            waiter.settled.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            self.on_waiting(waiter.claim)
            with trio.move_on_after(wait):
                await waiter.settled.wait()
            nursery.cancel_scope.cancel()

    @staticmethod
    def _refusal(waiter: _Waiter, wait: float) -> Exception:
        claim = waiter.claim
        if waiter.pushed_out:
            return rejected(
                LOCAL_LIMIT_EXCEEDED,
                f"too many calls wait, most of them like this one for {claim.device!r}, and"
                f" {waiter.pushed_out} calls",
            )
        return rejected(
            LOCAL_LIMIT_EXCEEDED,
            f"{claim.device!r} has its maximum of associations, and none ended within {wait:g} s",
        )

    # --- who is next ------------------------------------------------------------------------------

    def freed(self, place: Place) -> None:
        """`place` is given back."""
        self._taken.remove(place)
        while (waiter := self._next()) is not None:
            self._settle(waiter, self._give(waiter.claim))

    def replaced(self, old: Place, new: Place) -> Place:
        """`new` is `old` from now on."""
        self._taken[self._taken.index(old)] = new
        return new

    def after(self, place: Place) -> Claim | None:
        """The claim that would be given a place if `place` were freed."""
        waiter = self._next(but=place)
        return waiter.claim if waiter is not None else None

    def frees(self, place: Place, claim: Claim) -> bool:
        """Whether `claim` could have a place if `place` were freed."""
        return self._admits(claim, but=place)

    def hand_to_next(self, place: Place, kept: Keepsake) -> None:
        """Give `place` to whoever is next (`after`), with what is kept."""
        waiter = self._next(but=place)
        assert waiter is not None, "nobody waits for this place"
        self._settle(waiter, place.hand_on(kept, waiter.claim))

    def _settle(self, waiter: _Waiter, place: Place) -> None:
        self._waiting.remove(waiter)
        waiter.place = place
        waiter.settled.set()

    def _next(self, but: Place | None = None) -> _Waiter | None:
        able = [waiter for waiter in self._waiting if self._admits(waiter.claim, but)]
        if not able:
            return None
        line = [waiter for waiter in able if waiter.claim.line == able[0].claim.line]
        held = self._held(able[0].claim.line, but)
        return min(line, key=lambda waiter: held[waiter.claim.peer])  # the first of equals

    def _admits(self, claim: Claim, but: Place | None = None) -> bool:
        """Whether `claim` keeps within all limits, as if `but` were free."""
        held = self._held(claim.line, but)
        own = claim.maximum
        if claim.shared:
            own -= int(OTHERS_SHARE * claim.maximum)
        total = self._maximum
        if claim.side is Side.CALLEE:
            total -= int(OWN_SHARE * total)
        return (
            held.total() < claim.maximum
            and held[claim.peer] < own
            and len(self._taken) - (but is not None) < total
        )

    def _held(self, line: tuple[Side, str], but: Place | None = None) -> Counter[str]:
        """How many places of a line each peer has."""
        return Counter(
            place.claim.peer
            for place in self._taken
            if place.claim.line == line and place is not but
        )

    def _give(self, claim: Claim) -> Place:
        place = Place(claim, self)
        self._taken.append(place)
        return place

    # --- the line ---------------------------------------------------------------------------------

    def _stand_in_line(self, claim: Claim) -> _Waiter:
        """The last in line. Raises AssociationRejected if the line is full."""
        line = [waiter for waiter in self._waiting if waiter.claim.line == claim.line]
        if len(line) >= MAXIMUM_WAITING:
            self._make_room(claim, line, lambda c: c.peer, "another hospital")
        elif len(self._waiting) >= MAXIMUM_WAITING_IN_ALL:
            self._make_room(claim, self._waiting, lambda c: c.line, "somebody else")
        waiter = _Waiter(claim)
        self._waiting.append(waiter)
        return waiter

    def _make_room(
        self,
        claim: Claim,
        waiting: list[_Waiter],
        by: Callable[[Claim], Hashable],
        whom: str,
    ) -> None:
        """Push out the newest of those `waiting` of which there are most, for one of fewer."""
        counts = Counter(by(waiter.claim) for waiter in waiting)
        longest, most = counts.most_common(1)[0]
        if most <= counts[by(claim)] + 1:
            raise rejected(
                LOCAL_LIMIT_EXCEEDED,
                f"{len(waiting)} calls wait already for {claim.device!r} or other devices",
            )
        newest = [waiter for waiter in waiting if by(waiter.claim) == longest][-1]
        self._waiting.remove(newest)
        newest.pushed_out = whom
        newest.settled.set()
