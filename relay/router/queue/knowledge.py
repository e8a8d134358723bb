"""Knowledge: what a device of ours takes, found out once for whoever queues for it.

Other hospitals' Routers accept objects for a device of ours while nobody can ask it; what it takes
they ask here (relay.router.queue.telling), and hold for days. Its owner declares it, or it is
probed: as the calling AE title that the device will be shown at the delivery, since a device may
answer each one differently, with one transfer syntax to a context, since it accepts only one of
several.

    asked -> declared? -> found out today? -> a place of the device, a probe -> kept

A probe has a serial that rises from one to the next, so that whoever was refused something at a
delivery can tell a later answer from an earlier one. One that is cut short is none: it replaces
nothing. Private SOP classes are only declared: nobody knows what to ask for.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeGuard

import apsw
import attrs
import structlog
import trio

from relay.database import Database
from relay.dicom import uids
from relay.dicom.rejection import LOCAL_LIMIT_EXCEEDED, TEMPORARY_CONGESTION, rejected
from relay.errors import AssociationRejected
from relay.identity import fingerprint
from relay.router.devices import Device
from relay.router.incoming import IncomingCall
from relay.router.node import Node, unix_time
from relay.router.pairs import Pairs
from relay.router.queue.probing import ask_all, basis
from relay.router.schema import next_serial
from relay.signalling.allowance import Allowance

log = structlog.get_logger()

# Seconds for which another Router may hold what it was told: a device is mended or replaced within
# a week, and what it does not take any more is noticed at the first delivery.
LIFETIME = 7 * 86400

# Seconds for which a probe is answered from: a device is configured anew now and then, and each
# probe costs it some forty associations.
FRESH = 86400

# Seconds between two probes for the same caller's title, whoever asks and however often.
AGAIN = 60.0

# Probes that one hospital may bring about at one device: a large one's devices all at once, each
# with a title of its own, and then one each ten minutes. Titles can be made up, and who asks twice
# is taken to have been refused something: without an end to it a device is probed all day.
MAXIMUM_PROBES = 64
PROBES_A_SECOND = 1 / 600

# For an answer: less than the asker waits (relay.router.queue.acceptance.DEADLINE). A probe that
# takes longer is answered from the next time.
ANSWER_WAIT = 50.0

# Titles that a device is asked for as: more than have ever called one. A peer that is granted a
# device for all of its titles makes them up as it likes.
MAXIMUM_SEEN = 256

# Answers that are remembered, the last ones: who asks again after one was refused something. Whose
# is forgotten is answered once more before the device is probed again.
MAXIMUM_TOLD = 4096

# Who waits for the probe of one device to end, to have it probed for another title: each keeps a
# session, and behind them nobody would be answered in time. Of one hospital, half.
MAXIMUM_WAITING = 16
MAXIMUM_WAITING_OF_ONE = 8

_SERIES = "knowledge"

_Subject = tuple[str, str, str]  # device, seen, basis
_Asking = tuple[str, str, bytes, str]  # device, seen, a peer's identity, its calling title


@attrs.frozen(slots=True)
class Own:
    """What a device of ours takes of one calling title. `made` is Unix seconds.

    `basis` is what of the device's row it was found out by.
    """

    serial: int
    made: int
    basis: str
    window: int
    commitment: bool
    pairs: Pairs = attrs.field(repr=False)

    @property
    def age(self) -> int:
        """Seconds since it was found out."""
        return unix_time() - self.made


# Nothing is known: to be held for no time at all.
NOTHING = Own(serial=0, made=0, basis="", window=1, commitment=False, pairs=Pairs())


@attrs.define(slots=True, eq=False)
class _Tried:
    """The last probe of this run of the Router: when it ended by trio's clock, and why in vain."""

    ended: float
    failure: AssociationRejected | None = None


class OwnKnowledge:
    """What all devices of ours take, kept in SQLite; one probe of a device at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._probing: dict[str, trio.Lock] = {}  # by device
        self._tried: dict[_Subject, _Tried] = {}
        self._told: dict[_Asking, int] = {}  # which serial, the newest last
        # By device and the identity of who asks.
        self._allowed: dict[tuple[str, bytes], Allowance] = {}
        self._waiting = Counter[tuple[str, bytes]]()

    async def find(self, node: Node, call: IncomingCall) -> Own:
        """What `call`'s device takes of its caller.

        Raises AssociationRejected, with the reason in words for the people here, where that is not
        known and cannot be found out now.
        """
        device = call.device
        if device.declares:
            return await self._declared(device, call.seen)
        known = await self.known(device, call.seen)
        if self._suffices(known, call):
            return known
        async with self._turn(call):
            known = await self.known(device, call.seen)
            if self._suffices(known, call):
                return known  # it was found out meanwhile
            try:
                return await self._probe(node, call)
            except AssociationRejected as error:
                log.info("device not probed", ae_title=device.ae_title, why=str(error))
                if known is None:
                    raise
                return known

    async def at_hand(self, call: IncomingCall) -> Own:
        """What is known of `call`'s device without asking it anything, which may be nothing."""
        device = call.device
        if device.declares:
            return await self._declared(device, call.seen)
        return await self.known(device, call.seen) or NOTHING

    async def known(self, device: Device, seen: str) -> Own | None:
        """What was found out of `device` as it is now, and may be held still."""
        own = await self._database.run(lambda c: _read(c, device.ae_title, seen))
        if own is None or own.basis != basis(device) or not 0 <= own.age < LIFETIME:
            return None
        return own

    async def transfer_syntaxes(self, device: Device) -> frozenset[str]:
        """All in which `device` takes something, of whichever caller, as far as is known."""
        pairs = [device.declares]
        if not device.declares:
            found = await self._database.run(lambda c: _read_all(c, device.ae_title))
            pairs = [own.pairs for own in found if own.basis == basis(device)]
        return frozenset[str]().union(*(s for some in pairs for s in some.taken.values()))

    def told(self, call: IncomingCall, own: Own) -> None:
        """The caller has been answered with this."""
        asking = _asking(call)
        self._told.pop(asking, None)
        self._told[asking] = own.serial
        if len(self._told) > MAXIMUM_TOLD:
            del self._told[next(iter(self._told))]

    def _suffices(self, known: Own | None, call: IncomingCall) -> TypeGuard[Own]:
        """Whether `known` is an answer to `call`, or the device is to be probed first.

        Who was told the very same before asks again because something was refused.
        """
        return (
            known is not None
            and known.age < FRESH
            and self._told.get(_asking(call)) != known.serial
        )

    @asynccontextmanager
    async def _turn(self, call: IncomingCall) -> AsyncIterator[None]:
        """Alone with `call`'s device. Raises AssociationRejected if that takes too long."""
        lock = self._probing.setdefault(call.device.ae_title, trio.Lock())
        asker = call.device.ae_title, call.received.caller
        if (
            lock.statistics().tasks_waiting >= MAXIMUM_WAITING
            or self._waiting[asker] >= MAXIMUM_WAITING_OF_ONE
        ):
            raise rejected(LOCAL_LIMIT_EXCEEDED, "others wait for a probe of the device")
        self._waiting[asker] += 1
        try:
            with trio.move_on_after(ANSWER_WAIT) as scope:
                await lock.acquire()
        finally:
            self._waiting[asker] -= 1
            if not self._waiting[asker]:
                del self._waiting[asker]
        if scope.cancelled_caught:
            raise rejected(TEMPORARY_CONGESTION, "the device is being probed for another caller")
        try:
            yield
        finally:
            lock.release()

    async def _declared(self, device: Device, seen: str) -> Own:
        known = await self._database.run(lambda c: _read(c, device.ae_title, seen))
        if known is not None and known.basis == basis(device):
            return attrs.evolve(known, made=unix_time())
        commitment = uids.STORAGE_COMMITMENT_PUSH_MODEL in device.declares.taken
        return await self._keep(device, seen, device.declares, window=1, commitment=commitment)

    async def _probe(self, node: Node, call: IncomingCall) -> Own:
        device = node.devices.get(call.device.ae_title)
        if device is None or device.declares:
            raise rejected(TEMPORARY_CONGESTION, "the device was changed while the call waited")
        now = trio.current_time()
        self._tried = {k: t for k, t in self._tried.items() if now - t.ended < AGAIN}
        subject = device.ae_title, call.seen, basis(device)
        if (last := self._tried.get(subject)) is not None:
            raise last.failure or rejected(TEMPORARY_CONGESTION, "it was probed a moment ago")
        asker = device.ae_title, call.received.caller
        if asker not in self._allowed:
            self._allowed[asker] = Allowance(PROBES_A_SECOND, MAXIMUM_PROBES, trio.current_time)
        if not self._allowed[asker].take():
            why = f"{fingerprint(call.received.caller)} has had it probed too often"
            raise rejected(TEMPORARY_CONGESTION, why)
        failure: AssociationRejected | None
        failure = rejected(TEMPORARY_CONGESTION, "the probe was cut short")
        try:
            found = await ask_all(node, device, call.seen, fingerprint(call.received.caller))
            failure = None
            node.refusals.forget(call.seen, device.ae_title)
            return await self._keep(
                device, call.seen, found.pairs, window=found.window, commitment=found.commitment
            )
        except AssociationRejected as error:
            failure = error
            node.refusals.note(call.seen, device.ae_title, f"it could not be probed: {error}")
            raise
        finally:
            self._tried[subject] = _Tried(trio.current_time(), failure)

    async def _keep(
        self, device: Device, seen: str, pairs: Pairs, *, window: int, commitment: bool
    ) -> Own:
        now = unix_time()
        serial = await next_serial(self._database, _SERIES, now)
        own = Own(serial, now, basis(device), window, commitment, pairs)
        await self._database.run(lambda c: _write(c, device.ae_title, seen, own))
        log.info(
            "device declared" if device.declares else "device probed",
            ae_title=device.ae_title,
            seen=seen,
            serial=serial,
            sop_classes=len(pairs),
            window=window,
            commitment=commitment,
        )
        return own


def _asking(call: IncomingCall) -> _Asking:
    return call.device.ae_title, call.seen, call.received.caller, call.request.calling


_SELECT = (
    "SELECT serial, made, basis, window, commitment, pairs FROM knowledge_own WHERE device = ?"
)


def _read(connection: apsw.Connection, device: str, seen: str) -> Own | None:
    for row in connection.execute(f"{_SELECT} AND seen = ?", (device, seen)):
        return _own(*row)
    return None


def _read_all(connection: apsw.Connection, device: str) -> list[Own]:
    return [_own(*row) for row in connection.execute(_SELECT, (device,))]


def _own(serial: int, made: int, found_by: str, window: int, commitment: int, pairs: bytes) -> Own:
    return Own(serial, made, found_by, window, bool(commitment), Pairs.unpack(pairs))


def _write(connection: apsw.Connection, device: str, seen: str, own: Own) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO knowledge_own"
        " (device, seen, serial, made, basis, window, commitment, pairs)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(device, seen, own.serial, own.made, own.basis),
            *(own.window, int(own.commitment), own.pairs.pack()),
        ),
    )
    connection.execute(
        "DELETE FROM knowledge_own WHERE device = ? AND seen NOT IN"
        " (SELECT seen FROM knowledge_own WHERE device = ? ORDER BY serial DESC LIMIT ?)",
        (device, device, MAXIMUM_SEEN),
    )
